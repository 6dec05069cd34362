//! Alarms: their rules, and the watch over committed readings and what boards say of themselves.

pub(in crate::broker) mod config;
pub(in crate::broker) mod rule;
pub(in crate::broker) mod watch;

//! Alarms: their rules, and the watch over committed readings and what boards say of themselves.

pub(in crate::broker) mod config;
mod history;
pub(in crate::broker) mod rule;
pub(in crate::broker) mod state;
pub(in crate::broker) mod watch;

//! Alarms: their rules, and the watch over committed readings.

pub(in crate::broker) mod rule;
pub(in crate::broker) mod watch;

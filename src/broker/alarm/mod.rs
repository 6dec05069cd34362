//! Alarms: their rules, and the watch over committed readings, what boards say of themselves, and the copy in PostgreSQL.

mod announcement;
pub(in crate::broker) mod config;
mod halls;
mod history;
pub(in crate::broker) mod rule;
pub(in crate::broker) mod start;
pub(in crate::broker) mod state;
mod versions;
mod watch;

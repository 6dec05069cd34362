//! The database file: opened, locked, checked and migrated.

pub(in crate::store) mod check;
pub(in crate::store) mod damage;
pub(in crate::store) mod error;
pub(in crate::store) mod lock;
pub(in crate::store) mod migrate;
pub(in crate::store) mod open;
mod rollup_tables;
pub(in crate::store) mod schema;
#[cfg(test)]
pub(in crate::store) mod steps;
pub(in crate::store) mod write_ahead_log;

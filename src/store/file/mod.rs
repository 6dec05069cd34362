//! The database file: opened, locked, checked and migrated.

pub(in crate::store) mod open;
mod rollup_tables;
pub(in crate::store) mod schema;

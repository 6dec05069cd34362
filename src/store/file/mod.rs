//! The database file: opened, locked, checked and migrated.

pub(in crate::store) mod migrations;
pub(in crate::store) mod open;

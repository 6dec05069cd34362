//! Which data the log keeps, and the deletion of the rest.

pub(in crate::store) mod delete;
pub(in crate::store) mod deleted_ranges;
pub(in crate::store) mod horizon;
pub(in crate::store) mod policy;

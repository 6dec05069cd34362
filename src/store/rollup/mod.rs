//! Roll-ups: each series by minute, quarter of an hour and hour.

pub(in crate::store) mod aggregate;
pub(in crate::store) mod backfill;
pub(in crate::store) mod compute;
pub(in crate::store) mod schema;

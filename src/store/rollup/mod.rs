//! Roll-ups: each series by minute, quarter of an hour and hour.
//!
//! Rows come late, out of order and twice, and their times change afterwards. So an append only marks the quarter of
//! an hour that it touched as dirty, in its own transaction. Later, while the writer is idle, dirty quarters are
//! computed afresh from their rows. A crash at any point leaves the mark or the result, and a query reads dirty
//! quarters from the rows.
//!
//! [`schema`] and [`aggregate`] stand below; [`compute`] makes the roll-ups of a quarter, [`dirty`] those that are
//! marked, [`backfill`] those of a log from before there were roll-ups. [`mend`] marks those that an earlier version could
//! not compute; [`set_aside`] keeps what cannot be computed out of the way.

pub(in crate::store) mod aggregate;
pub(in crate::store) mod backfill;
pub(in crate::store) mod compute;
pub(in crate::store) mod dirty;
pub(in crate::store) mod mend;
pub(in crate::store) mod schema;
pub(in crate::store) mod set_aside;

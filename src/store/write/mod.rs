//! The writing side of the log: one writer, which appends in batches and maintains the log between two of them.

pub(in crate::store) mod alarm_log;
pub(in crate::store) mod append;
pub(in crate::store) mod arrival;
pub(in crate::store) mod arrival_move;
pub(in crate::store) mod broker_clock;
pub(in crate::store) mod bulk_load;
pub(in crate::store) mod cache;
pub(in crate::store) mod durability;
pub(in crate::store) mod early;
pub(in crate::store) mod forget;
pub(in crate::store) mod forwarding;
pub(in crate::store) mod intern;
pub(in crate::store) mod maintenance;
pub(in crate::store) mod newest;
pub(in crate::store) mod numbers;
pub(in crate::store) mod placement;
pub(in crate::store) mod record;
pub(in crate::store) mod restamp;
pub(in crate::store) mod retain;
pub(in crate::store) mod series;
pub(in crate::store) mod stretch;
pub(in crate::store) mod sweep;
pub(in crate::store) mod unqueued;
pub(in crate::store) mod writer;

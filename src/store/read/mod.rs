//! The reading side of the log: any number of readers, each with its own connection.

pub(in crate::store) mod ahead;
pub(in crate::store) mod alarms;
pub(in crate::store) mod arrived;
pub(in crate::store) mod backup;
pub(in crate::store) mod downsampling;
pub(in crate::store) mod export;
pub(in crate::store) mod gaps;
pub(in crate::store) mod log;
pub(in crate::store) mod overview;
pub(in crate::store) mod range;
pub(in crate::store) mod reporting_interval;
pub(in crate::store) mod sample_tail;
pub(in crate::store) mod series;
pub(in crate::store) mod sources;
pub(in crate::store) mod stats;
pub(in crate::store) mod tail;

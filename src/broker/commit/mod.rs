//! What a PUBLISH means to the log, and the one thread that commits.

pub(in crate::broker) mod batch;
pub(in crate::broker) mod classify;
pub(in crate::broker) mod group_commit;
pub(in crate::broker) mod maintenance_schedule;

//! What a PUBLISH means to the log, and the one thread that commits.

pub(in crate::broker) mod batch;
pub(in crate::broker) mod classify;
pub(in crate::broker) mod maintenance;
pub(in crate::broker) mod writer;

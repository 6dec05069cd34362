//! What a PUBLISH means to the log, and the thread that commits.

pub(in crate::broker) mod classify;
pub(in crate::broker) mod maintenance;
pub(in crate::broker) mod writer;

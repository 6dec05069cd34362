//! Which client ids are connected, and what outlives a connection.

pub(in crate::broker) mod inflight;
pub(in crate::broker) mod lease;
pub(in crate::broker) mod registry;
pub(in crate::broker) mod session;

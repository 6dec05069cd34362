//! One client's connection, from its CONNECT to its end.

pub(in crate::broker) mod arrived;
pub(in crate::broker) mod client;
pub(in crate::broker) mod close;
pub(in crate::broker) mod event_loop;
pub(in crate::broker) mod handshake;
pub(in crate::broker) mod will;
pub(in crate::broker) mod withdrawal;

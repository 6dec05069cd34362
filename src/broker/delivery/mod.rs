//! Delivery: who gets a message, what later subscribers get, and what is on its way to one client.

pub(in crate::broker) mod fan_out;
pub(in crate::broker) mod outbound;
pub(in crate::broker) mod retained_messages;
pub(in crate::broker) mod retained_replay;

//! Delivery: the fan-out of messages, the replay of retained ones, and the outbound side of one client.

pub(in crate::broker) mod fan_out;
pub(in crate::broker) mod outbound;
pub(in crate::broker) mod retained_messages;
pub(in crate::broker) mod retained_replay;

//! What the broker says of itself, and its own client.

pub(in crate::broker) mod local_client;
pub(in crate::broker) mod sys;

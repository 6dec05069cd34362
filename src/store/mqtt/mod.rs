//! The state that MQTT asks a server to keep over a restart: sessions, the messages that wait for them, retained
//! messages, wills.
//!
//! [`change`] makes all changes, in the writer's transaction. [`queue_reader`] reads beside it.

pub(in crate::store) mod change;
mod columns;
pub(in crate::store) mod forgotten;
mod longest_queues;
mod message;
mod packet_ids;
pub(in crate::store) mod queue;
pub(in crate::store) mod queue_counts;
pub(in crate::store) mod queue_reader;
pub(in crate::store) mod retained;
pub(in crate::store) mod sessions;
pub(in crate::store) mod wills;

#[cfg(test)]
mod tests;

//! MQTT for both roles: topics, filters and messages as types that are checked once, and the broker's codec.

pub mod codec;
mod filter;
mod message;
mod qos;
mod topic;
mod trie;

pub use filter::{Filter, FilterError};
pub use message::{ALLOCATION_BYTES, Message};
pub use qos::QoS;
pub use topic::{TOPIC_MAX_BYTES, Topic, TopicError, topic_name};
pub use trie::Trie;

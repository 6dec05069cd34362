//! An application message, as the broker takes it from a publisher, stores it and delivers it.

use std::sync::Arc;

use bytes::Bytes;

use super::qos::QoS;
use super::topic::Topic;

/// Bytes of an allocation beside what was asked for: the allocator's header, what it rounds up, and counts of references.
pub const ALLOCATION_BYTES: usize = 32;
/// Allocations of a message: itself, topic, payload, the count of the payload's references.
const MESSAGE_ALLOCATIONS: usize = 4;

/// A published message. A delivery may have a lower `QoS` and another retain flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic name.
    pub topic: Topic,
    /// Payload, as published.
    pub payload: Bytes,
    /// `QoS`, as published.
    pub qos: QoS,
    /// Whether it was published to be retained.
    pub retain: bool,
    /// When it expires, Unix ms UTC (MQTT 5.0 §3.3.2.3.3).
    pub expires_at_ms: Option<i64>,
    /// Client id of the publisher, for subscriptions with No Local; empty for the broker's own.
    pub publisher: Arc<str>,
    /// MQTT 5.0 properties that are forwarded unchanged, in the protocol's own encoding with its length in front;
    /// empty when there are none.
    pub properties: Bytes,
}

impl Message {
    /// A message of the broker's own, `QoS` 0 and retained.
    #[must_use]
    pub fn own(topic: impl Into<Arc<str>>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic: Topic::known(topic),
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: true,
            expires_at_ms: None,
            publisher: Arc::from(""),
            properties: Bytes::new(),
        }
    }

    /// Whether it has expired at `now_ms`.
    #[must_use]
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now_ms)
    }

    /// Bytes of topic, payload and properties: what it is counted with on the disk and on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }

    /// Bytes that it takes in memory, behind an `Arc`. Of a reading that is eight times its [`Message::size`].
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>() + MESSAGE_ALLOCATIONS * ALLOCATION_BYTES + self.size()
    }
}

//! An application message: what one client published, as the broker keeps it, passes it on and stores it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use super::qos::QoS;
use super::topic::Topic;

/// A published message. What a subscription makes of it (a lower `QoS`, another retain flag) is decided later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub topic: Topic,
    /// Payload.
    pub payload: Bytes,
    /// As published.
    pub qos: QoS,
    /// Whether it was published to be retained.
    pub retain: bool,
    /// When it stops being worth delivering, Unix ms UTC. MQTT 5.0 §3.3.2.3.3.
    pub expires_at_ms: Option<i64>,
    /// Client id of the publisher, for subscriptions with No Local; empty for the broker's own.
    pub publisher: Arc<str>,
    /// MQTT 5.0 properties that travel along unchanged, in the protocol's own encoding with its length in front;
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

    /// Bytes that it takes in a queue, about.
    #[must_use]
    pub fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }

    /// The properties decoded, with what is left of the expiry interval at `now_ms` in seconds.
    #[must_use]
    pub fn decoded_properties(&self, now_ms: i64) -> Option<PublishProperties> {
        let mut encoded = self.properties.clone();
        // They were encoded by ourselves; what cannot be read back is left out.
        let decoded =
            if encoded.is_empty() { None } else { PublishProperties::read(&mut encoded).ok()? };
        let Some(at) = self.expires_at_ms else { return decoded };
        let left_s = at.saturating_sub(now_ms).max(0) / 1000;
        let mut properties = decoded.unwrap_or_default();
        properties.message_expiry_interval = Some(u32::try_from(left_s).unwrap_or(u32::MAX));
        Some(properties)
    }
}

/// Encodes the properties that travel with a message; empty when there are none.
#[must_use]
pub fn encode_properties(properties: &PublishProperties) -> Bytes {
    if *properties == PublishProperties::default() {
        return Bytes::new();
    }
    let mut encoded = BytesMut::new();
    // Fails only past 256 MiB, which no packet here reaches.
    match properties.write(&mut encoded) {
        Ok(()) => encoded.freeze(),
        Err(_) => Bytes::new(),
    }
}

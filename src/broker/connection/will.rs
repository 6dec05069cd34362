//! Wills: what is said for a client whose connection broke, at once or after its delay.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::{LastWill, PublishProperties};
use tokio::time::{sleep, timeout};

use crate::broker::context::Services;
use crate::broker::session::lease::{Lease, SessionOutcome};
use crate::clock;
use crate::mqtt::{Message, Topic, TopicError, encode_properties};
use crate::shutdown::Shutdown;

/// How long a will is waited for before the client id's next connection goes on: a store that cannot commit does
/// not hold that up.
const PATIENCE: Duration = Duration::from_secs(3);

/// A will.
#[derive(Debug)]
pub struct Will {
    message: Message,
    /// Message expiry interval, seconds; it starts when the will is published.
    expiry_s: Option<u32>,
    /// Seconds from the end of the connection (MQTT 5.0 §3.1.3.2.2).
    delay_s: u32,
}

impl Will {
    /// The will of a CONNECT.
    ///
    /// # Errors
    /// When its topic is none.
    pub fn new(will: LastWill, client_id: &str) -> Result<Self, TopicError> {
        let topic = Topic::from_bytes(&will.topic)?;
        let mut carried = PublishProperties::default();
        let (mut expiry_s, mut delay_s) = (None, 0);
        if let Some(properties) = will.properties {
            carried.payload_format_indicator = properties.payload_format_indicator;
            carried.content_type = properties.content_type;
            carried.response_topic = properties.response_topic;
            carried.correlation_data = properties.correlation_data;
            carried.user_properties = properties.user_properties;
            expiry_s = properties.message_expiry_interval;
            delay_s = properties.delay_interval.unwrap_or(0);
        }
        let message = Message {
            topic,
            // A copy: a slice would keep the whole read buffer alive.
            payload: Bytes::copy_from_slice(&will.message),
            qos: crate::broker::connection::packet::from_codec(will.qos),
            retain: will.retain,
            expires_at_ms: None,
            publisher: client_id.into(),
            properties: encode_properties(&carried),
        };
        Ok(Self { message, expiry_s, delay_s })
    }

    /// Where it is said.
    pub fn topic(&self) -> &str {
        &self.message.topic
    }

    /// Whether it is one for the broker's own tree, where clients say nothing.
    pub fn is_reserved(&self) -> bool {
        self.message.topic.starts_with('$')
    }

    async fn publish(mut self, services: &Services) {
        let expires_at = |expiry_s| clock::unix_ms().saturating_add(i64::from(expiry_s) * 1000);
        self.message.expires_at_ms = self.expiry_s.map(expires_at);
        // A store that has stopped ends the broker.
        let _ = services.publish(self.message).await;
    }

    /// Says it for the client of `lease`, whose session goes on for `expiry_s`: at once, or when its delay or the
    /// session is over, unless the client is back before that.
    pub async fn say(self, lease: &Lease, expiry_s: u32, services: &Services, shutdown: Shutdown) {
        let delay_s = self.delay_s.min(expiry_s);
        let outcome = if delay_s == 0 { SessionOutcome::Over } else { lease.outcome() };
        match outcome {
            SessionOutcome::Back => {}
            SessionOutcome::Over => {
                let _ = timeout(PATIENCE, self.publish(services)).await;
            }
            SessionOutcome::Alone(back) => {
                let (services, mut shutdown) = (services.clone(), shutdown);
                tokio::spawn(async move {
                    let delay = Duration::from_secs(u64::from(delay_s));
                    let said = tokio::select! {
                        () = sleep(delay) => true,
                        back = back => back.is_err(),
                        // As for a client that is connected when the broker stops.
                        () = shutdown.requested() => true,
                    };
                    if said {
                        self.publish(&services).await;
                    }
                });
            }
        }
    }
}

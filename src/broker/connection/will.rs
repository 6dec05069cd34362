//! Wills: the message that is published for a client whose connection broke, at once or after a delay.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::broker::context::Services;
use crate::broker::session::take_over::{Lease, SessionOutcome};
use crate::clock;
use crate::mqtt::{Message, codec};
use crate::shutdown::Shutdown;

/// Longest wait for the publication of a will before the next connection of the client id goes on. A store that cannot
/// commit does not delay that connection any longer.
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
    pub fn new(will: codec::Will, client_id: &str) -> Self {
        let codec::Will { topic, payload, qos, retain, delay_s, expiry_s, properties } = will;
        let publisher = client_id.into();
        let expires_at_ms = None;
        let message = Message { topic, payload, qos, retain, expires_at_ms, publisher, properties };
        Self { message, expiry_s, delay_s }
    }

    /// Its topic.
    pub fn topic(&self) -> &str {
        &self.message.topic
    }

    /// Whether its topic begins with `$`: such topics are the broker's own.
    pub fn is_reserved(&self) -> bool {
        self.message.topic.starts_with('$')
    }

    async fn publish(mut self, services: &Services) {
        let expires_at = |expiry_s| clock::unix_ms().saturating_add(i64::from(expiry_s) * 1000);
        self.message.expires_at_ms = self.expiry_s.map(expires_at);
        // A store that has stopped ends the broker.
        let _ = services.publish(self.message).await;
    }

    /// Publishes it for the client of `lease`, whose session lasts `expiry_s` more seconds: at once, or when its delay
    /// or the session is over, unless the client is back before that.
    pub async fn publish_for(
        self,
        lease: &Lease,
        expiry_s: u32,
        services: &Services,
        shutdown: Shutdown,
    ) {
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
                    let due = tokio::select! {
                        () = sleep(delay) => true,
                        back = back => back.is_err(),
                        // As for a client that is connected when the broker stops.
                        () = shutdown.requested() => true,
                    };
                    if due {
                        self.publish(&services).await;
                    }
                });
            }
        }
    }
}

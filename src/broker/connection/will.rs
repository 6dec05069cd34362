//! Wills: the message that is published for a client whose connection broke, at once or after a delay, also when the
//! broker died with the connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::broker::access::permissions::Owner;
use crate::broker::context::Services;
use crate::broker::net::shares::Share;
use crate::broker::session::registry::Registry;
use crate::broker::session::take_over::{Lease, SessionOutcome};
use crate::mqtt::{Message, codec};
use crate::shutdown::Shutdown;
use crate::store::user_of;
use crate::store::{Change, STORED_WILL_MAX_BYTES, StoredWill};

/// Longest wait for the publication of a will before the next connection of the client id goes on. A store that cannot
/// commit does not delay that connection any longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a client without keep-alive has to return after the broker died.
const RETURN_WITHOUT_KEEP_ALIVE: Duration = Duration::from_secs(90);

/// Bytes that a will is counted with beside its message: of a delayed one that is a task that waits.
const WILL_COST: usize = 1024;

/// Bytes that a will is counted with.
fn cost(message: &Message) -> usize {
    WILL_COST + message.memory()
}

/// A will.
#[derive(Debug)]
pub struct Will {
    message: Message,
    /// Message expiry interval, seconds; it starts when the will is published.
    expiry_s: Option<u32>,
    /// Seconds from the end of the connection (MQTT 5.0 §3.1.3.2.2).
    delay_s: u32,
    /// Its number in the log, if it is stored there.
    stored: Option<i64>,
    /// Its bytes of [`Registry::will_bytes`].
    _share: Share,
}

impl Will {
    /// The will of a CONNECT; `None` when the client's user has its share of wills.
    pub fn new(will: codec::Will, client_id: &str, registry: &Registry) -> Option<Self> {
        let codec::Will { topic, payload, qos, retain, delay_s, expiry_s, properties } = will;
        let publisher = client_id.into();
        let expires_at_ms = None;
        let message = Message { topic, payload, qos, retain, expires_at_ms, publisher, properties };
        let share = registry.will_bytes.share(&user_of(client_id).into(), cost(&message))?;
        Some(Self { message, expiry_s, delay_s, stored: None, _share: share })
    }

    /// Its topic.
    pub fn topic(&self) -> &str {
        &self.message.topic
    }

    /// Whether its topic begins with `$`: such topics are the broker's own.
    pub fn is_reserved(&self) -> bool {
        self.message.topic.starts_with('$')
    }

    /// The change that stores it, for a client that counts as gone after `silence`; `None` for one that is too large.
    pub fn store(&mut self, registry: &Registry, silence: Option<Duration>) -> Option<Change> {
        if self.message.size() > STORED_WILL_MAX_BYTES {
            return None;
        }
        let id = registry.number_will();
        self.stored = Some(id);
        let silence = silence.unwrap_or(RETURN_WITHOUT_KEEP_ALIVE).as_millis();
        Some(Change::Will(Box::new(StoredWill {
            id,
            message: Arc::new(self.message.clone()),
            expiry_s: self.expiry_s,
            delay_s: self.delay_s,
            silence_ms: u32::try_from(silence).unwrap_or(u32::MAX),
            due_at_ms: None,
        })))
    }

    /// The change that removes it from the log, when it is not to be published.
    pub fn discard(self) -> Option<Change> {
        self.stored.map(|id| Change::WillGone { id })
    }

    /// Publishes it, if its user may still do so: it may be that it was changed or removed, and that this ended the
    /// connection.
    async fn publish(mut self, services: &Services) {
        if !services.access.may_still_write(&self.message.publisher, &self.message.topic) {
            let client = Owner::of_session(&self.message.publisher).to_string();
            let topic = self.message.topic.as_str();
            info!(
                client,
                ?topic,
                "a will is not published: its user may not write this topic any more"
            );
            services.recorder.note(&mut self.discard().into_iter().collect()).await;
            return;
        }
        let expires_at = |expiry_s| {
            services.fan_out.timeline.now_ms().saturating_add(i64::from(expiry_s) * 1000)
        };
        self.message.expires_at_ms = self.expiry_s.map(expires_at);
        // In the commit of the message: it is published once, whenever the broker dies.
        let gone = self.stored.map(|id| Change::WillGone { id });
        // A store that has stopped ends the broker.
        let _ = services.publish_with(self.message, gone.into_iter().collect()).await;
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
            SessionOutcome::Back => {
                services.recorder.note(&mut self.discard().into_iter().collect()).await;
            }
            SessionOutcome::Over => {
                let _ = timeout(PATIENCE, self.publish(services)).await;
            }
            SessionOutcome::Alone(back) => {
                let delay = Duration::from_secs(u64::from(delay_s));
                let services = services.clone();
                tokio::spawn(
                    async move { self.publish_after(delay, back, services, shutdown).await },
                );
            }
        }
    }

    /// Publishes it after `delay`, or when the session is over, unless the client is back before that.
    async fn publish_after(
        self,
        delay: Duration,
        back: oneshot::Receiver<()>,
        services: Services,
        mut shutdown: Shutdown,
    ) {
        if let Some(id) = self.stored {
            let delay_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
            let at_ms = services.fan_out.timeline.now_ms().saturating_add(delay_ms);
            services.recorder.note(&mut vec![Change::WillDue { id, at_ms }]).await;
        }
        let due = tokio::select! {
            () = sleep(delay) => true,
            back = back => back.is_err(),
            // As for a client that is connected when the broker stops.
            () = shutdown.requested() => true,
        };
        self.publish_late(due, &services).await;
    }

    /// Publishes it if it is `due`.
    async fn publish_late(self, due: bool, services: &Services) {
        if due {
            self.publish(services).await;
        } else {
            services.recorder.note(&mut self.discard().into_iter().collect()).await;
        }
    }
}

/// Publishes the wills that the broker's previous run has left when it died: each once its client had the time of its
/// keep-alive to return, and then its delay, unless the client is back before that.
pub fn publish_left(wills: Vec<StoredWill>, services: &Services, shutdown: &Shutdown) {
    let highest = wills.iter().map(|will| will.id).max().unwrap_or(0);
    services.registry.number_wills_after(highest);
    for stored in wills {
        let returned = stored
            .due_at_ms
            .is_none()
            .then(|| services.registry.expect_return(&stored.message.publisher));
        tokio::spawn(publish_stored(stored, returned, services.clone(), shutdown.clone()));
    }
}

async fn publish_stored(
    stored: StoredWill,
    returned: Option<oneshot::Receiver<()>>,
    services: Services,
    mut shutdown: Shutdown,
) {
    let StoredWill { id, message, expiry_s, delay_s, silence_ms, due_at_ms } = stored;
    let client_id = Arc::clone(&message.publisher);
    let message = Arc::unwrap_or_clone(message);
    let holder = user_of(&client_id).into();
    let share = services.registry.will_bytes.share_anyway(&holder, cost(&message));
    let will = Will { message, expiry_s, delay_s, stored: Some(id), _share: share };
    let mut delay = Duration::from_secs(u64::from(delay_s));
    if let Some(returned) = returned {
        let back = tokio::select! {
            () = sleep(Duration::from_millis(u64::from(silence_ms))) => {
                services.registry.give_up_return(&client_id)
            }
            returned = returned => returned.is_ok(),
            () = shutdown.requested() => services.registry.give_up_return(&client_id),
        };
        if back {
            return will.publish_late(false, &services).await;
        }
    } else if let Some(at_ms) = due_at_ms {
        // The clock may have been set meanwhile: never later than the delay.
        let left_ms =
            u64::try_from(at_ms.saturating_sub(services.fan_out.timeline.now_ms())).unwrap_or(0);
        delay = delay.min(Duration::from_millis(left_ms));
    }
    debug!(client = &*client_id, "a will of the previous run is due after {delay:?}");
    if delay.is_zero() {
        return will.publish_late(true, &services).await;
    }
    match SessionOutcome::of(&services.registry, &client_id) {
        SessionOutcome::Back => will.publish_late(false, &services).await,
        SessionOutcome::Over => will.publish_late(true, &services).await,
        SessionOutcome::Alone(back) => will.publish_after(delay, back, services, shutdown).await,
    }
}

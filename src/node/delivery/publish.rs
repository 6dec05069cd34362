//! Publishing over one connection: drains the outbox within the in-flight window, removes a reading only on its PUBACK,
//! and publishes the states of switches beside them.
//!
//! Readings come first: subscriptions and states follow when the broker has acknowledged a reading, or shortly after.
//! Nothing that a subscription brings can then keep readings from leaving.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AsyncClient, ClientError, ConnectionError, Event, Outgoing, Packet, QoS, SubAck};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::inflight::{InFlight, Published};
use super::lanes::Lanes;
use super::outbox::Outbox;
use super::publishing::Publishing;
use super::traffic::{HeldUp, Traffic};
use crate::node::io::switches::{Direction, Switches};
use crate::wire::{Health, OFFLINE, ONLINE};

/// Most publishes in flight that are not readings. Further states wait, and later states replace them.
const OTHERS_IN_FLIGHT: usize = 16;
/// Acknowledged readings are removed from the outbox this many at a time while it drains, and at each tick.
const REMOVE_BATCH: usize = 64;
/// Longest wait for the first acknowledgement of a reading before subscriptions and states follow.
const READINGS_FIRST: Duration = Duration::from_secs(1);

/// The reason why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The connection was refused or broke.
    #[error("{0}")]
    Connection(Box<ConnectionError>),
    /// The client took no more requests.
    #[error("{0}")]
    Client(Box<ClientError>),
    /// The outbox could not be read.
    #[error("outbox: {0}")]
    Outbox(#[from] rusqlite::Error),
    /// PUBACK is missing.
    #[error(
        "the broker is connected but has acknowledged nothing of what was sent {0:?} ago; sending it again"
    )]
    Unacknowledged(Duration),
    /// Messages keep the broker's answers from arriving.
    #[error("messages on topic `{topic}` have kept all answers of the broker from arriving for {} s", time.as_secs())]
    HeldUp {
        /// For how long.
        time: Duration,
        /// Topic of the last one.
        topic: String,
    },
    /// PUBACK is missing, and those of later publishes came.
    #[error("the broker has acknowledged later messages but left one out; sending it again")]
    LeftOut,
}

impl From<ClientError> for PublishError {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}

impl From<ConnectionError> for PublishError {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(Box::new(error))
    }
}

/// The publishes of one connection.
pub struct Publisher<'a> {
    client: AsyncClient,
    all: &'a mut Publishing,
    traffic: Arc<Traffic>,
    /// Whether the discovery message is to be published, and when it was.
    discovery_due: bool,
    discovered: Option<Instant>,
    in_flight: InFlight,
    lanes: Lanes,
    /// When the connection was accepted.
    accepted: Option<Instant>,
    /// Whether subscriptions and states follow.
    open: bool,
    /// Readings acknowledged on this connection.
    acknowledged: u64,
    /// Whether anything was.
    answered: bool,
}

impl<'a> Publisher<'a> {
    /// A publisher for a connection that is about to be made.
    pub fn new(client: AsyncClient, traffic: Arc<Traffic>, all: &'a mut Publishing) -> Self {
        Self {
            client,
            traffic,
            discovered: None,
            discovery_due: all.discovery.is_some(),
            all,
            in_flight: InFlight::default(),
            lanes: Lanes::new(),
            accepted: None,
            open: false,
            acknowledged: 0,
            answered: false,
        }
    }

    /// The broker has accepted the connection. Publishes readings; everything else at once only if none waits, or if the
    /// subscriptions are known to do no harm.
    pub async fn accepted(&mut self) -> Result<(), PublishError> {
        self.accepted = Some(Instant::now());
        self.all.vitals.connected();
        self.publish_readings().await?;
        if self.in_flight.has_readings() && !self.all.subscribe_first {
            return Ok(());
        }
        self.open()
    }

    /// Where readings and states come from.
    pub fn sources(&self) -> (Arc<Outbox>, Arc<Switches>) {
        (Arc::clone(&self.all.outbox), Arc::clone(&self.all.switches))
    }

    /// When the broker accepted the connection; `None` before.
    pub const fn since(&self) -> Option<Instant> {
        self.accepted
    }

    /// Readings acknowledged on this connection.
    pub const fn readings_acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether states may be published.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Subscribes and publishes everything, since the broker may have lost it. Commands are subscribed to before `online`
    /// is published: a client that waits for `online` may command at once.
    fn open(&mut self) -> Result<(), PublishError> {
        if std::mem::replace(&mut self.open, true) {
            return Ok(());
        }
        self.subscribe_next()?;
        self.publish(self.all.topics.status(), ONLINE.into())?;
        self.all.switches.republish_all();
        self.publish_states()
    }

    /// The connection is about to end: nothing is subscribed to any more.
    pub const fn closing(&mut self) {
        self.open = true;
    }

    fn subscribe_next(&mut self) -> Result<(), PublishError> {
        if let Some((filter, qos)) = self.all.subscriptions.next(Instant::now()) {
            self.client.try_subscribe(filter, qos)?;
        }
        Ok(())
    }

    /// Once a second: what is due by the passing of time.
    pub async fn tick(&mut self) -> Result<(), PublishError> {
        let now = Instant::now();
        let times = self.all.times;
        if let Some(oldest) =
            self.in_flight.oldest().filter(|at| *at + times.acknowledged_within <= now)
        {
            match self.traffic.held_up(oldest, now) {
                None => return Err(PublishError::Unacknowledged(times.acknowledged_within)),
                Some(HeldUp { time, topic }) if time >= times.held_up_within => {
                    return Err(PublishError::HeldUp { time, topic });
                }
                // Its acknowledgement comes behind the messages.
                Some(_) => {}
            }
        }
        if self.accepted.is_some_and(|at| at + READINGS_FIRST <= now) {
            self.open()?;
        }
        if self.answered && self.accepted.is_some_and(|at| at + times.proved_after <= now) {
            self.all.vitals.proved();
        }
        // The answer to a subscription comes behind the messages, too.
        let answers = !self.traffic.is_flowing(now);
        if self.open {
            if answers {
                self.subscribe_next()?;
            }
            self.publish_states()?;
        }
        self.all.subscriptions.settle(now);
        if answers {
            self.all.note_missing(now);
        }
        self.remove_acknowledged().await;
        Ok(())
    }

    /// Publishes as many readings as the window has room for.
    pub async fn publish_readings(&mut self) -> Result<(), PublishError> {
        let room = self.in_flight.room();
        if room == 0 {
            return Ok(());
        }
        let (outbox, mut lanes) = (Arc::clone(&self.all.outbox), self.lanes);
        let backlog = self.in_flight.readings_up_to(lanes.backlog_end());
        let published = self.in_flight.published_above(lanes.backlog_end());
        let (entries, lanes) = blocking(move || {
            let entries = lanes.take(&outbox, room, backlog, &published)?;
            Ok((entries, lanes))
        })
        .await?;
        self.lanes = lanes;
        let now = Instant::now();
        for entry in entries {
            let topic = self.all.topics.sensor(&entry.sensor);
            self.client.try_publish(topic, QoS::AtLeastOnce, false, entry.telemetry)?;
            self.in_flight.push(Published::Reading(entry.id), now);
        }
        Ok(())
    }

    /// Publishes the discovery message, if it is due, and changed states, as far as there is room.
    pub fn publish_states(&mut self) -> Result<(), PublishError> {
        if !self.open {
            return Ok(());
        }
        if self.discovery_due
            && self.in_flight.others() < OTHERS_IN_FLIGHT
            && self.discovered.is_none_or(|at| at.elapsed() >= self.all.times.discovery_pause)
            && let Some(discovery) = self.all.discovery.clone()
            // Home Assistant's birth message may come at once.
            && self.all.subscriptions.is_dealt_with(&discovery.birth)
        {
            (self.discovery_due, self.discovered) = (false, Some(Instant::now()));
            self.publish(discovery.topic, discovery.payload)?;
        }
        let room = OTHERS_IN_FLIGHT.saturating_sub(self.in_flight.others());
        for (direction, name, state) in self.all.switches.take_unpublished(room) {
            let topic = match direction {
                Direction::Input => self.all.topics.input(&name),
                Direction::Output => self.all.topics.output(&name),
            };
            self.publish(topic, state.as_str().into())?;
        }
        Ok(())
    }

    /// Publishes the node's health.
    pub fn publish_health(&mut self, health: &Health) -> Result<(), PublishError> {
        match serde_json::to_vec(health) {
            Ok(payload) => self.publish(self.all.topics.health(), payload),
            Err(error) => {
                warn!(%error, "could not write the health message");
                Ok(())
            }
        }
    }

    /// Publishes the last states and health, then `offline`.
    pub fn publish_offline(&mut self, health: &Health) -> Result<(), PublishError> {
        self.publish_states()?;
        self.publish_health(health)?;
        self.publish(self.all.topics.status(), OFFLINE.into())
    }

    /// Ends the connection with a DISCONNECT.
    pub fn disconnect(&self) -> Result<(), PublishError> {
        Ok(self.client.try_disconnect()?)
    }

    /// Whether any reading waits for its PUBACK.
    pub fn has_readings_in_flight(&self) -> bool {
        self.in_flight.has_readings()
    }

    /// Whether anything else waits for its PUBACK.
    pub fn has_others_in_flight(&self) -> bool {
        self.in_flight.others() > 0
    }

    /// Publishes a retained message that is no reading.
    fn publish(&mut self, topic: String, payload: Vec<u8>) -> Result<(), PublishError> {
        self.client.try_publish(topic, QoS::AtLeastOnce, true, payload)?;
        self.in_flight.push(Published::Other, Instant::now());
        Ok(())
    }

    /// Handles an event of the connection: acknowledgements, commands, sent packets.
    pub async fn handle_event(&mut self, event: &Event) -> Result<(), PublishError> {
        // While a message takes long to arrive, rumqttc gets answers to its pings that are not the broker's. A command would
        // not arrive then either.
        let lent =
            matches!(event, Event::Incoming(Packet::PingResp)) && self.traffic.take_lent_pong();
        if matches!(event, Event::Incoming(_)) && !lent {
            self.all.packet_received();
        }
        match event {
            Event::Incoming(Packet::Publish(publish)) if self.all.is_birth(publish) => {
                debug!("Home Assistant has started");
                self.discovery_due = true;
                self.publish_states()?;
            }
            Event::Incoming(Packet::Publish(publish)) => {
                self.all.handle_command(publish);
                // In a burst of commands the outputs get their turn.
                tokio::task::yield_now().await;
            }
            Event::Incoming(Packet::SubAck(ack)) => self.handle_suback(ack)?,
            Event::Outgoing(Outgoing::Subscribe(packet_id)) => {
                self.all.subscriptions.sent(*packet_id);
            }
            Event::Outgoing(Outgoing::Publish(packet_id)) => self.in_flight.sent(*packet_id),
            // All packet ids were used since, and this one is still in use.
            Event::Outgoing(Outgoing::AwaitAck(_)) => return Err(PublishError::LeftOut),
            Event::Incoming(Packet::PubAck(ack)) => {
                self.answered = true;
                if self.in_flight.acknowledge(ack.pkid) {
                    self.acknowledged += 1;
                    self.all.vitals.acknowledged();
                    self.open()?;
                }
                self.publish_states()?;
                let acknowledged = self.in_flight.acknowledged().len();
                if acknowledged.is_multiple_of(REMOVE_BATCH) || !self.in_flight.has_readings() {
                    self.remove_acknowledged().await;
                }
                self.publish_readings().await?;
            }
            other => debug!(event = ?other, "session"),
        }
        Ok(())
    }

    fn handle_suback(&mut self, ack: &SubAck) -> Result<(), PublishError> {
        self.all.subscription_answered(ack);
        self.subscribe_next()?;
        self.publish_states()
    }

    /// Removes acknowledged readings from the outbox.
    pub async fn remove_acknowledged(&mut self) {
        let ids = self.in_flight.acknowledged().to_vec();
        if ids.is_empty() {
            return;
        }
        let outbox = Arc::clone(&self.all.outbox);
        match blocking(move || outbox.remove(&ids)).await {
            Ok(()) => self.in_flight.clear_acknowledged(),
            // Delivery goes on with later readings. These are removed with the next, or sent once more after a
            // reconnect.
            Err(error) => debug!(%error, "could not remove acknowledged readings yet"),
        }
    }
}

/// Runs a database call on a thread that may wait for an SD card, which the runtime's threads must not.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> rusqlite::Result<T> {
    match tokio::task::spawn_blocking(call).await {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

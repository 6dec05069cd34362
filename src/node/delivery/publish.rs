//! Publishing over one connection: drains the outbox within the in-flight window, removes a reading only on its PUBACK,
//! and publishes the states of switches beside them.

use std::sync::Arc;

use rumqttc::{AsyncClient, ClientError, ConnectionError, Event, Outgoing, Packet, Publish, QoS};
use tracing::{debug, info, warn};

use super::inflight::{InFlight, Published};
use super::outbox::Outbox;
use crate::node::discovery::DiscoveryMessage;
use crate::node::io::switches::{Direction, Switches};
use crate::wire::{Command, Health, NodeTopics, OFFLINE, ONLINE};

/// Most publishes in flight that are not readings. Further states wait, and later states replace them.
const OTHERS_IN_FLIGHT: usize = 16;
/// Acknowledged readings are removed from the outbox this many at a time while it drains.
const REMOVE_BATCH: usize = 64;

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
pub struct Publisher {
    client: AsyncClient,
    topics: NodeTopics,
    outbox: Arc<Outbox>,
    switches: Arc<Switches>,
    discovery: Option<DiscoveryMessage>,
    /// Whether the discovery message is to be published.
    discovery_due: bool,
    in_flight: InFlight,
}

impl Publisher {
    /// A publisher for a connection that is about to be made.
    pub fn new(
        client: AsyncClient,
        topics: NodeTopics,
        outbox: Arc<Outbox>,
        switches: Arc<Switches>,
        discovery: Option<DiscoveryMessage>,
    ) -> Self {
        let discovery_due = discovery.is_some();
        let in_flight = InFlight::default();
        Self { client, topics, outbox, switches, discovery, discovery_due, in_flight }
    }

    /// The connection stands. Subscribes and publishes everything, since the broker may have lost it. Commands are
    /// subscribed to before `online` is published: a client that waits for `online` may command at once.
    pub async fn connected(&mut self, commanded: bool) -> Result<(), PublishError> {
        self.switches.packet_received();
        if commanded {
            self.client.try_subscribe(self.topics.commands(), QoS::AtLeastOnce)?;
        }
        if let Some(discovery) = &self.discovery {
            self.client.try_subscribe(&discovery.birth, QoS::AtMostOnce)?;
        }
        self.publish(self.topics.status(), ONLINE.into())?;
        self.switches.republish_all();
        self.publish_states()?;
        self.publish_readings().await
    }

    /// Publishes as many readings as the window has room for.
    pub async fn publish_readings(&mut self) -> Result<(), PublishError> {
        let room = self.in_flight.room();
        if room == 0 {
            return Ok(());
        }
        let (outbox, last_id) = (Arc::clone(&self.outbox), self.in_flight.last_id());
        let entries = blocking(move || outbox.peek(last_id, room)).await?;
        for entry in entries {
            let topic = self.topics.sensor(&entry.sensor);
            self.client.try_publish(topic, QoS::AtLeastOnce, false, entry.telemetry)?;
            self.in_flight.push(Published::Reading(entry.id));
        }
        Ok(())
    }

    /// Publishes the discovery message, if it is due, and changed states, as far as there is room.
    pub fn publish_states(&mut self) -> Result<(), PublishError> {
        if self.discovery_due
            && self.in_flight.others() < OTHERS_IN_FLIGHT
            && let Some(discovery) = self.discovery.clone()
        {
            self.discovery_due = false;
            self.publish(discovery.topic, discovery.payload)?;
        }
        let room = OTHERS_IN_FLIGHT.saturating_sub(self.in_flight.others());
        for (direction, name, state) in self.switches.take_unpublished(room) {
            let topic = match direction {
                Direction::Input => self.topics.input(&name),
                Direction::Output => self.topics.output(&name),
            };
            self.publish(topic, state.as_str().into())?;
        }
        Ok(())
    }

    /// Publishes the node's health.
    pub fn publish_health(&mut self, health: &Health) -> Result<(), PublishError> {
        match serde_json::to_vec(health) {
            Ok(payload) => self.publish(self.topics.health(), payload),
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
        self.publish(self.topics.status(), OFFLINE.into())
    }

    /// Ends the connection with a DISCONNECT.
    pub fn disconnect(&self) -> Result<(), PublishError> {
        Ok(self.client.try_disconnect()?)
    }

    /// Whether any reading waits for its PUBACK.
    pub const fn has_readings_in_flight(&self) -> bool {
        self.in_flight.has_readings()
    }

    /// Whether anything else waits for its PUBACK.
    pub fn has_others_in_flight(&self) -> bool {
        self.in_flight.others() > 0
    }

    /// Publishes a retained message that is no reading.
    fn publish(&mut self, topic: String, payload: Vec<u8>) -> Result<(), PublishError> {
        self.client.try_publish(topic, QoS::AtLeastOnce, true, payload)?;
        self.in_flight.push(Published::Other);
        Ok(())
    }

    /// Handles an event of the connection: acknowledgements, commands, sent packets.
    pub async fn handle_event(&mut self, event: &Event) -> Result<(), PublishError> {
        if let Event::Incoming(_) = event {
            self.switches.packet_received();
        }
        match event {
            Event::Incoming(Packet::Publish(publish)) if self.is_birth(publish) => {
                debug!("Home Assistant has started");
                self.discovery_due = true;
                self.publish_states()?;
            }
            Event::Incoming(Packet::Publish(publish)) => self.handle_command(publish),
            Event::Outgoing(Outgoing::Publish(packet_id)) => self.in_flight.sent(*packet_id),
            Event::Incoming(Packet::PubAck(ack)) => {
                self.in_flight.acknowledge(ack.pkid);
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

    /// Whether this is Home Assistant's birth message. A retained one is from before this connection, which publishes
    /// the discovery message anyway.
    fn is_birth(&self, publish: &Publish) -> bool {
        self.discovery.as_ref().is_some_and(|discovery| discovery.birth == publish.topic)
            && publish.payload == ONLINE.as_bytes()
            && !publish.retain
    }

    /// Passes a command on to its output. A retained command may be old, so it is not carried out. The output's
    /// state is retained too, and is the present one.
    fn handle_command(&self, publish: &Publish) {
        let Some(name) = self.topics.commanded(&publish.topic) else {
            debug!(topic = %publish.topic, "message on a topic without a use here");
            return;
        };
        if publish.retain {
            info!(output = %name, "a retained command is not carried out; send commands without `retain`");
            return;
        }
        match Command::parse(&publish.payload) {
            Ok(command) => self.switches.send_command(name, command),
            Err(error) => warn!(output = %name, %error, "payload is not a command"),
        }
    }

    /// Removes acknowledged readings from the outbox.
    pub async fn remove_acknowledged(&mut self) {
        let ids = self.in_flight.acknowledged().to_vec();
        if ids.is_empty() {
            return;
        }
        let outbox = Arc::clone(&self.outbox);
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

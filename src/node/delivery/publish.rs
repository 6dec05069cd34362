//! One connection's deliveries: drains the outbox with a window of unacknowledged publishes, and forgets a
//! reading only on its PUBACK.

use std::sync::Arc;

use rumqttc::{AsyncClient, ClientError, ConnectionError, Event, Outgoing, Packet, Publish, QoS};
use tracing::{debug, info, warn};

use super::inflight::{Sent, Window};
use super::outbox::Outbox;
use crate::node::discovery::Announcement;
use crate::node::io::switches::{Direction, Switches};
use crate::wire::{Command, Health, NodeTopics, ONLINE};

/// States of switches on their way, at most; the rest waits and is overtaken by later states.
const STATES: usize = 16;
/// Acknowledged readings are deleted from the outbox this many at a time while it drains.
const FORGET_BATCH: usize = 64;

/// Why a connection cannot deliver any longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    #[error("{0}")]
    Connection(Box<ConnectionError>),
    #[error("{0}")]
    Client(Box<ClientError>),
    #[error("outbox: {0}")]
    Outbox(#[from] rusqlite::Error),
}

impl From<ClientError> for DeliveryError {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}

impl From<ConnectionError> for DeliveryError {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(Box::new(error))
    }
}

/// What is on its way over one connection.
pub(super) struct Delivery {
    pub(super) client: AsyncClient,
    pub(super) topics: NodeTopics,
    outbox: Arc<Outbox>,
    switches: Arc<Switches>,
    announcement: Option<Announcement>,
    /// Whether the announcement is due.
    announce: bool,
    pub(super) window: Window,
}

impl Delivery {
    /// Over a connection that is about to be made.
    pub(super) fn new(
        client: AsyncClient,
        topics: NodeTopics,
        outbox: Arc<Outbox>,
        switches: Arc<Switches>,
        announcement: Option<Announcement>,
    ) -> Self {
        let announce = announcement.is_some();
        Self { client, topics, outbox, switches, announcement, announce, window: Window::default() }
    }

    /// Hands over as many readings as the window has room for.
    pub(super) async fn fill(&mut self) -> Result<(), DeliveryError> {
        let room = self.window.room();
        if room == 0 {
            return Ok(());
        }
        let (outbox, last) = (Arc::clone(&self.outbox), self.window.last());
        let waiting = blocking(move || outbox.peek(last, room)).await?;
        for reading in waiting {
            let topic = self.topics.sensor(&reading.sensor);
            self.client.try_publish(topic, QoS::AtLeastOnce, false, reading.telemetry)?;
            self.window.hand_over(Sent::Reading(reading.id));
        }
        Ok(())
    }

    /// Publishes the announcement, if it is due, and the states that changed, as many as there is room for.
    pub(super) fn say_states(&mut self) -> Result<(), DeliveryError> {
        if self.announce
            && self.window.others() < STATES
            && let Some(announcement) = self.announcement.clone()
        {
            self.announce = false;
            self.say(announcement.topic, announcement.payload, true)?;
        }
        let room = STATES.saturating_sub(self.window.others());
        for (direction, name, state) in self.switches.take_unpublished(room) {
            let topic = match direction {
                Direction::Input => self.topics.input(&name),
                Direction::Output => self.topics.output(&name),
            };
            self.say(topic, state.as_str().into(), true)?;
        }
        Ok(())
    }

    /// Whether Home Assistant says that it has started. A retained word is from before this connection, which
    /// announces anyway.
    fn is_birth(&self, publish: &Publish) -> bool {
        self.announcement.as_ref().is_some_and(|announcement| announcement.birth == publish.topic)
            && publish.payload == ONLINE.as_bytes()
            && !publish.retain
    }

    /// A command to an output. One that the broker had kept is from a time that is over: it is not carried
    /// out, the retained state says what is.
    fn obey(&self, publish: &Publish) {
        let Some(name) = self.topics.commanded(&publish.topic) else {
            debug!(topic = %publish.topic, "not for us");
            return;
        };
        if publish.retain {
            info!(output = %name, "a retained command is not carried out at the start; send commands without `retain`");
            return;
        }
        match Command::parse(&publish.payload) {
            Ok(command) => self.switches.send_command(name, command),
            Err(error) => warn!(output = %name, %error, "no command"),
        }
    }

    /// What the connection tells: acknowledgements, commands, what has left.
    pub(super) async fn hear(&mut self, event: &Event) -> Result<(), DeliveryError> {
        if let Event::Incoming(_) = event {
            self.switches.packet_received();
        }
        match event {
            Event::Incoming(Packet::Publish(publish)) if self.is_birth(publish) => {
                debug!("Home Assistant has started");
                self.announce = true;
                self.say_states()?;
            }
            Event::Incoming(Packet::Publish(publish)) => self.obey(publish),
            Event::Outgoing(Outgoing::Publish(pkid)) => self.window.left(*pkid),
            Event::Incoming(Packet::PubAck(ack)) => {
                self.window.acknowledge(ack.pkid);
                self.say_states()?;
                let batch = self.window.acknowledged().len();
                if batch.is_multiple_of(FORGET_BATCH) || self.window.is_empty() {
                    self.forget().await;
                }
                self.fill().await?;
            }
            other => debug!(event = ?other, "session"),
        }
        Ok(())
    }

    /// Deletes from the outbox what was acknowledged.
    pub(super) async fn forget(&mut self) {
        let ids = self.window.acknowledged().to_vec();
        if ids.is_empty() {
            return;
        }
        let outbox = Arc::clone(&self.outbox);
        match blocking(move || outbox.remove(&ids)).await {
            Ok(()) => self.window.forgotten(),
            // Delivery goes on: the window is past them. They are deleted with the next, or sent once more
            // after a reconnect.
            Err(error) => debug!(%error, "the outbox cannot delete yet"),
        }
    }

    /// Publishes what is no reading.
    pub(super) fn say(
        &mut self,
        topic: String,
        payload: Vec<u8>,
        retain: bool,
    ) -> Result<(), DeliveryError> {
        self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload)?;
        self.window.hand_over(Sent::Other);
        Ok(())
    }

    /// Publishes how the node is.
    pub(super) fn say_health(&mut self, health: &Health) -> Result<(), DeliveryError> {
        match serde_json::to_vec(health) {
            Ok(payload) => self.say(self.topics.health(), payload, true),
            Err(error) => {
                warn!(%error, "health cannot be written");
                Ok(())
            }
        }
    }
}

/// A database call that may wait for an SD card does not belong on the runtime's threads.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> rusqlite::Result<T> {
    match tokio::task::spawn_blocking(call).await {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

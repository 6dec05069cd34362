//! The MQTT session: drains the outbox with a window of unacknowledged publishes, and forgets a
//! reading only on its PUBACK.
//!
//! rumqttc keeps pending publishes of its own across reconnects, and clears them when the broker
//! starts a new session. Both are in the way of an outbox that *is* the truth, so every connection
//! gets a fresh client and starts again from the outbox's head.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use rumqttc::{
    AsyncClient, ClientError, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing,
    Packet, QoS,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info, warn};

use super::outbox::Outbox;
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::wire::{Health, NodeTopics, OFFLINE, ONLINE};

/// Readings sent and not acknowledged yet, at most. With 20 ms to the broker and back it drains
/// 3,000 readings a second.
const WINDOW: usize = 64;
/// Room for what is not a reading: status and health.
const EXTRA: usize = 8;
/// Acknowledged readings are deleted from the outbox this many at a time while it drains.
const FORGET_BATCH: usize = 64;
/// Seconds of silence after which either side asks.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// First and longest wait before a reconnect; the jitter keeps a hall of boards from coming back at
/// the same instant.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));
/// Largest packet in either direction; health of forty failing sensors is about 12 KiB.
const PACKET_MAX_BYTES: usize = 64 * 1024;
/// How often health is published.
const HEALTH_INTERVAL: Duration = Duration::from_secs(30);
/// How long the end of the process may wait for the outbox to drain, and then for the farewell.
const DRAIN: Duration = Duration::from_secs(3);
const FAREWELL: Duration = Duration::from_secs(2);
/// A broker that stays away is mentioned again this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

/// Where the broker is: `mqtt://[user@]host[:1883]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    user: Option<String>,
    host: String,
    port: u16,
}

/// The text is no broker's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL with a host.
    #[error("`{0}` is not a broker's address: write mqtt://[user@]host[:1883]")]
    Malformed(String),
    /// A scheme that is not spoken.
    #[error("`{0}://` is not spoken here: write mqtt://[user@]host[:1883]")]
    Scheme(String),
    /// A password where everybody can read it.
    #[error(
        "a password does not belong into the address, where `ps` and logs show it: use HUMIDOR_PASSWORD_FILE"
    )]
    Password,
}

impl BrokerAddress {
    /// An address without a user.
    #[must_use]
    pub const fn new(host: String, port: u16) -> Self {
        Self { user: None, host, port }
    }
}

impl FromStr for BrokerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        let uri: http::Uri = text.parse().map_err(|_| malformed())?;
        match uri.scheme_str() {
            Some("mqtt") => {}
            Some(other) => return Err(AddressError::Scheme(other.to_owned())),
            None => return Err(malformed()),
        }
        let authority = uri.authority().ok_or_else(malformed)?;
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user.to_owned());
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err(AddressError::Password);
        }
        if authority.host().is_empty() || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(malformed());
        }
        // `authority.port()` is also `None` for a port that is no port, so the text decides.
        let after_user = authority.as_str().rsplit('@').next().unwrap_or_default();
        let port = match after_user.strip_prefix(authority.host()) {
            Some("") => 1883,
            Some(rest) => rest
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port > 0)
                .ok_or_else(malformed)?,
            None => return Err(malformed()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { user: user.filter(|user| !user.is_empty()), host, port })
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        if self.host.contains(':') {
            write!(f, "mqtt://{user}[{}]:{}", self.host, self.port)
        } else {
            write!(f, "mqtt://{user}{}:{}", self.host, self.port)
        }
    }
}

/// What a session needs.
pub struct Session {
    /// This node.
    pub node: Id,
    /// Its broker.
    pub broker: BrokerAddress,
    /// Password, where the address names a user.
    pub password: Option<String>,
    /// What to deliver.
    pub outbox: Arc<Outbox>,
    /// What to say about oneself.
    pub health: Box<dyn Fn() -> Health + Send + Sync>,
}

/// Why one connection ended.
enum End {
    /// As asked.
    Farewell,
    /// By itself; `connected` says whether it had been up.
    Lost { cause: String, connected: bool },
}

impl Session {
    /// Delivers until `shutdown`, across any number of connections.
    pub async fn run(&self, mut shutdown: Shutdown) {
        let mut waits = back_off();
        let mut complained: Option<Instant> = None;
        loop {
            let (cause, connected) = match self.connection(&mut shutdown).await {
                End::Farewell => return,
                End::Lost { cause, connected } => (cause, connected),
            };
            if connected {
                waits = back_off();
                complained = None;
            }
            if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
                complained = Some(Instant::now());
                warn!(broker = %self.broker, cause, waiting = self.outbox.depth(), "no broker; readings wait in the outbox");
            }
            let wait = waits.next().unwrap_or(BACK_OFF.1);
            tokio::select! {
                () = sleep(wait) => {}
                () = shutdown.requested() => return,
            }
        }
    }

    fn options(&self) -> MqttOptions {
        let mut options = MqttOptions::new(
            format!("humidor-{}", self.node),
            self.broker.host.clone(),
            self.broker.port,
        );
        let status = NodeTopics::new(self.node.clone()).status();
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_max_packet_size(PACKET_MAX_BYTES, PACKET_MAX_BYTES)
            .set_inflight(u16::try_from(WINDOW + EXTRA).unwrap_or(u16::MAX))
            .set_last_will(LastWill::new(status, OFFLINE, QoS::AtLeastOnce, true));
        if let Some(user) = &self.broker.user {
            options.set_credentials(user, self.password.clone().unwrap_or_default());
        }
        options
    }

    /// One connection, from CONNECT to its end.
    async fn connection(&self, shutdown: &mut Shutdown) -> End {
        let (client, mut events) = AsyncClient::new(self.options(), WINDOW + EXTRA);
        events.network_options.set_tcp_nodelay(true);
        let mut delivery = Delivery {
            client,
            topics: NodeTopics::new(self.node.clone()),
            outbox: Arc::clone(&self.outbox),
            window: Window::default(),
        };
        let mut connected = false;
        let outcome = self.deliver(&mut events, &mut delivery, &mut connected, shutdown).await;
        // What was acknowledged before the end must not be sent again needlessly.
        let forgotten = delivery.forget().await;
        match outcome.and(forgotten) {
            Ok(()) => End::Farewell,
            Err(error) => End::Lost { cause: error.to_string(), connected },
        }
    }

    async fn deliver(
        &self,
        events: &mut EventLoop,
        delivery: &mut Delivery,
        connected: &mut bool,
        shutdown: &mut Shutdown,
    ) -> Result<(), DeliveryError> {
        let mut health = interval(HEALTH_INTERVAL);
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = {
                // Kept across the other branches: dropping a poll half-way could lose what it read.
                let mut poll = pin!(events.poll());
                loop {
                    tokio::select! {
                        event = &mut poll => break Some(event?),
                        () = self.outbox.changed(), if *connected => delivery.fill().await?,
                        _ = health.tick(), if *connected => delivery.say_health(&(self.health)())?,
                        () = shutdown.requested() => {
                            if !*connected {
                                return Ok(());
                            }
                            break None;
                        }
                    }
                }
            };
            match event {
                None => return self.farewell(events, delivery).await,
                Some(Event::Incoming(Packet::ConnAck(_))) => {
                    *connected = true;
                    info!(broker = %self.broker, waiting = self.outbox.depth(), "connected");
                    delivery.say(delivery.topics.status(), ONLINE.into(), true)?;
                    delivery.fill().await?;
                }
                Some(event) => delivery.hear(&event).await?,
            }
        }
    }

    /// Drains what it can, says `offline`, disconnects.
    async fn farewell(
        &self,
        events: &mut EventLoop,
        delivery: &mut Delivery,
    ) -> Result<(), DeliveryError> {
        let drain = async {
            delivery.fill().await?;
            while !delivery.window.is_empty() {
                let event = events.poll().await?;
                delivery.hear(&event).await?;
            }
            Ok::<_, DeliveryError>(())
        };
        if let Ok(drained) = timeout(DRAIN, drain).await {
            drained?;
        } else {
            info!(
                waiting = self.outbox.depth(),
                "leaving before the outbox is empty; the rest is sent at the next start"
            );
        }
        delivery.say_health(&(self.health)())?;
        delivery.say(delivery.topics.status(), OFFLINE.into(), true)?;
        let goodbye = async {
            // Everything is acknowledged, or at least the farewell is on its way in order.
            while delivery.window.unsaid() {
                let event = events.poll().await?;
                delivery.hear(&event).await?;
            }
            delivery.client.try_disconnect()?;
            loop {
                if let Event::Outgoing(Outgoing::Disconnect) = events.poll().await? {
                    return Ok::<_, DeliveryError>(());
                }
            }
        };
        match timeout(FAREWELL, goodbye).await {
            Ok(outcome) => outcome,
            Err(_) => Ok(()),
        }
    }
}

fn back_off() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(BACK_OFF.0)
        .with_max_delay(BACK_OFF.1)
        .with_jitter()
        .without_max_times()
        .build()
}

#[derive(Debug, thiserror::Error)]
enum DeliveryError {
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

/// What was handed to the client and is not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Reading(i64),
    Other,
}

/// Matches PUBACKs to readings. The client takes publishes in order and tells each one's packet id
/// when it leaves; the PUBACK has the same id.
#[derive(Debug, Default)]
struct Window {
    /// Handed over, no packet id yet.
    queued: VecDeque<Sent>,
    in_flight: HashMap<u16, Sent>,
    /// Readings among both.
    readings: usize,
    /// Place of the last reading handed over.
    last: i64,
    acknowledged: Vec<i64>,
}

impl Window {
    fn is_empty(&self) -> bool {
        self.readings == 0
    }

    /// Whether something other than readings waits to be sent or acknowledged.
    fn unsaid(&self) -> bool {
        self.queued.iter().chain(self.in_flight.values()).any(|sent| *sent == Sent::Other)
    }

    fn hand_over(&mut self, sent: Sent) {
        if let Sent::Reading(id) = sent {
            self.readings += 1;
            self.last = id;
        }
        self.queued.push_back(sent);
    }

    fn left(&mut self, pkid: u16) {
        if let Some(sent) = self.queued.pop_front() {
            self.in_flight.insert(pkid, sent);
        }
    }

    fn acknowledge(&mut self, pkid: u16) {
        if let Some(Sent::Reading(id)) = self.in_flight.remove(&pkid) {
            self.readings -= 1;
            self.acknowledged.push(id);
        }
    }
}

struct Delivery {
    client: AsyncClient,
    topics: NodeTopics,
    outbox: Arc<Outbox>,
    window: Window,
}

impl Delivery {
    /// Hands over as many readings as the window has room for.
    async fn fill(&mut self) -> Result<(), DeliveryError> {
        let room = WINDOW - self.window.readings;
        if room == 0 {
            return Ok(());
        }
        let (outbox, last) = (Arc::clone(&self.outbox), self.window.last);
        let waiting = blocking(move || outbox.head(last, room)).await?;
        for reading in waiting {
            let topic = self.topics.sensor(&reading.sensor);
            self.client.try_publish(topic, QoS::AtLeastOnce, false, reading.telemetry)?;
            self.window.hand_over(Sent::Reading(reading.id));
        }
        Ok(())
    }

    async fn hear(&mut self, event: &Event) -> Result<(), DeliveryError> {
        match event {
            Event::Outgoing(Outgoing::Publish(pkid)) => self.window.left(*pkid),
            Event::Incoming(Packet::PubAck(ack)) => {
                self.window.acknowledge(ack.pkid);
                let batch = self.window.acknowledged.len();
                if batch.is_multiple_of(FORGET_BATCH) || self.window.is_empty() {
                    self.forget().await?;
                }
                self.fill().await?;
            }
            other => debug!(event = ?other, "session"),
        }
        Ok(())
    }

    async fn forget(&mut self) -> Result<(), DeliveryError> {
        let ids = std::mem::take(&mut self.window.acknowledged);
        if ids.is_empty() {
            return Ok(());
        }
        let (outbox, acknowledged) = (Arc::clone(&self.outbox), ids.clone());
        if let Err(error) = blocking(move || outbox.forget(&acknowledged)).await {
            // Delivery goes on: the window is past them. They are deleted with the next, or sent once more
            // after a reconnect.
            debug!(%error, "the outbox cannot delete yet");
            self.window.acknowledged = ids;
        }
        Ok(())
    }

    fn say(&mut self, topic: String, payload: Vec<u8>, retain: bool) -> Result<(), DeliveryError> {
        self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload)?;
        self.window.hand_over(Sent::Other);
        Ok(())
    }

    fn say_health(&mut self, health: &Health) -> Result<(), DeliveryError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_address_is_read_with_its_defaults() {
        let address: BrokerAddress = "mqtt://box@hall-3".parse().unwrap();
        assert_eq!(address.to_string(), "mqtt://box@hall-3:1883");
        let v6: BrokerAddress = "mqtt://[fd00::7]:2883".parse().unwrap();
        assert_eq!((v6.host.as_str(), v6.port), ("fd00::7", 2883));
        for wrong in [
            "",
            "hall-3",
            "hall-3:1883",
            "http://hall-3",
            "mqtt://",
            "mqtt://a:b@h",
            "mqtt://h:0",
            "mqtt://h:99999",
            "mqtt://h/x",
        ] {
            assert!(wrong.parse::<BrokerAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn acknowledgements_find_their_reading_among_other_publishes() {
        let mut window = Window::default();
        window.hand_over(Sent::Other);
        window.hand_over(Sent::Reading(5));
        window.hand_over(Sent::Reading(9));
        (1..=3).for_each(|pkid| window.left(pkid));
        window.acknowledge(1);
        window.acknowledge(3);
        assert_eq!(window.acknowledged, [9]);
        assert!(!window.is_empty() && !window.unsaid());
        window.acknowledge(2);
        window.acknowledge(2);
        assert_eq!(window.acknowledged, [9, 5]);
        assert!(window.is_empty());
    }
}

//! The MQTT session: one connection to the broker after the other, each delivering from the outbox.
//!
//! rumqttc keeps pending publishes of its own across reconnects, and clears them when the broker starts a new session.
//! The outbox already has every reading that is not acknowledged, so each connection gets a fresh client and starts
//! again from the outbox's head.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS,
    StateError,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::back_off::BackOff;
use super::client;
use super::inflight::READINGS_IN_FLIGHT;
use super::publish::{PublishError, Publisher};
use super::publishing::Publishing;
use super::subscriptions::EndedBy;
use super::tunnel::Tunnel;
use crate::node::address::BrokerAddress;
use crate::node::config::{HEALTH_INTERVAL, TlsFiles};
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::throttled_log::ThrottledLog;
use crate::wire::{Health, NodeTopics, OFFLINE};

/// Room in the client for what is no reading: status, health, two subscriptions, discovery and the states of switches.
const OTHER_REQUESTS: usize = 32;
/// Packet ids that rumqttc uses in turn. It stops at one that is still in use, so there are many more than publishes in
/// flight: one lost PUBACK then stops nothing until all others came round.
const PACKET_IDS: u16 = 1024;
/// Longest time for draining the outbox at the end of the process.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time for `offline` and DISCONNECT after that.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two warnings that there is no connection, and between two lines that there is one.
const LINE_INTERVAL: Duration = Duration::from_mins(1);
/// Pause between two looks at what is due.
const TICK: Duration = Duration::from_secs(1);
/// Longest wait before a connection that the node itself ended is replaced.
const REPLACED_WITHIN: Duration = Duration::from_millis(500);
/// So many acknowledged readings prove a connection too, however short: the outbox drains.
const PROVED_BY_READINGS: u64 = 32;
/// So many connections in a row that the broker closed, within this time, look like two boards of one id.
const CLOSED_CONNECTIONS: usize = 3;
const CLOSED_WITHIN: Duration = Duration::from_mins(10);

/// Everything that a session needs.
pub struct Session {
    /// This node.
    pub node: Id,
    /// Its broker.
    pub broker: BrokerAddress,
    /// Password, where the address names a user.
    pub password: Option<String>,
    /// Where the address asks for TLS.
    pub tls: Option<TlsFiles>,
    /// Readings, states and subscriptions.
    pub publishing: Publishing,
    /// Silence after which the broker is pinged: whole seconds, since CONNECT carries it so.
    pub keep_alive: Duration,
    /// Composes the health message.
    pub health: Box<dyn Fn() -> Health + Send + Sync>,
}

/// The end of one connection.
enum End {
    /// Shutdown was requested.
    Shutdown,
    /// The connection broke, or was never made.
    Lost(Lost),
}

struct Lost {
    reason: String,
    /// How long it stood after the broker had accepted it; `None` where it never did.
    stood: Option<Duration>,
    /// Readings acknowledged on it.
    acknowledged: u64,
    ended_by: EndedBy,
    /// Whether the broker did so without a word.
    closed: bool,
    /// Topic of messages that kept everything else from arriving.
    held_up_by: Option<String>,
    /// Whether it refused this node.
    rejected: bool,
}

impl Lost {
    /// The connection was never made.
    const fn before(reason: String) -> Self {
        Self {
            reason,
            stood: None,
            acknowledged: 0,
            ended_by: EndedBy::Broker,
            closed: false,
            held_up_by: None,
            rejected: false,
        }
    }
}

/// What connections have in common, for the log and the next wait.
struct History {
    proved_after: Duration,
    waits: BackOff,
    lost_line: ThrottledLog,
    connected_line: ThrottledLog,
    twin_line: ThrottledLog,
    held_up_line: ThrottledLog,
    /// When the broker closed connections that it had accepted, one after the other.
    closed: VecDeque<Instant>,
}

impl History {
    fn new(proved_after: Duration) -> Self {
        Self {
            proved_after,
            waits: BackOff::new(),
            lost_line: ThrottledLog::new(LINE_INTERVAL),
            connected_line: ThrottledLog::new(LINE_INTERVAL),
            twin_line: ThrottledLog::new(CLOSED_WITHIN),
            held_up_line: ThrottledLog::new(CLOSED_WITHIN),
            closed: VecDeque::new(),
        }
    }

    /// Notes the end of a connection. Returns whether the pattern is that of two boards with one id: each connects, and the
    /// broker closes the other one's connection (MQTT 3.1.1, 3.1.4).
    fn lost(&mut self, lost: &Lost, waiting: u64, now: Instant) -> bool {
        let twin = self.looks_like_two(lost, now);
        let stood = lost.stood.is_some_and(|stood| stood >= self.proved_after);
        // Where no reading waits, none can be acknowledged: a board of outputs, say.
        let served = lost.acknowledged > 0 || waiting == 0;
        // Of two boards with one id each ends the other's connection: what one proves is no reason to come back soon.
        if !twin && ((stood && served) || lost.acknowledged >= PROVED_BY_READINGS) {
            self.waits.reset();
        }
        twin
    }

    fn looks_like_two(&mut self, lost: &Lost, now: Instant) -> bool {
        // A broker that is away in between is one that restarts.
        if !lost.closed || lost.stood.is_none() {
            self.closed.clear();
            return false;
        }
        self.closed.push_back(now);
        self.closed.retain(|at| *at + CLOSED_WITHIN > now);
        self.closed.len() >= CLOSED_CONNECTIONS
    }

    /// The wait before the next connection. A connection that stood and that the node itself ended, to send something again,
    /// is replaced at once: the broker is there, and commands would not arrive meanwhile. Its own time bounds the pace.
    fn next_wait(&mut self, lost: &Lost) -> Duration {
        if lost.ended_by == EndedBy::Node
            && lost.stood.is_some_and(|stood| stood >= self.proved_after)
        {
            return self.waits.at_once(REPLACED_WITHIN);
        }
        self.waits.next_wait()
    }
}

impl Session {
    /// Delivers until `shutdown`, across any number of connections.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        let mut history = History::new(self.publishing.times.proved_after);
        loop {
            let lost = match self.connection(&history.connected_line, &mut shutdown).await {
                End::Shutdown => return,
                End::Lost(lost) => lost,
            };
            let now = Instant::now();
            let waiting = self.publishing.outbox.depth();
            let twin = history.lost(&lost, waiting, now);
            self.publishing.vitals.lost(&lost.reason, lost.rejected);
            if let Some(left_out) = history.lost_line.due(now.into_std()) {
                warn!(broker = %self.broker, waiting, left_out, "{}; readings wait in the outbox", lost.reason);
            }
            self.publishing.vitals.twin(twin);
            if twin && history.twin_line.due(now.into_std()).is_some() {
                warn!(
                    node = %self.node,
                    "the broker accepts connections and closes them: does another board have the id `{}` too? Give each board its own HUMIDOR_NODE; the broker's log may say more",
                    self.node
                );
            }
            let subscriptions = &mut self.publishing.subscriptions;
            if let Some(filter) =
                lost.held_up_by.as_deref().and_then(|topic| subscriptions.hold_up(topic, now))
                && let Some(left_out) = history.held_up_line.due(now.into_std())
            {
                warn!(
                    filter,
                    left_out,
                    "messages of this subscription keep everything else from arriving: it is left out, and tried again from time to time; its messages do not arrive"
                );
            }
            let stood = lost.stood.is_some_and(|stood| stood >= history.proved_after);
            self.publishing.subscribe_first =
                stood && lost.ended_by == EndedBy::Node && lost.held_up_by.is_none();
            if let Some(filter) = subscriptions.ended(lost.ended_by, stood, now) {
                warn!(
                    filter,
                    "the broker ends the connection at this subscription: it is left out, and tried again from time to time; its messages do not arrive"
                );
            }
            self.publishing.vitals.refused(self.publishing.subscriptions.missing(now));
            tokio::select! {
                () = sleep(history.next_wait(&lost)) => {}
                () = shutdown.requested() => return,
            }
        }
    }

    fn options(&self, tunnel: &Tunnel) -> MqttOptions {
        let password = self.password.as_deref();
        let mut options = client::options(&self.node, &self.broker, password, tunnel);
        let status = NodeTopics::new(self.node.clone()).status();
        options
            .set_keep_alive(self.keep_alive)
            .set_inflight(PACKET_IDS)
            .set_last_will(LastWill::new(status, OFFLINE, QoS::AtLeastOnce, true));
        options
    }

    /// One connection, from CONNECT to its end.
    async fn connection(&mut self, connected_line: &ThrottledLog, shutdown: &mut Shutdown) -> End {
        let tunnel = tokio::select! {
            opened = Tunnel::open(self.tls.as_ref(), &self.broker) => match opened {
                Ok(tunnel) => tunnel,
                Err(error) => {
                    let reason = format!("no connection to the broker: {error}");
                    return End::Lost(Lost::before(reason));
                }
            },
            () = shutdown.requested() => return End::Shutdown,
        };
        let options = self.options(&tunnel);
        let (client, mut events) = AsyncClient::new(options, READINGS_IN_FLIGHT + OTHER_REQUESTS);
        let traffic = Arc::clone(&tunnel.traffic);
        let mut publisher = Publisher::new(client, traffic, &mut self.publishing);
        let delivery = Delivery { broker: &self.broker, connected_line, health: &*self.health };
        let outcome = delivery.run(&mut events, &mut publisher, shutdown).await;
        // Readings acknowledged before the end must not be sent again.
        publisher.remove_acknowledged().await;
        let stood = publisher.since().map(|since| since.elapsed());
        let acknowledged = publisher.readings_acknowledged();
        drop((events, publisher));
        let stream_error = tunnel.close().await;
        let error = match outcome {
            Ok(()) => return End::Shutdown,
            Err(error) => error,
        };
        let ended_by = match &error {
            PublishError::Connection(error) => match **error {
                ConnectionError::MqttState(StateError::AwaitPingResp) => EndedBy::Silence,
                _ => EndedBy::Broker,
            },
            _ => EndedBy::Node,
        };
        let held_up_by = match &error {
            PublishError::HeldUp { topic, .. } => Some(topic.clone()),
            _ => None,
        };
        let rejected =
            matches!(&error, PublishError::Connection(error) if client::is_refusal(error));
        let (reason, closed) = match (error, stream_error) {
            (PublishError::Connection(_), Some(error)) => {
                let connected = if stood.is_some() {
                    "connection to the broker lost"
                } else {
                    "no connection to the broker"
                };
                (format!("{connected}: {error}"), error.is_end())
            }
            (PublishError::Connection(error), None) => {
                let aborted = ConnectionError::MqttState(StateError::ConnectionAborted);
                let closed = error.to_string() == aborted.to_string();
                (client::reason(&error, &self.node, &self.broker), closed)
            }
            (error, _) => (error.to_string(), false),
        };
        End::Lost(Lost { reason, stood, acknowledged, ended_by, closed, held_up_by, rejected })
    }
}

/// Delivery over one connection.
struct Delivery<'a> {
    broker: &'a BrokerAddress,
    connected_line: &'a ThrottledLog,
    health: &'a (dyn Fn() -> Health + Send + Sync),
}

impl Delivery<'_> {
    async fn run(
        &self,
        events: &mut EventLoop,
        publisher: &mut Publisher<'_>,
        shutdown: &mut Shutdown,
    ) -> Result<(), PublishError> {
        let mut health = interval(HEALTH_INTERVAL);
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (outbox, switches) = publisher.sources();
        loop {
            let event = {
                // Kept across the other branches: dropping a poll half-way could lose what it read.
                let mut poll = pin!(events.poll());
                loop {
                    let (connected, open) = (publisher.since().is_some(), publisher.is_open());
                    tokio::select! {
                        event = &mut poll => break Some(event?),
                        () = outbox.changed(), if connected => publisher.publish_readings().await?,
                        () = switches.changed(), if open => publisher.publish_states()?,
                        _ = health.tick(), if open => publisher.publish_health(&(self.health)())?,
                        _ = tick.tick(), if connected => {
                            // The last line on the connection is that there is one.
                            if let Some(left_out) = self.connected_line.overdue(std::time::Instant::now()) {
                                info!(broker = %self.broker, waiting = outbox.depth(), left_out, "connected");
                            }
                            publisher.tick().await?;
                            // At most once a second: a line that comes and goes is no stream of messages.
                            if publisher.is_open() && switches.take_faults_changed() {
                                publisher.publish_health(&(self.health)())?;
                            }
                        }
                        () = shutdown.requested() => {
                            if !connected {
                                return Ok(());
                            }
                            break None;
                        }
                    }
                }
            };
            match event {
                None => return self.close(events, publisher).await,
                Some(Event::Incoming(Packet::ConnAck(_))) => {
                    if let Some(left_out) = self.connected_line.due(std::time::Instant::now()) {
                        info!(broker = %self.broker, waiting = outbox.depth(), left_out, "connected");
                    }
                    publisher.accepted().await?;
                }
                Some(event) => publisher.handle_event(&event).await?,
            }
        }
    }

    /// Drains the outbox as far as time allows, publishes `offline`, disconnects.
    async fn close(
        &self,
        events: &mut EventLoop,
        publisher: &mut Publisher<'_>,
    ) -> Result<(), PublishError> {
        publisher.closing();
        let drain = async {
            publisher.publish_readings().await?;
            while publisher.has_readings_in_flight() {
                let event = events.poll().await?;
                publisher.handle_event(&event).await?;
            }
            Ok::<_, PublishError>(())
        };
        if let Ok(drained) = timeout(DRAIN_TIMEOUT, drain).await {
            drained?;
        } else {
            info!(
                waiting = publisher.sources().0.depth(),
                "stopping before the outbox is empty; the next start sends the rest"
            );
        }
        publisher.publish_offline(&(self.health)())?;
        let disconnect = async {
            while publisher.has_others_in_flight() {
                let event = events.poll().await?;
                publisher.handle_event(&event).await?;
            }
            publisher.disconnect()?;
            loop {
                if let Event::Outgoing(Outgoing::Disconnect) = events.poll().await? {
                    return Ok::<_, PublishError>(());
                }
            }
        };
        // Without an answer the connection ends all the same, and the broker publishes the will.
        timeout(CLOSE_TIMEOUT, disconnect).await.unwrap_or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(stood: Option<u64>, acknowledged: u64, closed: bool) -> Lost {
        let stood = stood.map(Duration::from_secs);
        Lost {
            reason: String::new(),
            stood,
            acknowledged,
            ended_by: EndedBy::Broker,
            closed,
            held_up_by: None,
            rejected: false,
        }
    }

    #[test]
    fn two_boards_with_one_id_come_back_ever_more_slowly() {
        let (mut history, start) = (History::new(Duration::from_secs(10)), Instant::now());
        let mut twin = false;
        for n in 0..9 {
            twin = history.lost(&lost(Some(20), 50, true), 0, start + Duration::from_secs(n));
            history.waits.next_wait();
        }
        assert!(twin && history.waits.next_wait() >= Duration::from_secs(8));
    }

    #[test]
    fn only_a_connection_that_proved_itself_makes_the_next_wait_short() {
        let short = |lost: &Lost| {
            let mut history = History::new(Duration::from_secs(10));
            for _ in 0..9 {
                history.waits.next_wait();
            }
            history.lost(lost, 1, Instant::now());
            history.waits.next_wait() <= Duration::from_secs(2)
        };
        for (stood, acknowledged, proved) in [
            (None, 0, false),
            (Some(1), 1, false),
            (Some(60), 0, false),
            (Some(10), 1, true),
            (Some(1), PROVED_BY_READINGS, true),
        ] {
            assert_eq!(short(&lost(stood, acknowledged, true)), proved, "{stood:?} {acknowledged}");
        }
        let mut history = History::new(Duration::from_secs(10));
        for _ in 0..9 {
            history.waits.next_wait();
        }
        history.lost(&lost(Some(60), 0, true), 0, Instant::now());
        assert!(history.waits.next_wait() <= Duration::from_secs(2), "no reading waited");
    }

    #[test]
    fn closed_connections_in_a_row_look_like_two_boards_and_a_restarting_broker_does_not() {
        let (mut history, start) = (History::new(Duration::from_secs(10)), Instant::now());
        let closed = lost(Some(3), 1, true);
        assert!(!history.lost(&closed, 1, start) && !history.lost(&closed, 1, start));
        assert!(history.lost(&closed, 1, start) && history.lost(&closed, 1, start));
        history.lost(&lost(None, 0, false), 1, start);
        assert!(!history.lost(&closed, 1, start) && !history.lost(&closed, 1, start));
        assert!(!history.lost(&closed, 1, start + CLOSED_WITHIN), "too long ago");
    }
}

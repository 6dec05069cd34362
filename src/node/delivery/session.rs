//! The MQTT session: one connection to the broker after the other, each delivering from the outbox.
//!
//! rumqttc keeps pending publishes of its own across reconnects, and clears them when the broker starts a new session.
//! The outbox already has every reading that is not acknowledged, so each connection gets a fresh client and starts
//! again from the outbox's head.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS,
    StateError,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info, warn};

use super::back_off::BackOff;
use super::client;
use super::history::{History, Lost};
use super::inflight::READINGS_IN_FLIGHT;
use super::login_trial::LoginTrial;
use super::publish::{PublishError, Publisher};
use super::publishing::Publishing;
use super::selection::{Outcome, Selection};
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
/// Pause between two looks at what is due.
const TICK: Duration = Duration::from_secs(1);

/// Everything that a session needs.
pub struct Session {
    /// This node.
    pub node: Id,
    /// Its brokers.
    pub selection: Selection,
    /// Password, where the address names a user.
    pub password: Option<String>,
    /// Where an address asks for TLS.
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
    /// The preferred broker admits the node again.
    GoBack,
    /// The connection broke, or was never made.
    Lost(Lost),
}

/// How a connection ended that did not break.
enum Closed {
    /// Shutdown was requested.
    Shutdown,
    /// The preferred broker admits the node again.
    GoBack,
}

impl Session {
    /// Delivers until `shutdown`, across any number of connections.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        let mut history = History::new(self.publishing.times.proved_after);
        loop {
            let lost = match self.connection(&history.connected_line, &mut shutdown).await {
                End::Shutdown => return,
                End::GoBack => {
                    self.publishing.vitals.ended();
                    self.selection.go_back();
                    info!(broker = %self.selection.current(), "going back to the preferred broker");
                    continue;
                }
                End::Lost(lost) => lost,
            };
            let now = Instant::now();
            let waiting = self.publishing.outbox.depth();
            let outcome = history.lost(&lost, waiting, now);
            let twin = outcome == Outcome::Twin;
            self.publishing.vitals.lost(&lost.reason, lost.rejected);
            let broker = self.selection.current().clone();
            let soon = self.selection.ended(outcome);
            if let Some(left_out) = history.lost_line.due(now.into_std()) {
                warn!(%broker, waiting, left_out, "{}; readings wait in the outbox", lost.reason);
            }
            let next = self.selection.current();
            if *next != broker && history.next_line.due(now.into_std()).is_some() {
                info!(broker = %next, "trying another broker");
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
                () = sleep(history.next_wait(&lost, soon)) => {}
                () = shutdown.requested() => return,
            }
        }
    }

    fn options(&self, broker: &BrokerAddress, tunnel: &Tunnel) -> MqttOptions {
        let password = self.password.as_deref();
        let mut options = client::options(&self.node, broker, password, tunnel);
        let status = NodeTopics::new(self.node.clone()).status();
        options
            .set_keep_alive(self.keep_alive)
            .set_inflight(PACKET_IDS)
            .set_last_will(LastWill::new(status, OFFLINE, QoS::AtLeastOnce, true));
        options
    }

    /// Waits until the preferred broker admits this node again; for ever at the preferred one.
    fn preferred(&self) -> impl Future<Output = ()> + use<> {
        let trial = self.selection.preferred().map(|(broker, after)| {
            let trial = LoginTrial {
                node: self.node.clone(),
                broker: broker.clone(),
                password: self.password.clone(),
                tls: self.tls.clone(),
            };
            (trial, after)
        });
        async move {
            let Some((trial, after)) = trial else { return pending().await };
            loop {
                // A hall of boards does not go back at the same instant.
                sleep(after + BackOff::new().at_once(after)).await;
                match trial.run().await {
                    Ok(()) => return,
                    Err(reason) => debug!(broker = %trial.broker, reason, "not back yet"),
                }
            }
        }
    }

    /// One connection, from CONNECT to its end.
    async fn connection(&mut self, connected_line: &ThrottledLog, shutdown: &mut Shutdown) -> End {
        let broker = self.selection.current().clone();
        if self.selection.is_choice() {
            self.publishing.vitals.selected(broker.to_string());
        }
        let tunnel = tokio::select! {
            opened = Tunnel::open(self.tls.as_ref(), &broker) => match opened {
                Ok(tunnel) => tunnel,
                Err(error) => {
                    let reason = format!("no connection to the broker: {error}");
                    return End::Lost(Lost::before(reason));
                }
            },
            () = shutdown.requested() => return End::Shutdown,
        };
        let options = self.options(&broker, &tunnel);
        let preferred = self.preferred();
        let (client, mut events) = AsyncClient::new(options, READINGS_IN_FLIGHT + OTHER_REQUESTS);
        let traffic = Arc::clone(&tunnel.traffic);
        let mut publisher = Publisher::new(client, traffic, &mut self.publishing);
        let delivery = Delivery { broker: &broker, connected_line, health: &*self.health };
        let outcome = delivery.run(&mut events, &mut publisher, preferred, shutdown).await;
        // Readings acknowledged before the end must not be sent again.
        publisher.remove_acknowledged().await;
        let stood = publisher.since().map(|since| since.elapsed());
        let acknowledged = publisher.readings_acknowledged();
        drop((events, publisher));
        let stream_error = tunnel.close().await;
        let error = match outcome {
            Ok(Closed::Shutdown) => return End::Shutdown,
            Ok(Closed::GoBack) => return End::GoBack,
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
                (client::reason(&error, &self.node, &broker), client::is_closed(&error))
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
        preferred: impl Future<Output = ()>,
        shutdown: &mut Shutdown,
    ) -> Result<Closed, PublishError> {
        let mut preferred = pin!(preferred);
        let mut health = interval(HEALTH_INTERVAL);
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (outbox, switches) = publisher.sources();
        // As the broker's page shows it until the next health message.
        let mut told_waiting = 0;
        loop {
            let event = {
                // Kept across the other branches: dropping a poll half-way could lose what it read.
                let mut poll = pin!(events.poll());
                loop {
                    let (connected, open) = (publisher.since().is_some(), publisher.is_open());
                    tokio::select! {
                        event = &mut poll => break Ok(event?),
                        () = outbox.changed(), if connected => publisher.publish_readings().await?,
                        () = switches.changed(), if open => publisher.publish_states()?,
                        _ = health.tick(), if open => {
                            let health = (self.health)();
                            told_waiting = health.outbox;
                            publisher.publish_health(&health)?;
                        }
                        _ = tick.tick(), if connected => {
                            // The last line on the connection is that there is one.
                            if let Some(left_out) = self.connected_line.overdue(std::time::Instant::now()) {
                                info!(broker = %self.broker, waiting = outbox.depth(), left_out, "connected");
                            }
                            publisher.tick().await?;
                            // At most once a second: a line that comes and goes is no stream of messages. A queue is
                            // told to be empty once for each time that it was told not to be.
                            let is_drained = told_waiting > 0 && outbox.depth() == 0;
                            if publisher.is_open() && (switches.take_faults_changed() || is_drained) {
                                let health = (self.health)();
                                told_waiting = health.outbox;
                                publisher.publish_health(&health)?;
                            }
                        }
                        () = &mut preferred, if open => break Err(Closed::GoBack),
                        () = shutdown.requested() => {
                            if !connected {
                                return Ok(Closed::Shutdown);
                            }
                            break Err(Closed::Shutdown);
                        }
                    }
                }
            };
            match event {
                Err(why) => return self.close(events, publisher).await.map(|()| why),
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    if let Some(left_out) = self.connected_line.due(std::time::Instant::now()) {
                        info!(broker = %self.broker, waiting = outbox.depth(), left_out, "connected");
                    }
                    publisher.accepted().await?;
                }
                Ok(event) => publisher.handle_event(&event).await?,
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

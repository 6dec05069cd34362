//! The MQTT session: one connection to the broker after the other, each delivering from the outbox.
//!
//! rumqttc keeps pending publishes of its own across reconnects, and clears them when the broker starts a new session.
//! The outbox already has every reading that is not acknowledged, so each connection gets a fresh client and starts
//! again from the outbox's head.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::client;
use super::inflight::READINGS_IN_FLIGHT;
use super::outbox::Outbox;
use super::publish::{PublishError, Publisher};
use super::tunnel::Tunnel;
use crate::node::address::BrokerAddress;
use crate::node::config::{HEALTH_INTERVAL, TlsFiles};
use crate::node::discovery::DiscoveryMessage;
use crate::node::io::switches::Switches;
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::wire::{Health, NodeTopics, OFFLINE};

/// Room in the client for what is no reading: status, health, two subscriptions, discovery and the states of switches.
const OTHER_REQUESTS: usize = 32;
/// First and longest wait before a reconnect. Jitter keeps a hall of boards from reconnecting at the same instant.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));
/// Longest time for draining the outbox at the end of the process.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time for `offline` and DISCONNECT after that.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two warnings that there is no connection.
const WARNING_INTERVAL: Duration = Duration::from_mins(1);

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
    /// The readings to deliver.
    pub outbox: Arc<Outbox>,
    /// The states to publish, and the receiver of commands.
    pub switches: Arc<Switches>,
    /// Whether there are outputs to command.
    pub commanded: bool,
    /// The message for Home Assistant.
    pub discovery: Option<DiscoveryMessage>,
    /// Silence after which the broker is pinged.
    pub keep_alive: Duration,
    /// Composes the health message.
    pub health: Box<dyn Fn() -> Health + Send + Sync>,
}

/// The end of one connection.
enum End {
    /// Shutdown was requested.
    Shutdown,
    /// The connection broke, or was never made.
    Lost { reason: String, connected: bool },
}

impl Session {
    /// Delivers until `shutdown`, across any number of connections.
    pub async fn run(&self, mut shutdown: Shutdown) {
        let mut waits = back_off();
        let mut warned: Option<Instant> = None;
        loop {
            let (reason, connected) = match self.connection(&mut shutdown).await {
                End::Shutdown => return,
                End::Lost { reason, connected } => (reason, connected),
            };
            if connected {
                waits = back_off();
                warned = None;
            }
            if warned.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
                warned = Some(Instant::now());
                warn!(broker = %self.broker, waiting = self.outbox.depth(), "{reason}; readings wait in the outbox");
            }
            let wait = waits.next().unwrap_or(BACK_OFF.1);
            tokio::select! {
                () = sleep(wait) => {}
                () = shutdown.requested() => return,
            }
        }
    }

    fn options(&self, tunnel: Option<&Tunnel>) -> MqttOptions {
        let mut options =
            client::options(&self.node, &self.broker, self.password.as_deref(), tunnel);
        let status = NodeTopics::new(self.node.clone()).status();
        options
            .set_keep_alive(self.keep_alive)
            .set_inflight(u16::try_from(READINGS_IN_FLIGHT + OTHER_REQUESTS).unwrap_or(u16::MAX))
            .set_last_will(LastWill::new(status, OFFLINE, QoS::AtLeastOnce, true));
        options
    }

    /// One connection, from CONNECT to its end.
    async fn connection(&self, shutdown: &mut Shutdown) -> End {
        let tunnel = match &self.tls {
            None => None,
            Some(files) => tokio::select! {
                opened = Tunnel::open(files, &self.broker) => match opened {
                    Ok(tunnel) => Some(tunnel),
                    Err(error) => {
                        let reason = format!("no connection to the broker: {error}");
                        return End::Lost { reason, connected: false };
                    }
                },
                () = shutdown.requested() => return End::Shutdown,
            },
        };
        let options = self.options(tunnel.as_ref());
        let (client, mut events) = AsyncClient::new(options, READINGS_IN_FLIGHT + OTHER_REQUESTS);
        events.network_options.set_tcp_nodelay(true);
        let mut publisher = Publisher::new(
            client,
            NodeTopics::new(self.node.clone()),
            Arc::clone(&self.outbox),
            Arc::clone(&self.switches),
            self.discovery.clone(),
        );
        let mut connected = false;
        let outcome = self.deliver(&mut events, &mut publisher, &mut connected, shutdown).await;
        // Readings acknowledged before the end must not be sent again.
        publisher.remove_acknowledged().await;
        drop((events, publisher));
        let tls_error = match tunnel {
            Some(tunnel) => tunnel.close().await,
            None => None,
        };
        match outcome {
            Ok(()) => End::Shutdown,
            Err(PublishError::Connection(error)) => {
                let reason = match tls_error {
                    Some(error) if connected => format!("connection to the broker lost: {error}"),
                    Some(error) => format!("no connection to the broker: {error}"),
                    None => client::reason(&error, &self.node, &self.broker),
                };
                End::Lost { reason, connected }
            }
            Err(error) => End::Lost { reason: error.to_string(), connected },
        }
    }

    async fn deliver(
        &self,
        events: &mut EventLoop,
        publisher: &mut Publisher,
        connected: &mut bool,
        shutdown: &mut Shutdown,
    ) -> Result<(), PublishError> {
        let mut health = interval(HEALTH_INTERVAL);
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = {
                // Kept across the other branches: dropping a poll half-way could lose what it read.
                let mut poll = pin!(events.poll());
                loop {
                    tokio::select! {
                        event = &mut poll => break Some(event?),
                        () = self.outbox.changed(), if *connected => publisher.publish_readings().await?,
                        () = self.switches.changed(), if *connected => publisher.publish_states()?,
                        _ = health.tick(), if *connected => publisher.publish_health(&(self.health)())?,
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
                None => return self.close(events, publisher).await,
                Some(Event::Incoming(Packet::ConnAck(_))) => {
                    *connected = true;
                    info!(broker = %self.broker, waiting = self.outbox.depth(), "connected");
                    publisher.connected(self.commanded).await?;
                }
                Some(event) => publisher.handle_event(&event).await?,
            }
        }
    }

    /// Drains the outbox as far as time allows, publishes `offline`, disconnects.
    async fn close(
        &self,
        events: &mut EventLoop,
        publisher: &mut Publisher,
    ) -> Result<(), PublishError> {
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
                waiting = self.outbox.depth(),
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

fn back_off() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(BACK_OFF.0)
        .with_max_delay(BACK_OFF.1)
        .with_jitter()
        .without_max_times()
        .build()
}

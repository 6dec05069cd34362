//! The MQTT session: one connection to the broker after the other, each delivering what the outbox holds.
//!
//! rumqttc keeps pending publishes of its own across reconnects, and clears them when the broker
//! starts a new session. Both are in the way of an outbox that *is* the truth, so every connection
//! gets a fresh client and starts again from the outbox's head.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS, Transport,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::inflight::WINDOW;
use super::outbox::Outbox;
use super::publish::{Delivery, DeliveryError};
use super::tunnel::Tunnel;
use crate::node::address::BrokerAddress;
use crate::node::config::{HEALTH_INTERVAL, TlsFiles};
use crate::node::discovery::Announcement;
use crate::node::io::switches::Switches;
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::wire::{CLIENT_ID_PREFIX, Health, NodeTopics, OFFLINE, ONLINE};

/// Room for what is not a reading: status, health, two subscriptions, the announcement and the states of switches.
const EXTRA: usize = 32;
/// First and longest wait before a reconnect; the jitter keeps a hall of boards from coming back at
/// the same instant.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));
/// Largest packet from the broker: commands and a word from Home Assistant.
const PACKET_IN_MAX_BYTES: usize = 64 * 1024;
/// Largest packet to the broker: the announcement of forty sensors, inputs and outputs with the longest names. A
/// test holds it against this; usual ones have 4 KiB.
pub(in crate::node) const PACKET_OUT_MAX_BYTES: usize = 128 * 1024;
/// How long the end of the process may wait for the outbox to drain, and then for the farewell.
const DRAIN: Duration = Duration::from_secs(3);
const FAREWELL: Duration = Duration::from_secs(2);
/// A broker that stays away is mentioned again this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

/// What a session needs.
pub struct Session {
    /// This node.
    pub node: Id,
    /// Its broker.
    pub broker: BrokerAddress,
    /// Password, where the address names a user.
    pub password: Option<String>,
    /// Where the address asks for TLS.
    pub tls: Option<TlsFiles>,
    /// What to deliver.
    pub outbox: Arc<Outbox>,
    /// States to publish, and where commands go.
    pub switches: Arc<Switches>,
    /// Whether there are outputs to command.
    pub commanded: bool,
    /// What to tell Home Assistant.
    pub announcement: Option<Announcement>,
    /// Seconds of silence after which either side asks.
    pub keep_alive: Duration,
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

    fn options(&self, tunnel: Option<&Tunnel>) -> MqttOptions {
        let name = format!("{CLIENT_ID_PREFIX}{}", self.node);
        let mut options = options(name, &self.broker, self.password.as_deref(), tunnel);
        let status = NodeTopics::new(self.node.clone()).status();
        options
            .set_keep_alive(self.keep_alive)
            .set_inflight(u16::try_from(WINDOW + EXTRA).unwrap_or(u16::MAX))
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
                    Err(error) => return End::Lost { cause: error.to_string(), connected: false },
                },
                () = shutdown.requested() => return End::Farewell,
            },
        };
        let options = self.options(tunnel.as_ref());
        let (client, mut events) = AsyncClient::new(options, WINDOW + EXTRA);
        events.network_options.set_tcp_nodelay(true);
        let mut delivery = Delivery::new(
            client,
            NodeTopics::new(self.node.clone()),
            Arc::clone(&self.outbox),
            Arc::clone(&self.switches),
            self.announcement.clone(),
        );
        let mut connected = false;
        let outcome = self.deliver(&mut events, &mut delivery, &mut connected, shutdown).await;
        // What was acknowledged before the end must not be sent again needlessly.
        delivery.forget().await;
        drop((events, delivery));
        if let Some(tunnel) = tunnel {
            tunnel.close().await;
        }
        match outcome {
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
                        () = self.switches.changed(), if *connected => delivery.say_states()?,
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
                    self.switches.packet_received();
                    // Every broker is taken for one that has forgotten. Commands are heard before `online` is said:
                    // whoever waits for that may command at once.
                    if self.commanded {
                        let commands = delivery.topics.commands();
                        delivery.client.try_subscribe(commands, QoS::AtLeastOnce)?;
                    }
                    if let Some(announcement) = &self.announcement {
                        delivery.client.try_subscribe(&announcement.birth, QoS::AtMostOnce)?;
                    }
                    delivery.say(delivery.topics.status(), ONLINE.into(), true)?;
                    self.switches.republish_all();
                    delivery.say_states()?;
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
        delivery.say_states()?;
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

/// What every connection to the broker has.
pub(in crate::node) fn options(
    name: String,
    broker: &BrokerAddress,
    password: Option<&str>,
    tunnel: Option<&Tunnel>,
) -> MqttOptions {
    let host = tunnel.map_or(&broker.host, |tunnel| &tunnel.entrance);
    let mut options = MqttOptions::new(name, host.clone(), broker.port);
    if tunnel.is_some() {
        options.set_transport(Transport::unix());
    }
    options.set_max_packet_size(PACKET_IN_MAX_BYTES, PACKET_OUT_MAX_BYTES);
    if let Some(user) = &broker.user {
        options.set_credentials(user, password.unwrap_or_default());
    }
    options
}

fn back_off() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(BACK_OFF.0)
        .with_max_delay(BACK_OFF.1)
        .with_jitter()
        .without_max_times()
        .build()
}

//! `humidor node --forget`: deletes the retained messages of a node from its broker, for a board that will not come back
//! under its name.

use std::collections::BTreeSet;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, Packet, QoS, SubscribeReasonCode};
use tokio::time::timeout;

use super::address::BrokerAddress;
use super::config::TlsFiles;
use super::delivery::client;
use super::delivery::login_trial::LOGIN_TIMEOUT;
use super::delivery::tunnel::Tunnel;
use crate::reading::Id;
use crate::wire::{Discovery, NodeTopics, ONLINE, node_device_id};

/// Longest wait for any answer of the broker; the first one is that to the login.
const ANSWER_TIMEOUT: Duration = LOGIN_TIMEOUT;
/// Retained messages have no end mark: after this long without another one, all have come.
const QUIET: Duration = Duration::from_secs(1);
/// Most retained topics deleted in one run; [`Forgotten::more`] says when there are others.
const TOPICS_MAX: usize = 256;
/// Room in the client for the subscriptions beside the publishes.
const OTHER_REQUESTS: usize = 8;

/// The node to forget, and its broker.
#[derive(Debug, Clone)]
pub struct Forget {
    /// The node.
    pub node: Id,
    /// Its broker.
    pub broker: BrokerAddress,
    /// Password, where the address names a user.
    pub password: Option<String>,
    /// Where the address asks for TLS.
    pub tls: Option<TlsFiles>,
    /// Where Home Assistant looks for devices; `None` leaves it alone.
    pub discovery: Option<Discovery>,
}

/// The outcome.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// The deleted topics.
    pub topics: BTreeSet<String>,
    /// Whether the node's status was `online`.
    pub online: bool,
    /// Whether there were more than one run deletes.
    pub more: bool,
}

/// The reason why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The connection broke, or was refused.
    #[error("{broker}: {cause}; if the node still runs, stop it first")]
    Connection {
        /// The broker.
        broker: BrokerAddress,
        /// The reason.
        cause: String,
    },
    /// No answer in time.
    #[error("{broker} does not answer within {ANSWER_TIMEOUT:?}")]
    Silent {
        /// The broker.
        broker: BrokerAddress,
    },
}

impl Forget {
    /// Finds the retained messages of the node and deletes each with an empty retained message.
    ///
    /// # Errors
    /// [`ForgetError`]. Messages deleted before the error stay deleted.
    pub async fn run(&self) -> Result<Forgotten, ForgetError> {
        let opened = Tunnel::open(self.tls.as_ref(), &self.broker).await;
        let tunnel = opened.map_err(|error| self.failed(error.to_string()))?;
        let password = self.password.as_deref();
        let options = client::options(&self.node, &self.broker, password, &tunnel);
        let (client, mut events) = AsyncClient::new(options, TOPICS_MAX + OTHER_REQUESTS);
        events.network_options.set_connection_timeout(LOGIN_TIMEOUT.as_secs() + 1);
        let found = self.find(&client, &mut events).await?;
        self.delete(&found.topics, &client, &mut events).await?;
        Ok(found)
    }

    async fn find(
        &self,
        client: &AsyncClient,
        events: &mut EventLoop,
    ) -> Result<Forgotten, ForgetError> {
        let topics = NodeTopics::new(self.node.clone());
        let device = self.discovery.as_ref().map(|it| it.device(&node_device_id(&self.node)));
        let filters: Vec<String> =
            [topics.everything()].into_iter().chain(device.clone()).collect();
        for filter in &filters {
            let requested = client.try_subscribe(filter, QoS::AtLeastOnce);
            requested.map_err(|error| self.failed(error.to_string()))?;
        }
        let mut found = Forgotten::default();
        let mut granted = 0;
        loop {
            let event = if granted < filters.len() {
                self.answer(events).await?
            } else {
                match timeout(QUIET, events.poll()).await {
                    Ok(event) => event.map_err(|error| self.broken(&error))?,
                    Err(_) => return Ok(found),
                }
            };
            match event {
                Event::Incoming(Packet::SubAck(ack)) => {
                    match ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                        false => {}
                        // A board's user may write what Home Assistant reads, and need not see it.
                        true if granted > 0 => found.topics.extend(device.clone()),
                        true => {
                            let cause = "this user may not read the node's retained messages";
                            return Err(self.failed(cause.to_owned()));
                        }
                    }
                    granted += 1;
                }
                Event::Incoming(Packet::Publish(publish)) if publish.retain => {
                    if publish.topic == topics.status() {
                        found.online = publish.payload == ONLINE.as_bytes();
                    }
                    if found.topics.len() == TOPICS_MAX {
                        found.more = true;
                        return Ok(found);
                    }
                    found.topics.insert(publish.topic);
                }
                _ => {}
            }
        }
    }

    async fn delete(
        &self,
        topics: &BTreeSet<String>,
        client: &AsyncClient,
        events: &mut EventLoop,
    ) -> Result<(), ForgetError> {
        for topic in topics {
            let requested = client.try_publish(topic, QoS::AtLeastOnce, true, Vec::new());
            requested.map_err(|error| self.failed(error.to_string()))?;
        }
        let mut acknowledged = 0;
        while acknowledged < topics.len() {
            if let Event::Incoming(Packet::PubAck(_)) = self.answer(events).await? {
                acknowledged += 1;
            }
        }
        Ok(())
    }

    async fn answer(&self, events: &mut EventLoop) -> Result<Event, ForgetError> {
        match timeout(ANSWER_TIMEOUT, events.poll()).await {
            Ok(event) => event.map_err(|error| self.broken(&error)),
            Err(_) => Err(ForgetError::Silent { broker: self.broker.clone() }),
        }
    }

    fn broken(&self, error: &rumqttc::ConnectionError) -> ForgetError {
        self.failed(client::reason(error, &self.node, &self.broker))
    }

    fn failed(&self, cause: String) -> ForgetError {
        ForgetError::Connection { broker: self.broker.clone(), cause }
    }
}

//! `humidor node --forget`: takes back what a node left behind on its broker, for a board that will not come back
//! under its name.

use std::collections::BTreeSet;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, Packet, QoS, SubscribeReasonCode};
use tokio::time::timeout;

use super::address::BrokerAddress;
use super::config::TlsFiles;
use super::delivery::client;
use super::delivery::tunnel::Tunnel;
use crate::reading::Id;
use crate::wire::{Discovery, NodeTopics, node_device_id};

/// Longest that the broker may take to answer anything.
const ANSWER: Duration = Duration::from_secs(10);
/// Retained messages have no end mark: this long without another one, and all have come.
const QUIET: Duration = Duration::from_secs(1);
/// Retained topics that one node can have left, at most; what is more stays, and is said.
const TOPICS_MAX: usize = 256;

/// What to forget.
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
    /// Where it was announced.
    pub discovery: Option<Discovery>,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// The retained topics that are gone.
    pub topics: BTreeSet<String>,
    /// Whether the node's last word was `online`.
    pub online: bool,
    /// Whether there were more than could be taken in one go.
    pub more: bool,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The connection broke, or was refused.
    #[error("{broker}: {cause}; if the node still runs, stop it first")]
    Connection {
        /// Where.
        broker: BrokerAddress,
        /// What the client said.
        cause: String,
    },
    /// No answer in time.
    #[error("{broker} does not answer within {ANSWER:?}")]
    Silent {
        /// Where.
        broker: BrokerAddress,
    },
}

impl Forget {
    /// Finds what is retained of the node and deletes it with empty retained messages.
    ///
    /// # Errors
    /// [`ForgetError`]; what had been deleted until then is deleted.
    pub async fn run(&self) -> Result<Forgotten, ForgetError> {
        let tunnel = match &self.tls {
            Some(files) => Some(Tunnel::open(files, &self.broker).await.map_err(|error| {
                ForgetError::Connection { broker: self.broker.clone(), cause: error.to_string() }
            })?),
            None => None,
        };
        let password = self.password.as_deref();
        let options = client::options(&self.node, &self.broker, password, tunnel.as_ref());
        let (client, mut events) = AsyncClient::new(options, TOPICS_MAX + 8);
        let broken = |cause: String| ForgetError::Connection { broker: self.broker.clone(), cause };
        let silent = |_| ForgetError::Silent { broker: self.broker.clone() };

        let topics = NodeTopics::new(self.node.clone());
        let announced =
            self.discovery.as_ref().map(|found| found.device(&node_device_id(&self.node)));
        let filters: Vec<String> = [topics.everything()].into_iter().chain(announced).collect();
        for filter in &filters {
            let asked = client.try_subscribe(filter, QoS::AtLeastOnce);
            asked.map_err(|error| broken(error.to_string()))?;
        }

        let mut done = Forgotten::default();
        let mut granted = 0;
        loop {
            let patience = if granted < filters.len() { ANSWER } else { QUIET };
            let event = match timeout(patience, events.poll()).await {
                Ok(event) => event.map_err(|error| broken(error.to_string()))?,
                Err(_) if granted == filters.len() => break,
                Err(elapsed) => return Err(silent(elapsed)),
            };
            match event {
                Event::Incoming(Packet::SubAck(ack)) => {
                    if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                        return Err(broken("this user may not read what the node left".to_owned()));
                    }
                    granted += 1;
                }
                Event::Incoming(Packet::Publish(publish)) if publish.retain => {
                    if publish.topic == topics.status() {
                        done.online = publish.payload == crate::wire::ONLINE.as_bytes();
                    }
                    if done.topics.len() < TOPICS_MAX {
                        done.topics.insert(publish.topic);
                    } else {
                        done.more = true;
                        break;
                    }
                }
                _ => {}
            }
        }

        for topic in &done.topics {
            let said = client.try_publish(topic, QoS::AtLeastOnce, true, Vec::new());
            said.map_err(|error| broken(error.to_string()))?;
        }
        let mut acknowledged = 0;
        while acknowledged < done.topics.len() {
            let event = timeout(ANSWER, events.poll()).await.map_err(silent)?;
            if let Event::Incoming(Packet::PubAck(_)) =
                event.map_err(|error| broken(error.to_string()))?
            {
                acknowledged += 1;
            }
        }
        Ok(done)
    }
}

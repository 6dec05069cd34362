//! One connection to a broker as this node, for `humidor doctor` and before a node goes back to its preferred broker: whether
//! it is reached, and admits the node.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, LastWill, Outgoing, Packet, QoS};
use tokio::time::timeout;

use super::client;
use super::tunnel::{Tunnel, TunnelError};
use crate::node::address::BrokerAddress;
use crate::node::config::TlsFiles;
use crate::reading::Id;
use crate::wire::{NodeTopics, OFFLINE};

/// Longest wait for the broker's answer. A small broker checks one password at a time, each for a second or more, and answers
/// a wrong one late on purpose.
pub const LOGIN_TIMEOUT: Duration = Duration::from_mins(1);
/// Requests of the client: DISCONNECT.
const REQUESTS: usize = 1;

/// The connection to try. No node with this id may be connected there: the broker would end its connection.
#[derive(Debug, Clone)]
pub struct LoginTrial {
    /// The node.
    pub node: Id,
    /// Its broker.
    pub broker: BrokerAddress,
    /// Password, where the address names a user.
    pub password: Option<String>,
    /// Where the address asks for TLS.
    pub tls: Option<TlsFiles>,
}

impl LoginTrial {
    /// Connects with the node's own client id and will, which a broker may refuse, and disconnects.
    ///
    /// # Errors
    /// Why not, in the words of the node's log, and what to do.
    pub async fn run(&self) -> Result<(), String> {
        let opened = Tunnel::open(self.tls.as_ref(), &self.broker).await;
        let tunnel = opened.map_err(|error| unreached(&error))?;
        let password = self.password.as_deref();
        let mut options = client::options(&self.node, &self.broker, password, &tunnel);
        let status = NodeTopics::new(self.node.clone()).status();
        options.set_last_will(LastWill::new(status, OFFLINE, QoS::AtLeastOnce, true));
        let (client, mut events) = AsyncClient::new(options, REQUESTS);
        // The client's own limit is 5 s, and its words for it tell less.
        events.network_options.set_connection_timeout(LOGIN_TIMEOUT.as_secs() + 1);
        let exchange = async {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        client.try_disconnect().map_err(|error| error.to_string())?;
                    }
                    Ok(Event::Outgoing(Outgoing::Disconnect)) => return Ok(()),
                    Ok(_) => {}
                    Err(error) => return Err(client::reason(&error, &self.node, &self.broker)),
                }
            }
        };
        let answer = timeout(LOGIN_TIMEOUT, exchange).await;
        drop(events);
        let ended = tunnel.close().await;
        match (answer, ended) {
            (Ok(Ok(())), _) => Ok(()),
            (Ok(Err(_)), Some(error)) => Err(unreached(&error)),
            (Ok(Err(reason)), None) => Err(reason),
            (Err(_), _) => {
                Err(format!("the broker does not answer the login within {LOGIN_TIMEOUT:?}"))
            }
        }
    }
}

fn unreached(error: &TunnelError) -> String {
    let remedy = error.remedy().map_or_else(String::new, |remedy| format!("; {remedy}"));
    format!("no connection to the broker: {error}{remedy}")
}

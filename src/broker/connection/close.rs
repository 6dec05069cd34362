//! Why a connection ended, and what its client is told.

use rumqttc::v5::mqttbytes::v5::Disconnect;

use super::packet::PacketError;
use crate::broker::access::NotAdmitted;
use crate::broker::commit::writer::Stopped;
use crate::broker::net::admission::Full;
use crate::broker::session::inflight::UnexpectedAck;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    #[error("the client said goodbye")]
    Disconnect(Disconnect),
    #[error("the client closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Packet(#[from] PacketError),
    #[error("refused at CONNECT: {0}")]
    Refused(&'static str),
    #[error("not admitted: {0}")]
    NotAdmitted(#[from] NotAdmitted),
    #[error("{0}")]
    Full(#[from] Full),
    #[error("too slow to say who it is while others came")]
    Evicted,
    #[error("its user was changed")]
    Withdrawn,
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    #[error("PUBLISH to what is not a topic name")]
    TopicName,
    #[error("a topic alias that is not known or not allowed")]
    TopicAlias,
    #[error("more QoS 2 messages begun than the Receive Maximum")]
    ReceiveMaximum,
    #[error("{0}")]
    UnexpectedAck(#[from] UnexpectedAck),
    #[error("nothing heard for 1.5 × keep-alive")]
    Silent,
    #[error("the client takes nothing off its socket")]
    Stalled,
    #[error("its client id connected elsewhere")]
    TakenOver,
    #[error("the broker is stopping")]
    Stopping,
    #[error("{0}")]
    Store(#[from] Stopped),
    #[error("what waits for the session cannot be read: {0}")]
    Queued(#[from] rusqlite::Error),
}

impl End {
    /// What an MQTT 5.0 client is told (§3.14.2.1); `None` when nothing is to be said.
    pub const fn reason(&self) -> Option<u8> {
        Some(match self {
            Self::Disconnect(_)
            | Self::Closed
            | Self::Io(_)
            | Self::Refused(_)
            | Self::NotAdmitted(_)
            | Self::Full(_)
            | Self::Evicted
            | Self::Stalled => {
                return None;
            }
            Self::Packet(error) => error.reason(),
            Self::Protocol(_) | Self::UnexpectedAck(_) => 0x82,
            Self::TopicName => 0x90,
            Self::ReceiveMaximum => 0x93,
            Self::TopicAlias => 0x94,
            Self::Silent => 0x8d,
            Self::TakenOver => 0x8e,
            Self::Stopping => 0x8b,
            Self::Withdrawn => 0x98,
            Self::Store(_) | Self::Queued(_) => 0x83,
        })
    }

    /// Whether the client broke the protocol.
    pub const fn is_breach(&self) -> bool {
        matches!(
            self,
            Self::Packet(_)
                | Self::Protocol(_)
                | Self::UnexpectedAck(_)
                | Self::TopicName
                | Self::ReceiveMaximum
                | Self::TopicAlias
        )
    }
}

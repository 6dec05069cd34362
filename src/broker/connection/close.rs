//! The reasons why a connection ends, and the reason code that its client gets.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::broker::access::NotAdmitted;
use crate::broker::access::permissions::Owner;
use crate::broker::commit::group_commit::Stopped;
use crate::broker::net::admission::Full;
use crate::broker::session::inflight::UnexpectedAck;
use crate::mqtt::TopicError;
use crate::mqtt::codec::{CodecError, Disconnect, Reason};
use crate::throttled_log::ThrottledLogs;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    #[error("the client sent DISCONNECT")]
    Disconnect(Disconnect),
    #[error("the client closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Packet(#[from] CodecError),
    #[error("refused at CONNECT: {0}")]
    Refused(&'static str),
    #[error("not admitted: {0}")]
    NotAdmitted(#[from] NotAdmitted),
    #[error("{0}")]
    Full(#[from] Full),
    #[error("no whole CONNECT in time")]
    NoConnect,
    #[error("the session was not committed in time")]
    NotCommitted,
    #[error("evicted before its CONNECT for a new connection")]
    Evicted,
    #[error("its user or its rules have changed")]
    Withdrawn,
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    #[error("a topic alias that is not known or not allowed")]
    TopicAlias,
    #[error("more open QoS 2 messages than the Receive Maximum")]
    ReceiveMaximum,
    #[error("its user has its share of {0}")]
    Quota(&'static str),
    #[error("{0}")]
    UnexpectedAck(#[from] UnexpectedAck),
    #[error("no packet for 1.5 × keep-alive")]
    Silent,
    #[error("the client reads nothing from its socket")]
    Stalled,
    #[error("another connection took its client id over")]
    TakenOver,
    #[error("the broker is stopping")]
    Stopping,
    #[error("{0}")]
    Store(#[from] Stopped),
    #[error("cannot read the messages that wait for the session: {0}")]
    Queued(#[from] rusqlite::Error),
}

/// Interval of lines on the connections of one client that the broker closes.
const CLOSED_LINE_INTERVAL: Duration = Duration::from_mins(1);
static CLOSED_LINES: LazyLock<ThrottledLogs> =
    LazyLock::new(|| ThrottledLogs::new(CLOSED_LINE_INTERVAL));

impl End {
    /// Logs, throttled, that the broker closes a connection for what its client sends: it would do so again and again, and
    /// MQTT 3.1.1 tells the client nothing. `client` is the name of its session, where it has one.
    pub fn tell_operator(&self, peer: SocketAddr, client: Option<&str>) {
        let advice = match self {
            Self::Packet(CodecError::Topic(TopicError::Long)) => {
                "; let it publish to a shorter topic"
            }
            Self::Packet(CodecError::Topic(_)) => "; let it publish to another topic",
            Self::Packet(CodecError::TooLarge(_)) => "; let it send less at once",
            Self::Quota(_) => "",
            // Whoever has no session may be no client at all.
            _ if client.is_some() && self.is_breach() => "",
            _ => return,
        };
        let client = client.map(|client| Owner::of_session(client).to_string());
        let now = Instant::now();
        if let Some(left_out) = CLOSED_LINES.due((peer.ip(), &client), now) {
            let client = client.unwrap_or_default();
            warn!(%peer, client, left_out, "connection closed: {self}{advice}");
        }
    }

    /// Reason code of the DISCONNECT for an MQTT 5.0 client (§3.14.2.1); `None`: no DISCONNECT is sent.
    pub const fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::Disconnect(_)
            | Self::Closed
            | Self::Io(_)
            | Self::Refused(_)
            | Self::NotAdmitted(_)
            | Self::Full(_)
            | Self::NoConnect
            | Self::NotCommitted
            | Self::Evicted
            | Self::Stalled => {
                return None;
            }
            Self::Packet(error) => error.reason(),
            Self::Protocol(_) | Self::UnexpectedAck(_) => Reason::ProtocolError,
            Self::ReceiveMaximum => Reason::ReceiveMaximumExceeded,
            Self::TopicAlias => Reason::TopicAliasInvalid,
            Self::Quota(_) => Reason::QuotaExceeded,
            Self::Silent => Reason::KeepAliveTimeout,
            Self::TakenOver => Reason::SessionTakenOver,
            Self::Stopping => Reason::ServerShuttingDown,
            Self::Withdrawn => Reason::AdministrativeAction,
            Self::Store(_) | Self::Queued(_) => Reason::ImplementationSpecificError,
        })
    }

    /// Whether the broker ends the connection for a reason other than the client's packets, so that packets which have
    /// arrived are still to be read.
    pub const fn leaves_packets_unread(&self) -> bool {
        matches!(
            self,
            Self::Io(_)
                | Self::Withdrawn
                | Self::Silent
                | Self::Stalled
                | Self::TakenOver
                | Self::Stopping
        )
    }

    /// Whether the client broke the protocol.
    pub const fn is_breach(&self) -> bool {
        matches!(
            self,
            Self::Packet(_)
                | Self::Protocol(_)
                | Self::UnexpectedAck(_)
                | Self::ReceiveMaximum
                | Self::TopicAlias
        )
    }
}

//! The settings of the upstream database.

use std::fmt;
use std::path::PathBuf;

use super::address::UpstreamAddress;

/// A password that no debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledge {
    /// The reading is in the broker's log.
    Stored,
    /// It is in the broker's log and committed upstream.
    Upstream,
}

/// How the upstream database is reached.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its servers, user and database.
    pub address: UpstreamAddress,
    /// The user's password; `None` where the server wants none.
    pub password: Option<Secret>,
    /// Whether the connection uses TLS.
    pub tls: bool,
    /// File of the authorities that sign the servers' certificates; `None`: the system's.
    pub ca: Option<PathBuf>,
}

/// The settings of a broker that forwards.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// The database.
    pub target: Target,
    /// What an acknowledgement means.
    pub acknowledge: Acknowledge,
    /// Largest size of the queue in the log, in bytes of its entries.
    pub backlog_bytes: u64,
}

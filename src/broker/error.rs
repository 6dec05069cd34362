//! Why the broker did not start, or ended without being asked to.

use std::path::{Path, PathBuf};

use crate::accept::ListenError;
use crate::broker::access::AccessError;
use crate::store::{OpenError, is_damage, suspect};
use crate::tls::TlsError;

/// Why the broker did not start, or stopped without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The log could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The certificate or its key is missing or wrong.
    #[error("TLS")]
    Tls(#[from] TlsError),
    /// The authorities of the upstream database's certificate are missing or wrong.
    #[error("HUMIDOR_UPSTREAM_CA")]
    Upstream(#[source] TlsError),
    /// The users, or the settings of access, are wrong.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// It was asked to end while it opened the log. This is no failure.
    #[error("stopped before the log was open")]
    Stopped,
    /// The log's file is damaged.
    #[error("the log is damaged: {0}; at the next start it is moved aside and a new one begun")]
    Damaged(rusqlite::Error),
    /// The disk fails for good.
    #[error(
        "the disk failed: {source}; nothing was acknowledged that it did not take. `dmesg` says more: copy the folder of {} to another disk, and start again there", path.display()
    )]
    Disk {
        /// The log.
        path: PathBuf,
        /// The error of SQLite.
        source: rusqlite::Error,
    },
}

impl BrokerError {
    /// The reason why the store was given up. A damaged log is marked for the next start.
    pub(in crate::broker) fn of_store(path: &Path, source: rusqlite::Error) -> Self {
        if is_damage(&source) {
            suspect(path);
            return Self::Damaged(source);
        }
        Self::Disk { path: path.to_owned(), source }
    }
}

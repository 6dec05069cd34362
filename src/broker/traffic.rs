//! What the broker counts, and what all connections together may hold.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Totals since the start, but for `queued_bytes`.
#[derive(Debug, Default)]
pub struct Traffic {
    /// PUBLISH packets taken from clients.
    pub received: AtomicU64,
    /// PUBLISH packets written for clients.
    pub sent: AtomicU64,
    /// Messages that a subscriber did not get: its queue was full, or they were larger than it takes.
    pub dropped: AtomicU64,
    /// Connections that a malformed packet or another breach of the protocol has ended.
    pub malformed: AtomicU64,
    /// Connections that were accepted with a CONNACK.
    pub connections: AtomicU64,
    /// Bytes that wait in memory for subscribers, all together, at present.
    pub queued_bytes: AtomicUsize,
}

impl Traffic {
    /// Counts one.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

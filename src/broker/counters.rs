//! The broker's counters: commits, messages, connections, and the messages that each client lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::Notify;

use crate::store::Appended;
use crate::upstream::Forwarding;

/// Durations of commits, from half a millisecond (a PC's SSD) to eight seconds (a worn SD card).
#[derive(Debug)]
struct CommitSeconds(Histogram);

impl Default for CommitSeconds {
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(0.0005, 2.0, 15)))
    }
}

impl CommitSeconds {
    fn observe(&self, seconds: f64) {
        self.0.observe(seconds);
    }
}

/// Commits since the start, and the reason while the store cannot commit.
#[derive(Debug, Default)]
pub struct Counters {
    readings: AtomicU64,
    repeats: AtomicU64,
    samples: AtomicU64,
    texts: AtomicU64,
    left_out: AtomicU64,
    refused: AtomicU64,
    commits: AtomicU64,
    /// Messages that were dropped from the queues of persistent sessions.
    dropped: AtomicU64,
    /// Rows that went though their time was of the last hour.
    young_deleted: AtomicU64,
    /// Duration of the latest commit, µs.
    commit_us: AtomicU64,
    commit_seconds: CommitSeconds,
    /// Why nothing is acknowledged at present.
    blocked: Mutex<Option<String>>,
    /// Why acknowledgements wait for the upstream database at present.
    awaited: Mutex<Option<String>>,
    upstream: OnceLock<Arc<Forwarding>>,
    /// Failures of the disk.
    disk_errors: AtomicU64,
    disk_error: Mutex<Option<String>>,
    disk_failed: Notify,
    stage: Mutex<Stage>,
}

/// How far the broker's start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// It opens the log; no client is served.
    #[default]
    Opening,
    /// It serves, while a large log is checked.
    Checking,
    /// It serves, and the log is checked.
    Checked,
}

impl Counters {
    /// Totals of the committed batches, and how many commits they took.
    #[must_use]
    pub fn totals(&self) -> (Appended, u64) {
        let appended = Appended {
            readings: self.readings.load(Relaxed),
            repeats: self.repeats.load(Relaxed),
            samples: self.samples.load(Relaxed),
            texts: self.texts.load(Relaxed),
            left_out: self.left_out.load(Relaxed),
            refused: self.refused.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            dropped_by_session: Vec::new(),
        };
        (appended, self.commits.load(Relaxed))
    }

    /// Durations of the commits, in seconds.
    #[must_use]
    pub fn commit_seconds(&self) -> Histogram {
        self.commit_seconds.0.clone()
    }

    /// Duration of the latest commit.
    #[must_use]
    pub fn commit_time(&self) -> Duration {
        Duration::from_micros(self.commit_us.load(Relaxed))
    }

    /// Why the store cannot commit, while it cannot.
    #[must_use]
    pub fn blocked(&self) -> Option<String> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why readings that are stored are not acknowledged: the upstream database, which acknowledgements wait for, does not
    /// commit.
    #[must_use]
    pub fn awaited(&self) -> Option<String> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(in crate::broker) fn set_awaited(&self, cause: Option<String>) {
        *self.awaited.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    /// Whether clients wait for acknowledgements that do not come at present.
    #[must_use]
    pub fn is_acknowledging(&self) -> bool {
        self.blocked().is_none() && self.awaited().is_none()
    }

    /// The forwarder, once the log is open, where there is an upstream database.
    #[must_use]
    pub fn upstream(&self) -> Option<&Arc<Forwarding>> {
        self.upstream.get()
    }

    pub(in crate::broker) fn set_upstream(&self, forwarding: Arc<Forwarding>) {
        let _ = self.upstream.set(forwarding);
    }

    /// Sets the reason why the store cannot commit; `None`: it can.
    pub(in crate::broker) fn set_blocked(&self, cause: Option<String>) {
        *self.blocked.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    /// How far the start is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::broker) fn set_stage(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Readings and samples that were deleted though their time was of the last hour, since the start.
    #[must_use]
    pub fn young_deleted(&self) -> u64 {
        self.young_deleted.load(Relaxed)
    }

    /// Counts such rows.
    pub(in crate::broker) fn add_young_deleted(&self, rows: u64) {
        self.young_deleted.fetch_add(rows, Relaxed);
    }

    /// Failures of the disk since the start, and the latest one. Each commit that is tried again counts.
    #[must_use]
    pub fn disk_errors(&self) -> (u64, Option<String>) {
        let latest = self.disk_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.disk_errors.load(Relaxed), latest)
    }

    /// Counts a failure of the disk.
    pub(in crate::broker) fn disk_failed(&self, cause: String) {
        *self.disk_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
        self.disk_errors.fetch_add(1, Relaxed);
        self.disk_failed.notify_one();
    }

    /// Waits for the next failure of the disk. One waits at a time.
    pub(in crate::broker) async fn next_disk_error(&self) {
        self.disk_failed.notified().await;
    }

    /// Counts one commit.
    pub(in crate::broker) fn add(&self, appended: &Appended, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commit_us.store(us, Relaxed);
        self.commit_seconds.observe(took.as_secs_f64());
        self.readings.fetch_add(appended.readings, Relaxed);
        self.repeats.fetch_add(appended.repeats, Relaxed);
        self.samples.fetch_add(appended.samples, Relaxed);
        self.texts.fetch_add(appended.texts, Relaxed);
        self.left_out.fetch_add(appended.left_out, Relaxed);
        self.refused.fetch_add(appended.refused, Relaxed);
        self.dropped.fetch_add(appended.dropped, Relaxed);
        self.commits.fetch_add(1, Relaxed);
    }
}

/// Messages and connections since the start.
#[derive(Debug, Default)]
pub struct Traffic {
    /// PUBLISH packets taken from clients.
    pub received: AtomicU64,
    /// PUBLISH packets written for clients.
    pub sent: AtomicU64,
    /// Connections that a malformed packet or another breach of the protocol has ended.
    pub malformed: AtomicU64,
    /// Connections that were accepted with a CONNACK.
    pub connections: AtomicU64,
    /// Messages that subscribers lost.
    pub losses: Losses,
}

impl Traffic {
    /// Counts one.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

/// Clients whose losses are counted one by one. Losses of further clients count under [`OTHER_CLIENTS`].
const LOSING_CLIENTS: usize = 1000;
/// Stands for the clients beyond [`LOSING_CLIENTS`]. No client id is empty.
const OTHER_CLIENTS: &str = "";

/// Messages that clients lost since the start: the queue was full, or the message exceeded the client's maximum.
#[derive(Debug, Default)]
pub struct Losses {
    total: AtomicU64,
    by_client: Mutex<HashMap<Arc<str>, u64>>,
}

impl Losses {
    /// Counts `messages` that the client of this session lost.
    pub fn add(&self, client: &Arc<str>, messages: u64) {
        if messages == 0 {
            return;
        }
        self.total.fetch_add(messages, Relaxed);
        let mut by_client = self.lock();
        let known = by_client.contains_key(client) || by_client.len() < LOSING_CLIENTS;
        let client = if known { Arc::clone(client) } else { OTHER_CLIENTS.into() };
        *by_client.entry(client).or_default() += messages;
    }

    /// Messages that all clients lost.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Clients that lost messages, by the name of their session, with their count.
    pub fn by_client(&self) -> Vec<(Arc<str>, u64)> {
        let mut found: Vec<_> =
            self.lock().iter().map(|(client, count)| (Arc::clone(client), *count)).collect();
        found.sort_unstable();
        found
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, u64>> {
        self.by_client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_is_counted_also_beyond_the_number_of_counted_clients() {
        let losses = Losses::default();
        for n in 0..LOSING_CLIENTS + 5 {
            losses.add(&format!("c{n}").into(), 2);
        }
        losses.add(&"c0".into(), 3);
        losses.add(&"c1".into(), 0);
        let by_client = losses.by_client();
        assert_eq!(by_client.len(), LOSING_CLIENTS + 1);
        assert_eq!((&*by_client[0].0, by_client[0].1), (OTHER_CLIENTS, 10));
        assert_eq!((&*by_client[1].0, by_client[1].1), ("c0", 5));
        assert_eq!(by_client.iter().map(|(_, count)| count).sum::<u64>(), losses.total());
    }
}

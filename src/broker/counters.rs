//! The broker's counters: commits, messages, connections, and the messages that each client lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::Notify;

use crate::broker::near_numbers::NearNumbers;
use crate::store::Appended;
use crate::upstream::Forwarding;

/// A commit, or a step of maintenance before it, that takes longer is stuck: the slowest SD cards take a few seconds. A node
/// waits 30 s for an acknowledgement.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

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
    /// The same by topic.
    left_out_of: Losses,
    near: NearNumbers,
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
    /// When the writer began what it does; `None` while it waits for something to do.
    working: Mutex<Option<Instant>>,
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

    /// Numbers of other publishers' messages that were not kept, by topic.
    #[must_use]
    pub const fn left_out(&self) -> &Losses {
        &self.left_out_of
    }

    /// Texts of other publishers that were meant as numbers.
    #[must_use]
    pub const fn near_numbers(&self) -> &NearNumbers {
        &self.near
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
        let told = self.blocked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        told.or_else(|| {
            let stuck = self.stuck(Instant::now())?.as_secs();
            Some(format!(
                "the log has not committed for {stuck} s; the disk of the data folder does not answer"
            ))
        })
    }

    /// How long the writer has been at one commit or step, where that is longer than [`STUCK_AFTER`].
    pub(in crate::broker) fn stuck(&self, now: Instant) -> Option<Duration> {
        let began = *self.working.lock().unwrap_or_else(PoisonError::into_inner);
        let time = now.saturating_duration_since(began?);
        (time >= STUCK_AFTER).then_some(time)
    }

    /// Notes that the writer begins a commit or a step, or waits for something to do.
    pub(in crate::broker) fn set_working(&self, is_working: bool) {
        let began = is_working.then(Instant::now);
        *self.working.lock().unwrap_or_else(PoisonError::into_inner) = began;
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

/// Names whose losses are counted one by one. Losses of further ones count under [`OTHERS`].
const LOSS_NAMES_MAX: usize = 1000;
/// Stands for the names beyond [`LOSS_NAMES_MAX`]. No client id and no topic is empty.
const OTHERS: &str = "";

/// What was lost since the start, by name. Of clients: messages, since the queue was full, or the message exceeded the
/// client's maximum. Of the topics of other publishers: numbers that cannot be kept.
#[derive(Debug, Default)]
pub struct Losses {
    total: AtomicU64,
    by_name: Mutex<HashMap<Arc<str>, u64>>,
}

impl Losses {
    /// Counts what `name` lost. Returns whether it is its first loss.
    pub fn add(&self, name: &Arc<str>, lost: u64) -> bool {
        if lost == 0 {
            return false;
        }
        self.total.fetch_add(lost, Relaxed);
        let mut by_name = self.lock();
        let known = by_name.contains_key(name) || by_name.len() < LOSS_NAMES_MAX;
        let name = if known { Arc::clone(name) } else { OTHERS.into() };
        let count = by_name.entry(name).or_default();
        *count += lost;
        *count == lost
    }

    /// The sum of all losses.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Names with the count of what each lost. Names of clients are those of their sessions.
    pub fn by_name(&self) -> Vec<(Arc<str>, u64)> {
        let mut found: Vec<_> =
            self.lock().iter().map(|(client, count)| (Arc::clone(client), *count)).collect();
        found.sort_unstable();
        found
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, u64>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_stuck_that_is_at_one_commit_for_long_and_no_other() {
        let counters = Counters::default();
        let stuck = |after: Duration| counters.stuck(Instant::now() + after);
        assert_eq!(stuck(2 * STUCK_AFTER), None, "it has begun nothing");
        counters.set_working(true);
        assert_eq!(stuck(STUCK_AFTER / 2), None);
        assert!(stuck(STUCK_AFTER).is_some());
        counters.set_working(false);
        assert_eq!(stuck(2 * STUCK_AFTER), None, "it is done");
        assert_eq!(counters.blocked(), None);
    }

    #[test]
    fn every_loss_is_counted_also_beyond_the_number_of_counted_names() {
        let losses = Losses::default();
        for n in 0..LOSS_NAMES_MAX + 5 {
            losses.add(&format!("c{n}").into(), 2);
        }
        losses.add(&"c0".into(), 3);
        losses.add(&"c1".into(), 0);
        let by_name = losses.by_name();
        assert_eq!(by_name.len(), LOSS_NAMES_MAX + 1);
        assert_eq!((&*by_name[0].0, by_name[0].1), (OTHERS, 10));
        assert_eq!((&*by_name[1].0, by_name[1].1), ("c0", 5));
        assert_eq!(by_name.iter().map(|(_, count)| count).sum::<u64>(), losses.total());
    }
}

//! What was recorded since the start, how long commits took, and what stands in the way.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::store::Appended;

/// How long commits took, from half a millisecond (a PC's SSD) to eight seconds (a card on its last legs).
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

/// What was recorded since the start, and what stands in the way.
#[derive(Debug, Default)]
pub struct Counters {
    readings: AtomicU64,
    repeats: AtomicU64,
    samples: AtomicU64,
    refused: AtomicU64,
    commits: AtomicU64,
    /// Messages that waited for a persistent session and had to make room.
    dropped: AtomicU64,
    /// How long the latest commit took, µs.
    commit_us: AtomicU64,
    commit_seconds: CommitSeconds,
    /// Why nothing is acknowledged at present.
    blocked: Mutex<Option<String>>,
}

impl Counters {
    /// Totals of the committed batches, and how many commits they took.
    #[must_use]
    pub fn totals(&self) -> (Appended, u64) {
        let appended = Appended {
            readings: self.readings.load(Relaxed),
            repeats: self.repeats.load(Relaxed),
            samples: self.samples.load(Relaxed),
            refused: self.refused.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            dropped_by_session: Vec::new(),
        };
        (appended, self.commits.load(Relaxed))
    }

    /// How long commits took.
    #[must_use]
    pub fn commit_seconds(&self) -> Histogram {
        self.commit_seconds.0.clone()
    }

    /// How long the latest commit took.
    #[must_use]
    pub fn commit_time(&self) -> Duration {
        Duration::from_micros(self.commit_us.load(Relaxed))
    }

    /// Why the store cannot commit, while it cannot.
    #[must_use]
    pub fn blocked(&self) -> Option<String> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says why the store cannot commit, or that it can.
    pub(in crate::broker) fn set_blocked(&self, cause: Option<String>) {
        *self.blocked.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    /// One commit.
    pub(in crate::broker) fn add(&self, appended: &Appended, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commit_us.store(us, Relaxed);
        self.commit_seconds.observe(took.as_secs_f64());
        self.readings.fetch_add(appended.readings, Relaxed);
        self.repeats.fetch_add(appended.repeats, Relaxed);
        self.samples.fetch_add(appended.samples, Relaxed);
        self.refused.fetch_add(appended.refused, Relaxed);
        self.dropped.fetch_add(appended.dropped, Relaxed);
        self.commits.fetch_add(1, Relaxed);
    }
}

//! What the broker and the web see of the forwarder: how far it is, and what keeps it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::config::Acknowledge;
use super::fault::Fault;
use crate::store::ForwardProgress;
use crate::timeline::Timeline;

/// The forwarder's state, shared.
#[derive(Debug)]
pub struct Forwarding {
    progress: Arc<ForwardProgress>,
    acknowledge: Acknowledge,
    /// There may be something to forward.
    wake: Notify,
    /// Operations up to this number are committed upstream, as the database said last.
    committed: watch::Sender<i64>,
    refused: AtomicU64,
    timeline: Timeline,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    server: Option<String>,
    fault: Option<Fault>,
    filling: bool,
    /// When the oldest operation that waits was queued, log time in ms.
    waiting_since_ms: Option<i64>,
}

/// A moment of it.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamStatus {
    /// The server that is written to; `None` while there is none.
    pub server: Option<String>,
    /// Why there is none, or why it takes nothing.
    pub error: Option<String>,
    /// Whether stored readings are being sent again.
    pub filling: bool,
    /// Operations in the log that are not upstream.
    pub lag: u64,
    /// How long the oldest of them has waited.
    pub lag_time: Duration,
    /// Operations that were committed upstream, from the beginning of the log.
    pub forwarded: u64,
    /// Rows that the database did not take, since the start.
    pub refused: u64,
    /// Operations that left a full queue, since the start.
    pub overflowed: u64,
}

impl Forwarding {
    /// Nothing is forwarded yet.
    #[must_use]
    pub fn new(
        progress: Arc<ForwardProgress>,
        acknowledge: Acknowledge,
        timeline: Timeline,
    ) -> Self {
        Self {
            timeline,
            progress,
            acknowledge,
            wake: Notify::new(),
            committed: watch::Sender::new(0),
            refused: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Whether acknowledgements wait for the upstream database.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.acknowledge == Acknowledge::Upstream
    }

    /// The number of the newest operation in the log.
    #[must_use]
    pub fn queued(&self) -> i64 {
        self.progress.queued()
    }

    /// Tells the forwarder that something was committed to the log.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Follows the number up to which operations are committed upstream.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<i64> {
        self.committed.subscribe()
    }

    /// Its state now.
    #[must_use]
    pub fn status(&self) -> UpstreamStatus {
        let now_ms = self.timeline.now_ms();
        let state = self.state();
        let (queued, forwarded) = (self.progress.queued(), self.progress.forwarded());
        let lag = u64::try_from(queued.saturating_sub(forwarded)).unwrap_or_default();
        let since = state.waiting_since_ms.filter(|_| lag > 0).unwrap_or(now_ms);
        UpstreamStatus {
            server: state.server.clone(),
            error: state.fault.as_ref().map(|fault| fault.text.clone()),
            filling: state.filling,
            lag,
            lag_time: Duration::from_millis(now_ms.saturating_sub(since).max(0).unsigned_abs()),
            forwarded: u64::try_from(forwarded).unwrap_or_default(),
            refused: self.refused.load(Relaxed),
            overflowed: self.progress.overflowed(),
        }
    }

    /// How long ago `at_ms` was, log time, in ms.
    pub(super) fn age_ms(&self, at_ms: i64) -> i64 {
        self.timeline.now_ms().saturating_sub(at_ms)
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn connected(&self, server: &str) {
        let mut state = self.state();
        (state.server, state.fault) = (Some(server.to_owned()), None);
    }

    /// Notes a fault. Returns whether it is another one than before.
    pub(super) fn failed(&self, fault: Fault) -> bool {
        let mut state = self.state();
        state.server = None;
        state.filling = false;
        // Until the log was looked at again.
        state.waiting_since_ms.get_or_insert_with(|| self.timeline.now_ms());
        let is_new = state.fault.as_ref() != Some(&fault);
        state.fault = Some(fault);
        is_new
    }

    pub(super) fn fills(&self, filling: bool) {
        self.state().filling = filling;
    }

    pub(super) fn waits_since(&self, at_ms: Option<i64>) {
        self.state().waiting_since_ms = at_ms;
    }

    /// Operations up to `position` are upstream, as a session has read or committed it.
    pub(crate) fn forwarded(&self, position: i64) {
        self.progress.set_forwarded(position);
        self.committed.send_replace(position);
    }

    /// Operations behind `position` may be missing upstream: those before it, too, where they count as sent already.
    pub(super) fn lacks(&self, position: i64) {
        if position < self.progress.forwarded() {
            self.forwarded(position);
        }
    }

    /// Operations up to `position` are upstream but for stored readings that are being sent: the queue needs them no more, and
    /// nothing is acknowledged for it.
    pub(super) fn released(&self, position: i64) {
        self.progress.set_released(position);
    }

    pub(super) fn refused(&self, rows: u64) {
        self.refused.fetch_add(rows, Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What follows a commit for the upstream database: the forwarder is told, and acknowledgements wait for it, if they do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};

use super::batch::Congested;
use crate::broker::counters::Counters;
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::timeline::Timeline;
use crate::upstream::{Forwarder, Forwarding, Upstream};

/// An acknowledgement that has waited for this long is told to be missing.
const STALLED_AFTER: Duration = Duration::from_secs(3);
/// How often that is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Acknowledgements of connections that have gone are looked for when so many wait, and at twice as many again.
const PRUNE_FROM: usize = 4_096;

/// Waits for operations up to `position`.
struct Waiting {
    position: i64,
    committed: oneshot::Sender<Congested>,
    congested: Congested,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    prune_at: usize,
    /// Since when none was given, though one waits or has waited.
    stands_since: Option<Instant>,
    closed: bool,
}

/// The writer's handle to the forwarder, and the acknowledgements that wait for it.
#[derive(Clone)]
pub struct Onward {
    forwarding: Arc<Forwarding>,
    line: Arc<Mutex<Line>>,
}

/// Has the log queued for the upstream database. Returns what forwards it.
///
/// # Errors
/// The error of SQLite.
pub fn open(
    upstream: Upstream,
    store: &mut Store,
    timeline: &Timeline,
    counters: &Counters,
) -> rusqlite::Result<(Forwarder, Onward)> {
    let progress = store.forward(upstream.config().backlog_bytes)?;
    let (forwarder, forwarding) = upstream.of_log(store.path(), progress, timeline.clone());
    counters.set_upstream(Arc::clone(&forwarding));
    Ok((forwarder, Onward::new(forwarding)))
}

impl Onward {
    /// Nothing waits yet.
    #[must_use]
    pub fn new(forwarding: Arc<Forwarding>) -> Self {
        Self { forwarding, line: Arc::default() }
    }

    /// Tells the forwarder of a commit.
    pub(super) fn committed(&self) {
        self.forwarding.wake();
    }

    /// Whether acknowledgements of readings wait.
    pub(super) fn is_awaited(&self) -> bool {
        self.forwarding.is_awaited()
    }

    /// Acknowledges when all that is committed to the log by now is committed upstream, too: a repeat may be of a reading
    /// that still waits.
    pub(super) fn acknowledge_later(
        &self,
        committed: oneshot::Sender<Congested>,
        congested: Congested,
    ) {
        let position = self.forwarding.queued();
        let mut line = self.line();
        if line.closed {
            return;
        }
        if line.waiting.len() >= line.prune_at.max(PRUNE_FROM) {
            line.waiting.retain(|waiting| !waiting.committed.is_closed());
            line.prune_at = line.waiting.len() * 2;
        }
        line.stands_since.get_or_insert_with(Instant::now);
        line.waiting.push_back(Waiting { position, committed, congested });
        drop(line);
        // It may have been committed before this one was in the line.
        self.release(*self.forwarding.committed().borrow());
    }

    /// Acknowledges what waits for operations up to `position`.
    fn release(&self, position: i64) {
        let mut line = self.line();
        while let Some(first) = line.waiting.pop_front_if(|first| first.position <= position) {
            line.stands_since = None;
            // The connection may be closed: then its client sends again.
            let _ = first.committed.send(first.congested);
        }
    }

    /// The upstream database has committed something, or nobody has waited for long.
    fn goes_on(&self) {
        let mut line = self.line();
        line.stands_since = if line.waiting.is_empty() { None } else { Some(Instant::now()) };
    }

    /// Whether the upstream database keeps acknowledgements waiting. Clients that have given up count: they come again.
    fn is_stalled(&self) -> bool {
        self.line().stands_since.is_some_and(|since| since.elapsed() >= STALLED_AFTER)
    }

    /// Gives up what waits, and what comes: their clients send again.
    pub fn close(&self) {
        let mut line = self.line();
        line.closed = true;
        line.waiting.clear();
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acknowledges as the upstream database commits, until `shutdown`.
    pub async fn run(self, counters: Arc<Counters>, mut shutdown: Shutdown) {
        tokio::select! {
            () = self.follow(&counters) => {}
            () = shutdown.requested() => {}
        }
    }

    async fn follow(&self, counters: &Counters) {
        let mut committed = self.forwarding.committed();
        let mut stalled = false;
        loop {
            let moved = timeout(LOOK_INTERVAL, committed.changed()).await.is_ok();
            let position = *committed.borrow_and_update();
            self.release(position);
            if moved {
                self.goes_on();
            }
            let stalls = self.is_stalled();
            if stalls {
                let cause = self.forwarding.status().error;
                let cause = cause.unwrap_or_else(|| "it does not commit".to_owned());
                if !stalled {
                    warn!(%cause, "PostgreSQL keeps acknowledgements waiting (HUMIDOR_ACK=upstream): boards keep their readings");
                }
                counters.set_awaited(Some(cause));
            } else if stalled {
                info!("PostgreSQL commits again; publishers are acknowledged again");
                counters.set_awaited(None);
            }
            stalled = stalls;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::ClockState;
    use crate::store::Record;
    use crate::upstream::Acknowledge;
    use crate::wire::Telemetry;

    struct Rig {
        _folder: tempfile::TempDir,
        store: Store,
        onward: Onward,
    }

    impl Rig {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
            let progress = store.forward(1 << 20).unwrap();
            let forwarding = Forwarding::new(progress, Acknowledge::Upstream, Timeline::default());
            Self { _folder: folder, store, onward: Onward::new(Arc::new(forwarding)) }
        }

        /// Commits a reading, and waits for its acknowledgement.
        fn commit(&mut self, seq: u64) -> oneshot::Receiver<Congested> {
            let telemetry = Telemetry {
                boot: "b".parse().unwrap(),
                seq,
                at: 5,
                clock: ClockState::Synced,
                mono: 5,
                temperature: Some(20.0),
                humidity: None,
            };
            let (node, sensor) = ("press".parse().unwrap(), "hall".parse().unwrap());
            self.store.append(&[&Record::Reading { node, sensor, telemetry }]).unwrap();
            let (committed, done) = oneshot::channel();
            self.onward.acknowledge_later(committed, Vec::new());
            done
        }

        fn forwarded(&self, position: i64) {
            self.onward.forwarding.forwarded(position);
            self.onward.release(position);
        }
    }

    #[test]
    fn an_acknowledgement_waits_until_its_reading_is_upstream_also_when_it_is_a_repeat() {
        let mut rig = Rig::new();
        let (mut first, mut second, mut repeat) = (rig.commit(1), rig.commit(2), rig.commit(1));
        assert!(first.try_recv().is_err());
        rig.forwarded(1);
        assert!(first.try_recv().is_ok() && second.try_recv().is_err());
        assert!(repeat.try_recv().is_err(), "all that is in the log by then");
        rig.forwarded(2);
        assert!(second.try_recv().is_ok() && repeat.try_recv().is_ok());
        // What is upstream already is not waited for.
        assert!(rig.commit(1).try_recv().is_ok());
        // A database that was restored lacks it again.
        rig.forwarded(0);
        assert!(rig.commit(1).try_recv().is_err());
    }

    #[test]
    fn clients_that_have_gone_take_no_room_and_the_end_gives_all_up() {
        let mut rig = Rig::new();
        let mut waiting = rig.commit(1);
        for _ in 0..3 * PRUNE_FROM {
            let (committed, _) = oneshot::channel();
            rig.onward.acknowledge_later(committed, Vec::new());
        }
        assert!(rig.onward.line().waiting.len() <= PRUNE_FROM + 1);
        assert!(matches!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        rig.onward.close();
        assert!(matches!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        let mut late = rig.commit(2);
        assert!(matches!(late.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }
}

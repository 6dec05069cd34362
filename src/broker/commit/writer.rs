//! Group commit: one thread owns the store, and every commit takes all that arrived meanwhile.
//!
//! A batch's sender waits for its commit. While the store cannot commit (disk full, disk error, a
//! lock), nothing is answered and the bounded queue fills, so that the connections stop reading and
//! TCP carries the pressure back to the publishers, who keep their readings.
//!
//! Between commits the same thread looks after the log, in steps of less than a millisecond: see [`crate::broker::commit::maintenance`].

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{error, info};

use crate::broker::commit::maintenance::Pace;
use crate::broker::counters::Counters;
use crate::broker::delivery::replay::{Asked, Keeper};
use crate::store::{Appended, Change, Record, Store};

/// Batches that wait for the writer. A connection has at most one of them.
const QUEUE_BATCHES: usize = 256;
/// Records in one commit. At about 3 µs each it keeps a commit well under 50 ms.
const COMMIT_RECORDS: usize = 10_000;
/// Committed batches that a slow listener may lag behind before it misses some.
const LIVE_BATCHES: usize = 256;
/// First and longest wait before a failed commit is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// A store that keeps failing is said again this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(30);

/// Committed records, for who wants to see them as they come.
pub type Live = Arc<Vec<Record>>;

/// What is committed together.
#[derive(Debug, Default)]
pub struct Batch {
    /// For the log.
    pub records: Vec<Record>,
    /// For sessions and retained messages.
    pub changes: Vec<Change>,
    /// New subscriptions, whose retained messages are to be committed with them.
    pub asked: Vec<Asked>,
    /// Sessions that have something new waiting when it is committed.
    pub wake: Vec<Arc<Notify>>,
}

impl Batch {
    /// Whether there is nothing to commit.
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty() && self.changes.is_empty()
    }

    /// Records, changes, and subscriptions that ask for what is retained.
    pub const fn len(&self) -> usize {
        self.records.len() + self.changes.len() + self.asked.len()
    }
}

struct Queued {
    batch: Batch,
    /// `None` when nobody waits.
    committed: Option<oneshot::Sender<()>>,
}

/// The store ended: this batch was not committed and must not be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store has stopped")]
pub struct Stopped;

/// The connections' handle to the writer thread.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Queued>,
    counters: Arc<Counters>,
    live: broadcast::Sender<Live>,
}

/// The writer thread; joined for its last commit.
pub struct Writer {
    thread: JoinHandle<rusqlite::Result<()>>,
}

impl Writer {
    /// Waits until the queue is closed and all of it committed.
    ///
    /// # Errors
    /// Why the store was given up: its file is damaged.
    pub fn join(self) -> rusqlite::Result<()> {
        match self.thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Recorder {
    /// Starts the writer thread. It ends when the last `Recorder` is dropped, after it has committed
    /// what was queued, or at once when `store` is damaged; `ended` is dropped then.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(
        store: Store,
        window: Duration,
        keeper: Keeper,
        ended: oneshot::Sender<()>,
    ) -> std::io::Result<(Self, Writer)> {
        let (queue, batches) = mpsc::channel(QUEUE_BATCHES);
        let (live, _) = broadcast::channel(LIVE_BATCHES);
        let counters = Arc::new(Counters::default());
        let recorder = Self { queue, counters: Arc::clone(&counters), live: live.clone() };
        // Only for waiting on the queue with a limit.
        let timer = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            let _ended = ended;
            write(store, batches, &timer, window, &counters, &keeper, &live)
        })?;
        Ok((recorder, Writer { thread }))
    }

    /// Commits `batch` together with whatever else is waiting. When this returns `Ok` it is on the disk.
    ///
    /// # Errors
    /// When the store has stopped for good. While it merely cannot commit, this does not return.
    pub async fn commit(&self, mut batch: Batch) -> Result<(), Stopped> {
        self.hand_over(&mut batch).await?.await.map_err(|_| Stopped)
    }

    /// Waits for a place in the queue and takes `batch` then: a call that is cancelled has left it as it was, and what
    /// was taken is committed whoever waits. Resolves when it is on the disk, or to an error when the store has stopped.
    ///
    /// # Errors
    /// When the store has stopped for good.
    pub async fn hand_over(&self, batch: &mut Batch) -> Result<oneshot::Receiver<()>, Stopped> {
        let place = self.queue.reserve().await.map_err(|_| Stopped)?;
        let (committed, done) = oneshot::channel();
        place.send(Queued { batch: std::mem::take(batch), committed: Some(committed) });
        Ok(done)
    }

    /// Commits `changes`. Cancelled, it leaves those that it has not handed over.
    ///
    /// # Errors
    /// As [`Recorder::commit`].
    pub async fn commit_changes(&self, changes: &mut Vec<Change>) -> Result<(), Stopped> {
        let place = self.queue.reserve().await.map_err(|_| Stopped)?;
        let (committed, done) = oneshot::channel();
        let batch = Batch { changes: std::mem::take(changes), ..Batch::default() };
        place.send(Queued { batch, committed: Some(committed) });
        done.await.map_err(|_| Stopped)
    }

    /// Hands changes over that nobody waits for: they are made after what was handed over before. Cancelled, it leaves
    /// them.
    pub async fn note(&self, changes: &mut Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        // A store that has stopped ends the broker; who comes after it starts from what was committed.
        if let Ok(place) = self.queue.reserve().await {
            let batch = Batch { changes: std::mem::take(changes), ..Batch::default() };
            place.send(Queued { batch, committed: None });
        }
    }

    /// Batches that wait for the writer.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// What was recorded so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Committed records from now on.
    pub fn live(&self) -> broadcast::Receiver<Live> {
        self.live.subscribe()
    }
}

fn write(
    mut store: Store,
    mut queue: mpsc::Receiver<Queued>,
    timer: &tokio::runtime::Runtime,
    window: Duration,
    counters: &Counters,
    keeper: &Keeper,
    live: &broadcast::Sender<Live>,
) -> rusqlite::Result<()> {
    let mut batches = Vec::new();
    let mut pace = Pace::start(Instant::now());
    loop {
        let first = match timer
            .block_on(async { timeout(pace.wait(Instant::now()), queue.recv()).await })
        {
            Ok(Some(first)) => first,
            Ok(None) => return Ok(()),
            Err(_nothing_to_commit) => {
                look_after(&mut store, &mut pace, false, counters)?;
                continue;
            }
        };
        batches.push(first);
        gather(&mut queue, &mut batches, window, |batch| keeper.weight(batch));
        let owed: Vec<Change> =
            batches.iter_mut().flat_map(|queued| keeper.complete(&mut queued.batch)).collect();
        let records: Vec<&Record> =
            batches.iter().flat_map(|queued| &queued.batch.records).collect();
        let made = batches.iter().flat_map(|queued| &queued.batch.changes);
        let changes: Vec<&Change> = owed.iter().chain(made).collect();
        let started = Instant::now();
        let leaving = || queue.is_closed();
        let Some(appended) = commit(&mut store, &records, &changes, counters, leaving)? else {
            return Ok(());
        };
        counters.add(&appended, started.elapsed());
        // By this one thread, so that what is retained in memory changes in the order of the disk.
        keeper.retained.follow(&changes);
        let mut committed = Vec::new();
        for Queued { batch, committed: waiting } in batches.drain(..) {
            // The connection may be gone; its client will send the same again and be told so.
            let _ = waiting.map(|waiting| waiting.send(()));
            batch.wake.iter().for_each(|session| session.notify_one());
            committed.extend(batch.records);
        }
        if live.receiver_count() > 0 && !committed.is_empty() {
            let _ = live.send(Arc::new(committed));
        }
        pace.committed(Instant::now());
        look_after(&mut store, &mut pace, !queue.is_empty(), counters)?;
    }
}

fn look_after(
    store: &mut Store,
    pace: &mut Pace,
    waiting: bool,
    counters: &Counters,
) -> rusqlite::Result<()> {
    pace.step(store, waiting).inspect_err(|cause| damaged(cause, counters))
}

fn damaged(cause: &rusqlite::Error, counters: &Counters) {
    error!(%cause, "the log is damaged; stopping so that a restart moves it aside");
    counters.set_blocked(Some(cause.to_string()));
}

/// Takes what is waiting, and with a window what arrives within it: fewer commits wear an SD card
/// less, at the cost of that much latency.
fn gather(
    queue: &mut mpsc::Receiver<Queued>,
    batches: &mut Vec<Queued>,
    window: Duration,
    weight: impl Fn(&Batch) -> usize,
) {
    let deadline = Instant::now() + window;
    let mut records: usize = batches.iter().map(|queued| weight(&queued.batch)).sum();
    loop {
        while records < COMMIT_RECORDS
            && let Ok(queued) = queue.try_recv()
        {
            records += weight(&queued.batch);
            batches.push(queued);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || records >= COMMIT_RECORDS || queue.is_closed() {
            return;
        }
        std::thread::sleep(left);
    }
}

/// Commits, however long it takes. A damaged file ends the attempts, and so does `leaving` when
/// nobody is left to acknowledge to: then the result is `None`, and the publishers send again.
fn commit(
    store: &mut Store,
    records: &[&Record],
    changes: &[&Change],
    counters: &Counters,
    leaving: impl Fn() -> bool,
) -> rusqlite::Result<Option<Appended>> {
    let mut waits = backon::ExponentialBuilder::default()
        .with_min_delay(RETRY.0)
        .with_max_delay(RETRY.1)
        .without_max_times()
        .build();
    let mut complained: Option<Instant> = None;
    loop {
        let cause = match store.commit(records, changes) {
            Ok(appended) => {
                if complained.is_some() {
                    counters.set_blocked(None);
                    info!("the store commits again; publishers are acknowledged again");
                }
                return Ok(Some(appended));
            }
            Err(cause) => cause,
        };
        if !Store::may_pass(&cause) {
            damaged(&cause, counters);
            return Err(cause);
        }
        if leaving() {
            error!(%cause, given_up = records.len(), "stopping without this commit; it was not acknowledged");
            return Ok(None);
        }
        if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
            complained = Some(Instant::now());
            counters.set_blocked(Some(cause.to_string()));
            error!(
                %cause, waiting = records.len(),
                "cannot commit: nothing is acknowledged until it works; make room on the data volume"
            );
        }
        std::thread::sleep(waits.next().unwrap_or(RETRY.1));
    }
}

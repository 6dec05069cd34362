//! Group commit: one thread owns the store, and every commit takes all batches that arrived meanwhile.
//!
//! A batch's sender waits for its commit. While the store cannot commit (disk full, disk error, a lock), no batch is
//! acknowledged and the bounded queue fills. The connections then stop reading, and TCP carries the back-pressure to
//! the publishers, which keep their readings.
//!
//! Between commits the same thread maintains the log, in steps of less than a millisecond: see
//! [`crate::broker::commit::maintenance_schedule`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::batch::Batch;
pub use super::batch::Congested;
use super::live::{LIVE_BATCHES, Live, Unread};
use super::lost_numbers;
use super::maintenance_schedule::Schedule;
use super::onward::Onward;
use super::persist;
use super::series_quota::SeriesQuota;
use crate::broker::counters::Counters;
use crate::broker::delivery::fan_out::{Accepted, FanOut};
use crate::broker::delivery::retained_replay;
use crate::store::{Appended, Change, Record, Store};

/// Batches that wait for the writer. A connection has at most one of them.
const QUEUE_BATCHES: usize = 256;
/// Records in one commit. At about 3 µs each it keeps a commit well under 50 ms.
const COMMIT_RECORDS: usize = 10_000;
struct Queued {
    batch: Batch,
    /// `None` when no sender waits.
    committed: Option<oneshot::Sender<Congested>>,
    /// Whether the sender is a client, which is acknowledged.
    is_client: bool,
}

impl Queued {
    /// Whether its acknowledgement waits for the upstream database, where that is awaited.
    fn is_awaited(&self) -> bool {
        let is_data =
            |record: &Record| matches!(record, Record::Reading { .. } | Record::Foreign { .. });
        self.is_client && self.batch.records.iter().any(is_data)
    }
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
    halt: Arc<Halt>,
}

/// Ends the writer thread before its queue is closed.
#[derive(Debug, Default)]
struct Halt {
    halted: AtomicBool,
    changed: Notify,
}

impl Writer {
    /// Ends the thread after the commit that it is at. What waits is not committed, and not acknowledged.
    pub fn halt(&self) {
        self.halt.halted.store(true, Relaxed);
        self.halt.changed.notify_one();
    }

    /// Waits until the queue is closed and all of it committed.
    ///
    /// # Errors
    /// Why the store was given up: its file is damaged, or the disk fails for good.
    pub fn join(self) -> rusqlite::Result<()> {
        match self.thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Recorder {
    /// Starts the writer thread. It ends when the last `Recorder` is dropped, after it has committed
    /// what was queued, or at once when `store` is damaged or its disk fails for good; `ended` is dropped then.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(
        store: Store,
        window: Duration,
        fan_out: FanOut,
        counters: Arc<Counters>,
        quota: SeriesQuota,
        onward: Option<Onward>,
        ended: oneshot::Sender<()>,
    ) -> std::io::Result<(Self, Writer)> {
        let (queue, batches) = mpsc::channel(QUEUE_BATCHES);
        let (live, _) = broadcast::channel(LIVE_BATCHES);
        let recorder = Self { queue, counters: Arc::clone(&counters), live: live.clone() };
        let timer = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let halt = Arc::new(Halt::default());
        let until = Arc::clone(&halt);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            let _ended = ended;
            let queue = Queue { batches, timer, halt: until, window };
            let schedule = Schedule::start(Instant::now(), quota);
            let after = After {
                counters: &counters,
                fan_out: &fan_out,
                live: &live,
                onward: onward.as_ref(),
            };
            write(store, queue, &after, schedule)
        })?;
        Ok((recorder, Writer { thread, halt }))
    }

    /// Commits `batch` together with whatever else is waiting. When this returns `Ok` it is on the disk.
    ///
    /// # Errors
    /// When the store has stopped for good. While it merely cannot commit, this does not return.
    pub async fn commit(&self, mut batch: Batch) -> Result<(), Stopped> {
        self.send(&mut batch, false).await?.await.map(drop).map_err(|_| Stopped)
    }

    /// A client's batch: waits for a place in the queue, then takes `batch`. A cancelled call has left `batch` as it was; a batch that
    /// was taken is committed even if its sender stops waiting. The receiver resolves when the batch is on the disk, and
    /// upstream where acknowledgements wait for that, or to an error when the store has stopped.
    ///
    /// # Errors
    /// When the store has stopped for good.
    pub async fn hand_over(
        &self,
        batch: &mut Batch,
    ) -> Result<oneshot::Receiver<Congested>, Stopped> {
        self.send(batch, true).await
    }

    async fn send(
        &self,
        batch: &mut Batch,
        is_client: bool,
    ) -> Result<oneshot::Receiver<Congested>, Stopped> {
        let place = self.queue.reserve().await.map_err(|_| Stopped)?;
        let (committed, done) = oneshot::channel();
        let batch = std::mem::take(batch);
        place.send(Queued { batch, committed: Some(committed), is_client });
        Ok(done)
    }

    /// Commits `changes`. Cancelled, it leaves those that it has not handed over.
    ///
    /// # Errors
    /// As [`Recorder::commit`].
    pub async fn commit_changes(&self, changes: &mut Vec<Change>) -> Result<(), Stopped> {
        loop {
            let place = self.queue.reserve().await.map_err(|_| Stopped)?;
            let (committed, done) = oneshot::channel();
            let batch = Batch::of_changes(changes);
            place.send(Queued { batch, committed: Some(committed), is_client: false });
            done.await.map_err(|_| Stopped)?;
            if changes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Hands changes over without waiting for the commit of the last of them. They are made after earlier changes. A
    /// cancelled call leaves them.
    pub async fn note(&self, changes: &mut Vec<Change>) {
        // A store that has stopped ends the broker; the next start continues from the last commit.
        while !changes.is_empty()
            && let Ok(place) = self.queue.reserve().await
        {
            let batch = Batch::of_changes(changes);
            let (committed, done) = oneshot::channel();
            let committed = (!changes.is_empty()).then_some(committed);
            place.send(Queued { batch, committed, is_client: false });
            // Others have a commit between the ends of sessions. Without a sender it resolves at once.
            let _ = done.await;
        }
    }

    /// Batches that wait for the writer.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Counters of the commits.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Committed records from now on.
    pub fn live(&self) -> broadcast::Receiver<Live> {
        self.live.subscribe()
    }
}

/// The queue as the writer thread reads it.
struct Queue {
    batches: mpsc::Receiver<Queued>,
    /// Only for waiting on the queue with a limit.
    timer: tokio::runtime::Runtime,
    halt: Arc<Halt>,
    /// Longest wait for further batches.
    window: Duration,
}

/// What is told of a commit.
struct After<'a> {
    counters: &'a Counters,
    fan_out: &'a FanOut,
    live: &'a broadcast::Sender<Live>,
    onward: Option<&'a Onward>,
}

impl Queue {
    /// The next batch; `None` when the thread is to end. Fails when none came within `wait`.
    fn next(&mut self, wait: Duration) -> Result<Option<Queued>, Elapsed> {
        let Self { batches, timer, halt, .. } = self;
        timer.block_on(async {
            tokio::select! {
                biased;
                () = halt.changed.notified() => Ok(None),
                next = timeout(wait, batches.recv()) => next,
            }
        })
    }
}

fn write(
    mut store: Store,
    mut queue: Queue,
    after: &After<'_>,
    mut schedule: Schedule,
) -> rusqlite::Result<()> {
    let After { counters, fan_out, live, onward } = *after;
    let (mut batches, mut unread) = (Vec::new(), Unread::default());
    loop {
        counters.set_working(false);
        let first = match queue.next(schedule.wait(Instant::now())) {
            Ok(Some(first)) => first,
            Ok(None) => return Ok(()),
            Err(_nothing_to_commit) => {
                maintain(&mut store, &mut schedule, false, fan_out, counters)?;
                continue;
            }
        };
        batches.push(first);
        let weight = |batch: &Batch| {
            let deleted: usize = batch.changes.iter().map(|change| store.deleted_by(change)).sum();
            batch.len() + deleted + retained_replay::weight(&batch.replays, &fan_out.retained)
        };
        gather(&mut queue.batches, &mut batches, queue.window, weight);
        counters.set_working(true);
        // Replayed messages come before the other messages of the commit.
        let requests = batches.iter().flat_map(|queued| &queued.batch.replays);
        let mut owned: Vec<Change> = retained_replay::stored(
            requests,
            &fan_out.retained,
            fan_out.timeline.now_ms(),
            &fan_out.traffic.losses,
        );
        for Queued { batch, .. } in &mut batches {
            owned.append(&mut batch.changes);
            for accepted in &mut batch.accepted {
                fan_out.prepare(accepted, &mut owned);
            }
        }
        let records: Vec<&Record> =
            batches.iter().flat_map(|queued| &queued.batch.records).collect();
        let changes: Vec<&Change> = owned.iter().collect();
        let started = Instant::now();
        store.tell_time(fan_out.timeline.clock());
        let leaving = || queue.batches.is_closed() || queue.halt.halted.load(Relaxed);
        let Some(appended) = persist::commit(&mut store, &records, &changes, counters, leaving)?
        else {
            return Ok(());
        };
        counters.add(&appended, started.elapsed());
        count_losses(&appended, &batches, fan_out);
        if appended.left_out + appended.texts + appended.refused > 0 {
            lost_numbers::count(&records, counters);
        }
        for change in &owned {
            if let Change::Expire { at_ms } = change {
                fan_out.retained.expire(*at_ms);
            }
        }
        if let Some(onward) = onward {
            onward.committed();
        }
        let mut committed = Vec::new();
        for queued in batches.drain(..) {
            let later = onward.filter(|onward| onward.is_awaited() && queued.is_awaited());
            let Queued { batch, committed: waiting, .. } = queued;
            // By this one thread, so that messages are delivered and retained in the order of the disk.
            let mut congested = Congested::new();
            for accepted in batch.accepted {
                fan_out.deliver(accepted, &mut congested);
            }
            for request in batch.replays {
                request.session.queue.notify_stored();
            }
            // After the delivery, so that the client's next messages are not delivered before these. The connection may
            // be closed; then its client sends the messages again and gets the acknowledgement.
            match (waiting, later) {
                (Some(waiting), Some(onward)) => onward.acknowledge_later(waiting, congested),
                (Some(waiting), None) => drop(waiting.send(congested)),
                (None, _) => {}
            }
            committed.extend(batch.records);
        }
        if live.receiver_count() > 0 && !committed.is_empty() {
            unread.send(committed, live);
        }
        let now = Instant::now();
        schedule.committed(now, now - started);
        maintain(&mut store, &mut schedule, !queue.batches.is_empty(), fan_out, counters)?;
    }
}

/// Counts the messages that were dropped from the queues of sessions. These batches queued new messages for them.
fn count_losses(appended: &Appended, batches: &[Queued], fan_out: &FanOut) {
    for (number, messages) in &appended.dropped_by_session {
        let sessions = batches.iter().flat_map(|queued| {
            let accepted = queued.batch.accepted.iter().flat_map(Accepted::stored);
            accepted.chain(queued.batch.replays.iter().map(|request| &request.session))
        });
        let client = sessions
            .filter(|session| session.persistent == Some(*number))
            .map(|session| Arc::clone(&session.client_id))
            .next()
            .unwrap_or_default();
        fan_out.traffic.losses.add(&client, *messages);
    }
}

fn maintain(
    store: &mut Store,
    schedule: &mut Schedule,
    waiting: bool,
    fan_out: &FanOut,
    counters: &Counters,
) -> rusqlite::Result<()> {
    schedule
        .step(store, &fan_out.timeline, waiting, counters)
        .inspect_err(|cause| persist::damaged(cause, counters))
}

/// Takes the waiting batches and, with a window, those that arrive within it: fewer commits wear an SD card less, at
/// the cost of that latency.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn others_have_a_commit_between_the_ends_of_sessions() {
        let (queue, mut batches) = mpsc::channel(QUEUE_BATCHES);
        let (live, _) = broadcast::channel(1);
        let recorder = Recorder { queue, counters: Arc::default(), live };
        let mut changes: Vec<Change> = (1..=3).map(|session| Change::End { session }).collect();
        let writer = async {
            for _ in 0..3 {
                let queued = batches.recv().await.unwrap();
                assert_eq!(queued.batch.changes.len(), 1);
                tokio::task::yield_now().await;
                assert!(batches.try_recv().is_err(), "the next one waits for the commit");
                let _ = queued.committed.map(|committed| committed.send(Vec::new()));
            }
        };
        tokio::join!(recorder.note(&mut changes), writer);
        assert!(changes.is_empty());
    }
}

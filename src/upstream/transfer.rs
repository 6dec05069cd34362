//! What a session sends: the queue and what comes to it, and stored readings where the queue does not reach back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::batch::{Batch, Lease, Statements, send};
use super::connect::Session;
use super::copy::{Copying, encode};
use super::cursor::{Cursor, Fill, Plan, Queue, plan};
use super::fault::{Fault, Kind};
use super::forwarding::Forwarding;
use super::pace::{Pace, Sent};
use crate::store::{ForwardPage, ForwardReader, LogIdentity, Operation, StoredPlace};

/// Operations of one transaction: to begin with, and at most, while many wait and the database takes them fast.
const BATCH_OPERATIONS: (usize, usize) = (1_000, 8_000);
/// A transaction that takes less than the first is followed by a larger one, and one that takes longer than the second by a
/// smaller one.
const BATCH_TIMES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));
/// How often an idle session looks for requests, and for a connection that has ended.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What a session has.
pub struct Transfer<'a> {
    pub forwarding: &'a Forwarding,
    pub session: Session,
    pub statements: Statements,
    pub lease: Lease,
    pub identity: LogIdentity,
}

/// What is sent next.
struct Waiting {
    page: ForwardPage,
    /// Its readings for COPY.
    copied: Option<Bytes>,
}

/// A session ends with a fault only.
pub enum Never {}

impl Transfer<'_> {
    /// Sends until something fails.
    pub async fn run(
        &self,
        mut reader: ForwardReader,
        mut cursor: Cursor,
        copying: &mut Copying,
        pace: &mut Pace,
    ) -> Result<Never, Fault> {
        loop {
            let upto = cursor.upto;
            let (back, (queue, since)) = with(reader, move |reader| queue_at(reader, upto)).await?;
            reader = back;
            match plan(&cursor, queue, &self.identity) {
                Plan::Continue => {}
                Plan::Diverged => return Err(diverged(&self.lease.log, &cursor, queue)),
                Plan::Fill { place, fill } => {
                    self.forwarding.connected(&self.session.server);
                    info!(
                        server = self.session.server,
                        from = cursor.upto,
                        queue_begins = queue.before,
                        "sending stored readings to PostgreSQL, which lacks them or was asked to take them again"
                    );
                    self.forwarding.fills(true);
                    self.forwarding.lacks(cursor.upto);
                    (reader, cursor) = self.fill(reader, cursor, place, fill).await?;
                    self.forwarding.fills(false);
                    if cursor.fill.is_none() {
                        info!("stored readings are sent");
                    }
                    // The next ones of the queue may be among them.
                    copying.failed();
                    continue;
                }
            }
            self.forwarding.waits_since(since);
            self.forwarding.connected(&self.session.server);
            self.forwarding.forwarded(cursor.upto);
            info!(
                server = self.session.server,
                log = self.lease.log,
                forwarded = cursor.upto,
                waiting = queue.last - cursor.upto,
                "forwarding to PostgreSQL"
            );
            (reader, cursor) = self.follow(reader, cursor, copying, pace).await?;
        }
    }

    /// Sends stored readings from `place` on, and in turn with them what is in the queue, which would else overflow
    /// meanwhile. The cursor returned has no fill when all are sent; else something else is to be done first.
    async fn fill(
        &self,
        mut reader: ForwardReader,
        mut cursor: Cursor,
        mut place: StoredPlace,
        mut fill: Fill,
    ) -> Result<(ForwardReader, Cursor), Fault> {
        // What the stored readings stand for counts as sent from now on: the cursor says that they are under way.
        let upto = fill.to.max(cursor.upto);
        let mark = if upto == cursor.upto { cursor.mark } else { 0 };
        let begun = Cursor { upto, mark, fill: Some(fill), ..cursor };
        self.send(Batch { operations: &[], copied: None }, &cursor, &begun).await?;
        cursor = begun;
        let mut group = BATCH_OPERATIONS.0;
        loop {
            let waiting;
            // Many of them are among the stored ones, too, so COPY would fail.
            (reader, waiting) = self.read(reader, cursor.upto, group, false).await?;
            if let Some(Waiting { page, .. }) = waiting {
                if page.after != cursor.upto {
                    return Ok((reader, cursor));
                }
                let next = Cursor { upto: page.position, mark: page.mark, ..cursor };
                let begun = Instant::now();
                let batch = Batch { operations: &page.operations, copied: None };
                self.send(batch, &cursor, &next).await?;
                group = grown(group, page.operations.len(), begun.elapsed());
                cursor = next;
            }
            self.forwarding.released(cursor.upto);
            let from_ms = fill.from_ms;
            let (back, page) =
                with(reader, move |reader| reader.stored(place, from_ms, group)).await?;
            reader = back;
            let next = match page.next {
                Some(behind) => {
                    place = behind;
                    if let StoredPlace::Placed(run, seq) = behind {
                        fill.sent = (run, seq);
                    }
                    Cursor { fill: Some(fill), ..cursor }
                }
                None => Cursor { again: fill.again, fill: None, ..cursor },
            };
            let done = next.fill.is_none();
            if !page.operations.is_empty() || done {
                let operations: Vec<(i64, Operation)> =
                    page.operations.into_iter().map(|operation| (0, operation)).collect();
                let begun = Instant::now();
                let batch = Batch { operations: &operations, copied: None };
                self.send(batch, &cursor, &next).await?;
                group = grown(group, operations.len(), begun.elapsed());
                cursor = next;
            }
            if done {
                return Ok((reader, cursor));
            }
        }
    }

    /// Sends the queue, and what comes to it. Returns when something else is to be done first.
    async fn follow(
        &self,
        mut reader: ForwardReader,
        mut cursor: Cursor,
        copying: &mut Copying,
        pace: &mut Pace,
    ) -> Result<(ForwardReader, Cursor), Fault> {
        let mut group = BATCH_OPERATIONS.0;
        let mut waiting: Option<Waiting> = None;
        loop {
            let Some(Waiting { page, copied }) = waiting.take() else {
                let upto = cursor.upto;
                if self.forwarding.queued() <= upto {
                    self.forwarding.waits_since(None);
                    let _ = timeout(LOOK_INTERVAL, self.forwarding.woken()).await;
                    if self.session.is_closed() {
                        return Err(Fault::new(Kind::Unavailable, "the connection has ended"));
                    }
                }
                (reader, waiting) = self.read(reader, upto, group, copying.is_open()).await?;
                continue;
            };
            // Its rows before have left a full queue.
            if page.after != cursor.upto {
                return Ok((reader, cursor));
            }
            self.forwarding.waits_since(Some(page.at));
            let next = Cursor { upto: page.position, mark: page.mark, ..cursor };
            let (begun, is_copied) = (Instant::now(), copied.is_some());
            let batch = Batch { operations: &page.operations, copied };
            let waited_ms = self.forwarding.age_ms(page.at);
            let bursts = pace.bursts(self.forwarding.queued(), begun);
            // The next page is read meanwhile; in a burst more of it has come by the end of the rest.
            let (sent, read) = if bursts {
                (self.send(batch, &cursor, &next).await, Ok((reader, None)))
            } else {
                tokio::join!(
                    self.send(batch, &cursor, &next),
                    self.read(reader, next.upto, group, copying.is_open()),
                )
            };
            if is_copied && sent.is_err() {
                copying.failed();
            }
            sent?;
            copying.committed(is_copied);
            group = grown(group, page.operations.len(), begun.elapsed());
            cursor = next;
            self.forwarding.forwarded(cursor.upto);
            (reader, waiting) = read?;
            if bursts {
                let sent = Sent {
                    operations: page.operations.len(),
                    bytes: page.bytes,
                    waited_ms,
                    took: begun.elapsed(),
                    waiting: self.forwarding.queued() - cursor.upto,
                };
                sleep(pace.rest(sent)).await;
            }
        }
    }

    /// Reads what follows `upto`, and puts it into the form in which it is sent.
    async fn read(
        &self,
        reader: ForwardReader,
        upto: i64,
        group: usize,
        is_open: bool,
    ) -> Result<(ForwardReader, Option<Waiting>), Fault> {
        let log = self.lease.log.clone();
        let (reader, (identity, waiting)) = with(reader, move |reader| {
            let waiting = reader.page(upto, group)?.map(|page| {
                let copied = if is_open { encode(&page.operations, &log) } else { None };
                Waiting { page, copied }
            });
            Ok((reader.identity()?, waiting))
        })
        .await?;
        if identity.as_ref() != Some(&self.identity) {
            return Err(Fault::new(Kind::Requested, "stored readings are requested"));
        }
        Ok((reader, waiting))
    }

    async fn send(&self, batch: Batch<'_>, from: &Cursor, to: &Cursor) -> Result<(), Fault> {
        let refused = send(&self.session, &self.statements, &self.lease, batch, (from, to)).await?;
        self.forwarding.refused(refused);
        Ok(())
    }
}

/// The size of the next batch, after one of `operations` took so long while they could be up to `group`.
fn grown(group: usize, operations: usize, took: Duration) -> usize {
    if took > BATCH_TIMES.1 {
        (group / 2).max(BATCH_OPERATIONS.0)
    } else if took < BATCH_TIMES.0 && operations * 2 > group {
        (group * 2).min(BATCH_OPERATIONS.1)
    } else {
        group
    }
}

/// The queue, and when the operation behind `upto` was queued.
pub fn queue_at(reader: &ForwardReader, upto: i64) -> rusqlite::Result<(Queue, Option<i64>)> {
    let (before, last) = reader.bounds()?;
    let mark_at_cursor = reader.mark(upto)?;
    Ok((Queue { before, last, mark_at_cursor }, reader.queued_at(upto)?))
}

pub fn diverged(log: &str, cursor: &Cursor, queue: Queue) -> Fault {
    Fault::new(
        Kind::Diverged,
        format!(
            "PostgreSQL has entries of this log ({log}) up to {} that are not in it (its own end with {}): it is an older copy, or another humidor forwards under its name. If no other one does: `humidor upstream forward --again all --rename`",
            cursor.upto, queue.last
        ),
    )
}

/// Reads the log off the runtime's workers. The reader comes back with what it has read.
pub async fn with<T: Send + 'static>(
    reader: ForwardReader,
    read: impl FnOnce(&ForwardReader) -> rusqlite::Result<T> + Send + 'static,
) -> Result<(ForwardReader, T), Fault> {
    blocking(move || read(&reader).map(|found| (reader, found))).await
}

pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    match spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Fault::new(Kind::Log, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_while_many_wait_and_the_database_is_fast() {
        let (fast, slow) = (Duration::from_millis(50), Duration::from_secs(3));
        let mut group = BATCH_OPERATIONS.0;
        for _ in 0..8 {
            group = grown(group, group, fast);
        }
        assert_eq!(group, BATCH_OPERATIONS.1);
        assert_eq!(grown(group, group, Duration::from_secs(1)), group);
        assert_eq!(grown(1_000, 20, fast), 1_000, "few wait");
        for _ in 0..8 {
            group = grown(group, group, slow);
        }
        assert_eq!(group, BATCH_OPERATIONS.0);
    }
}

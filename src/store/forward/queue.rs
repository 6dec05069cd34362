//! The writer's side of the queue: adds the operations of a commit to it, and deletes what is forwarded.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tracing::error;

use crate::store::forward::progress::ForwardProgress;

/// Operations of one row of the queue, about: a record of several is not divided.
const ROW_OPERATIONS: i64 = 1_000;
/// Bytes of operations from which a row has no more of them.
const ROW_BYTES: usize = 1024 * 1024;
/// Forwarded operations that are kept, as a part of the queue's limit: an upstream database that was restored, or a standby
/// that lagged behind and was promoted, asks for them again.
const KEPT_SHARE: i64 = 4;
/// Bytes that one step deletes, at least one row: the pages of a commit.
const DELETED_BYTES: i64 = 256 * 1024;

/// A row's number, and the bytes of all rows up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct End {
    position: i64,
    bytes: i64,
}

/// The queue as the writer sees it.
#[derive(Debug)]
pub(in crate::store) struct ForwardQueue {
    /// Operations that are to be added.
    batch: Vec<u8>,
    operations: i64,
    /// The newest row; `None` while it is not known.
    newest: Option<End>,
    /// What is before the oldest row; `None` while it is not known.
    before: Option<End>,
    /// Largest size in bytes.
    limit: i64,
    progress: Arc<ForwardProgress>,
    /// Whether an overflow was told since the queue was last short enough.
    told: bool,
}

impl ForwardQueue {
    /// A queue of at most so many bytes.
    pub fn new(limit: u64, progress: Arc<ForwardProgress>) -> Self {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let batch = Vec::new();
        Self { batch, operations: 0, newest: None, before: None, limit, progress, told: false }
    }

    /// Where an operation is to be added. It is counted.
    pub fn operation(&mut self) -> &mut Vec<u8> {
        self.operations += 1;
        &mut self.batch
    }

    /// Whether the operations fill a row.
    pub const fn is_row_full(&self) -> bool {
        self.operations >= ROW_OPERATIONS || self.batch.len() >= ROW_BYTES
    }

    /// Adds the operations to the queue, as a part of their commit. `at_ms` is now in log time.
    pub fn flush(&mut self, transaction: &Transaction<'_>, at_ms: i64) -> rusqlite::Result<()> {
        if self.operations == 0 {
            return Ok(());
        }
        let newest = self.newest(transaction)?;
        let next = End {
            position: newest.position + self.operations,
            bytes: newest.bytes + i64::try_from(self.batch.len()).unwrap_or(i64::MAX),
        };
        transaction
            .prepare_cached(
                "INSERT INTO forward (position, operations, bytes, at, mark, batch)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                next.position,
                self.operations,
                next.bytes,
                at_ms,
                fastrand::i64(1..),
                self.batch
            ])?;
        self.newest = Some(next);
        self.operations = 0;
        self.batch.clear();
        Ok(())
    }

    /// Publishes the state of the last commit.
    pub fn committed(&self) {
        if let Some(newest) = self.newest {
            self.progress.set_queued(newest.position);
        }
    }

    /// Forgets a transaction that was rolled back.
    pub fn rolled_back(&mut self) {
        self.batch.clear();
        self.operations = 0;
        self.newest = None;
        self.before = None;
    }

    fn newest(&mut self, connection: &Connection) -> rusqlite::Result<End> {
        if let Some(newest) = self.newest {
            return Ok(newest);
        }
        let newest = connection
            .prepare_cached("SELECT position, bytes FROM forward ORDER BY position DESC LIMIT 1")?
            .query_row([], |row| Ok(End { position: row.get(0)?, bytes: row.get(1)? }))
            .optional()?
            .unwrap_or_default();
        Ok(*self.newest.insert(newest))
    }

    fn before(&mut self, connection: &Connection) -> rusqlite::Result<End> {
        if let Some(before) = self.before {
            return Ok(before);
        }
        let before = connection
            .prepare_cached(
                "SELECT position - operations, bytes - length(batch) FROM forward
                 ORDER BY position LIMIT 1",
            )?
            .query_row([], |row| Ok(End { position: row.get(0)?, bytes: row.get(1)? }))
            .optional()?
            .unwrap_or_default();
        Ok(*self.before.insert(before))
    }

    /// Reads the state of the queue, once.
    pub fn load(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.newest(connection)?;
        let before = self.before(connection)?;
        // What is not in the queue any more: better than nothing until the upstream database has been asked.
        self.progress.set_forwarded(before.position);
        self.committed();
        Ok(())
    }

    /// Whether rows can be deleted.
    fn has_surplus(&self) -> bool {
        let (Some(newest), Some(before)) = (self.newest, self.before) else { return true };
        let bytes = newest.bytes - before.bytes;
        bytes > self.limit
            || (bytes > self.limit / KEPT_SHARE && before.position < self.progress.released())
    }

    /// Deletes the oldest rows that are forwarded and not kept, or that are too many. The newest of both stays: its mark tells
    /// this log from a copy of it. Returns whether there may be more to delete.
    pub fn shorten(&mut self, connection: &mut Connection) -> rusqlite::Result<bool> {
        if !self.has_surplus() {
            return Ok(false);
        }
        let (newest, before) = (self.newest(connection)?, self.before(connection)?);
        let released = self.progress.released();
        let transaction = connection.transaction()?;
        let mut end = before;
        let mut overflowed = 0;
        {
            let mut statement = transaction.prepare_cached(
                "SELECT position, operations, bytes FROM forward ORDER BY position",
            )?;
            let mut rows = statement.query([])?;
            let mut last: Option<(End, i64)> = None;
            while let Some(row) = rows.next()? {
                let (next, operations) =
                    (End { position: row.get(0)?, bytes: row.get(2)? }, row.get::<_, i64>(1)?);
                // A row goes once the one behind it is known to be forwarded, too.
                if let Some((candidate, operations)) = last {
                    let left = newest.bytes - end.bytes;
                    let is_kept = left <= self.limit / KEPT_SHARE || next.position > released;
                    if is_kept && left <= self.limit {
                        break;
                    }
                    if candidate.position > released {
                        overflowed += operations;
                    }
                    end = candidate;
                    if end.bytes - before.bytes >= DELETED_BYTES {
                        break;
                    }
                }
                last = Some((next, operations));
            }
        }
        if end == before {
            self.told = false;
            return Ok(false);
        }
        transaction
            .prepare_cached("DELETE FROM forward WHERE position <= ?")?
            .execute([end.position])?;
        transaction.commit()?;
        self.before = Some(end);
        if overflowed > 0 {
            self.progress.add_overflowed(overflowed);
            if !std::mem::replace(&mut self.told, true) {
                error!(
                    limit = self.limit,
                    "the queue for PostgreSQL is full (HUMIDOR_UPSTREAM_BACKLOG): its oldest entries are given up. Readings among them are sent from the log later, as long as it keeps them; samples and alarms are not"
                );
            }
        }
        Ok(true)
    }
}

/// Deletes some of a queue that is not used any more, but for its newest row. Returns whether there was any.
pub(in crate::store) fn discard_some(connection: &Connection) -> rusqlite::Result<bool> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM forward WHERE position IN (SELECT position FROM forward ORDER BY position LIMIT 4)
             AND position < (SELECT max(position) FROM forward)",
        )?
        .execute([])?;
    Ok(deleted > 0)
}

//! Begins and keeps the queue for the upstream database, and notes what is committed without it.

use std::sync::Arc;

use rusqlite::{Connection, Transaction};

use crate::store::forward::identity;
use crate::store::forward::progress::ForwardProgress;
use crate::store::forward::queue::{ForwardQueue, discard_some};
use crate::store::write::record::Record;
use crate::store::write::writer::{Durability, Store};

/// A log that is not forwarded now, and was once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Unqueued {
    /// The next reading is to be noted as one that was not queued.
    notes: bool,
    /// It has been, in the transaction that is open.
    noted: bool,
    /// The queue may have rows that nobody will forward.
    discards: bool,
}

impl Unqueued {
    /// A log that is forwarded.
    const NOTHING: Self = Self { notes: false, noted: false, discards: false };

    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let notes = identity::is_to_be_paused(connection)?;
        Ok(Self { notes, noted: false, discards: true })
    }

    /// Notes in their commit that readings are not queued: when the log is forwarded again they are sent from its rows.
    pub fn note(
        &mut self,
        transaction: &Transaction<'_>,
        records: &[&Record],
    ) -> rusqlite::Result<()> {
        self.noted =
            self.notes && records.iter().any(|record| matches!(record, Record::Reading { .. }));
        if self.noted { identity::pause(transaction) } else { Ok(()) }
    }

    /// The transaction was committed.
    pub const fn committed(&mut self) {
        self.notes = self.notes && !self.noted;
    }
}

impl Store {
    /// Queues what is committed from now on for the upstream database: at most `backlog_bytes`, of which the oldest are given
    /// up. Readings that were stored without being queued are requested from the forwarder.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn forward(&mut self, backlog_bytes: u64) -> rusqlite::Result<Arc<ForwardProgress>> {
        self.bring_to_disk()?;
        self.set_durability(Durability::Full)?;
        let transaction = self.connection.transaction()?;
        identity::resume(&transaction)?;
        transaction.commit()?;
        let progress = Arc::<ForwardProgress>::default();
        let mut queue = ForwardQueue::new(backlog_bytes, Arc::clone(&progress));
        queue.load(&self.connection)?;
        self.cache.forward = Some(queue);
        self.unqueued = Unqueued::NOTHING;
        Ok(progress)
    }

    /// Deletes some of the queue, as far as nobody needs it. Returns whether there may be more to delete.
    pub(in crate::store) fn shorten_queue(&mut self) -> rusqlite::Result<bool> {
        let Some(queue) = &mut self.cache.forward else {
            self.unqueued.discards = self.unqueued.discards && discard_some(&self.connection)?;
            return Ok(self.unqueued.discards);
        };
        queue.shorten(&mut self.connection).inspect_err(|_| queue.rolled_back())
    }
}

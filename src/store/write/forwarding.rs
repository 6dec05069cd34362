//! Begins and shortens the queue for the upstream database.

use std::sync::Arc;

use crate::store::forward::identity;
use crate::store::forward::progress::ForwardProgress;
use crate::store::forward::queue::{ForwardQueue, discard_some};
use crate::store::write::durability::Durability;
use crate::store::write::unqueued::Unqueued;
use crate::store::write::writer::Store;

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

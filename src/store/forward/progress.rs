//! How far the queue and the forwarder are: numbers that the writer, the forwarder and the web share.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Positions of the queue, shared. Positions count operations from the beginning of the log.
#[derive(Debug, Default)]
pub struct ForwardProgress {
    queued: AtomicI64,
    forwarded: AtomicI64,
    released: AtomicI64,
    overflowed: AtomicU64,
}

impl ForwardProgress {
    /// The number of the newest operation that is committed to the log.
    #[must_use]
    pub fn queued(&self) -> i64 {
        self.queued.load(Ordering::Acquire)
    }

    pub(in crate::store) fn set_queued(&self, position: i64) {
        self.queued.store(position, Ordering::Release);
    }

    /// Operations up to this number are committed upstream, as far as the upstream database said last. It falls when that
    /// was restored from an older copy.
    #[must_use]
    pub fn forwarded(&self) -> i64 {
        self.forwarded.load(Ordering::Acquire)
    }

    /// Sets [`ForwardProgress::forwarded`]: the writer may delete what is before it.
    pub fn set_forwarded(&self, position: i64) {
        self.forwarded.store(position, Ordering::Release);
        self.set_released(position);
    }

    /// The writer may delete operations up to this number. More than are forwarded while stored readings are sent again, in
    /// turn with the queue.
    pub(in crate::store) fn released(&self) -> i64 {
        self.released.load(Ordering::Acquire)
    }

    /// Sets what the writer may delete, until the next [`ForwardProgress::set_forwarded`].
    pub fn set_released(&self, position: i64) {
        self.released.store(position, Ordering::Release);
    }

    /// Operations that left a full queue before they were forwarded, since the start. Readings among them are sent from the
    /// log's rows later, as far as they are still there.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    pub(in crate::store) fn add_overflowed(&self, operations: i64) {
        self.overflowed.fetch_add(operations.unsigned_abs(), Ordering::Relaxed);
    }
}

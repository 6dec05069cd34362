//! What the writer knows of the database, so that an append need not ask it.

use crate::store::retention::horizon::Horizon;
use crate::store::rollup::dirty::DirtyMarks;
use crate::store::write::intern::Interner;

/// The writer's cache.
#[derive(Debug)]
pub(in crate::store) struct WriterCache {
    pub interner: Interner,
    pub marks: DirtyMarks,
    pub horizon: Horizon,
    /// Whether a run may have readings that wait for their corrected time.
    pub restamping: bool,
}

impl WriterCache {
    /// A cache that holds only the horizon.
    pub fn new(horizon: Horizon) -> Self {
        let (interner, marks) = (Interner::default(), DirtyMarks::default());
        Self { interner, marks, horizon, restamping: true }
    }

    /// Forgets the names and marks of a transaction that was rolled back.
    pub fn forget(&mut self) {
        *self = Self::new(self.horizon);
    }
}

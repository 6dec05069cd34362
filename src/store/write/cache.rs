//! What the writer knows of the database, so that an append need not ask it.

use rusqlite::Connection;

use crate::store::retention::horizon::Horizon;
use crate::store::rollup::dirty::DirtyMarks;
use crate::store::write::arrival::Arrivals;
use crate::store::write::intern::Interner;

/// The writer's cache.
#[derive(Debug)]
pub(in crate::store) struct WriterCache {
    pub interner: Interner,
    pub marks: DirtyMarks,
    pub horizon: Horizon,
    /// Whether a run may have readings that wait for their corrected time.
    pub restamping: bool,
    arrivals: Option<Arrivals>,
}

impl WriterCache {
    /// A cache that holds only the horizon.
    pub fn new(horizon: Horizon) -> Self {
        let (interner, marks) = (Interner::default(), DirtyMarks::default());
        Self { interner, marks, horizon, restamping: true, arrivals: None }
    }

    /// The state of the table of arrivals.
    pub fn arrivals(&mut self, connection: &Connection) -> rusqlite::Result<&mut Arrivals> {
        match &mut self.arrivals {
            Some(known) => Ok(known),
            unknown => Ok(unknown.insert(Arrivals::load(connection)?)),
        }
    }

    /// The state of the table of arrivals, as far as it is known.
    pub const fn known_arrivals(&self) -> Option<&Arrivals> {
        self.arrivals.as_ref()
    }

    /// Forgets the names, marks and numbers of a transaction that was rolled back.
    pub fn forget(&mut self) {
        *self = Self::new(self.horizon);
    }
}

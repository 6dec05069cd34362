//! What the writer knows of the database, so that an append need not ask it.

use rusqlite::Connection;

use crate::store::retention::horizon::Horizon;
use crate::store::rollup::dirty::DirtyMarks;
use crate::store::write::arrival::Arrivals;
use crate::store::write::intern::Interner;
use crate::store::write::record::SeriesName;

/// The writer's cache.
#[derive(Debug)]
pub(in crate::store) struct WriterCache {
    pub interner: Interner,
    pub marks: DirtyMarks,
    pub horizon: Horizon,
    /// Whether a run may have readings that wait for their corrected time.
    pub restamping: bool,
    arrivals: Option<Arrivals>,
    /// The names of all rows of table `arrival` from this id on are interned.
    names_since: Option<i64>,
    /// Series that were deleted and not reported yet.
    pub deleted: Vec<SeriesName>,
}

impl WriterCache {
    /// A cache that holds only the horizon.
    pub fn new(horizon: Horizon) -> Self {
        let (interner, marks) = (Interner::default(), DirtyMarks::default());
        let (arrivals, names_since, deleted) = (None, None, Vec::new());
        Self { interner, marks, horizon, restamping: true, arrivals, names_since, deleted }
    }

    /// The state of the table of arrivals.
    pub fn arrivals(&mut self, connection: &Connection) -> rusqlite::Result<&mut Arrivals> {
        match &mut self.arrivals {
            Some(known) => Ok(known),
            unknown => Ok(unknown.insert(Arrivals::load(connection)?)),
        }
    }

    /// Begins the cache of names anew.
    pub fn renew_names(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.interner = Interner::default();
        self.names_since = Some(self.arrivals(connection)?.last() + 1);
        Ok(())
    }

    /// Whether the sensor of every row that is still to be moved is interned.
    pub fn knows_waiting_sensors(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let unmoved_from = self.arrivals(connection)?.unmoved_from;
        Ok(self.names_since.is_some_and(|since| unmoved_from >= since))
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

//! What the writer knows of the database, so that an append need not ask it.

use rusqlite::Connection;

use crate::clock::SET_FROM_MS;
use crate::store::forward::queue::ForwardQueue;
use crate::store::retention::fold::Additions;
use crate::store::retention::horizon::Horizons;
use crate::store::retention::present::Present;
use crate::store::rollup::dirty::DirtyMarks;
use crate::store::write::arrival::{Arrivals, SEGMENT_ROWS};
use crate::store::write::intern::Interner;
use crate::store::write::record::SeriesName;
use crate::store::write::stretch::EarlySamples;

/// The writer's cache.
#[derive(Debug)]
pub(in crate::store) struct WriterCache {
    pub interner: Interner,
    pub marks: DirtyMarks,
    pub horizons: Horizons,
    /// Whether a run may have readings that wait for their corrected time.
    pub restamping: bool,
    /// The horizon that is to be, Unix ms: readings before it that have no clock yet already await it.
    pub parking_until: i64,
    /// Unix ms by the broker's clock when the writer was last told; the end of time while that clock is not set.
    pub now_ms: i64,
    /// Unix ms minus log time.
    pub correction_ms: i64,
    /// Whether the broker's clock is set; so it is taken for while nobody has told of it.
    pub is_set: bool,
    /// Now in log time, ms.
    pub log_ms: i64,
    /// When the clock was last stepped, log time in ms.
    pub stepped_log_ms: Option<i64>,
    /// Samples of this commit whose times are not sure.
    pub early: EarlySamples,
    /// The queue for the upstream database, where there is one.
    pub forward: Option<ForwardQueue>,
    /// Readings of this step of a move whose roll-ups are closed.
    pub added_readings: Additions<2>,
    /// Samples of this commit whose roll-ups are closed.
    pub added_samples: Additions<1>,
    /// Rows that were deleted though their time was of the last hour, and not reported yet.
    pub young_deleted: u64,
    arrivals: Option<Arrivals>,
    /// Rows that are moved to their place together.
    pub segment_rows: i64,
    /// The names of all rows of table `arrival` from this id on are interned.
    names_since: Option<i64>,
    /// Rows of table `refusal`, once it is known.
    pub refusal_rows: Option<i64>,
    /// Series that were deleted and not reported yet.
    pub deleted: Vec<SeriesName>,
}

impl WriterCache {
    /// A cache that holds only the horizons.
    pub fn new(horizons: Horizons) -> Self {
        let (interner, marks) = (Interner::default(), DirtyMarks::default());
        Self {
            interner,
            marks,
            horizons,
            restamping: true,
            parking_until: i64::MIN,
            now_ms: i64::MAX,
            correction_ms: 0,
            is_set: true,
            log_ms: i64::MIN,
            stepped_log_ms: None,
            early: EarlySamples::default(),
            forward: None,
            added_readings: Additions::default(),
            added_samples: Additions::default(),
            young_deleted: 0,
            arrivals: None,
            segment_rows: SEGMENT_ROWS,
            names_since: None,
            refusal_rows: None,
            deleted: Vec::new(),
        }
    }

    /// The state of the table of arrivals.
    pub fn arrivals(&mut self, connection: &Connection) -> rusqlite::Result<&mut Arrivals> {
        match &mut self.arrivals {
            Some(known) => Ok(known),
            unknown => Ok(unknown.insert(Arrivals::load(connection)?)),
        }
    }

    /// Notes the time, Unix ms.
    pub const fn tell_time(&mut self, now_ms: i64) {
        self.now_ms = if now_ms < SET_FROM_MS { i64::MAX } else { now_ms };
    }

    /// The present at `now_ms`, Unix ms.
    pub const fn present(&self, now_ms: i64) -> Present {
        Present { now_ms, correction_ms: self.correction_ms, in_doubt: false }
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
        let Self { now_ms, correction_ms, is_set, log_ms, stepped_log_ms, segment_rows, .. } =
            *self;
        let mut forward = self.forward.take();
        if let Some(forward) = &mut forward {
            forward.rolled_back();
        }
        *self = Self {
            now_ms,
            correction_ms,
            is_set,
            log_ms,
            stepped_log_ms,
            forward,
            segment_rows,
            ..Self::new(self.horizons.clone())
        };
    }
}

//! Notes what is committed while the log is not forwarded, though it once was.

use rusqlite::{Connection, Transaction};

use crate::store::forward::identity;
use crate::store::write::record::Record;

/// A log that is not forwarded now, and was once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Unqueued {
    /// The next reading is to be noted as one that was not queued.
    notes: bool,
    /// It has been, in the transaction that is open.
    noted: bool,
    /// The queue may have rows that nobody will forward.
    pub discards: bool,
}

impl Unqueued {
    /// A log that is forwarded.
    pub const NOTHING: Self = Self { notes: false, noted: false, discards: false };

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

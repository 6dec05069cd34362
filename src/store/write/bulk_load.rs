//! Loads records in bulk: the same append and the same maintenance as ever, but it waits for the disk only once, at the
//! end.

use std::fs::File;
use std::path::Path;

use crate::store::file::error::OpenError;
use crate::store::write::durability::Durability;
use crate::store::write::record::{Appended, Record};
use crate::store::write::writer::Store;

impl Store {
    /// As [`Store::append`], but a power cut before [`Store::finish_bulk_load`] may cost the whole file.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn bulk_load(&mut self, records: &[&Record]) -> rusqlite::Result<Appended> {
        self.commit_with(records, &[], Durability::Off)
    }

    /// As [`Store::maintain`], with the risk of [`Store::bulk_load`].
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn maintain_bulk_load(&mut self, now_ms: i64) -> rusqlite::Result<bool> {
        self.maintain_with(now_ms, Durability::Off)
    }

    /// Puts everything on the disk, and returns the size of the file in bytes; `path` is the log's own.
    ///
    /// # Errors
    /// The error of SQLite or of the system: then none of the loaded records counts.
    pub fn finish_bulk_load(&mut self, path: &Path) -> Result<u64, OpenError> {
        let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        self.set_durability(Durability::Full).map_err(sqlite)?;
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(sqlite)?;
        // No commit has waited for the pages that were checkpointed before.
        let file = File::open(path).map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(file.metadata().map_err(io)?.len())
    }
}

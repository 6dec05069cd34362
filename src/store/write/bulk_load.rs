//! Fills a log with what nobody waits for: the same append and the same maintenance, but the disk is waited for
//! once, at the end.

use std::fs::File;
use std::path::Path;

use crate::store::file::error::OpenError;
use crate::store::write::record::{Appended, Record};
use crate::store::write::writer::{Durability, Store};

impl Store {
    /// As [`Store::append`], but a power cut before [`Store::finish_bulk_load`] may cost the whole file.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn bulk_load(&mut self, records: &[&Record]) -> rusqlite::Result<Appended> {
        self.commit_with(records, &[], Durability::Off)
    }

    /// As [`Store::maintain`], with the risk of [`Store::bulk_load`].
    ///
    /// # Errors
    /// What SQLite said.
    pub fn maintain_bulk_load(&mut self, now_ms: i64) -> rusqlite::Result<bool> {
        self.maintain_with(now_ms, Durability::Off)
    }

    /// Puts everything on the disk, and returns the size of the file in bytes; `path` is the log's own.
    ///
    /// # Errors
    /// What SQLite or the system said: then nothing that was filled in counts.
    pub fn finish_bulk_load(&mut self, path: &Path) -> Result<u64, OpenError> {
        let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        self.set_durability(Durability::Full).map_err(sqlite)?;
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(sqlite)?;
        // Pages that were checkpointed before were never waited for.
        let file = File::open(path).map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(file.metadata().map_err(io)?.len())
    }
}

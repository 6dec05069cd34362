//! Checks the log and copies it, beside a running broker.

use std::path::Path;

use crate::store::read::log::Log;

impl Log {
    /// Every complaint of a full integrity check; empty when the log is sound.
    ///
    /// # Errors
    /// When the check itself cannot run.
    pub fn check(&self) -> rusqlite::Result<Vec<String>> {
        let verdicts = self
            .connection
            .prepare("PRAGMA integrity_check")?
            .query_map([], |row| row.get::<_, String>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(verdicts.into_iter().filter(|verdict| verdict != "ok").collect())
    }

    /// Writes a compact copy of the log as it is now to `target`, which must not exist.
    ///
    /// `VACUUM INTO` reads one snapshot: unlike SQLite's page-wise backup, which starts over with
    /// every commit of the broker, it always ends.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn copy_to(&self, target: &Path) -> rusqlite::Result<()> {
        self.connection.execute("VACUUM INTO ?", [target.to_string_lossy()]).map(|_| ())
    }
}

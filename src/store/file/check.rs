//! The check of a whole database file (`quick_check`): it can be stopped, and runs beside the writer on a connection of
//! its own, which only reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rusqlite::{Connection, OpenFlags};
use tracing::{info, warn};

use crate::store::file::damage::damage;
use crate::store::file::lock::with_suffix;
use crate::store::file::write_ahead_log::WriteAheadLog;

/// Pages of the check between two looks at [`Stop`]: a few milliseconds of an SD card.
const STOP_INTERVAL: i32 = 10;
/// Name of the mark, after the database's.
const SUSPECT: &str = ".suspect";

/// Stops a check. A clone stops the same one.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Stops the check at once, also one that begins later.
    pub fn stop(&self) {
        self.0.store(true, Relaxed);
    }
}

/// The check of a file whose writer is at work already. Until it has ended well, the writer writes to the write-ahead log
/// only, and the file stays as it was found.
#[derive(Debug)]
pub struct Check {
    pub(in crate::store) path: PathBuf,
    pub(in crate::store) log: WriteAheadLog,
}

impl Check {
    /// Checks, however long it takes. Then the writer goes on as usual.
    ///
    /// # Errors
    /// The damage ([`crate::store::is_damage`]); SQLite's error when the file cannot be read, or the check was stopped.
    pub fn run(self, stop: &Stop) -> rusqlite::Result<()> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        quick_check(&mut connection, stop)?;
        self.log.checked();
        info!(database = %self.path.display(), "the database is checked: it is sound");
        Ok(())
    }
}

/// Checks the file of a connection.
pub(in crate::store) fn quick_check(
    connection: &mut Connection,
    stop: &Stop,
) -> rusqlite::Result<()> {
    let stopped = Arc::clone(&stop.0);
    connection.progress_handler(STOP_INTERVAL, Some(move || stopped.load(Relaxed)))?;
    let verdict = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match verdict?.as_str() {
        "ok" => Ok(()),
        verdict => Err(damage(verdict)),
    }
}

/// Marks a database in which damage was found while it was in use: the next start checks it before anything else, and
/// moves it aside.
pub fn suspect(database: &Path) {
    let mark = with_suffix(database, SUSPECT);
    if let Err(error) = std::fs::write(&mark, "") {
        warn!(mark = %mark.display(), %error, "cannot mark the damaged database for the next start");
    }
}

pub(in crate::store) fn is_suspect(database: &Path) -> bool {
    with_suffix(database, SUSPECT).exists()
}

pub(in crate::store) fn is_no_longer_suspect(database: &Path) {
    let _ = std::fs::remove_file(with_suffix(database, SUSPECT));
}

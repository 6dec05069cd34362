//! Opens a database file the way an SD card needs it: locked against a second process, checked,
//! moved aside when it is damaged, never deleted. Used by the broker's log and the node's outbox.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tracing::error;

use crate::store::file::check::{Check, Stop, is_no_longer_suspect, is_suspect, quick_check};
use crate::store::file::damage::{is_damage, move_aside};
use crate::store::file::error::OpenError;
use crate::store::file::lock::{Lock, MODE, with_suffix};
use crate::store::file::migrate::{Database, migrate, refuse_others};
use crate::store::file::write_ahead_log::{WriteAheadLog, is_lock, restart};

/// How long a statement waits for another program's lock before it gives up and is tried again.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Up to this size a check takes no second, on an SD card either.
pub(in crate::store) const CHECKED_FIRST_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// The write-ahead log is cut back to this after a checkpoint: the size that it has then anyway.
const WAL_LIMIT_BYTES: u32 = 16 * 1024 * 1024;

/// A database that is open for writing.
#[derive(Debug)]
pub(in crate::store) struct Opened {
    pub connection: Connection,
    pub lock: Lock,
    pub log: WriteAheadLog,
    /// What is left to do, when the file was too large to be checked first.
    pub check: Option<Check>,
}

/// Opens or creates the database at `path` for writing: takes its lock, checks it (`quick_check`),
/// moves it aside if it is damaged, migrates it, and sets it up so that a commit is on the disk when
/// it returns (WAL, `synchronous=FULL`).
///
/// # Errors
/// [`OpenError`]. A damaged file is no error: it is kept beside the new one, and logged as an error.
pub fn open_checked(
    path: &Path,
    kind: Database,
) -> Result<(Connection, WriteAheadLog, Lock), OpenError> {
    let opened = open(path, kind, u64::MAX, &Stop::default())?;
    Ok((opened.connection, opened.log, opened.lock))
}

/// As [`open_checked`]. A file of more than `checked_first` bytes is left for [`Check`], unless the last process that had
/// it open has marked it as damaged.
pub(in crate::store) fn open(
    path: &Path,
    kind: Database,
    checked_first: u64,
    stop: &Stop,
) -> Result<Opened, OpenError> {
    if let Some(folder) = path.parent() {
        let io = |source| OpenError::Io { path: folder.to_owned(), source };
        if folder.is_file() {
            let text = "is a file, not a folder; set HUMIDOR_DATA to a folder";
            return Err(io(std::io::Error::new(std::io::ErrorKind::NotADirectory, text)));
        }
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let lock = Lock::take(path)?;
    let suspect = is_suspect(path);
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    let first = suspect || size <= checked_first;
    let outcome = match open_sound(path, kind, first, stop) {
        Err(OpenError::Sqlite { source, .. }) if is_damage(&source) => {
            let aside = move_aside(path)?;
            error!(
                database = %path.display(), kept_as = %aside.display(), cause = %source,
                "the database is damaged: it was moved aside and a new one is started; \
                 `sqlite3 {} .recover` may get rows back", aside.display()
            );
            open_sound(path, kind, true, stop)
        }
        other => other,
    };
    let (connection, log) = outcome?;
    if suspect {
        is_no_longer_suspect(path);
    }
    let check = log.is_unchecked().then(|| Check { path: path.to_owned(), log: log.clone() });
    Ok(Opened { connection, lock, log, check })
}

fn open_sound(
    path: &Path,
    kind: Database,
    checked: bool,
    stop: &Stop,
) -> Result<(Connection, WriteAheadLog), OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    create(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    sync_files(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    // A migration writes everywhere: it is not for a file that may be damaged.
    let checked = refuse_others(&connection, path, kind)? < kind.migrations.len() || checked;
    set_up(&connection).map_err(sqlite)?;
    if checked {
        // A damaged file is kept with its write-ahead log.
        let keep_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        connection.set_db_config(keep_log, true).map_err(sqlite)?;
        quick_check(&mut connection, stop).map_err(sqlite)?;
        connection.set_db_config(keep_log, false).map_err(sqlite)?;
    }
    match restart(&connection) {
        // Another program reads or writes; what it does not let be copied was synced above.
        Err(error) if is_lock(&error) => {}
        outcome => outcome.map_err(sqlite)?,
    }
    let log = WriteAheadLog::watch(&mut connection).map_err(sqlite)?;
    migrate(&mut connection, path, kind)?;
    if !checked {
        log.leave_unchecked();
    }
    Ok((connection, log))
}

/// Syncs what a killed process has left unsynced: a repeat of a reading that is found in the file is acknowledged without a
/// commit of its own. Before the files are opened: to close one would take SQLite's locks away.
fn sync_files(path: &Path) -> Result<(), OpenError> {
    for path in [path.to_owned(), with_suffix(path, "-wal")] {
        match File::open(&path).and_then(|file| file.sync_all()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Io { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Creates a file that is not there, readable by its owner and group. SQLite would leave that to the umask. A file that
/// is there keeps its mode.
fn create(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(MODE).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Settings of every writing connection. `auto_vacuum` only takes effect before the first table.
fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // `WriteAheadLog` does it, after the check.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // NORMAL would lose the last commits on a power cut, and with them acknowledged readings.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
    // The container's root is read-only: there is no /tmp to spill to.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    // Else a statement whose plan could depend on a bound value is compiled anew each time that value changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Database = Database {
        application_id: 7,
        migrations: &["CREATE TABLE a(x)", "ALTER TABLE a ADD COLUMN y"],
    };

    fn version(path: &Path) -> usize {
        let connection = Connection::open(path).unwrap();
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_old_schema_is_migrated_and_a_newer_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let first = Database { migrations: &KIND.migrations[..1], ..KIND };
        drop(open_checked(&path, first).unwrap());
        assert_eq!(version(&path), 1);
        drop(open_checked(&path, KIND).unwrap());
        assert_eq!(version(&path), 2);
        assert!(matches!(
            open_checked(&path, first),
            Err(OpenError::Newer { found: 2, known: 1, .. })
        ));
    }

    #[test]
    fn a_second_process_is_refused_while_the_first_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let first = open_checked(&path, KIND).unwrap();
        assert!(matches!(open_checked(&path, KIND), Err(OpenError::InUse { .. })));
        drop(first);
        assert!(open_checked(&path, KIND).is_ok());
    }

    #[test]
    fn a_damaged_file_is_kept_beside_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        std::fs::write(&path, vec![0x55; 8192]).unwrap();
        let (connection, _, _lock) = open_checked(&path, KIND).unwrap();
        connection.execute("INSERT INTO a VALUES (1, 2)", []).unwrap();
        let kept = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .find(|entry| entry.file_name().to_string_lossy().contains("damaged"))
            .expect("the damaged file is kept");
        assert_eq!(std::fs::read(kept.path()).unwrap(), vec![0x55; 8192]);
    }

    #[test]
    fn a_strangers_database_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs(x)").unwrap();
        assert!(matches!(open_checked(&path, KIND), Err(OpenError::Foreign { found: 0, .. })));
    }
}

//! Opens a database file the way an SD card needs it: locked against a second process, checked,
//! moved aside when it is damaged, never deleted. Used by the broker's log and the node's outbox.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tracing::{error, info};

use crate::store::file::damage::{damage, is_damage, move_aside};
use crate::store::file::error::OpenError;
use crate::store::file::lock::{Lock, MODE};
use crate::store::file::migrate::{Database, migrate, refuse_others};

/// How long a statement waits for another program's lock before it gives up and is tried again.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// From this size on the check takes seconds on an SD card, and is logged.
const SLOW_CHECK_BYTES: u64 = 64 * 1024 * 1024;
/// Pages of the write-ahead log at which it is copied into the database. Four times SQLite's default: a page that many
/// commits change is copied less often, and the writer waits for fewer syncs.
const CHECKPOINT_PAGES: u32 = 4_000;
/// The write-ahead log is cut back to this after a checkpoint: the size that it has then anyway.
const WAL_LIMIT_BYTES: u32 = 16 * 1024 * 1024;

/// Opens or creates the database at `path` for writing: takes its lock, checks it (`quick_check`),
/// moves it aside if it is damaged, migrates it, and sets it up so that a commit is on the disk when
/// it returns (WAL, `synchronous=FULL`).
///
/// # Errors
/// [`OpenError`]. A damaged file is no error: it is kept beside the new one, and logged as an error.
pub fn open_checked(path: &Path, kind: Database) -> Result<(Connection, Lock), OpenError> {
    if let Some(folder) = path.parent() {
        let io = |source| OpenError::Io { path: folder.to_owned(), source };
        if folder.is_file() {
            let text = "is a file, not a folder; set HUMIDOR_DATA to a folder";
            return Err(io(std::io::Error::new(std::io::ErrorKind::NotADirectory, text)));
        }
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let lock = Lock::take(path)?;
    let connection = match open_sound(path, kind) {
        Err(OpenError::Sqlite { source, .. }) if is_damage(&source) => {
            let aside = move_aside(path)?;
            error!(
                database = %path.display(), kept_as = %aside.display(), cause = %source,
                "the database is damaged: it was moved aside and a new one is started; \
                 `sqlite3 {} .recover` may get rows back", aside.display()
            );
            open_sound(path, kind)?
        }
        other => other?,
    };
    Ok((connection, lock))
}

fn open_sound(path: &Path, kind: Database) -> Result<Connection, OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    create(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    refuse_others(&connection, path, kind)?;
    set_up(&connection).map_err(sqlite)?;
    let size = std::fs::metadata(path).map_or(0, |m| m.len());
    if size > SLOW_CHECK_BYTES {
        info!(database = %path.display(), mib = size / 1024 / 1024, "checking the database");
    }
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sqlite)?;
    if verdict != "ok" {
        return Err(sqlite(damage(&verdict)));
    }
    migrate(&mut connection, path, kind)?;
    Ok(connection)
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
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // NORMAL would lose the last commits on a power cut, and with them acknowledged readings.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
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
        let (connection, _lock) = open_checked(&path, KIND).unwrap();
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

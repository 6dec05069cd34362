//! Opens a database file the way an SD card needs it: locked against a second process, checked,
//! moved aside when it is damaged, never deleted. Used by the broker's log and the node's outbox.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tracing::{error, info};

/// How long a statement waits for another program's lock before it gives up and is tried again.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// The write-ahead log is cut back to this after a checkpoint.
const WAL_LIMIT_BYTES: u32 = 4 * 1024 * 1024;

/// What kind of database a file is: its schema, and the mark by which it is told from others.
#[derive(Debug, Clone, Copy)]
pub struct Database {
    /// `PRAGMA application_id`, so that a stranger's file is not migrated.
    pub application_id: i32,
    /// One script a schema version; `PRAGMA user_version` counts how many have run.
    pub migrations: &'static [&'static str],
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock file.
    #[error("{} is in use by another humidor process; stop it or choose another data folder (HUMIDOR_DATA)", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// Written by a newer version of this program.
    #[error("{} has schema version {found}, this program knows up to {known}: use the newer humidor that wrote it, or another data folder", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its `user_version`.
        found: usize,
        /// The newest we know.
        known: usize,
    },
    /// A sound SQLite file of some other program.
    #[error("{} is a database of another program (application_id {found:#x}); it is left as it is, choose another data folder", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
        /// Its `application_id`.
        found: i64,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// Whether the disk has no room, not even for the files that opening needs.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Sqlite { source, .. } => {
                source.sqlite_error_code() == Some(ErrorCode::DiskFull)
                    || source.sqlite_error().is_some_and(|error| {
                        error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
                    })
            }
            _ => false,
        }
    }

    /// Whether the cause is a missing permission, for the exit code.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                )
            }
            Self::Sqlite { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen)
            ),
            _ => false,
        }
    }
}

/// Holds the lock of a database for as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    fn take(database: &Path) -> Result<Self, OpenError> {
        let path = with_suffix(database, ".lock");
        let io_error = |source| OpenError::Io { path: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: database.to_owned() }),
            Err(TryLockError::Error(source)) => Err(io_error(source)),
        }
    }
}

/// Opens or creates the database at `path` for writing: takes its lock, checks it (`quick_check`),
/// moves it aside if it is damaged, migrates it, and sets it up so that a commit is on the disk when
/// it returns (WAL, `synchronous=FULL`).
///
/// # Errors
/// [`OpenError`]. A damaged file is no error: it is kept beside the new one, and said loudly.
pub fn open_checked(path: &Path, kind: Database) -> Result<(Connection, Lock), OpenError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|source| OpenError::Io { path: folder.to_owned(), source })?;
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
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    refuse_strangers(&connection, path, kind)?;
    set_up(&connection).map_err(sqlite)?;
    let size = std::fs::metadata(path).map_or(0, |m| m.len());
    if size > 64 * 1024 * 1024 {
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

/// Looks at whose database it is before anything in it is changed.
fn refuse_strangers(connection: &Connection, path: &Path, kind: Database) -> Result<(), OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(sqlite);
    let found = number("PRAGMA application_id")?;
    let empty = found == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0;
    if found != i64::from(kind.application_id) && !empty {
        return Err(OpenError::Foreign { path: path.to_owned(), found });
    }
    let version = usize::try_from(number("PRAGMA user_version")?).unwrap_or_default();
    let known = kind.migrations.len();
    if version > known {
        return Err(OpenError::Newer { path: path.to_owned(), found: version, known });
    }
    Ok(())
}

/// Settings of every writing connection. `auto_vacuum` only takes effect before the first table.
pub fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // NORMAL would lose the last commits on a power cut, and with them what was acknowledged.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
    // The container's root is read-only: there is no /tmp to spill to.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    Ok(())
}

fn migrate(connection: &mut Connection, path: &Path, kind: Database) -> Result<(), OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let found: usize =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sqlite)?;
    for (done, script) in kind.migrations.iter().enumerate().skip(found) {
        let mut step = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            transaction.execute_batch(script)?;
            transaction.pragma_update(None, "application_id", kind.application_id)?;
            transaction.pragma_update(None, "user_version", done + 1)?;
            transaction.commit()
        };
        step().map_err(sqlite)?;
    }
    Ok(())
}

fn damage(verdict: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(format!("quick_check: {verdict}")),
    )
}

/// Whether an error says that the file's content is broken, as against its surroundings.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn move_aside(path: &Path) -> Result<PathBuf, OpenError> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let free = |n: u32| {
        let name = with_suffix(
            path,
            &format!(".damaged-{stamp}{}", if n == 0 { String::new() } else { format!("-{n}") }),
        );
        (!name.exists()).then_some(name)
    };
    // Two damaged files within one second are already unlikely; the bound only ends the search.
    let aside = (0..100).find_map(free).unwrap_or_else(|| with_suffix(path, ".damaged"));
    // The write-ahead log goes along: without it `.recover` would miss the newest pages.
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (with_suffix(path, suffix), with_suffix(&aside, suffix));
        match std::fs::rename(&from, &to) {
            Err(source) if source.kind() != io::ErrorKind::NotFound || suffix.is_empty() => {
                return Err(OpenError::Io { path: from, source });
            }
            _ => {}
        }
    }
    Ok(aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
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

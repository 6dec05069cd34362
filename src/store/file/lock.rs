//! The lock file beside a database: one process writes it at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::store::file::error::OpenError;

/// Mode of a new file: its owner, and its group, which may be that of a program that reads the log. SQLite gives the
/// files beside it the same.
pub(in crate::store) const MODE: u32 = 0o640;

/// Holds the lock of a database for as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of `database`, without waiting for it.
    pub(in crate::store) fn take(database: &Path) -> Result<Self, OpenError> {
        let path = with_suffix(database, ".lock");
        let io_error = |source| OpenError::Io { path: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(MODE)
            .open(&path)
            .map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: database.to_owned() }),
            Err(TryLockError::Error(source)) => Err(io_error(source)),
        }
    }
}

/// The path of a file beside the database: its name with `suffix`.
pub(in crate::store) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

//! Why a database could not be opened, in words for the operator and in causes for the exit code.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::store::file::write_ahead_log::is_lock;

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
        /// The error of the system.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// The error of SQLite.
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

    /// Whether another connection holds the lock of the file.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if is_lock(source))
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

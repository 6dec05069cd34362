//! Damaged databases: how one is recognised, and where it is kept.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::store::file::error::OpenError;
use crate::store::file::lock::with_suffix;

/// Names that are tried for one damaged file; more than two within one second are unlikely.
const NAMES_TRIED: u32 = 100;

/// The error for a file that `quick_check` found damaged.
pub(in crate::store) fn damage(verdict: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(format!("quick_check: {verdict}")),
    )
}

/// Whether an error says that the content of the file is broken, and not its surroundings: disk, lock, permission.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Renames a damaged database, with its write-ahead log. Returns the new path.
pub(in crate::store) fn move_aside(path: &Path) -> Result<PathBuf, OpenError> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let free = |n: u32| {
        let name = with_suffix(
            path,
            &format!(".damaged-{stamp}{}", if n == 0 { String::new() } else { format!("-{n}") }),
        );
        (!name.exists()).then_some(name)
    };
    let aside = (0..NAMES_TRIED).find_map(free).unwrap_or_else(|| with_suffix(path, ".damaged"));
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

//! The write-ahead log of a writing connection: when it is copied into the file, and whether all of it is on the disk.
//!
//! After an fsync that failed, Linux takes the pages that it could not write for written. SQLite's next commit then writes
//! and syncs its own pages only, and a power cut loses what was committed before them, and it. So after a failure nothing
//! may be acknowledged before [`WriteAheadLog::bring_to_disk`] has copied all that was committed into the file.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, MAIN_DB, wal::CheckpointMode};

/// Pages of the write-ahead log at which it is copied into the database. Four times SQLite's default: a page that many
/// commits change is copied less often, and the writer waits for fewer syncs.
const CHECKPOINT_PAGES: u32 = 4_000;
/// The same for the smallest log: 1 MiB.
const CHECKPOINT_PAGES_MIN: u32 = 256;
/// Bytes of a page: SQLite's default.
const PAGE_BYTES: u64 = 4096;
/// The write-ahead log is copied at one in so many parts of the file's largest size.
const MAX_SHARE: u64 = 8;
/// Pages of the write-ahead log beyond which commits wait for the end of the check: 64 MiB.
pub(in crate::store) const UNCHECKED_PAGES_MAX: u32 = 16 * 1024;

#[derive(Debug, Default)]
struct State {
    /// What was committed may be missing on the disk.
    unsynced: AtomicBool,
    /// Nobody knows yet whether the file is sound.
    unchecked: AtomicBool,
    /// Pages in it after the latest commit.
    pages: AtomicU32,
    /// Pages at which it is copied into the file.
    copied_at: AtomicU32,
    /// Why the latest copy into the file failed, until somebody takes it.
    checkpoint_error: Mutex<Option<rusqlite::Error>>,
}

/// The state of a connection's write-ahead log. A clone shares it.
#[derive(Debug, Clone, Default)]
pub struct WriteAheadLog(Arc<State>);

impl WriteAheadLog {
    /// Takes over the copying of the write-ahead log into the file from SQLite, which tells nobody when it fails.
    pub(in crate::store) fn watch(connection: &mut Connection) -> rusqlite::Result<Self> {
        let log = Self::default();
        log.0.copied_at.store(CHECKPOINT_PAGES, Relaxed);
        let state = Arc::clone(&log.0);
        let hook = move |wal: &mut Wal, pages: i32| {
            let pages = pages.unsigned_abs();
            state.pages.store(pages, Relaxed);
            if pages >= state.copied_at.load(Relaxed)
                && !state.unchecked.load(Relaxed)
                && let Err(error) = wal.checkpoint()
                && loses_pages(&error)
            {
                // The commit itself is on the disk: it does not fail.
                state.unsynced.store(true, Relaxed);
                *state.checkpoint_error.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(error);
            }
            Ok(())
        };
        connection.wal_hook(Some(hook))?;
        Ok(log)
    }

    /// Has the write-ahead log be copied into the file at an eighth of `max_bytes`, the largest size of the file, at most: a
    /// small log has a small one beside it.
    pub(in crate::store) fn keep_small(&self, connection: &Connection, max_bytes: u64) {
        let share = u32::try_from(max_bytes / MAX_SHARE / PAGE_BYTES).unwrap_or(u32::MAX);
        let pages = share.clamp(CHECKPOINT_PAGES_MIN, CHECKPOINT_PAGES);
        self.0.copied_at.store(pages, Relaxed);
        // It is a number in memory. At worst a long one stays long.
        let limit = u64::from(pages) * PAGE_BYTES;
        let _ = connection.pragma_update(None, "journal_size_limit", limit);
    }

    /// Notes a failed write.
    pub fn failed(&self, error: &rusqlite::Error) {
        self.0.unsynced.fetch_or(loses_pages(error), Relaxed);
    }

    /// Why the write-ahead log could not be copied into the file, told once. The next commit tries it again.
    #[must_use]
    pub fn take_checkpoint_error(&self) -> Option<rusqlite::Error> {
        self.0.checkpoint_error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether what was committed may be missing on the disk.
    #[must_use]
    pub fn is_unsynced(&self) -> bool {
        self.0.unsynced.load(Relaxed)
    }

    /// Copies the whole write-ahead log into the file, syncs that, and begins a new one, when a write has failed before.
    /// The connection has `synchronous=FULL`.
    ///
    /// # Errors
    /// SQLite's: what was committed may still be missing on the disk, and nothing may be acknowledged.
    pub fn bring_to_disk(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.is_unsynced() {
            restart(connection)?;
            self.0.unsynced.store(false, Relaxed);
        }
        Ok(())
    }

    /// The file is not checked yet.
    pub(in crate::store) fn leave_unchecked(&self) {
        self.0.unchecked.store(true, Relaxed);
    }

    pub(in crate::store) fn checked(&self) {
        self.0.unchecked.store(false, Relaxed);
    }

    pub(in crate::store) fn is_unchecked(&self) -> bool {
        self.0.unchecked.load(Relaxed)
    }

    /// Whether a commit has to wait for the end of the check: the write-ahead log is at its limit, or it would have to be
    /// copied into the file.
    #[must_use]
    pub fn awaits_check(&self) -> bool {
        self.is_unchecked()
            && (self.is_unsynced() || self.0.pages.load(Relaxed) >= UNCHECKED_PAGES_MAX)
    }
}

/// Whether pages in memory may be taken for written after this error. A full disk takes none, and a lock lets none be
/// written.
fn loses_pages(error: &rusqlite::Error) -> bool {
    !is_lock(error) && error.sqlite_error_code() != Some(ErrorCode::DiskFull)
}

/// Whether an error says that another connection has the lock.
#[must_use]
pub fn is_lock(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

/// Whether an error says that the disk failed to read or write.
#[must_use]
pub fn is_disk_error(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
}

/// Copies the write-ahead log into the file, syncs that, and begins a new one with a commit of its own. Before that commit
/// is on the disk, an old write-ahead log of which pages are missing could be found there after a power cut, and undo a
/// part of the copy.
pub(in crate::store) fn restart(connection: &Connection) -> rusqlite::Result<()> {
    connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::TRUNCATE)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    connection.pragma_update(None, "user_version", version)
}

//! The outbox: every reading waits here, on the disk, until the broker has acknowledged it.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::outbox_file::{Counts, Entry, Order, OutboxFile};
use crate::reading::{Id, Measurement, Stamp};
use crate::store::{OpenError, is_damage};
use crate::throttled_log::ThrottledLog;
use crate::wire::Telemetry;

/// File name of the outbox inside the data folder.
pub const OUTBOX_FILE: &str = "outbox.db";
/// Most readings of an outbox in memory: 14 hours of one sensor at 10 s, about 2 MB.
pub const OUTBOX_MEMORY_CAPACITY_READINGS: u64 = 5_000;
/// Most readings that wait in memory while the disk takes none.
const UNSAVED_READINGS_MAX: usize = 1_000;
/// Acknowledged readings that are removed in one transaction.
const REMOVED_AT_ONCE: usize = 64;
/// Time between two lines that the disk takes nothing.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

/// The place where readings wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxKind {
    /// A file: readings survive the process and a power cut.
    Disk,
    /// Memory: readings end with the process.
    Memory,
}

impl OutboxKind {
    /// The word in the health message.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

#[derive(Debug)]
struct Inner {
    file: OutboxFile,
    capacity: u64,
    /// As the file has them.
    saved: Counts,
    /// Readings dropped, of which the file may not know yet.
    dropped: u64,
    next_seq: u64,
    next_id: i64,
    /// Since when the outbox is not empty.
    waiting_since: Option<Instant>,
    /// Readings that the disk did not take. They are sent from here, and go to the disk before anything newer.
    unsaved: VecDeque<Entry>,
    /// The error of the last write; `None` after one that succeeded.
    write_error: Option<String>,
    /// Whether that error was logged.
    error_said: bool,
}

/// The outbox of one run of a node.
#[derive(Debug)]
pub struct Outbox {
    boot: Id,
    kind: OutboxKind,
    folder: Option<PathBuf>,
    inner: Mutex<Inner>,
    changed: Notify,
    damaged: Notify,
    write_line: ThrottledLog,
    anew_line: ThrottledLog,
}

impl Outbox {
    /// Opens the outbox in folder `data`, or one in memory where the folder cannot be written.
    /// `boot` is the id of this run; its readings are numbered from 1.
    ///
    /// # Errors
    /// [`OpenError`] when another process uses the folder, when the file is not an outbox, and for errors of the disk
    /// other than a missing permission or a full disk.
    pub fn open(data: &Path, boot: Id, capacity: u64) -> Result<Self, OpenError> {
        let path = data.join(OUTBOX_FILE);
        match OutboxFile::open(&path) {
            Ok(file) => {
                let outbox = Self::with(file, OutboxKind::Disk, boot, capacity, Some(data));
                let outbox =
                    outbox.map_err(|source| OpenError::Sqlite { path: path.clone(), source })?;
                info!(outbox = %path.display(), waiting = outbox.depth(), "outbox open");
                Ok(outbox)
            }
            Err(error) if error.is_permission() || error.is_full() => {
                warn!(
                    %error,
                    "the outbox is in memory only: readings that the broker has not acknowledged are lost \
                     when this process ends. Mount a volume with room that uid 65532 can write, or set HUMIDOR_DATA"
                );
                Self::memory(boot, capacity.min(OUTBOX_MEMORY_CAPACITY_READINGS))
                    .map_err(|source| OpenError::Sqlite { path, source })
            }
            Err(error) => Err(error),
        }
    }

    /// An outbox that ends with the process.
    ///
    /// # Errors
    /// SQLite's.
    pub fn memory(boot: Id, capacity: u64) -> rusqlite::Result<Self> {
        Self::with(OutboxFile::memory()?, OutboxKind::Memory, boot, capacity, None)
    }

    fn with(
        file: OutboxFile,
        kind: OutboxKind,
        boot: Id,
        capacity: u64,
        folder: Option<&Path>,
    ) -> rusqlite::Result<Self> {
        let (saved, last_id) = file.counts()?;
        let inner = Inner {
            file,
            capacity: capacity.max(1),
            saved,
            dropped: saved.dropped,
            next_seq: 1,
            next_id: last_id + 1,
            waiting_since: (saved.depth > 0).then(Instant::now),
            unsaved: VecDeque::new(),
            write_error: None,
            error_said: false,
        };
        Ok(Self {
            boot,
            kind,
            folder: folder.map(Path::to_owned),
            inner: Mutex::new(inner),
            changed: Notify::new(),
            damaged: Notify::new(),
            write_line: ThrottledLog::new(COMPLAINT_INTERVAL),
            anew_line: ThrottledLog::new(COMPLAINT_INTERVAL),
        })
    }

    /// The id of this run.
    #[must_use]
    pub const fn boot(&self) -> &Id {
        &self.boot
    }

    /// Whether readings survive the process.
    #[must_use]
    pub const fn kind(&self) -> OutboxKind {
        self.kind
    }

    /// Appends a reading under the run's next number. While the disk takes nothing, readings wait in memory until it
    /// does. A full outbox drops its oldest reading, and counts it.
    pub fn push(&self, sensor: &Id, stamp: Stamp, measurement: Measurement) {
        let mut inner = self.lock();
        let telemetry = Telemetry::new(self.boot.clone(), inner.next_seq, stamp, measurement);
        let reading =
            Entry { id: inner.next_id, sensor: sensor.clone(), telemetry: telemetry.to_json() };
        inner.next_seq += 1;
        inner.next_id += 1;
        inner.unsaved.push_back(reading);
        inner.waiting_since.get_or_insert_with(Instant::now);
        self.save(&mut inner);
        drop(inner);
        self.changed.notify_one();
    }

    /// Up to `count` readings with an id above `after`, oldest first. They stay in the outbox.
    ///
    /// # Errors
    /// SQLite's.
    pub fn peek(&self, after: i64, count: usize) -> rusqlite::Result<Vec<Entry>> {
        self.peek_between(after, i64::MAX, count)
    }

    /// As [`Self::peek`], up to id `last`.
    ///
    /// # Errors
    /// SQLite's.
    pub fn peek_between(
        &self,
        after: i64,
        last: i64,
        count: usize,
    ) -> rusqlite::Result<Vec<Entry>> {
        let inner = self.lock();
        let mut entries = inner.file.read((after, last), Order::OldestFirst, count, |_| true)?;
        let room = count.saturating_sub(entries.len());
        let unsaved = inner.unsaved.iter().filter(|entry| entry.id > after && entry.id <= last);
        entries.extend(unsaved.take(room).cloned());
        Ok(entries)
    }

    /// Up to `count` readings with an id above `above` that is not one of `but`, newest first. They stay in the outbox.
    ///
    /// # Errors
    /// SQLite's.
    pub fn peek_newest(
        &self,
        above: i64,
        count: usize,
        but: &HashSet<i64>,
    ) -> rusqlite::Result<Vec<Entry>> {
        let inner = self.lock();
        let wanted = |id: i64| id > above && !but.contains(&id);
        let unsaved = inner.unsaved.iter().rev().filter(|entry| wanted(entry.id));
        let mut entries: Vec<Entry> = unsaved.take(count).cloned().collect();
        let room = count - entries.len();
        entries.extend(inner.file.read((above, i64::MAX), Order::NewestFirst, room, wanted)?);
        Ok(entries)
    }

    /// Id of the newest reading ever taken; 0 before the first.
    #[must_use]
    pub fn newest_id(&self) -> i64 {
        self.lock().next_id - 1
    }

    /// Time of the oldest reading that waits, Unix ms UTC by the node's clock of then.
    #[must_use]
    pub fn oldest_at(&self) -> Option<i64> {
        let oldest = self.peek(0, 1).ok()?.pop()?;
        Telemetry::parse(&oldest.telemetry).ok().map(|telemetry| telemetry.at)
    }

    /// Removes acknowledged readings.
    ///
    /// # Errors
    /// SQLite's. The readings then stay, and are sent once more after a reconnect.
    pub fn remove(&self, ids: &[i64]) -> rusqlite::Result<()> {
        let mut inner = self.lock();
        let gone: HashSet<i64> = ids.iter().copied().collect();
        inner.unsaved.retain(|reading| !gone.contains(&reading.id));
        // On a disk that is nearly full one large transaction would never fit, and each small one makes room.
        for some in ids.chunks(REMOVED_AT_ONCE) {
            match inner.file.remove(some) {
                Ok(removed) => inner.saved.depth = inner.saved.depth.saturating_sub(removed),
                Err(error) => {
                    inner.write_error = Some(error.to_string());
                    return Err(error);
                }
            }
        }
        // This made room: a disk that was full may take the unsaved readings now.
        self.save(&mut inner);
        if inner.saved.depth + inner.unsaved.len() as u64 == 0 {
            inner.waiting_since = None;
        }
        Ok(())
    }

    /// Readings in the outbox.
    #[must_use]
    pub fn depth(&self) -> u64 {
        let inner = self.lock();
        inner.saved.depth + inner.unsaved.len() as u64
    }

    /// Readings that it holds.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.lock().capacity
    }

    /// Since when it is not empty.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Instant> {
        self.lock().waiting_since
    }

    /// Free bytes of the file's volume; `None` in memory.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        let volume = rustix::fs::statvfs(self.folder.as_deref()?).ok()?;
        Some(volume.f_bavail.saturating_mul(volume.f_frsize))
    }

    /// Readings dropped because there was no room, since the outbox was created.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Readings taken in this run.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.lock().next_seq - 1
    }

    /// The error of the last write; `None` after one that succeeded.
    #[must_use]
    pub fn write_error(&self) -> Option<String> {
        self.lock().write_error.clone()
    }

    /// Resolves when the file turns out to be damaged. Only a restart, which moves it aside, helps.
    pub async fn damaged(&self) {
        self.damaged.notified().await;
    }

    /// Resolves when a reading was appended since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Writes files anew that were deleted while they were open. Else a restart would lose what waits.
    pub fn restore_deleted(&self) {
        let mut inner = self.lock();
        let Some(path) = inner.file.deleted().map(Path::to_owned) else { return };
        let outcome = inner.file.write_anew();
        drop(inner);
        let Some(left_out) = self.anew_line.due(Instant::now()) else { return };
        match outcome {
            Ok(()) => warn!(
                outbox = %path.display(), left_out,
                "the outbox's files were deleted while the node runs; written anew, no reading is lost"
            ),
            Err(error) => error!(
                %error, left_out,
                "the outbox's files were deleted, and cannot be written anew: what waits is lost when this process ends. Make the data folder writable"
            ),
        }
    }

    /// Writes unsaved readings, or notes the error.
    fn save(&self, inner: &mut Inner) {
        match inner.try_save() {
            Ok(()) => {
                if inner.write_error.take().is_some() && std::mem::take(&mut inner.error_said) {
                    info!("outbox can write again");
                }
            }
            Err(cause) => {
                if is_damage(&cause) {
                    self.damaged.notify_one();
                }
                inner.write_error = Some(cause.to_string());
                if !inner.error_said
                    && let Some(left_out) = self.write_line.due(Instant::now())
                {
                    inner.error_said = true;
                    error!(
                        %cause, left_out,
                        "outbox cannot write; new readings wait in memory. Make room on its volume, or make the volume writable"
                    );
                }
                while inner.unsaved.len() > UNSAVED_READINGS_MAX {
                    inner.unsaved.pop_front();
                    inner.dropped += 1;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Writes unsaved readings, oldest first, in one transaction.
    fn try_save(&mut self) -> rusqlite::Result<()> {
        if self.unsaved.is_empty() && self.dropped == self.saved.dropped {
            return Ok(());
        }
        let before = Counts { dropped: self.dropped, ..self.saved };
        let saved = self.file.append(self.unsaved.iter(), before, self.capacity)?;
        if saved.dropped != 0 && self.saved.dropped == 0 {
            warn!(
                capacity = self.capacity,
                "outbox is full: the oldest readings are dropped, and counted"
            );
        }
        (self.saved, self.dropped) = (saved, saved.dropped);
        self.unsaved.clear();
        Ok(())
    }
}

//! The outbox: every reading waits here, on the disk, until the broker has acknowledged it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, params};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::reading::{Id, Measurement, Stamp};
use crate::store::{Database, Lock, OpenError, is_damage, open_checked};
use crate::wire::Telemetry;

/// File name of the outbox inside the data folder.
pub const OUTBOX_FILE: &str = "outbox.db";
/// Most readings of an outbox in memory: 14 hours of one sensor at 10 s, about 2 MB.
pub const OUTBOX_MEMORY_CAPACITY_READINGS: u64 = 5_000;
/// Most readings that wait in memory while the disk takes none.
const UNSAVED_READINGS_MAX: usize = 1_000;

// AUTOINCREMENT remembers the highest id ever saved, so that ids go on growing after the outbox was empty.
const SCHEMA: Database = Database {
    application_id: 0x686d_6f78, // `hmox`
    migrations: &["
        CREATE TABLE waiting (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            sensor TEXT NOT NULL,
            telemetry TEXT NOT NULL
        ) STRICT;
        CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
        INSERT INTO counter VALUES ('dropped', 0);
    "],
};

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

/// A reading in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the queue: later readings have greater ids.
    pub id: i64,
    /// The sensor.
    pub sensor: Id,
    /// The payload to publish, JSON.
    pub telemetry: Vec<u8>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    capacity: u64,
    depth: u64,
    dropped: u64,
    /// `dropped` as the file has it.
    dropped_saved: u64,
    next_seq: u64,
    next_id: i64,
    /// Readings that the disk did not take. They are sent from here, and go to the disk before anything newer.
    unsaved: VecDeque<Entry>,
    /// The error of the last write; `None` after one that succeeded.
    write_error: Option<String>,
}

/// The outbox of one run of a node.
#[derive(Debug)]
pub struct Outbox {
    boot: Id,
    kind: OutboxKind,
    inner: Mutex<Inner>,
    changed: Notify,
    damaged: Notify,
    _lock: Option<Lock>,
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
        match open_checked(&path, SCHEMA) {
            Ok((connection, lock)) => {
                let outbox = Self::with(connection, OutboxKind::Disk, boot, capacity, Some(lock));
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
        let connection = Connection::open_in_memory()?;
        for script in SCHEMA.migrations {
            connection.execute_batch(script)?;
        }
        Self::with(connection, OutboxKind::Memory, boot, capacity, None)
    }

    fn with(
        connection: Connection,
        kind: OutboxKind,
        boot: Id,
        capacity: u64,
        lock: Option<Lock>,
    ) -> rusqlite::Result<Self> {
        let depth = connection.query_row("SELECT count(*) FROM waiting", [], |row| row.get(0))?;
        let dropped = connection.query_row(
            "SELECT value FROM counter WHERE name = 'dropped'",
            [],
            |row| row.get(0),
        )?;
        let last_id = connection.query_row(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'waiting'), 0)",
            [],
            |row| row.get::<_, i64>(0),
        )?;
        let inner = Inner {
            connection,
            capacity: capacity.max(1),
            depth,
            dropped,
            dropped_saved: dropped,
            next_seq: 1,
            next_id: last_id + 1,
            unsaved: VecDeque::new(),
            write_error: None,
        };
        let damaged = Notify::new();
        Ok(Self {
            boot,
            kind,
            inner: Mutex::new(inner),
            changed: Notify::new(),
            damaged,
            _lock: lock,
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
        self.save(&mut inner);
        drop(inner);
        self.changed.notify_one();
    }

    /// Up to `count` readings with an id above `after`, oldest first. They stay in the outbox.
    ///
    /// # Errors
    /// SQLite's.
    pub fn peek(&self, after: i64, count: usize) -> rusqlite::Result<Vec<Entry>> {
        let inner = self.lock();
        let mut statement = inner.connection.prepare_cached(
            "SELECT id, sensor, telemetry FROM waiting WHERE id > ? ORDER BY id LIMIT ?",
        )?;
        let rows = statement.query_map(params![after, count], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        let mut entries = Vec::new();
        for row in rows {
            let (id, sensor, telemetry) = row?;
            match sensor.parse() {
                Ok(sensor) => {
                    entries.push(Entry { id, sensor, telemetry: telemetry.into_bytes() });
                }
                // Only another program could have written it.
                Err(error) => {
                    warn!(id, %error, "skipped a reading in the outbox: its sensor is not an id");
                }
            }
        }
        let room = count.saturating_sub(entries.len());
        entries
            .extend(inner.unsaved.iter().filter(|reading| reading.id > after).take(room).cloned());
        Ok(entries)
    }

    /// Removes acknowledged readings.
    ///
    /// # Errors
    /// SQLite's. The readings then stay, and are sent once more after a reconnect.
    pub fn remove(&self, ids: &[i64]) -> rusqlite::Result<()> {
        let mut inner = self.lock();
        inner.unsaved.retain(|reading| !ids.contains(&reading.id));
        let transaction = inner.connection.transaction()?;
        let mut removed = 0;
        for id in ids {
            removed +=
                transaction.prepare_cached("DELETE FROM waiting WHERE id = ?")?.execute([id])?;
        }
        transaction.commit()?;
        inner.depth = inner.depth.saturating_sub(removed as u64);
        // This made room: a disk that was full may take the unsaved readings now.
        self.save(&mut inner);
        Ok(())
    }

    /// Readings in the outbox.
    #[must_use]
    pub fn depth(&self) -> u64 {
        let inner = self.lock();
        inner.depth + inner.unsaved.len() as u64
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

    /// Writes unsaved readings, or notes the error.
    fn save(&self, inner: &mut Inner) {
        match inner.try_save() {
            Ok(()) => {
                if inner.write_error.take().is_some() {
                    info!("outbox can write again");
                }
            }
            Err(cause) => {
                if is_damage(&cause) {
                    self.damaged.notify_one();
                }
                if inner.write_error.replace(cause.to_string()).is_none() {
                    error!(
                        %cause,
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
        if self.unsaved.is_empty() && self.dropped == self.dropped_saved {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        let (mut depth, mut dropped) = (self.depth, self.dropped);
        for reading in &self.unsaved {
            transaction
                .prepare_cached("INSERT INTO waiting (id, sensor, telemetry) VALUES (?, ?, ?)")?
                .execute(params![
                    reading.id,
                    reading.sensor.as_str(),
                    String::from_utf8_lossy(&reading.telemetry)
                ])?;
            depth += 1;
            if depth > self.capacity {
                transaction
                    .prepare_cached("DELETE FROM waiting WHERE id = (SELECT min(id) FROM waiting)")?
                    .execute([])?;
                depth -= 1;
                dropped += 1;
            }
        }
        if dropped != self.dropped_saved {
            transaction
                .prepare_cached("UPDATE counter SET value = ? WHERE name = 'dropped'")?
                .execute(params![dropped])?;
        }
        transaction.commit()?;
        if dropped != 0 && self.dropped_saved == 0 {
            warn!(
                capacity = self.capacity,
                "outbox is full: the oldest readings are dropped, and counted"
            );
        }
        (self.depth, self.dropped, self.dropped_saved) = (depth, dropped, dropped);
        self.unsaved.clear();
        Ok(())
    }
}

//! Store and forward: every reading waits here, on the disk, until the broker has acknowledged it.

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
/// Most readings kept where there is no disk: 14 hours of one sensor at 10 s, about 2 MB.
pub const OUTBOX_MEMORY_CAPACITY_READINGS: u64 = 5_000;
/// Readings held in memory while the disk takes none.
const UNSAVED_READINGS: usize = 1_000;

// AUTOINCREMENT remembers the highest id ever saved, so that places go on growing after the outbox was empty.
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

/// Where the readings wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxKind {
    /// They outlive the process and a power cut.
    Disk,
    /// They do not.
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

/// A reading that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its place: later readings have greater ones.
    pub id: i64,
    /// The sensor.
    pub sensor: Id,
    /// The payload.
    pub telemetry: Vec<u8>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    capacity: u64,
    depth: u64,
    dropped: u64,
    /// As the table `counter` has it.
    dropped_saved: u64,
    next_seq: u64,
    next_id: i64,
    /// Taken while the disk refused. They are sent from here, and go to the disk before anything newer.
    unsaved: VecDeque<Waiting>,
    /// Why the disk takes nothing, while it does not.
    trouble: Option<String>,
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
    /// `boot` names this run; its readings are numbered from 1.
    ///
    /// # Errors
    /// When the folder is in use, or holds something else under the outbox's name, or fails in
    /// another way than by permission.
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
    /// What SQLite said.
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
            trouble: None,
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

    /// This run.
    #[must_use]
    pub const fn boot(&self) -> &Id {
        &self.boot
    }

    /// Whether it outlives the process.
    #[must_use]
    pub const fn kind(&self) -> OutboxKind {
        self.kind
    }

    /// Keeps a reading; it has the run's next number from now on. When the disk takes nothing, the
    /// reading waits in memory for a disk that does; when the outbox is full, the oldest one goes.
    pub fn keep(&self, sensor: &Id, stamp: Stamp, measurement: Measurement) {
        let mut inner = self.lock();
        let telemetry = Telemetry::new(self.boot.clone(), inner.next_seq, stamp, measurement);
        let reading =
            Waiting { id: inner.next_id, sensor: sensor.clone(), telemetry: telemetry.to_json() };
        inner.next_seq += 1;
        inner.next_id += 1;
        inner.unsaved.push_back(reading);
        self.save(&mut inner);
        drop(inner);
        self.changed.notify_one();
    }

    /// Up to `count` readings after place `after`, oldest first.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn head(&self, after: i64, count: usize) -> rusqlite::Result<Vec<Waiting>> {
        let inner = self.lock();
        let mut statement = inner.connection.prepare_cached(
            "SELECT id, sensor, telemetry FROM waiting WHERE id > ? ORDER BY id LIMIT ?",
        )?;
        let rows = statement.query_map(params![after, count], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        let mut waiting = Vec::new();
        for row in rows {
            let (id, sensor, telemetry) = row?;
            match sensor.parse() {
                Ok(sensor) => {
                    waiting.push(Waiting { id, sensor, telemetry: telemetry.into_bytes() });
                }
                // Only another program could have written it.
                Err(error) => warn!(id, %error, "a reading in the outbox has no sensor; skipped"),
            }
        }
        let room = count.saturating_sub(waiting.len());
        waiting
            .extend(inner.unsaved.iter().filter(|reading| reading.id > after).take(room).cloned());
        Ok(waiting)
    }

    /// Forgets acknowledged readings.
    ///
    /// # Errors
    /// What SQLite said; the readings then stay, and are sent once more after a reconnect.
    pub fn forget(&self, ids: &[i64]) -> rusqlite::Result<()> {
        let mut inner = self.lock();
        inner.unsaved.retain(|reading| !ids.contains(&reading.id));
        let transaction = inner.connection.transaction()?;
        let mut gone = 0;
        for id in ids {
            gone +=
                transaction.prepare_cached("DELETE FROM waiting WHERE id = ?")?.execute([id])?;
        }
        transaction.commit()?;
        inner.depth = inner.depth.saturating_sub(gone as u64);
        // Room was made: what the full disk refused may fit now.
        self.save(&mut inner);
        Ok(())
    }

    /// Readings that wait.
    #[must_use]
    pub fn depth(&self) -> u64 {
        let inner = self.lock();
        inner.depth + inner.unsaved.len() as u64
    }

    /// Readings given up because there was no room, ever.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Readings taken in this run.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.lock().next_seq - 1
    }

    /// Why the disk takes nothing, while it does not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Resolves when the file turned out to be damaged: only a restart, which moves it aside, helps.
    pub async fn damaged(&self) {
        self.damaged.notified().await;
    }

    /// Resolves when something was kept since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Writes what is unsaved, or notes why not.
    fn save(&self, inner: &mut Inner) {
        match inner.try_save() {
            Ok(()) => {
                if inner.trouble.take().is_some() {
                    info!("the outbox can write again");
                }
            }
            Err(cause) => {
                if is_damage(&cause) {
                    self.damaged.notify_one();
                }
                if inner.trouble.replace(cause.to_string()).is_none() {
                    error!(
                        %cause,
                        "the outbox cannot write; new readings wait in memory. Make room on its volume, or make it writable"
                    );
                }
                while inner.unsaved.len() > UNSAVED_READINGS {
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
    /// Writes what is unsaved, oldest first, in one transaction.
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
                "the outbox is full: the oldest readings are given up, and counted"
            );
        }
        (self.depth, self.dropped, self.dropped_saved) = (depth, dropped, dropped);
        self.unsaved.clear();
        Ok(())
    }
}

//! The outbox's database: its schema, its statements, and what happens when its files are deleted while it is open.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use tracing::warn;

use crate::reading::Id;
use crate::store::{Database, Lock, OpenError, WriteAheadLog, open_checked};

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

/// Numbers of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Readings in it.
    pub depth: u64,
    /// Readings dropped since it was created.
    pub dropped: u64,
}

/// The order of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they were taken.
    OldestFirst,
    /// The other way.
    NewestFirst,
}

/// The database, in a file or in memory.
#[derive(Debug)]
pub struct OutboxFile {
    connection: Connection,
    log: WriteAheadLog,
    /// `None` in memory.
    path: Option<PathBuf>,
    lock: Option<Lock>,
}

impl OutboxFile {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let (connection, log, lock) = open_checked(path, SCHEMA)?;
        Ok(Self { connection, log, path: Some(path.to_owned()), lock: Some(lock) })
    }

    /// A database in memory.
    ///
    /// # Errors
    /// SQLite's.
    pub fn memory() -> rusqlite::Result<Self> {
        let connection = Connection::open_in_memory()?;
        for script in SCHEMA.migrations {
            connection.execute_batch(script)?;
        }
        Ok(Self { connection, log: WriteAheadLog::default(), path: None, lock: None })
    }

    /// Its numbers, and the highest id ever saved.
    ///
    /// # Errors
    /// SQLite's.
    pub fn counts(&self) -> rusqlite::Result<(Counts, i64)> {
        let one = |sql| self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let depth = one("SELECT count(*) FROM waiting")?.unsigned_abs();
        let dropped = one("SELECT value FROM counter WHERE name = 'dropped'")?.unsigned_abs();
        let last_id =
            one("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'waiting'), 0)")?;
        Ok((Counts { depth, dropped }, last_id))
    }

    /// Up to `count` of the readings whose ids are above `after`, up to `last` and `wanted`.
    ///
    /// # Errors
    /// SQLite's.
    pub fn read(
        &self,
        (after, last): (i64, i64),
        order: Order,
        count: usize,
        wanted: impl Fn(i64) -> bool,
    ) -> rusqlite::Result<Vec<Entry>> {
        let mut statement = self.connection.prepare_cached(match order {
            Order::OldestFirst => {
                "SELECT id, sensor, telemetry FROM waiting WHERE id > ? AND id <= ? ORDER BY id"
            }
            Order::NewestFirst => {
                "SELECT id, sensor, telemetry FROM waiting WHERE id > ? AND id <= ? ORDER BY id DESC"
            }
        })?;
        let mut rows = statement.query(params![after, last])?;
        let mut entries = Vec::new();
        while entries.len() < count
            && let Some(row) = rows.next()?
        {
            let id = row.get(0)?;
            if !wanted(id) {
                continue;
            }
            match row.get::<_, String>(1)?.parse() {
                Ok(sensor) => {
                    let telemetry = row.get::<_, String>(2)?.into_bytes();
                    entries.push(Entry { id, sensor, telemetry });
                }
                // Only another program could have written it.
                Err(error) => {
                    warn!(id, %error, "skipped a reading in the outbox: its sensor is not an id");
                }
            }
        }
        Ok(entries)
    }

    /// Appends readings in one transaction, oldest first. Beyond `capacity` the oldest are dropped and counted. `counts`
    /// are the numbers before, with readings dropped that the file does not know of yet; returns those after.
    ///
    /// # Errors
    /// SQLite's; nothing has changed then.
    pub fn append<'a>(
        &mut self,
        readings: impl Iterator<Item = &'a Entry>,
        counts: Counts,
        capacity: u64,
    ) -> rusqlite::Result<Counts> {
        // After a failed write the readings before these may be missing on the disk.
        self.log.bring_to_disk(&self.connection)?;
        self.try_append(readings, counts, capacity).inspect_err(|error| self.log.failed(error))
    }

    fn try_append<'a>(
        &mut self,
        readings: impl Iterator<Item = &'a Entry>,
        mut counts: Counts,
        capacity: u64,
    ) -> rusqlite::Result<Counts> {
        let transaction = self.connection.transaction()?;
        for reading in readings {
            transaction
                .prepare_cached("INSERT INTO waiting (id, sensor, telemetry) VALUES (?, ?, ?)")?
                .execute(params![
                    reading.id,
                    reading.sensor.as_str(),
                    String::from_utf8_lossy(&reading.telemetry)
                ])?;
            counts.depth += 1;
            if counts.depth > capacity {
                transaction
                    .prepare_cached("DELETE FROM waiting WHERE id = (SELECT min(id) FROM waiting)")?
                    .execute([])?;
                counts.depth -= 1;
                counts.dropped += 1;
            }
        }
        transaction
            .prepare_cached("UPDATE counter SET value = ?1 WHERE name = 'dropped' AND value <> ?1")?
            .execute(params![counts.dropped])?;
        transaction.commit()?;
        Ok(counts)
    }

    /// Removes readings; returns how many there were.
    ///
    /// # Errors
    /// SQLite's; nothing has changed then.
    pub fn remove(&mut self, ids: &[i64]) -> rusqlite::Result<u64> {
        self.log.bring_to_disk(&self.connection)?;
        self.try_remove(ids).inspect_err(|error| self.log.failed(error))
    }

    fn try_remove(&mut self, ids: &[i64]) -> rusqlite::Result<u64> {
        let transaction = self.connection.transaction()?;
        let mut removed = 0;
        for id in ids {
            removed +=
                transaction.prepare_cached("DELETE FROM waiting WHERE id = ?")?.execute([id])?;
        }
        transaction.commit()?;
        Ok(removed as u64)
    }

    /// The file, if it or its write-ahead log was deleted: the open one has no name any more and ends with the process.
    #[must_use]
    pub fn deleted(&self) -> Option<&Path> {
        let path = self.path.as_deref()?;
        let gone = |path: &Path| matches!(path.try_exists(), Ok(false));
        (gone(path) || gone(&with_suffix(path, "-wal"))).then_some(path)
    }

    /// Writes a deleted file anew: the deleted one is still open and has every reading.
    ///
    /// # Errors
    /// [`OpenError`]. The deleted file stays open, and the next call tries again.
    pub fn write_anew(&mut self) -> Result<(), OpenError> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        // The lock file may be another one now, or the one that is held here.
        drop(self.lock.take());
        remove(&path);
        let sqlite = |source| OpenError::Sqlite { path: path.clone(), source };
        let copied = Self::open(&path)
            .and_then(|mut anew| self.copy_to(&mut anew.connection).map(|()| anew).map_err(sqlite));
        // Files without the readings must not look as if nothing had been deleted.
        *self = copied.inspect_err(|_| remove(&path))?;
        Ok(())
    }

    fn copy_to(&self, to: &mut Connection) -> rusqlite::Result<()> {
        let transaction = to.transaction()?;
        let mut statement = self.connection.prepare("SELECT id, sensor, telemetry FROM waiting")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            transaction
                .prepare_cached("INSERT INTO waiting (id, sensor, telemetry) VALUES (?, ?, ?)")?
                .execute(params![
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?
                ])?;
        }
        let dropped = "SELECT value FROM counter WHERE name = 'dropped'";
        let dropped: i64 = self.connection.query_row(dropped, [], |row| row.get(0))?;
        transaction.execute("UPDATE counter SET value = ? WHERE name = 'dropped'", [dropped])?;
        transaction.commit()
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a database's files.
fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(with_suffix(path, suffix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_written_anew_still_count_as_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.db");
        let mut file = OutboxFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        // As when the disk is full: the new file is opened, and the readings do not get into it.
        file.connection.execute_batch("ALTER TABLE waiting RENAME TO elsewhere").unwrap();
        assert!(file.write_anew().is_err());
        assert!(file.deleted().is_some(), "tried again");
        file.connection.execute_batch("ALTER TABLE elsewhere RENAME TO waiting").unwrap();
        file.write_anew().unwrap();
        assert_eq!(file.deleted(), None);
    }

    #[test]
    fn deleted_files_are_written_anew_and_survive_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.db");
        let entry = |id| Entry { id, sensor: "hall".parse().unwrap(), telemetry: b"{}".to_vec() };
        let names = ["outbox.db", "outbox.db-wal", "outbox.db-shm", "outbox.db.lock"];
        for deleted in [&names[..], &names[..3], &names[..1], &names[1..2]] {
            let mut file = OutboxFile::open(&path).unwrap();
            let (counts, last) = file.counts().unwrap();
            let entries = [entry(last + 1), entry(last + 2)];
            let counts = Counts { dropped: counts.dropped + 1, ..counts };
            file.append(entries.iter(), counts, 100).unwrap();
            assert_eq!(file.deleted(), None);
            for name in deleted {
                std::fs::remove_file(folder.path().join(name)).unwrap();
            }
            assert!(file.deleted().is_some(), "{deleted:?}");
            file.write_anew().unwrap();
            assert_eq!(file.deleted(), None, "{deleted:?}");
            file.append([entry(last + 3)].iter(), file.counts().unwrap().0, 100).unwrap();
            let (expected, _) = file.counts().unwrap();
            assert_eq!(expected, Counts { depth: counts.depth + 3, dropped: counts.dropped });
            // As a killed process leaves the files, but for the lock, which ends with it.
            let copy = tempfile::tempdir().unwrap();
            for name in &names[..2] {
                std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
            }
            let again = OutboxFile::open(&copy.path().join("outbox.db")).unwrap();
            assert_eq!(again.counts().unwrap().0, expected);
        }
    }
}

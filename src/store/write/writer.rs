//! The writer: commits records and changes in one transaction, and maintains the log between two commits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior, ffi};

use crate::mqtt::Message;
use crate::reading::Id;
use crate::store::file::check::{Check, Stop};
use crate::store::file::damage::is_damage;
use crate::store::file::error::OpenError;
use crate::store::file::lock::Lock;
use crate::store::file::open::{CHECKED_FIRST_MAX_BYTES, open};
use crate::store::file::schema::LOG;
use crate::store::file::write_ahead_log::WriteAheadLog;
use crate::store::mqtt::change::{self, Change};
use crate::store::mqtt::forgotten;
use crate::store::mqtt::queue_counts::QueueCounts;
use crate::store::mqtt::retained;
use crate::store::mqtt::sessions::{self, Stored};
use crate::store::retention::horizon::Horizons;
use crate::store::retention::policy::Retention;
#[cfg(test)]
use crate::store::retention::size::used_bytes;
use crate::store::write::alarm_log::{self, AlarmRow};
use crate::store::write::append::append;
use crate::store::write::arrival_move;
use crate::store::write::broker_clock::{self, ToldClock};
use crate::store::write::cache::WriterCache;
use crate::store::write::durability::Durability;
use crate::store::write::maintenance::Maintenance;
use crate::store::write::record::{Appended, Record, SeriesName};
use crate::store::write::series::{self, StoredSeries};
use crate::store::write::unqueued::Unqueued;
use crate::timeline::{BrokerClock, Saved};

/// Prepared statements that are cached: every append and every step of the maintenance runs the same few dozen.
const STATEMENTS_CACHED: usize = 128;

/// The writing side of the log.
#[derive(Debug)]
pub struct Store {
    pub(in crate::store) connection: Connection,
    log: WriteAheadLog,
    pub(in crate::store) cache: WriterCache,
    maintenance: Maintenance,
    retention: Retention,
    durability: Durability,
    queues: QueueCounts,
    clock: ToldClock,
    pub(in crate::store) unqueued: Unqueued,
    _lock: Lock,
}

impl Store {
    /// Opens the log at `path`, or starts one. It keeps everything until [`Store::retain`] says otherwise.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(path, u64::MAX, &Stop::default()).map(|(store, _)| store)
    }

    /// As [`Store::open`], for a process that does not wait long: a log beyond 16 MiB is checked by [`Check::run`] while
    /// commits go on. Until then they are in the write-ahead log alone, up to 64 MiB, and nothing is maintained: if the
    /// file turns out to be damaged, it is as it was, and what was committed meanwhile is beside it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_soon(path: &Path, stop: &Stop) -> Result<(Self, Option<Check>), OpenError> {
        Self::open_with(path, CHECKED_FIRST_MAX_BYTES, stop)
    }

    fn open_with(
        path: &Path,
        checked_first: u64,
        stop: &Stop,
    ) -> Result<(Self, Option<Check>), OpenError> {
        let opened = open(path, LOG, checked_first, stop)?;
        let connection = opened.connection;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
        let horizons = Horizons::load(&connection).map_err(sqlite)?;
        let queues = QueueCounts::load(&connection).map_err(sqlite)?;
        let clock = ToldClock::new(broker_clock::load(&connection).map_err(sqlite)?);
        let mut cache = WriterCache::new(horizons);
        cache.arrivals(&connection).map_err(sqlite)?;
        let unqueued = Unqueued::load(&connection).map_err(sqlite)?;
        let store = Self {
            connection,
            log: opened.log,
            cache,
            maintenance: Maintenance::default(),
            retention: Retention::EVERYTHING,
            durability: Durability::Full,
            queues,
            clock,
            unqueued,
            _lock: opened.lock,
        };
        Ok((store, opened.check))
    }

    /// Retained messages and persistent sessions, as the last commit left them.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn mqtt_state(&self) -> rusqlite::Result<(Vec<Arc<Message>>, Vec<Stored>)> {
        Ok((retained::load(&self.connection)?, sessions::load(&self.connection)?))
    }

    /// Every series of the log.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn series(&self) -> rusqlite::Result<Vec<StoredSeries>> {
        series::load(&self.connection)
    }

    /// The latest change of each alarm that ever changed.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn alarms(&self) -> rusqlite::Result<Vec<AlarmRow>> {
        alarm_log::latest(&self.connection)
    }

    /// How log time goes on; `None` in a log whose broker has never told.
    #[must_use]
    pub const fn timeline(&self) -> Option<&Saved> {
        self.clock.saved()
    }

    /// Tells of the broker's clock, before a commit or a step of the maintenance. Samples get their times by it, and those
    /// from before it was set are corrected.
    pub fn tell_time(&mut self, clock: BrokerClock) {
        self.clock.tell(&mut self.cache, clock);
    }

    pub(in crate::store) const fn queues(&self) -> &QueueCounts {
        &self.queues
    }

    /// Appends all of `records` in one transaction. When this returns `Ok`, they are on the disk;
    /// when it fails, none of them is, and the same call may be made again.
    ///
    /// # Errors
    /// The error of SQLite: see [`Store::may_pass`].
    pub fn append(&mut self, records: &[&Record]) -> rusqlite::Result<Appended> {
        self.commit(records, &[])
    }

    /// Appends `records` and makes `changes`, in one transaction as [`Store::append`].
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn commit(
        &mut self,
        records: &[&Record],
        changes: &[&Change],
    ) -> rusqlite::Result<Appended> {
        self.commit_with(records, changes, Durability::Full)
    }

    pub(in crate::store) fn commit_with(
        &mut self,
        records: &[&Record],
        changes: &[&Change],
        durability: Durability,
    ) -> rusqlite::Result<Appended> {
        self.bring_to_disk()?;
        self.set_durability(durability)?;
        match self.attempt(records, changes) {
            Ok(appended) => {
                self.clock.committed();
                if let Some(forward) = &self.cache.forward {
                    forward.committed();
                }
                self.unqueued.committed();
                self.maintenance.appended(appended.readings + appended.samples);
                let dropped_by_session = self.queues.committed();
                let dropped = dropped_by_session.iter().map(|(_, messages)| messages).sum();
                Ok(Appended { dropped, dropped_by_session, ..appended })
            }
            Err(error) => {
                self.log.failed(&error);
                self.cache.forget();
                self.queues.rolled_back();
                Err(error)
            }
        }
    }

    fn attempt(&mut self, records: &[&Record], changes: &[&Change]) -> rusqlite::Result<Appended> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if self.clock.is_unsaved() {
            self.clock.save(&transaction)?;
        }
        self.unqueued.note(&transaction, records)?;
        let appended = append(&transaction, &mut self.cache, records)?;
        for change in changes {
            change::apply(&transaction, &mut self.queues, change)?;
        }
        transaction.commit()?;
        Ok(appended)
    }

    /// After a failed write: brings all that was committed to the disk, before anything more is.
    pub(in crate::store) fn bring_to_disk(&mut self) -> rusqlite::Result<()> {
        if self.log.awaits_check() {
            let busy = ffi::Error::new(ffi::SQLITE_BUSY);
            let text = "the check of the log has to end first".to_owned();
            return Err(rusqlite::Error::SqliteFailure(busy, Some(text)));
        }
        if self.log.is_unsynced() {
            self.set_durability(Durability::Full)?;
            self.log.bring_to_disk(&self.connection)?;
        }
        Ok(())
    }

    /// Sets the durability of the next commits.
    pub(in crate::store) fn set_durability(
        &mut self,
        durability: Durability,
    ) -> rusqlite::Result<()> {
        if self.durability != durability {
            let level = match durability {
                Durability::Full => "FULL",
                Durability::Normal => "NORMAL",
                Durability::Off => "OFF",
            };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.durability = durability;
        }
        Ok(())
    }

    /// Whether a node is still to be forgotten.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn is_forgetting(&self, node: &Id) -> rusqlite::Result<bool> {
        forgotten::is_pending(&self.connection, node)
    }

    /// The series that the maintenance has deleted since the last call, because nothing of them is kept.
    pub fn take_deleted_series(&mut self) -> Vec<SeriesName> {
        std::mem::take(&mut self.cache.deleted)
    }

    /// Rows that the maintenance has deleted since the last call though their time was of the last hour: a series filled the
    /// log with them.
    pub fn take_young_deleted(&mut self) -> u64 {
        std::mem::take(&mut self.cache.young_deleted)
    }

    /// Sets what the log keeps from now on; [`Store::maintain`] deletes. A small log has a small write-ahead log and queues.
    pub fn retain(&mut self, retention: Retention) {
        self.retention = retention;
        self.cache.segment_rows = arrival_move::segment_rows(retention.max_bytes);
        self.log.keep_small(&self.connection, retention.max_bytes);
        self.queues.bound(&retention);
    }

    /// How long the maintenance may take for each unit of time that commits take while it presses; 0 when it does not.
    /// It does while the log was larger than its limit when that was last looked at, and data in it can go, or readings
    /// arrive faster than they are moved to their place.
    #[must_use]
    pub fn pressure(&self) -> u32 {
        let arrivals = self.cache.known_arrivals();
        if arrivals.is_some_and(arrival_move::is_far_behind) {
            4
        } else {
            let presses =
                self.maintenance.is_too_large() || arrivals.is_some_and(arrival_move::is_behind);
            u32::from(presses)
        }
    }

    /// Whether the log was larger than its limit when that was last looked at, and data in it can go: what is to be appended
    /// then waits.
    #[must_use]
    pub const fn is_too_large(&self) -> bool {
        self.maintenance.is_too_large()
    }

    /// Whether it was larger than its limit by an eighth, too.
    #[must_use]
    pub const fn is_far_too_large(&self) -> bool {
        self.maintenance.is_far_too_large()
    }

    /// Whether the log may have grown so much since it was last maintained that its size is to be looked at.
    #[must_use]
    pub const fn has_grown(&self) -> bool {
        self.maintenance.has_grown(&self.retention)
    }

    #[cfg(test)]
    pub(crate) fn used_bytes(&self) -> rusqlite::Result<u64> {
        used_bytes(&self.connection)
    }

    /// Does one step of the maintenance, about half a millisecond long; `now_ms` is Unix ms UTC. Returns whether
    /// there is more to do at present.
    ///
    /// A step is one transaction, whole or not at all, but a power cut may undo the latest steps: nothing depends
    /// on them, so they do not wait for the disk.
    ///
    /// # Errors
    /// The error of SQLite: see [`Store::may_pass`].
    pub fn maintain(&mut self, now_ms: i64) -> rusqlite::Result<bool> {
        self.maintain_with(now_ms, Durability::Normal)
    }

    pub(in crate::store) fn maintain_with(
        &mut self,
        now_ms: i64,
        durability: Durability,
    ) -> rusqlite::Result<bool> {
        // The file is left as it was found.
        if self.log.is_unchecked() {
            return Ok(false);
        }
        self.bring_to_disk()?;
        self.set_durability(durability)?;
        // Before any sample is corrected: those of an earlier kernel are not.
        if self.clock.is_unsaved() {
            let saved = (|| {
                let transaction = self.connection.transaction()?;
                self.clock.save(&transaction)?;
                transaction.commit()
            })();
            saved.inspect_err(|error| self.log.failed(error))?;
            self.clock.committed();
        }
        if self.shorten_queue().inspect_err(|error| self.log.failed(error))? {
            return Ok(true);
        }
        let (connection, cache) = (&mut self.connection, &mut self.cache);
        let outcome = self.maintenance.step(connection, cache, &self.retention, now_ms);
        outcome.inspect_err(|error| self.log.failed(error))
    }

    /// Moves readings that have arrived to their place for about `time`, whether it is worth it yet or not. Returns
    /// whether there are more; none is lost when that is not waited for.
    ///
    /// # Errors
    /// The error of SQLite: see [`Store::may_pass`].
    pub fn move_arrived(&mut self, time: Duration) -> rusqlite::Result<bool> {
        if self.log.is_unchecked() {
            return Ok(false);
        }
        self.bring_to_disk()?;
        self.set_durability(Durability::Normal)?;
        let outcome = self.maintenance.move_arrived(&mut self.connection, &mut self.cache, time);
        outcome.inspect_err(|error| self.log.failed(error))
    }

    /// Whether an error of [`Store::append`] can go away by itself (disk full, disk error, lock), so
    /// that trying again is right; otherwise the file is damaged and the process should end.
    #[must_use]
    pub fn may_pass(error: &rusqlite::Error) -> bool {
        !is_damage(error)
    }

    /// Whether commits fail until the file is checked: see [`Store::open_soon`].
    #[must_use]
    pub fn awaits_check(&self) -> bool {
        self.log.awaits_check()
    }

    /// Why a commit that is on the disk could not be copied into the log's file, told once. The next commit does it.
    #[must_use]
    pub fn take_checkpoint_error(&self) -> Option<rusqlite::Error> {
        self.log.take_checkpoint_error()
    }

    /// The log's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(self.connection.path().unwrap_or_default())
    }
}

impl Drop for Store {
    /// The last connection to a file copies the write-ahead log into it, which must not be while the file may be damaged
    /// or the disk fails.
    fn drop(&mut self) {
        if self.log.is_unchecked() || self.log.is_unsynced() {
            let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

//! The writer: appends a batch in one transaction, each reading once.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, params};

use crate::mqtt::Message;
use crate::reading::{ClockState, Id};
use crate::store::file::migrations::{
    self as schema, CLOCK_AWAITING, CLOCK_RESTAMPED, CLOCK_SYNCED, CLOCK_UNSYNCED,
};
use crate::store::file::open::{self as file, Lock, OpenError};
use crate::store::mqtt::queue::Queues;
use crate::store::mqtt::retained;
use crate::store::mqtt::sessions::{self, Change, Stored};
use crate::store::retention::deleted_ranges;
use crate::store::retention::horizon::Horizon;
use crate::store::retention::policy::Retention;
use crate::store::rollup::aggregate::Bucket;
use crate::store::rollup::compute::{self as rollup, Marks};
use crate::store::rollup::schema::{READINGS, SAMPLES};
use crate::store::write::alarm_log as alarms;
use crate::store::write::intern::Interner;
use crate::store::write::maintenance::Maintenance;
use crate::store::write::record::{Appended, EXAMPLE_MAX_BYTES, Record};
use crate::store::write::restamp;
use crate::wire::Telemetry;

/// Rows of table `refusal`; refusals of further topics are counted under the topic `…`.
const REFUSAL_ROWS: i64 = 1000;

/// What a commit waits for: `PRAGMA synchronous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Durability {
    /// The disk.
    Full,
    /// Nothing; the next one that waits for the disk puts this one there too.
    Normal,
    /// Nothing, and nobody ever does.
    Off,
}

/// What the writer remembers of the database, so that an append need not ask it.
#[derive(Debug)]
pub(in crate::store) struct Memory {
    pub interner: Interner,
    pub marks: Marks,
    pub horizon: Horizon,
    /// Whether some run has readings that wait for their corrected time.
    pub restamping: bool,
}

/// The writing side of the log.
#[derive(Debug)]
pub struct Store {
    pub(in crate::store) connection: Connection,
    pub(in crate::store) memory: Memory,
    pub(in crate::store) maintenance: Maintenance,
    pub(in crate::store) retention: Retention,
    pub(in crate::store) durability: Durability,
    /// What waits for sessions, once it is counted; after a failure it has to be again.
    queues: Queues,
    queues_counted: bool,
    _lock: Lock,
}

impl Store {
    /// Opens the log at `path`, or starts one. It keeps everything until [`Store::retain`] says otherwise.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let (connection, lock) = file::open_checked(path, schema::LOG)?;
        // Every append and every step of the maintenance runs the same few dozen statements; they stay prepared.
        connection.set_prepared_statement_cache_capacity(128);
        let horizon = Horizon::load(&connection)
            .map_err(|source| OpenError::Sqlite { path: path.to_owned(), source })?;
        Ok(Self {
            connection,
            memory: Memory {
                interner: Interner::default(),
                marks: Marks::default(),
                horizon,
                restamping: true,
            },
            maintenance: Maintenance::default(),
            retention: Retention::EVERYTHING,
            durability: Durability::Full,
            queues: Queues::default(),
            queues_counted: false,
            _lock: lock,
        })
    }

    /// Retained messages and persistent sessions, as the last commit left them.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn mqtt_state(&self) -> rusqlite::Result<(Vec<Arc<Message>>, Vec<Stored>)> {
        Ok((retained::load(&self.connection)?, sessions::load(&self.connection)?))
    }

    pub(in crate::store) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Appends all of `records` in one transaction. When this returns `Ok`, they are on the disk;
    /// when it fails, none of them is, and the same call may be made again.
    ///
    /// # Errors
    /// What SQLite said: see [`Store::may_pass`].
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
        self.set_durability(durability)?;
        let outcome = self.attempt(records, changes);
        if outcome.is_err() {
            self.forget();
        }
        outcome
    }

    fn attempt(&mut self, records: &[&Record], changes: &[&Change]) -> rusqlite::Result<Appended> {
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut appended = append(&transaction, &mut self.memory, records)?;
        if !changes.is_empty() {
            if !self.queues_counted {
                self.queues.recount(&transaction)?;
                self.queues_counted = true;
            }
            for change in changes {
                appended.dropped += sessions::apply(&transaction, &mut self.queues, change)?;
            }
        }
        transaction.commit()?;
        Ok(appended)
    }

    /// Says what the next commits wait for.
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

    /// Names interned, marks made and messages counted in a transaction that was rolled back do not exist.
    pub(in crate::store) fn forget(&mut self) {
        self.memory.interner = Interner::default();
        self.memory.marks.forget();
        self.memory.restamping = true;
        self.queues_counted = false;
    }

    /// Whether an error of [`Store::append`] can go away by itself (disk full, disk error, lock), so
    /// that trying again is right; otherwise the file is damaged and the process should end.
    #[must_use]
    pub fn may_pass(error: &rusqlite::Error) -> bool {
        !file::is_damage(error)
    }
}

fn append(
    transaction: &Transaction<'_>,
    memory: &mut Memory,
    records: &[&Record],
) -> rusqlite::Result<Appended> {
    let mut appended = Appended::default();
    for record in records {
        memory.interner.trim();
        match record {
            Record::Reading { node, sensor, telemetry } => {
                if insert_reading(transaction, memory, node, sensor, telemetry)? {
                    appended.readings += 1;
                } else {
                    appended.repeats += 1;
                }
            }
            Record::Foreign { topic, at_ms, numbers } => {
                for (field, value) in numbers {
                    insert_sample(transaction, memory, topic, field, *at_ms, *value)?;
                    appended.samples += 1;
                }
            }
            Record::Refused { topic, at_ms, cause, payload } => {
                count_refusal(transaction, topic, *at_ms, cause, payload)?;
                appended.refused += 1;
            }
            Record::Alarm { name, at_ms, raised, detail } => {
                alarms::append(transaction, name.as_str(), *at_ms, *raised, detail)?;
            }
        }
    }
    if memory.restamping {
        memory.restamping = restamp::some(transaction, memory)?;
    }
    Ok(appended)
}

/// Returns whether the reading was new.
fn insert_reading(
    transaction: &Transaction<'_>,
    memory: &mut Memory,
    node: &Id,
    sensor: &Id,
    telemetry: &Telemetry,
) -> rusqlite::Result<bool> {
    let sensor = memory.interner.sensor(transaction, node, sensor)?;
    let mut run = memory.interner.run(transaction, node, &telemetry.boot)?;
    // The payload's check bounds both to i64.
    let seq = i64::try_from(telemetry.seq).unwrap_or(i64::MAX);
    let mono = i64::try_from(telemetry.mono).unwrap_or(i64::MAX);

    if telemetry.clock == ClockState::Synced && run.synced.is_none() {
        let offset = telemetry.at - mono;
        transaction
            .prepare_cached(
                "UPDATE run SET offset_ms = ?, synced_seq = ?, restamp_from = 0 WHERE id = ?",
            )?
            .execute(params![offset, seq, run.id])?;
        run.synced = Some((offset, seq));
        memory.interner.set_run(node, &telemetry.boot, run);
        memory.restamping = true;
    }
    let (at, clock, original) = match (telemetry.clock, run.synced) {
        (ClockState::Synced, _) => (telemetry.at, CLOCK_SYNCED, None),
        (ClockState::Unsynced, Some((offset, synced_seq))) if seq < synced_seq => {
            (mono.saturating_add(offset), CLOCK_RESTAMPED, Some(telemetry.at))
        }
        // Its time may still be corrected to one that is kept.
        (ClockState::Unsynced, None) if telemetry.at < memory.horizon.rows_from => {
            (telemetry.at, CLOCK_AWAITING, None)
        }
        (ClockState::Unsynced, _) => (telemetry.at, CLOCK_UNSYNCED, None),
    };
    if !memory.horizon.is_all() && deleted_ranges::contains(transaction, run.id, seq)? {
        return Ok(false);
    }
    if at < memory.horizon.rows_from && clock != CLOCK_AWAITING {
        let known: bool = transaction
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM reading WHERE run = ? AND seq = ?)")?
            .query_row(params![run.id, seq], |row| row.get(0))?;
        if known {
            return Ok(false);
        }
        let row = Bucket::row(at, [telemetry.temperature, telemetry.humidity]);
        rollup::fold(transaction, &READINGS, sensor, &row, &memory.horizon)?;
        deleted_ranges::add(transaction, run.id, seq, seq)?;
        return Ok(true);
    }
    let rows = transaction
        .prepare_cached(
            "INSERT INTO reading (run, seq, sensor, at, clock, mono, temperature, humidity, at_original)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run, seq) DO NOTHING",
        )?
        .execute(params![
            run.id, seq, sensor, at, clock, mono, telemetry.temperature, telemetry.humidity, original
        ])?;
    if rows == 1 {
        if clock == CLOCK_AWAITING {
            transaction
                .prepare_cached("INSERT INTO parked (run) VALUES (?) ON CONFLICT DO NOTHING")?
                .execute([run.id])?;
        } else {
            memory.marks.mark(transaction, &READINGS, sensor, at)?;
        }
    }
    Ok(rows == 1)
}

fn insert_sample(
    transaction: &Transaction<'_>,
    memory: &mut Memory,
    topic: &str,
    field: &str,
    at: i64,
    value: f64,
) -> rusqlite::Result<()> {
    let source = memory.interner.source(transaction, topic, field)?;
    if at < memory.horizon.rows_from {
        // The broker's own clock went back behind what is kept.
        let row = Bucket::row(at, [Some(value)]);
        return rollup::fold(transaction, &SAMPLES, source, &row, &memory.horizon);
    }
    transaction
        .prepare_cached("INSERT INTO sample (source, at, value) VALUES (?, ?, ?)")?
        .execute(params![source, at, value])?;
    memory.marks.mark(transaction, &SAMPLES, source, at)
}

fn count_refusal(
    transaction: &Transaction<'_>,
    topic: &str,
    at_ms: i64,
    cause: &str,
    payload: &[u8],
) -> rusqlite::Result<()> {
    let known: bool = transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM refusal WHERE cause = ? AND topic = ?)")?
        .query_row([cause, topic], |row| row.get(0))?;
    let topic = if known {
        topic
    } else {
        let rows: i64 = transaction
            .prepare_cached("SELECT count(*) FROM refusal")?
            .query_row([], |row| row.get(0))?;
        if rows < REFUSAL_ROWS { topic } else { "…" }
    };
    let example = &payload[..payload.len().min(EXAMPLE_MAX_BYTES)];
    transaction
        .prepare_cached(
            "INSERT INTO refusal (cause, topic, count, first_at, last_at, example)
             VALUES (?1, ?2, 1, ?3, ?3, ?4)
             ON CONFLICT (cause, topic) DO UPDATE
             SET count = count + 1, last_at = excluded.last_at, example = excluded.example",
        )?
        .execute(params![cause, topic, at_ms, example])?;
    Ok(())
}

//! The writer: appends a batch in one transaction, each reading once, and corrects the times of
//! readings that were taken before their node's clock was set.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::alarms;
use super::file::{self, Lock, OpenError};
use super::queued::Queues;
use super::retained;
use super::schema::{self, CLOCK_RESTAMPED, CLOCK_SYNCED, CLOCK_UNSYNCED};
use super::sessions::{self, Change, Stored};
use crate::reading::{ClockState, Id};
use crate::wire::{Message, Numbers, Telemetry};

/// Readings whose time is corrected in one commit, so that an acknowledgement never waits long
/// behind a correction.
const RESTAMP_ROWS_PER_COMMIT: i64 = 500;
/// Rows of table `refusal`; refusals of further topics are counted under the topic `…`.
const REFUSAL_ROWS: i64 = 1000;
/// Bytes kept of a refused payload.
pub const EXAMPLE_MAX_BYTES: usize = 256;
/// Interned names kept in memory, each kind. Past it the cache starts anew from the database.
const NAMES_CACHED: usize = 5_000;

/// Something to append.
#[derive(Debug, Clone)]
pub enum Record {
    /// A reading of one of our nodes.
    Reading {
        /// The node, from the topic.
        node: Id,
        /// The sensor, from the topic.
        sensor: Id,
        /// The payload.
        telemetry: Telemetry,
    },
    /// Numbers from a logged filter.
    Foreign {
        /// The topic they came on.
        topic: String,
        /// Arrival, Unix ms UTC by the broker's clock.
        at_ms: i64,
        /// Field and value.
        numbers: Numbers,
    },
    /// A message that should have been a reading, or held a number, and did not.
    Refused {
        /// The topic it came on.
        topic: String,
        /// Arrival, Unix ms UTC by the broker's clock.
        at_ms: i64,
        /// Short name of the cause.
        cause: &'static str,
        /// The payload; its first 256 bytes are kept.
        payload: Vec<u8>,
    },
    /// An alarm was raised or cleared.
    Alarm {
        /// Its name.
        name: Id,
        /// When, Unix ms UTC by the broker's clock.
        at_ms: i64,
        /// Raised, or cleared.
        raised: bool,
        /// Why, for people.
        detail: String,
    },
}

/// What a committed batch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Appended {
    /// Readings that were new.
    pub readings: u64,
    /// Readings that were there already.
    pub repeats: u64,
    /// Numbers from foreign messages.
    pub samples: u64,
    /// Messages refused.
    pub refused: u64,
    /// Messages that waited for a session and had to make room.
    pub dropped: u64,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    id: i64,
    /// Offset and the seq from which the node's own stamps are good.
    synced: Option<(i64, i64)>,
}

#[derive(Debug, Default)]
struct Names {
    sensors: HashMap<(Id, Id), i64>,
    runs: HashMap<(Id, Id), Run>,
    sources: HashMap<(String, String), i64>,
}

impl Names {
    fn trim(&mut self) {
        if self.sensors.len().max(self.runs.len()).max(self.sources.len()) > NAMES_CACHED {
            *self = Self::default();
        }
    }
}

/// The writing side of the log.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    names: Names,
    /// Whether some run has readings that wait for their corrected time.
    restamping: bool,
    /// What waits for sessions; `None` until it is counted, and after a failure.
    queues: Option<Queues>,
    _lock: Lock,
}

impl Store {
    /// Opens the log at `path`, or starts one.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let (connection, lock) = file::open_checked(path, schema::LOG)?;
        // Every append runs the same dozen statements; they stay prepared.
        connection.set_prepared_statement_cache_capacity(64);
        let names = Names::default();
        Ok(Self { connection, names, restamping: true, queues: None, _lock: lock })
    }

    /// Retained messages and persistent sessions, as the last commit left them.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn kept(&self) -> rusqlite::Result<(Vec<Arc<Message>>, Vec<Stored>)> {
        Ok((retained::load(&self.connection)?, sessions::load(&self.connection)?))
    }

    pub(super) const fn connection(&self) -> &Connection {
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
        let outcome = self.attempt(records, changes);
        if outcome.is_err() {
            // Names interned and messages counted in the transaction that was rolled back do not exist.
            self.names = Names::default();
            self.restamping = true;
            self.queues = None;
        }
        outcome
    }

    fn attempt(&mut self, records: &[&Record], changes: &[&Change]) -> rusqlite::Result<Appended> {
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut appended = append(&transaction, &mut self.names, &mut self.restamping, records)?;
        if !changes.is_empty() {
            if self.queues.is_none() {
                self.queues = Some(Queues::load(&transaction)?);
            }
            let queues = self.queues.get_or_insert_default();
            for change in changes {
                appended.dropped += sessions::apply(&transaction, queues, change)?;
            }
        }
        transaction.commit()?;
        Ok(appended)
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
    names: &mut Names,
    restamping: &mut bool,
    records: &[&Record],
) -> rusqlite::Result<Appended> {
    let mut appended = Appended::default();
    for record in records {
        names.trim();
        match record {
            Record::Reading { node, sensor, telemetry } => {
                if insert_reading(transaction, names, restamping, node, sensor, telemetry)? {
                    appended.readings += 1;
                } else {
                    appended.repeats += 1;
                }
            }
            Record::Foreign { topic, at_ms, numbers } => {
                for (field, value) in numbers {
                    let source = source_id(transaction, names, topic, field)?;
                    transaction
                        .prepare_cached("INSERT INTO sample (source, at, value) VALUES (?, ?, ?)")?
                        .execute(params![source, at_ms, value])?;
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
    if *restamping {
        *restamping = restamp_some(transaction)?;
    }
    Ok(appended)
}

/// Returns whether the reading was new.
fn insert_reading(
    transaction: &Transaction<'_>,
    names: &mut Names,
    restamping: &mut bool,
    node: &Id,
    sensor: &Id,
    telemetry: &Telemetry,
) -> rusqlite::Result<bool> {
    let sensor = sensor_id(transaction, names, node, sensor)?;
    let mut run = run_of(transaction, names, node, &telemetry.boot)?;
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
        names.runs.insert((node.clone(), telemetry.boot.clone()), run);
        *restamping = true;
    }
    let (at, clock, original) = match (telemetry.clock, run.synced) {
        (ClockState::Synced, _) => (telemetry.at, CLOCK_SYNCED, None),
        (ClockState::Unsynced, Some((offset, synced_seq))) if seq < synced_seq => {
            (mono.saturating_add(offset), CLOCK_RESTAMPED, Some(telemetry.at))
        }
        (ClockState::Unsynced, _) => (telemetry.at, CLOCK_UNSYNCED, None),
    };
    let rows = transaction
        .prepare_cached(
            "INSERT INTO reading (run, seq, sensor, at, clock, mono, temperature, humidity, at_original)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run, seq) DO NOTHING",
        )?
        .execute(params![
            run.id, seq, sensor, at, clock, mono, telemetry.temperature, telemetry.humidity, original
        ])?;
    Ok(rows == 1)
}

fn node_id(transaction: &Transaction<'_>, node: &Id) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached("INSERT INTO node (name) VALUES (?) ON CONFLICT (name) DO NOTHING")?
        .execute([node.as_str()])?;
    transaction
        .prepare_cached("SELECT id FROM node WHERE name = ?")?
        .query_row([node.as_str()], |row| row.get(0))
}

fn sensor_id(
    transaction: &Transaction<'_>,
    names: &mut Names,
    node: &Id,
    sensor: &Id,
) -> rusqlite::Result<i64> {
    let key = (node.clone(), sensor.clone());
    if let Some(id) = names.sensors.get(&key) {
        return Ok(*id);
    }
    let node = node_id(transaction, node)?;
    transaction
        .prepare_cached("INSERT INTO sensor (node, name) VALUES (?, ?) ON CONFLICT DO NOTHING")?
        .execute(params![node, sensor.as_str()])?;
    let id = transaction
        .prepare_cached("SELECT id FROM sensor WHERE node = ? AND name = ?")?
        .query_row(params![node, sensor.as_str()], |row| row.get(0))?;
    names.sensors.insert(key, id);
    Ok(id)
}

fn run_of(
    transaction: &Transaction<'_>,
    names: &mut Names,
    node: &Id,
    boot: &Id,
) -> rusqlite::Result<Run> {
    let key = (node.clone(), boot.clone());
    if let Some(run) = names.runs.get(&key) {
        return Ok(*run);
    }
    let node = node_id(transaction, node)?;
    transaction
        .prepare_cached("INSERT INTO run (node, boot) VALUES (?, ?) ON CONFLICT DO NOTHING")?
        .execute(params![node, boot.as_str()])?;
    let run = transaction
        .prepare_cached("SELECT id, offset_ms, synced_seq FROM run WHERE node = ? AND boot = ?")?
        .query_row(params![node, boot.as_str()], |row| {
            let synced = row.get::<_, Option<i64>>(1)?.zip(row.get::<_, Option<i64>>(2)?);
            Ok(Run { id: row.get(0)?, synced })
        })?;
    names.runs.insert(key, run);
    Ok(run)
}

fn source_id(
    transaction: &Transaction<'_>,
    names: &mut Names,
    topic: &str,
    field: &str,
) -> rusqlite::Result<i64> {
    let key = (topic.to_owned(), field.to_owned());
    if let Some(id) = names.sources.get(&key) {
        return Ok(*id);
    }
    transaction
        .prepare_cached("INSERT INTO source (topic, field) VALUES (?, ?) ON CONFLICT DO NOTHING")?
        .execute([topic, field])?;
    let id = transaction
        .prepare_cached("SELECT id FROM source WHERE topic = ? AND field = ?")?
        .query_row([topic, field], |row| row.get(0))?;
    names.sources.insert(key, id);
    Ok(id)
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

/// Corrects the next few readings that were taken before their node's clock was set. Returns whether
/// there is more to do.
fn restamp_some(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    let waiting = transaction
        .prepare_cached(
            "SELECT id, offset_ms, synced_seq, restamp_from FROM run
             WHERE restamp_from IS NOT NULL LIMIT 1",
        )?
        .query_row([], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, i64>(3)?,
            ))
        })
        .optional()?;
    let Some((run, offset, synced_seq, from)) = waiting else { return Ok(false) };
    let last: Option<i64> = transaction
        .prepare_cached(
            "SELECT max(seq) FROM (SELECT seq FROM reading
             WHERE run = ? AND seq >= ? AND seq < ? ORDER BY seq LIMIT ?)",
        )?
        .query_row(params![run, from, synced_seq, RESTAMP_ROWS_PER_COMMIT], |row| row.get(0))?;
    if let Some(last) = last {
        transaction
            .prepare_cached(
                "UPDATE reading SET at_original = at, at = mono + ?1, clock = ?2
                 WHERE run = ?3 AND seq BETWEEN ?4 AND ?5 AND clock = ?6",
            )?
            .execute(params![offset, CLOCK_RESTAMPED, run, from, last, CLOCK_UNSYNCED])?;
    }
    transaction
        .prepare_cached("UPDATE run SET restamp_from = ? WHERE id = ?")?
        .execute(params![last.map(|seq| seq + 1), run])?;
    Ok(true)
}

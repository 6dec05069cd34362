//! The readers: export, tail, gaps, statistics, backup and check, beside a running broker.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use crate::reading::Id;
use crate::store::retention::horizon::Horizon;
use crate::store::rollup::schema::{READINGS as READING_SPANS, SAMPLES, Tier};

const DAY_MS: i64 = 86_400_000;

/// A stored reading, as the view `readings` has it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Reading {
    /// Node id.
    pub node: String,
    /// Sensor id.
    pub sensor: String,
    /// The node's run.
    pub boot: String,
    /// Number of the reading within the run.
    pub seq: i64,
    /// Unix ms UTC.
    pub at: i64,
    /// `synced`, `unsynced` or `restamped`.
    pub clock: String,
    /// °C.
    pub temperature: Option<f64>,
    /// Relative humidity in %.
    pub humidity: Option<f64>,
}

/// A stored number of a foreign publisher, as the view `samples` has it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Foreign {
    /// Topic it came on.
    pub topic: String,
    /// JSON member, empty for a plain number.
    pub field: String,
    /// Arrival, Unix ms UTC.
    pub at: i64,
    /// The number.
    pub value: f64,
}

/// Which readings to take.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Unix ms, inclusive.
    pub from_ms: Option<i64>,
    /// Unix ms, exclusive.
    pub to_ms: Option<i64>,
    /// Only this node.
    pub node: Option<Id>,
    /// Only sensors of this name.
    pub sensor: Option<Id>,
}

impl Selection {
    pub(in crate::store) fn bounds(&self) -> (i64, i64) {
        (self.from_ms.unwrap_or(i64::MIN), self.to_ms.unwrap_or(i64::MAX))
    }
}

/// Numbers that a node counted but that are not in the log: `from..=to` of one run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// Node id.
    pub node: String,
    /// The node's run.
    pub boot: String,
    /// First missing number.
    pub from: i64,
    /// Last missing number.
    pub to: i64,
}

/// What the log holds.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Stats {
    /// Rows of `readings`.
    pub readings: i64,
    /// Rows of `samples`.
    pub samples: i64,
    /// Messages acknowledged and refused, by cause.
    pub refused: Vec<(String, i64)>,
    /// Distinct nodes.
    pub nodes: i64,
    /// Distinct sensors.
    pub sensors: i64,
    /// Time of the oldest reading, Unix ms UTC.
    pub first_ms: Option<i64>,
    /// Time of the newest reading, Unix ms UTC.
    pub last_ms: Option<i64>,
    /// Rows of both in the last 24 hours before the newest reading.
    pub rows_last_day: i64,
    /// Spans of a minute, a quarter of an hour and an hour, of readings and samples.
    pub rolled_up: [i64; 3],
    /// From when on single rows are kept, Unix ms UTC; `None`: all of them.
    pub rows_from_ms: Option<i64>,
    /// Quarters of an hour whose roll-ups are to be computed.
    pub dirty: i64,
    /// Series of an older log that are still to be rolled up.
    pub backfill: i64,
    /// Size of the database in bytes, without its write-ahead log.
    pub bytes: i64,
    /// Bytes inside it that are free for new rows.
    pub free_bytes: i64,
}

/// The columns and joins of the view `readings`, open for a WHERE on the table underneath, whose
/// indexes the view's names would hide.
pub(in crate::store) const READINGS: &str = "
    SELECT node.name, sensor.name, run.boot, reading.seq, reading.at,
           CASE reading.clock WHEN 1 THEN 'synced' WHEN 2 THEN 'restamped' ELSE 'unsynced' END,
           reading.temperature, reading.humidity, reading.run
    FROM reading
    JOIN run ON run.id = reading.run
    JOIN node ON node.id = run.node
    JOIN sensor ON sensor.id = reading.sensor";

pub(in crate::store) fn reading(row: &rusqlite::Row<'_>) -> rusqlite::Result<Reading> {
    Ok(Reading {
        node: row.get(0)?,
        sensor: row.get(1)?,
        boot: row.get(2)?,
        seq: row.get(3)?,
        at: row.get(4)?,
        clock: row.get(5)?,
        temperature: row.get(6)?,
        humidity: row.get(7)?,
    })
}

/// The reading side of the log.
#[derive(Debug)]
pub struct Log {
    pub(in crate::store) connection: Connection,
}

impl Log {
    /// Opens an existing log to read.
    ///
    /// # Errors
    /// When there is no log at `path` or it cannot be read.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // Fails here, and not in the middle of an export, when the file is no log of ours.
        connection.query_row("SELECT count(*) FROM node", [], |_| Ok(()))?;
        Ok(Self { connection })
    }

    pub(in crate::store) fn sensors(&self, selection: &Selection) -> rusqlite::Result<Vec<i64>> {
        self.connection
            .prepare_cached(
                "SELECT sensor.id FROM sensor JOIN node ON node.id = sensor.node
                 WHERE (?1 IS NULL OR node.name = ?1) AND (?2 IS NULL OR sensor.name = ?2)
                 ORDER BY node.name, sensor.name",
            )?
            .query_map(
                params![
                    selection.node.as_ref().map(Id::as_str),
                    selection.sensor.as_ref().map(Id::as_str)
                ],
                |row| row.get(0),
            )?
            .collect()
    }

    /// The latest `count` readings, oldest first.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn latest(&self, count: usize) -> rusqlite::Result<Vec<Reading>> {
        let mut latest = Vec::new();
        for sensor in self.sensors(&Selection::default())? {
            let mut statement = self.connection.prepare_cached(&format!(
                "{READINGS} WHERE reading.sensor = ? ORDER BY reading.at DESC LIMIT ?"
            ))?;
            let rows = statement.query_map(params![sensor, count], reading)?;
            latest.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        latest.sort_by(|a, b| (a.at, &a.node, a.seq).cmp(&(b.at, &b.node, b.seq)));
        Ok(latest.split_off(latest.len().saturating_sub(count)))
    }

    /// Holes in the numbering of each run, from 1 to its highest number. Empty when nothing that a
    /// node counted is missing, apart from what is still on its way. What retention deleted is no hole.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn gaps(&self) -> rusqlite::Result<Vec<Gap>> {
        // Both halves come in the order of their keys, so that they are merged and nothing is sorted.
        let mut statement = self.connection.prepare(
            "SELECT run, seq, seq FROM reading UNION ALL SELECT run, first, last FROM pruned
             ORDER BY 1, 2",
        )?;
        let mut stretches = statement.query([])?;
        let (mut holes, mut before) = (Vec::new(), (0, 0));
        while let Some(stretch) = stretches.next()? {
            let (run, first, last): (i64, i64, i64) =
                (stretch.get(0)?, stretch.get(1)?, stretch.get(2)?);
            let expected = if before.0 == run { before.1 + 1 } else { 1 };
            if first > expected {
                holes.push((run, expected, first - 1));
            }
            before = (run, last);
        }
        let mut name = self.connection.prepare(
            "SELECT node.name, run.boot FROM run JOIN node ON node.id = run.node WHERE run.id = ?",
        )?;
        let mut gaps = holes
            .into_iter()
            .map(|(run, from, to)| {
                name.query_row([run], |row| {
                    Ok(Gap { node: row.get(0)?, boot: row.get(1)?, from, to })
                })
            })
            .collect::<rusqlite::Result<Vec<_>>>()?;
        // Stable: the runs of a node stay in their order.
        gaps.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(gaps)
    }

    /// Counts and sizes.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn stats(&self) -> rusqlite::Result<Stats> {
        let one = |sql: &str| self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let page = one("PRAGMA page_size")?;
        let (first_ms, last_ms): (Option<i64>, Option<i64>) = self.connection.query_row(
            // Per sensor, so that both ends come from the index.
            "SELECT min((SELECT min(at) FROM reading WHERE sensor = sensor.id)),
                    max((SELECT max(at) FROM reading WHERE sensor = sensor.id)) FROM sensor",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let refused = self
            .connection
            .prepare("SELECT cause, sum(count) FROM refusal GROUP BY cause ORDER BY cause")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let rows_last_day = self.connection.query_row(
            "SELECT (SELECT total((SELECT count(*) FROM reading WHERE sensor = sensor.id AND at > ?1))
                     FROM sensor)
                  + (SELECT total((SELECT count(*) FROM sample WHERE source = source.id AND at > ?1))
                     FROM source)",
            [last_ms.unwrap_or(i64::MAX).saturating_sub(DAY_MS)],
            |row| row.get::<_, f64>(0),
        )?;
        let mut rolled_up = [0; 3];
        for (count, tier) in rolled_up.iter_mut().zip(Tier::ALL) {
            *count = one(&format!("SELECT count(*) FROM {}", READING_SPANS.rolled(tier)))?
                + one(&format!("SELECT count(*) FROM {}", SAMPLES.rolled(tier)))?;
        }
        let horizon = Horizon::load(&self.connection)?;
        Ok(Stats {
            // A count, far below 2^53.
            #[expect(clippy::cast_possible_truncation)]
            rows_last_day: rows_last_day as i64,
            rolled_up,
            rows_from_ms: (!horizon.is_all()).then_some(horizon.rows_from),
            dirty: one("SELECT count(*) FROM dirty")?,
            backfill: one("SELECT count(*) FROM backlog")?,
            readings: one("SELECT count(*) FROM reading")?,
            samples: one("SELECT count(*) FROM sample")?,
            refused,
            nodes: one("SELECT count(*) FROM node")?,
            sensors: one("SELECT count(*) FROM sensor")?,
            first_ms,
            last_ms,
            bytes: page * one("PRAGMA page_count")?,
            free_bytes: page * one("PRAGMA freelist_count")?,
        })
    }

    /// Every complaint of a full integrity check; empty when the log is sound.
    ///
    /// # Errors
    /// When the check itself cannot run.
    pub fn check(&self) -> rusqlite::Result<Vec<String>> {
        let verdicts = self
            .connection
            .prepare("PRAGMA integrity_check")?
            .query_map([], |row| row.get::<_, String>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(verdicts.into_iter().filter(|verdict| verdict != "ok").collect())
    }

    /// Writes a compact copy of the log as it is now to `target`, which must not exist.
    ///
    /// `VACUUM INTO` reads one snapshot: unlike SQLite's page-wise backup, which starts over with
    /// every commit of the broker, it always ends.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn copy_to(&self, target: &Path) -> rusqlite::Result<()> {
        self.connection.execute("VACUUM INTO ?", [target.to_string_lossy()]).map(|_| ())
    }
}

/// Follows a log: each call of [`Tail::read_new`] gives what was committed since the last one.
#[derive(Debug)]
pub struct Tail {
    log: Log,
    data_version: i64,
    /// Highest number seen, by run.
    seen: HashMap<i64, i64>,
}

impl Tail {
    /// The latest `count` readings, oldest first, and the tail that follows exactly them.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn start(log: Log, count: usize) -> rusqlite::Result<(Vec<Reading>, Self)> {
        // Both from one snapshot: what is committed in between would be shown twice or not at all.
        let snapshot = log.connection.unchecked_transaction()?;
        let latest = log.latest(count)?;
        let seen = log
            .connection
            .prepare("SELECT id, coalesce((SELECT max(seq) FROM reading WHERE run = run.id), 0) FROM run")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        snapshot.finish()?;
        Ok((latest, Self { log, data_version: 0, seen }))
    }

    /// What is new, in the order each node took it.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn read_new(&mut self) -> rusqlite::Result<Vec<Reading>> {
        let connection = &self.log.connection;
        // Changes when another connection has committed; costs no I/O when none has.
        let version = connection.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        if version == self.data_version {
            return Ok(Vec::new());
        }
        let runs = connection
            .prepare_cached("SELECT id FROM run")?
            .query_map([], |row| row.get::<_, i64>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut new = Vec::new();
        for run in runs {
            let seen = self.seen.entry(run).or_insert(0);
            let mut statement = connection.prepare_cached(&format!(
                "{READINGS} WHERE reading.run = ? AND reading.seq > ? ORDER BY reading.seq"
            ))?;
            let rows = statement.query_map(params![run, *seen], reading)?;
            for row in rows {
                let row = row?;
                *seen = row.seq;
                new.push(row);
            }
        }
        self.data_version = version;
        Ok(new)
    }
}

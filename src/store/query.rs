//! The readers: export, tail, gaps, statistics, backup and check, beside a running broker.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use crate::reading::Id;

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
    /// Size of the database in bytes, without its write-ahead log.
    pub bytes: i64,
    /// Bytes inside it that are free for new rows.
    pub free_bytes: i64,
}

/// The columns and joins of the view `readings`, open for a WHERE on the table underneath, whose
/// indexes the view's names would hide.
pub(super) const READINGS: &str = "
    SELECT node.name, sensor.name, run.boot, reading.seq, reading.at,
           CASE reading.clock WHEN 0 THEN 'unsynced' WHEN 1 THEN 'synced' ELSE 'restamped' END,
           reading.temperature, reading.humidity, reading.run
    FROM reading
    JOIN run ON run.id = reading.run
    JOIN node ON node.id = run.node
    JOIN sensor ON sensor.id = reading.sensor";

pub(super) fn reading(row: &rusqlite::Row<'_>) -> rusqlite::Result<Reading> {
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
    pub(super) connection: Connection,
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

    /// Calls `each` for every selected reading, sensor by sensor, each in the order of time. Nothing
    /// is collected: memory stays the same for ten rows and ten million.
    ///
    /// # Errors
    /// What SQLite said, or what `each` returned.
    pub fn export<E: From<rusqlite::Error>>(
        &self,
        selection: &Selection,
        mut each: impl FnMut(Reading) -> Result<(), E>,
    ) -> Result<(), E> {
        for sensor in self.sensors(selection)? {
            let mut statement = self.connection.prepare_cached(&format!(
                "{READINGS} WHERE reading.sensor = ? AND reading.at >= ? AND reading.at < ?
                 ORDER BY reading.at"
            ))?;
            let from = selection.from_ms.unwrap_or(i64::MIN);
            let to = selection.to_ms.unwrap_or(i64::MAX);
            let mut rows = statement.query(params![sensor, from, to])?;
            while let Some(row) = rows.next()? {
                each(reading(row)?)?;
            }
        }
        Ok(())
    }

    pub(super) fn sensors(&self, selection: &Selection) -> rusqlite::Result<Vec<i64>> {
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

    /// Calls `each` for every foreign number in the time range, source by source.
    ///
    /// # Errors
    /// What SQLite said, or what `each` returned.
    pub fn export_samples<E: From<rusqlite::Error>>(
        &self,
        selection: &Selection,
        mut each: impl FnMut(Foreign) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement = self.connection.prepare_cached(
            "SELECT source.topic, source.field, sample.at, sample.value
             FROM source CROSS JOIN sample ON sample.source = source.id
             WHERE sample.at >= ? AND sample.at < ? ORDER BY source.id, sample.at",
        )?;
        let from = selection.from_ms.unwrap_or(i64::MIN);
        let to = selection.to_ms.unwrap_or(i64::MAX);
        let mut rows = statement.query(params![from, to])?;
        while let Some(row) = rows.next()? {
            each(Foreign {
                topic: row.get(0)?,
                field: row.get(1)?,
                at: row.get(2)?,
                value: row.get(3)?,
            })?;
        }
        Ok(())
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
    /// node counted is missing, apart from what is still on its way.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn gaps(&self) -> rusqlite::Result<Vec<Gap>> {
        self.connection
            .prepare(
                "WITH numbered AS (
                     SELECT run, seq, lag(seq, 1, 0) OVER (PARTITION BY run ORDER BY seq) AS before
                     FROM reading)
                 SELECT node.name, run.boot, before + 1, seq - 1
                 FROM numbered JOIN run ON run.id = numbered.run JOIN node ON node.id = run.node
                 WHERE seq > before + 1 ORDER BY node.name, run.id, seq",
            )?
            .query_map([], |row| {
                Ok(Gap { node: row.get(0)?, boot: row.get(1)?, from: row.get(2)?, to: row.get(3)? })
            })?
            .collect()
    }

    /// Counts and sizes.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn stats(&self) -> rusqlite::Result<Stats> {
        let one = |sql: &str| self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let page = one("PRAGMA page_size")?;
        let (first_ms, last_ms) = self.connection.query_row(
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
        Ok(Stats {
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

//! Opens the log to read, beside a running broker, and reads a row of the view `readings`.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::export_format::Row;
use crate::mqtt::Filter;
use crate::reading::Id;

/// How long a statement waits for another program's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements that are cached: one chart takes up to a dozen, and to compile one costs as much as a look-up.
const STATEMENTS_CACHED: usize = 64;

/// Steps of SQLite's machine after which a statement asks whether it goes on: less than a millisecond of a slow board.
const ASKED_EACH: i32 = 4_000;

/// The version of a log that has means without sums and the newest reading of each sensor.
pub(in crate::store) const NUMBERS_AND_TIMES: usize = 7;
/// Version of a log that knows which nodes are to be forgotten.
const FORGOTTEN: usize = 8;
/// Version of the file from which on series have horizons of their own.
const OWN_HORIZONS: usize = 11;

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

impl Row for Reading {
    fn each_text(&mut self, each: &mut dyn FnMut(&mut String)) {
        each(&mut self.node);
        each(&mut self.sensor);
        each(&mut self.boot);
    }
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
    /// From (inclusive) and to (exclusive), Unix ms.
    pub(in crate::store) fn bounds(&self) -> (i64, i64) {
        (self.from_ms.unwrap_or(i64::MIN), self.to_ms.unwrap_or(i64::MAX))
    }
}

/// The columns and joins of the view `readings`, so that a WHERE can name the columns of the table below: the view's
/// names would hide its indexes.
pub(in crate::store) const READINGS: &str = "
    SELECT node.name, sensor.name, run.boot, reading.seq, reading.at,
           CASE reading.clock WHEN 1 THEN 'synced' WHEN 2 THEN 'restamped' ELSE 'unsynced' END,
           reading.temperature, reading.humidity, reading.run, reading.mono
    FROM reading
    JOIN run ON run.id = reading.run
    JOIN node ON node.id = run.node
    JOIN sensor ON sensor.id = reading.sensor";

/// The row of [`READINGS`].
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
    /// Version of the file: a backup may be older than this program.
    pub(in crate::store) version: usize,
}

impl Log {
    /// Opens an existing log to read.
    ///
    /// # Errors
    /// When there is no log at `path` or it cannot be read.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        // Else a statement whose plan could depend on a bound value is compiled anew each time that value changes.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // Rows that are still to be moved are looked at once; SQLite would make an index of them for that look.
        connection.pragma_update(None, "automatic_index", "OFF")?;
        // Fails here, and not in the middle of an export, when the file is no log of ours.
        connection.query_row("SELECT count(*) FROM node", [], |_| Ok(()))?;
        let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let log = Self { connection, version };
        log.complete_older()?;
        Ok(log)
    }

    /// From now on statements end with an error once `goes_on`, which is asked about every millisecond, says no. It may
    /// block.
    ///
    /// # Errors
    /// When `SQLite` refuses it.
    pub fn go_on_while(
        &mut self,
        mut goes_on: impl FnMut() -> bool + Send + 'static,
    ) -> rusqlite::Result<()> {
        self.connection.progress_handler(ASKED_EACH, Some(move || !goes_on()))
    }

    /// From now on statements go on to their end.
    ///
    /// # Errors
    /// When `SQLite` refuses it.
    pub fn go_on(&mut self) -> rusqlite::Result<()> {
        self.connection.progress_handler(0, None::<fn() -> bool>)
    }

    /// Gives a log of an earlier version, a backup perhaps that no broker has opened since, the tables that it lacks.
    /// Temporary: the file stays as it is.
    fn complete_older(&self) -> rusqlite::Result<()> {
        // Readings had their place at once.
        if self.version < 5 {
            self.connection.execute_batch(
                "CREATE TEMP TABLE arrival (id INTEGER PRIMARY KEY, run INTEGER, seq INTEGER);
                 CREATE TEMP TABLE arrival_move AS
                     SELECT -1 AS moved, -1 AS sealed, 0 AS run, 0 AS seq;
                 CREATE TEMP TABLE arrived (
                     id INTEGER PRIMARY KEY, run INTEGER, seq INTEGER, sensor INTEGER, at INTEGER,
                     clock INTEGER, mono INTEGER, temperature REAL, humidity REAL, is_kept INTEGER);",
            )?;
        }
        if self.version < NUMBERS_AND_TIMES {
            self.connection.execute_batch(
                "CREATE TEMP TABLE newest (sensor INTEGER PRIMARY KEY, run INTEGER, seq INTEGER);
                 CREATE TEMP TABLE ahead (run INTEGER, seq INTEGER, arrived INTEGER);
                 CREATE TEMP TABLE set_aside (family INTEGER, series INTEGER, at INTEGER, cause TEXT);",
            )?;
        }
        if self.version < FORGOTTEN {
            self.connection.execute_batch(
                "CREATE TEMP TABLE forgotten (node TEXT PRIMARY KEY, cleared INTEGER);",
            )?;
        }
        if self.version < OWN_HORIZONS {
            self.connection.execute_batch(
                "CREATE TEMP TABLE kept_of (family INTEGER, series INTEGER, rows INTEGER, closed INTEGER,
                                            minutes INTEGER, quarters INTEGER, hours INTEGER);",
            )?;
        }
        Ok(())
    }

    /// Whether the log has anything of a node.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn has_node(&self, node: &Id) -> rusqlite::Result<bool> {
        self.connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM node WHERE name = ?)")?
            .query_row([node.as_str()], |row| row.get(0))
    }

    /// Payload of a topic's retained message, as the log has it.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn retained(&self, topic: &str) -> rusqlite::Result<Option<Vec<u8>>> {
        self.connection
            .query_row("SELECT payload FROM retained WHERE topic = ?", [topic], |row| row.get(0))
            .optional()
    }

    /// Whether a retained message has a topic that one of `filters` matches.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn is_any_retained(&self, filters: &[Filter]) -> rusqlite::Result<bool> {
        let mut statement = self.connection.prepare_cached("SELECT topic FROM retained")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let topic = row.get_ref(0)?.as_str()?;
            if filters.iter().any(|filter| filter.matches(topic)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Numbers of the selected sensors, by node and name.
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
}

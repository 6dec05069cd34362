//! The forwarder's side: reads the queue, and stored readings that are to be sent again, beside the writer.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::store::file::damage::damage;
use crate::store::file::schema::CLOCK_SYNCED;
use crate::store::forward::identity::{self, LogIdentity};
use crate::store::forward::operation::{ForwardedReading, ForwardedRun, Operation, decode};

/// How long a statement waits for the writer's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of the queue's rows in one page, which is in memory twice or three times while it is sent. Topics of others may be long.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Operations that are sent in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardPage {
    /// When its first row was committed, log time in ms.
    pub at: i64,
    /// The number before the first one. It is not the one that was asked for when rows have left a full queue.
    pub after: i64,
    /// Each with its number.
    pub operations: Vec<(i64, Operation)>,
    /// Their bytes in the queue.
    pub bytes: usize,
    /// The number of the last one.
    pub position: i64,
    /// The mark of its row.
    pub mark: i64,
}

/// Stored readings that are sent again, and where to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPage {
    /// The readings, and the runs whose clock was set later.
    pub operations: Vec<Operation>,
    /// The place behind them; `None` when there are no more.
    pub next: Option<StoredPlace>,
}

/// A place among the stored readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredPlace {
    /// Behind this id among those that have arrived, which are sent first: they move to the others.
    Arrived(i64),
    /// Behind this run and number among those at their place.
    Placed(i64, i64),
}

impl StoredPlace {
    /// Before all.
    pub const START: Self = Self::Arrived(i64::MIN);
}

/// Reads what is to be forwarded.
#[derive(Debug)]
pub struct ForwardReader {
    connection: Connection,
}

impl ForwardReader {
    /// Opens the log at `path`, which exists.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(Self { connection })
    }

    /// The log's name; `None` where it was never forwarded.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn identity(&self) -> rusqlite::Result<Option<LogIdentity>> {
        identity::load(&self.connection)
    }

    /// The number before the oldest operation of the queue, and the number of the newest one; both 0 where there was never
    /// one.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn bounds(&self) -> rusqlite::Result<(i64, i64)> {
        self.connection
            .prepare_cached(
                "SELECT coalesce((SELECT position - operations FROM forward ORDER BY position LIMIT 1), 0),
                        coalesce((SELECT max(position) FROM forward), 0)",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// The mark of the row that ends with operation `position`, if there is one.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn mark(&self, position: i64) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT mark FROM forward WHERE position = ?")?
            .query_row([position], |row| row.get(0))
            .optional()
    }

    /// When the operation behind `position` was queued, log time in ms; `None` when there is none.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn queued_at(&self, position: i64) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT at FROM forward WHERE position > ? ORDER BY position LIMIT 1")?
            .query_row([position], |row| row.get(0))
            .optional()
    }

    /// Rows behind `after`, which ends a row, with together at most about `operations_max` operations and [`PAGE_BYTES`];
    /// `None` when there are none.
    ///
    /// # Errors
    /// The error of SQLite; damage where a row is not what the writer wrote.
    pub fn page(&self, after: i64, operations_max: usize) -> rusqlite::Result<Option<ForwardPage>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT position, operations, mark, batch, at FROM forward WHERE position > ? ORDER BY position",
        )?;
        let mut rows = statement.query([after])?;
        let mut page: Option<ForwardPage> = None;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let (position, count, mark): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let held = page.as_ref().map_or(0, |page| page.operations.len());
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let batch = row.get_ref(3)?.as_blob()?;
            bytes += batch.len();
            if held > 0 && (held.saturating_add(count) > operations_max || bytes > PAGE_BYTES) {
                break;
            }
            let decoded =
                decode(batch).filter(|decoded| decoded.len() == count).ok_or_else(|| {
                    damage(&format!("row {position} of table forward cannot be read"))
                })?;
            let before = position - i64::try_from(count).unwrap_or_default();
            let at = row.get(4)?;
            let page = page.get_or_insert_with(|| ForwardPage {
                at,
                after: before,
                operations: Vec::with_capacity(operations_max.max(count)),
                bytes: 0,
                position,
                mark,
            });
            if held > 0 && before != page.position {
                return Err(damage("table forward has a hole"));
            }
            page.operations.extend((before + 1..).zip(decoded));
            (page.position, page.mark, page.bytes) = (position, mark, bytes);
        }
        Ok(page)
    }

    /// Up to `readings_max` stored readings behind `place` that were taken at `from_ms` (Unix ms) or later, and the clocks
    /// of their runs. A page may be empty and not the last one.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn stored(
        &self,
        place: StoredPlace,
        from_ms: i64,
        readings_max: usize,
    ) -> rusqlite::Result<StoredPage> {
        let limit = i64::try_from(readings_max).unwrap_or(i64::MAX);
        let mut page = StoredPage { operations: Vec::new(), next: None };
        let mut told = None;
        let mut begun = match place {
            StoredPlace::Arrived(_) => None,
            StoredPlace::Placed(run, _) => Some(run),
        };
        let mut last = None;
        let mut take = |row: &Row<'_>| -> rusqlite::Result<()> {
            last = Some((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(12)?));
            let at: i64 = row.get(5)?;
            if at < from_ms {
                return Ok(());
            }
            let (node, boot): (String, String) = (row.get(2)?, row.get(3)?);
            let (id, clock): (i64, i64) = (row.get(0)?, row.get(6)?);
            let known: Option<(i64, i64)> =
                row.get::<_, Option<i64>>(10)?.zip(row.get::<_, Option<i64>>(11)?);
            // Once a page where there may be something to correct, and once a run.
            let is_told = told == Some(id) || clock == CLOCK_SYNCED && begun == Some(id);
            if let Some((offset_ms, synced_seq)) = known
                && !is_told
            {
                (told, begun) = (Some(id), Some(id));
                page.operations.push(Operation::Run(ForwardedRun {
                    node: node.clone(),
                    boot: boot.clone(),
                    offset_ms,
                    synced_seq,
                }));
            }
            page.operations.push(Operation::Reading(ForwardedReading {
                node,
                boot,
                seq: row.get(1)?,
                sensor: row.get(4)?,
                at,
                synced: clock == CLOCK_SYNCED,
                mono: row.get(7)?,
                temperature: row.get(8)?,
                humidity: row.get(9)?,
            }));
            Ok(())
        };
        // The times as the nodes stamped them: they are corrected upstream.
        match place {
            StoredPlace::Arrived(after) => {
                let mut statement = self.connection.prepare_cached(
                    "SELECT arrival.run, arrival.seq, node.name, run.boot, sensor.name, arrival.at,
                            arrival.clock, arrival.mono, arrival.temperature, arrival.humidity,
                            run.offset_ms, run.synced_seq, arrival.id
                     FROM arrival CROSS JOIN run ON run.id = arrival.run CROSS JOIN node ON node.id = run.node
                     CROSS JOIN sensor ON sensor.id = arrival.sensor
                     WHERE arrival.id > ? ORDER BY arrival.id LIMIT ?",
                )?;
                let mut rows = statement.query(params![after, limit])?;
                while let Some(row) = rows.next()? {
                    take(row)?;
                }
                page.next =
                    Some(last.map_or(StoredPlace::Placed(i64::MIN, i64::MIN), |(_, _, id)| {
                        StoredPlace::Arrived(id)
                    }));
            }
            StoredPlace::Placed(run, seq) => {
                let mut statement = self.connection.prepare_cached(
                    "SELECT reading.run, reading.seq, node.name, run.boot, sensor.name,
                            coalesce(reading.at_original, reading.at), reading.clock, reading.mono,
                            reading.temperature, reading.humidity, run.offset_ms, run.synced_seq, 0
                     FROM reading CROSS JOIN run ON run.id = reading.run CROSS JOIN node ON node.id = run.node
                     CROSS JOIN sensor ON sensor.id = reading.sensor
                     WHERE (reading.run, reading.seq) > (?, ?) ORDER BY reading.run, reading.seq LIMIT ?",
                )?;
                let mut rows = statement.query(params![run, seq, limit])?;
                while let Some(row) = rows.next()? {
                    take(row)?;
                }
                page.next = last.map(|(run, seq, _)| StoredPlace::Placed(run, seq));
            }
        }
        Ok(page)
    }
}

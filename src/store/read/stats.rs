//! Counts and sizes of the log: all of them for a person, and the cheap ones for a monitor.

use crate::clock;
use crate::store::read::log::Log;
use crate::store::retention::horizon::Horizon;
use crate::store::rollup::schema::{READINGS, SAMPLES, Tier};

const DAY_MS: i64 = 86_400_000;

/// Counts and sizes of the log.
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
    /// Series of which less is kept than `rows_from_ms` says, since they fill the log.
    pub own_horizons: i64,
    /// Quarters of an hour whose roll-ups are to be computed.
    pub dirty: i64,
    /// Series of an older log that are still to be rolled up.
    pub backfill: i64,
    /// Size of the database in bytes, without its write-ahead log.
    pub bytes: i64,
    /// Bytes inside it that are free for new rows.
    pub free_bytes: i64,
}

/// Size and refusals, for a monitor that asks every few seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuickStats {
    /// Size of the database in bytes, without its write-ahead log.
    pub bytes: i64,
    /// Messages acknowledged and refused since the log was begun, by cause.
    pub refused: Vec<(String, i64)>,
    /// Spans that could not be rolled up.
    pub set_aside: i64,
    /// Readings that are kept and ahead of this machine's clock by more than a minute.
    pub ahead: i64,
}

impl Log {
    /// Size and refusals: a look at the header, and a sum over at most some thousand rows.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn quick_stats(&self) -> rusqlite::Result<QuickStats> {
        let one = |sql: &str| self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let bytes = one("PRAGMA page_size")? * one("PRAGMA page_count")?;
        let set_aside = one("SELECT count(*) FROM set_aside")?;
        let ahead = self.ahead(clock::unix_ms())?.iter().map(|sensor| sensor.readings).sum();
        Ok(QuickStats { bytes, refused: self.refused()?, set_aside, ahead })
    }

    /// Counts and sizes: it counts every row, which takes seconds on a large log.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn stats(&self) -> rusqlite::Result<Stats> {
        let one = |sql: &str| self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let page = one("PRAGMA page_size")?;
        let now_ms = clock::unix_ms();
        let snapshot = self.connection.unchecked_transaction()?;
        let (first_ms, last_ms): (Option<i64>, Option<i64>) = self.connection.query_row(
            // Per sensor, so that both ends come from the index.
            "SELECT min(first), max(last) FROM (
                 SELECT (SELECT min(at) FROM reading WHERE sensor = sensor.id) AS first,
                        (SELECT max(at) FROM reading WHERE sensor = sensor.id) AS last FROM sensor
                 UNION ALL
                 SELECT min(at), max(at) FROM arrived WHERE is_kept)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let rows_last_day = self.connection.query_row(
            "SELECT (SELECT total((SELECT count(*) FROM reading WHERE sensor = sensor.id AND at > ?1))
                     FROM sensor)
                  + (SELECT count(*) FROM arrived WHERE is_kept AND at > ?1)
                  + (SELECT total((SELECT count(*) FROM sample WHERE source = source.id AND at > ?1))
                     FROM source)",
            [last_ms.unwrap_or(i64::MAX).min(now_ms).saturating_sub(DAY_MS)],
            |row| row.get::<_, f64>(0),
        )?;
        let mut rolled_up = [0; 3];
        for (count, tier) in rolled_up.iter_mut().zip(Tier::ALL) {
            *count = one(&format!("SELECT count(*) FROM {}", READINGS.rolled(tier)))?
                + one(&format!("SELECT count(*) FROM {}", SAMPLES.rolled(tier)))?;
        }
        let horizon = Horizon::load(&self.connection)?;
        let stats = Stats {
            // A count, far below 2^53.
            #[expect(clippy::cast_possible_truncation)]
            rows_last_day: rows_last_day as i64,
            rolled_up,
            rows_from_ms: (!horizon.is_all()).then_some(horizon.rows_from),
            own_horizons: one("SELECT count(*) FROM kept_of")?,
            dirty: one("SELECT count(*) FROM dirty")?,
            backfill: one("SELECT count(*) FROM backlog")?,
            readings: one("SELECT (SELECT count(*) FROM reading)
                                + (SELECT count(*) FROM arrived WHERE is_kept)")?,
            samples: one("SELECT count(*) FROM sample")?,
            refused: self.refused()?,
            nodes: one("SELECT count(*) FROM node")?,
            sensors: one("SELECT count(*) FROM sensor")?,
            first_ms,
            last_ms,
            bytes: page * one("PRAGMA page_count")?,
            free_bytes: page * one("PRAGMA freelist_count")?,
        };
        snapshot.finish()?;
        Ok(stats)
    }

    /// Messages acknowledged and refused, by cause.
    fn refused(&self) -> rusqlite::Result<Vec<(String, i64)>> {
        self.connection
            .prepare_cached("SELECT cause, sum(count) FROM refusal GROUP BY cause ORDER BY cause")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    }
}

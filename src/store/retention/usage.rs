//! Measures what each series takes of the log, in small pieces.
//!
//! Rows are counted by the roll-ups of their hours, which are few. Only rows that are in no roll-up of an hour yet are
//! counted one by one: those before the horizon, those of dirty quarters, and those that wait to be moved.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Transaction, params};

use crate::store::retention::horizon::{Horizon, Horizons};
use crate::store::retention::share::SeriesUse;
use crate::store::rollup::aggregate::start_of;
use crate::store::rollup::schema::{HOUR_MS, QUARTER_MS, READINGS, SAMPLES, SeriesSchema, Tier};

/// Hours, times or rows that one piece of work looks at.
const ROWS: i64 = 1_000;
/// Bytes of a value in a roll-up: count, sum, minimum and maximum.
const VALUE_BYTES: u64 = 30;
/// Bytes of a row, and of a span without its values, with what pages leave free.
const ROW_BYTES: u64 = 32;

/// Bytes of a single row with its part of the index.
const fn row_bytes<const N: usize>(_: &SeriesSchema<N>) -> u64 {
    ROW_BYTES + 20 * N as u64
}

/// Bytes of a span.
const fn span_bytes<const N: usize>(_: &SeriesSchema<N>) -> u64 {
    ROW_BYTES + VALUE_BYTES * N as u64
}

/// The series that is being measured.
#[derive(Debug)]
struct Current {
    of: SeriesUse,
    horizon: Horizon,
    /// Hours after this one are still to be counted; `None` when all are.
    hours_after: Option<i64>,
    /// Ranges of time whose rows are still to be counted one by one, the next one last.
    ranges: Vec<(i64, i64)>,
    /// Bytes of rows in dirty quarters that are in the sum of their hour, too.
    twice: u64,
}

/// A measurement.
#[derive(Debug)]
pub(in crate::store) struct Measurement {
    /// Rows that wait to be moved, by sensor.
    waiting: HashMap<i64, u64>,
    /// Those after this id are still to be counted; `None` when all are.
    waiting_after: Option<i64>,
    code: i64,
    /// Series of this code up to this one are measured.
    after: i64,
    current: Option<Current>,
    owners: HashMap<String, usize>,
    holders: HashMap<(usize, i64, String), usize>,
    measured: Vec<SeriesUse>,
}

impl Measurement {
    /// Begins one. Rows of table `arrival` from id `unmoved_from` on wait to be moved.
    pub fn new(unmoved_from: i64) -> Self {
        Self {
            waiting: HashMap::new(),
            waiting_after: Some(unmoved_from - 1),
            code: READINGS.code,
            after: i64::MIN,
            current: None,
            owners: HashMap::new(),
            holders: HashMap::new(),
            measured: Vec::new(),
        }
    }

    /// Goes on while there is time. Returns what each series takes, once all are measured.
    pub fn step(
        &mut self,
        transaction: &Transaction<'_>,
        horizons: &Horizons,
        has_time: impl Fn() -> bool,
    ) -> rusqlite::Result<Option<Vec<SeriesUse>>> {
        loop {
            let more = if self.waiting_after.is_some() {
                self.count_waiting(transaction)?;
                true
            } else if self.code == READINGS.code {
                self.piece(transaction, &READINGS, horizons)?
            } else {
                self.piece(transaction, &SAMPLES, horizons)?
            };
            if !more {
                return Ok(Some(std::mem::take(&mut self.measured)));
            }
            if !has_time() {
                return Ok(None);
            }
        }
    }

    fn count_waiting(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let after = self.waiting_after.take().unwrap_or(i64::MAX);
        let mut statement = transaction
            .prepare_cached("SELECT id, sensor FROM arrival WHERE id > ? ORDER BY id LIMIT ?")?;
        let mut rows = statement.query(params![after, ROWS])?;
        while let Some(row) = rows.next()? {
            self.waiting_after = Some(row.get(0)?);
            *self.waiting.entry(row.get(1)?).or_default() += 1;
        }
        Ok(())
    }

    /// One piece of work. Returns whether there is more.
    fn piece<const N: usize>(
        &mut self,
        transaction: &Transaction<'_>,
        schema: &SeriesSchema<N>,
        horizons: &Horizons,
    ) -> rusqlite::Result<bool> {
        if let Some(current) = &mut self.current {
            if let Some(after) = current.hours_after {
                current.count_hours(transaction, schema, after)?;
            } else if let Some(range) = current.ranges.pop() {
                current.count_rows(transaction, schema, range)?;
            } else {
                let bytes = current.of.bytes.saturating_sub(current.twice);
                self.measured.push(SeriesUse { bytes, ..current.of });
                self.current = None;
            }
            return Ok(true);
        }
        let sql = if schema.code == READINGS.code {
            "SELECT id, coalesce(owner, ''), node FROM sensor WHERE id > ? ORDER BY id LIMIT 1"
        } else {
            "SELECT id, coalesce(owner, ''), topic FROM source WHERE id > ? ORDER BY id LIMIT 1"
        };
        let next: Option<(i64, String, String)> = transaction
            .prepare_cached(sql)?
            .query_row([self.after], |row| {
                let node: Option<i64> = row.get(2).ok();
                let name = node.map_or_else(|| row.get(2), |node| Ok(node.to_string()))?;
                Ok((row.get(0)?, row.get(1)?, name))
            })
            .optional()?;
        let Some((series, owner, name)) = next else {
            let was_last = self.code == SAMPLES.code;
            (self.code, self.after) = (SAMPLES.code, i64::MIN);
            return Ok(!was_last);
        };
        self.after = series;
        let owners = self.owners.len();
        let owner = *self.owners.entry(owner).or_insert(owners);
        let holders = self.holders.len();
        let holder = *self.holders.entry((owner, schema.code, name)).or_insert(holders);
        let is_reading = schema.code == READINGS.code;
        let waiting = self.waiting.get(&series).filter(|_| is_reading).copied().unwrap_or(0);
        let waiting = waiting * row_bytes(schema);
        let bytes = waiting;
        let of = SeriesUse { code: schema.code, series, owner, holder, bytes, waiting };
        self.current = Some(Current::begin(transaction, schema, of, horizons)?);
        Ok(true)
    }
}

impl Current {
    fn begin<const N: usize>(
        transaction: &Transaction<'_>,
        schema: &SeriesSchema<N>,
        of: SeriesUse,
        horizons: &Horizons,
    ) -> rusqlite::Result<Self> {
        let horizon = horizons.of(schema, of.series);
        // Of an hour that is closed in part, rows may be deleted.
        let from = start_of(horizon.closed_until.saturating_add(HOUR_MS - 1), HOUR_MS);
        let mut ranges = vec![(i64::MIN, from)];
        let dirty: Vec<(i64, u64)> = transaction
            .prepare_cached(&format!(
                "SELECT dirty.at, coalesce(span.count, 0) FROM dirty LEFT JOIN {} AS span
                 ON span.{} = dirty.series AND span.at = dirty.at
                 WHERE family = ? AND series = ? AND dirty.at >= ?",
                schema.rolled(Tier::Quarter),
                schema.series
            ))?
            .query_map(params![schema.code, of.series, from], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let mut twice = 0;
        for (at, counted) in dirty {
            ranges.push((at, at.saturating_add(QUARTER_MS)));
            twice += counted * row_bytes(schema);
        }
        Ok(Self { of, horizon, hours_after: Some(i64::MIN), ranges, twice })
    }

    fn count_hours<const N: usize>(
        &mut self,
        transaction: &Transaction<'_>,
        schema: &SeriesSchema<N>,
        after: i64,
    ) -> rusqlite::Result<()> {
        let mut statement = transaction.prepare_cached(&format!(
            "SELECT at, count FROM {} WHERE {} = ? AND at > ? ORDER BY at LIMIT ?",
            schema.rolled(Tier::Hour),
            schema.series
        ))?;
        let mut hours = statement.query(params![self.of.series, after, ROWS])?;
        self.hours_after = None;
        while let Some(hour) = hours.next()? {
            let (at, count): (i64, i64) = (hour.get(0)?, hour.get(1)?);
            let count = count.unsigned_abs();
            let spans = |tier: Tier| {
                let most = (HOUR_MS / tier.span_ms()).unsigned_abs();
                if at >= self.horizon.rolled_from(tier) { count.min(most) } else { 0 }
            };
            let spans: u64 = Tier::ALL.into_iter().map(spans).sum();
            let rows = if at >= self.horizon.closed_until { count } else { 0 };
            self.of.bytes += rows * row_bytes(schema) + spans * span_bytes(schema);
            self.hours_after = Some(at);
        }
        Ok(())
    }

    fn count_rows<const N: usize>(
        &mut self,
        transaction: &Transaction<'_>,
        schema: &SeriesSchema<N>,
        (from, to): (i64, i64),
    ) -> rusqlite::Result<()> {
        let mut statement = transaction.prepare_cached(&format!(
            "SELECT at, count(*) FROM {} WHERE {} = ? AND at >= ? AND at < ? GROUP BY at ORDER BY at LIMIT ?",
            schema.table, schema.series
        ))?;
        let mut times = statement.query(params![self.of.series, from, to, ROWS])?;
        let (mut found, mut last) = (0, from);
        while let Some(time) = times.next()? {
            last = time.get(0)?;
            self.of.bytes += time.get::<_, i64>(1)?.unsigned_abs() * row_bytes(schema);
            found += 1;
        }
        if found == ROWS {
            self.ranges.push((last.saturating_add(1), to));
        }
        Ok(())
    }
}

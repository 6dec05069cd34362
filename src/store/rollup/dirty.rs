//! Dirty quarters: the quarters of an hour whose rows have changed since their roll-ups were computed.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::store::rollup::aggregate::start_of;
use crate::store::rollup::compute;
use crate::store::rollup::schema::{MINUTE_MS, QUARTER_MS, READINGS, SAMPLES, SeriesSchema};
use crate::store::rollup::set_aside::or_set_aside;

/// Series whose latest mark is remembered. Past it the memory starts anew.
const MARKS_REMEMBERED: usize = 5_000;
/// Dirty quarters that one step looks at.
const QUARTERS_PER_STEP: i64 = 64;
/// A quarter that has ended is left this long for readings that are on their way, ms.
const GRACE_MS: i64 = 2 * MINUTE_MS;

/// Marks quarters as dirty, and remembers which are marked, so that a series costs one mark a quarter and not one a
/// row.
#[derive(Debug, Default)]
pub(in crate::store) struct DirtyMarks {
    /// Start of the quarter that was marked last, by schema code and series.
    last: HashMap<(i64, i64), i64>,
}

impl DirtyMarks {
    /// Marks the quarter that `at` lies in.
    pub fn mark<const N: usize>(
        &mut self,
        transaction: &Transaction<'_>,
        schema: &SeriesSchema<N>,
        series: i64,
        at: i64,
    ) -> rusqlite::Result<()> {
        let quarter = start_of(at, QUARTER_MS);
        if self.last.get(&(schema.code, series)) == Some(&quarter) {
            return Ok(());
        }
        transaction
            .prepare_cached(
                "INSERT INTO dirty (family, series, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            )?
            .execute(params![schema.code, series, quarter])?;
        if self.last.len() >= MARKS_REMEMBERED {
            self.last.clear();
        }
        self.last.insert((schema.code, series), quarter);
        Ok(())
    }

    /// Forgets the marks: after a transaction that failed, or a roll-up that took some away.
    pub fn forget(&mut self) {
        self.last.clear();
    }
}

/// A dirty quarter; ordered as the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct DirtyQuarter {
    /// Code of the series schema.
    code: i64,
    series: i64,
    /// Start of the quarter, Unix ms.
    at: i64,
}

impl DirtyQuarter {
    /// Before every other.
    pub const FIRST: Self = Self { code: i64::MIN, series: i64::MIN, at: i64::MIN };

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { code: row.get(0)?, series: row.get(1)?, at: row.get(2)? })
    }

    /// Whether readings of this quarter still come in the ordinary way.
    const fn is_open(self, now_ms: i64) -> bool {
        self.at <= now_ms && now_ms < self.at + QUARTER_MS + GRACE_MS
    }

    /// Whether it has a roll-up, though it is open: rows of another time were there, by a clock that was wrong.
    fn is_rolled(self, transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
        if self.code == READINGS.code {
            compute::is_rolled(transaction, &READINGS, self.series, self.at)
        } else {
            compute::is_rolled(transaction, &SAMPLES, self.series, self.at)
        }
    }

    fn roll(self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        or_set_aside(transaction, (self.code, self.series, self.at), || {
            if self.code == READINGS.code {
                compute::roll(transaction, &READINGS, self.series, self.at)
            } else {
                compute::roll(transaction, &SAMPLES, self.series, self.at)
            }
        })
    }
}

/// Rolls up dirty quarters after `after`, except those that are still open at `now_ms` and have none, while there is
/// time. Returns the last one that it looked at, `None` when there are no more.
///
/// A quarter that is touched again meanwhile waits for the next round, so that a node that sends old readings has
/// each of them rolled up once a round.
pub(in crate::store) fn roll_after(
    transaction: &Transaction<'_>,
    marks: &mut DirtyMarks,
    after: DirtyQuarter,
    now_ms: i64,
    has_time: impl Fn() -> bool,
) -> rusqlite::Result<Option<DirtyQuarter>> {
    let quarters: Vec<DirtyQuarter> = transaction
        .prepare_cached(
            "SELECT family, series, at FROM dirty WHERE (family, series, at) > (?, ?, ?)
             ORDER BY family, series, at LIMIT ?",
        )?
        .query_map(
            params![after.code, after.series, after.at, QUARTERS_PER_STEP],
            DirtyQuarter::read,
        )?
        .collect::<rusqlite::Result<_>>()?;
    let mut last = None;
    for quarter in quarters {
        if !quarter.is_open(now_ms) || quarter.is_rolled(transaction)? {
            quarter.roll(transaction)?;
        }
        last = Some(quarter);
        if !has_time() {
            break;
        }
    }
    marks.forget();
    Ok(last)
}

/// Rolls up dirty quarters before `before_ms` while there is time. Returns whether there were any.
pub(in crate::store) fn roll_before(
    transaction: &Transaction<'_>,
    marks: &mut DirtyMarks,
    before_ms: i64,
    has_time: impl Fn() -> bool,
) -> rusqlite::Result<bool> {
    let quarters: Vec<DirtyQuarter> = transaction
        .prepare_cached("SELECT family, series, at FROM dirty WHERE at < ? LIMIT ?")?
        .query_map(params![before_ms, QUARTERS_PER_STEP], DirtyQuarter::read)?
        .collect::<rusqlite::Result<_>>()?;
    if quarters.is_empty() {
        return Ok(false);
    }
    marks.forget();
    for quarter in quarters {
        quarter.roll(transaction)?;
        if !has_time() {
            break;
        }
    }
    Ok(true)
}

/// Rolls up the dirty quarters of a series before `before_ms` while there is time. Returns whether there are more.
pub(in crate::store) fn roll_series(
    transaction: &Transaction<'_>,
    marks: &mut DirtyMarks,
    (code, series): (i64, i64),
    before_ms: i64,
    has_time: impl Fn() -> bool,
) -> rusqlite::Result<bool> {
    let mut out_of_time = false;
    loop {
        let next = transaction
            .prepare_cached(
                "SELECT family, series, at FROM dirty WHERE family = ? AND series = ? AND at < ? LIMIT 1",
            )?
            .query_row([code, series, before_ms], DirtyQuarter::read)
            .optional()?;
        let Some(quarter) = next else { return Ok(false) };
        if out_of_time {
            return Ok(true);
        }
        marks.forget();
        quarter.roll(transaction)?;
        out_of_time = !has_time();
    }
}

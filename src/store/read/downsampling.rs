//! Draws a series: from the coarsest roll-ups that suit its step, and from the rows where these are not
//! made yet.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::read::series::{Range, divide_up};
use crate::store::retention::horizon::Horizon;
use crate::store::rollup::aggregate::{Bucket, start_of};
use crate::store::rollup::compute as rollup;
use crate::store::rollup::schema::{self, HOUR_MS, MINUTE_MS, QUARTER_MS, SeriesSchema, Tier};

/// Most single rows that one query reads; beyond it a coarser step is taken, or the answer is partial.
const ROWS_MAX: i64 = 20_000;

/// Most single rows that are read for steps finer than a minute; beyond it the minutes that are rolled up are drawn.
/// Two and a half a point at most ([`crate::store::read::series::POINTS_MAX`]): more would cost and not show. Half a day at 10 s.
const FINE_ROWS_MAX: i64 = 5_000;

/// A series before it has a face.
#[derive(Debug)]
pub(in crate::store) struct Drawn<const N: usize> {
    /// `None`: each bucket is a row.
    pub step: Option<i64>,
    pub partial: bool,
    pub buckets: Vec<Bucket<N>>,
}

/// Draws one series. All of it must come from one transaction.
pub(in crate::store) fn draw<const N: usize>(
    connection: &Connection,
    schema: &SeriesSchema<N>,
    series: i64,
    range: Range,
) -> rusqlite::Result<Drawn<N>> {
    let pen = Pen { connection, schema, series };
    let horizon = Horizon::load(connection)?;
    if range.from >= horizon.rows_from {
        let few = pen.count(range.from, range.to, range.steps() + 1)? <= range.steps();
        if few {
            let buckets = pen.rows(range.from, range.to)?;
            return Ok(Drawn { step: None, partial: false, buckets });
        }
        if range.step < MINUTE_MS
            && pen.count(range.from, range.to, FINE_ROWS_MAX + 1)? <= FINE_ROWS_MAX
        {
            let mut chart = Chart::new(range.step);
            let (from, to) = whole_steps(range, range.step);
            pen.rows(from, to)?.iter().for_each(|row| chart.add(row));
            return Ok(chart.drawn(false));
        }
    }
    let (tier, step) = tier_for(range, &horizon);
    pen.drawn_from(tier, step, range)
}

/// The coarsest tier that makes up the step and is kept from the beginning of the range on; failing
/// that, the step is widened to what is.
fn tier_for(range: Range, horizon: &Horizon) -> (Tier, i64) {
    let step = range.step.max(MINUTE_MS);
    let suits =
        |tier: &Tier| step % tier.span_ms() == 0 && range.from >= horizon.rolled_from(*tier);
    if let Some(tier) = Tier::ALL.into_iter().rev().find(suits) {
        return (tier, step);
    }
    let kept_ones = |tier: &Tier| range.from >= horizon.rolled_from(*tier) && tier.span_ms() > step;
    let tier = Tier::ALL.into_iter().find(kept_ones).unwrap_or(Tier::Hour);
    (tier, divide_up(step, tier.span_ms()) * tier.span_ms())
}

/// The range, widened to whole steps, so that a chart that is moved keeps its points.
fn whole_steps(range: Range, step: i64) -> (i64, i64) {
    (start_of(range.from, step), start_of(range.to - 1, step) + step)
}

/// Buckets of one step that fill up in any order.
struct Chart<const N: usize> {
    step: i64,
    buckets: BTreeMap<i64, Bucket<N>>,
}

impl<const N: usize> Chart<N> {
    const fn new(step: i64) -> Self {
        Self { step, buckets: BTreeMap::new() }
    }

    fn add(&mut self, part: &Bucket<N>) {
        let start = start_of(part.at, self.step);
        self.buckets.entry(start).or_insert_with(|| Bucket::empty(start)).merge(part);
    }

    fn drawn(self, partial: bool) -> Drawn<N> {
        Drawn { step: Some(self.step), partial, buckets: self.buckets.into_values().collect() }
    }
}

/// One series and where to read it.
struct Pen<'a, const N: usize> {
    connection: &'a Connection,
    schema: &'a SeriesSchema<N>,
    series: i64,
}

impl<const N: usize> Pen<'_, N> {
    /// Rows in a range of time, counted up to `most`.
    fn count(&self, from: i64, to: i64, most: i64) -> rusqlite::Result<i64> {
        self.connection
            .prepare_cached(&format!(
                "SELECT count(*) FROM (SELECT 1 FROM {} WHERE {} = ? AND at >= ? AND at < ? LIMIT ?)",
                self.schema.table, self.schema.series
            ))?
            .query_row(params![self.series, from, to, most], |row| row.get(0))
    }

    fn rows(&self, from: i64, to: i64) -> rusqlite::Result<Vec<Bucket<N>>> {
        self.connection
            .prepare_cached(&self.schema.select_rows())?
            .query_map(params![self.series, from, to], schema::read_row)?
            .collect()
    }

    fn spans(&self, tier: Tier, from: i64, to: i64) -> rusqlite::Result<Vec<Bucket<N>>> {
        rollup::spans(self.connection, self.schema, tier, self.series, from, to)
    }

    fn drawn_from(&self, tier: Tier, step: i64, range: Range) -> rusqlite::Result<Drawn<N>> {
        let (from, to) = whole_steps(range, step);
        let mut chart = Chart::new(step);
        let mut budget = ROWS_MAX;
        let mut partial = false;

        // Not rolled up yet at all.
        let backfilled = self.backfill_end()?.map_or(from, |end| end.clamp(from, to));
        if backfilled > from {
            let rows = self.count(from, backfilled, budget + 1)?;
            if rows <= budget {
                budget -= rows;
                self.rows(from, backfilled)?.iter().for_each(|row| chart.add(row));
            } else {
                partial = true;
            }
        }
        // The roll-up is of yesterday; read the newest ones afresh if there are too many.
        let mut fresh = BTreeSet::new();
        for quarter in self.dirty(backfilled, to)? {
            let (start, end) = (quarter.max(backfilled), (quarter + QUARTER_MS).min(to));
            budget -= self.count(start, end, budget + 1)?;
            if budget < 0 {
                partial = true;
                break;
            }
            self.rows(start, end)?.iter().for_each(|row| chart.add(row));
            fresh.insert(quarter);
        }
        let hours: BTreeSet<i64> =
            fresh.iter().map(|quarter| start_of(*quarter, HOUR_MS)).collect();
        for span in self.spans(tier, backfilled, to)? {
            let stale = match tier {
                Tier::Hour => hours.contains(&span.at),
                _ => fresh.contains(&start_of(span.at, QUARTER_MS)),
            };
            if !stale {
                chart.add(&span);
            }
        }
        if tier == Tier::Hour {
            for hour in hours.iter().filter(|hour| **hour >= backfilled) {
                for quarter in self.spans(Tier::Quarter, *hour, hour + HOUR_MS)? {
                    if !fresh.contains(&quarter.at) {
                        chart.add(&quarter);
                    }
                }
            }
        }
        Ok(chart.drawn(partial))
    }

    /// Until when the rows of this series still have no roll-ups.
    fn backfill_end(&self) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT before FROM backlog WHERE family = ? AND series = ?")?
            .query_row(params![self.schema.code, self.series], |row| row.get(0))
            .optional()
    }

    /// Dirty quarters that reach into a range of time, the newest first.
    fn dirty(&self, from: i64, to: i64) -> rusqlite::Result<Vec<i64>> {
        self.connection
            .prepare_cached(
                "SELECT at FROM dirty WHERE family = ? AND series = ? AND at > ? AND at < ?
                 ORDER BY at DESC",
            )?
            .query_map(params![self.schema.code, self.series, from - QUARTER_MS, to], |row| {
                row.get(0)
            })?
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarsest_tier_that_is_kept_and_suits_is_taken() {
        let range = |from, step| Range { from, to: from + 100 * step, step };
        let all = Horizon::from_hours(i64::MIN, [i64::MIN; 3]);
        assert_eq!(tier_for(range(0, MINUTE_MS), &all), (Tier::Minute, MINUTE_MS));
        assert_eq!(tier_for(range(0, 3 * QUARTER_MS), &all), (Tier::Quarter, 3 * QUARTER_MS));
        assert_eq!(tier_for(range(0, 2 * HOUR_MS), &all), (Tier::Hour, 2 * HOUR_MS));

        let some = Horizon::from_hours(30 * HOUR_MS, [20 * HOUR_MS, 10 * HOUR_MS, i64::MIN]);
        let at = |hour: i64, step| tier_for(range(hour * HOUR_MS, step), &some);
        assert_eq!(at(25, 5_000), (Tier::Minute, MINUTE_MS), "rows are gone");
        assert_eq!(at(15, 5_000), (Tier::Quarter, QUARTER_MS), "minutes too");
        assert_eq!(at(5, 3 * QUARTER_MS), (Tier::Hour, HOUR_MS), "quarters too");
    }
}

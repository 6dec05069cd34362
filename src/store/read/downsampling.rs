//! Downsamples a series, a sensor's readings or a foreign publisher's samples, to the steps of a chart: from the coarsest
//! roll-ups that suit the step, and from the rows where there are no roll-ups yet or they are out of date. Readings that
//! are still to be moved to their place are in no roll-up, and are added to either.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::read::arrived::{self, Drawn};
use crate::store::read::range::{Range, divide_up};
use crate::store::retention::horizon::Horizon;
use crate::store::rollup::aggregate::{Aggregate, Bucket, start_of};
use crate::store::rollup::compute;
use crate::store::rollup::schema::{self, HOUR_MS, MINUTE_MS, QUARTER_MS, READINGS, SAMPLES, Tier};

/// Most single rows that one query reads; beyond it the answer is partial.
const ROWS_MAX: i64 = 20_000;

/// Most single rows that are read for steps finer than a minute; beyond it the steps are minutes, from the roll-ups.
/// It is two and a half rows a point at most ([`crate::store::POINTS_MAX`]): more would cost and not show. Half a day
/// at 10 s.
const FINE_ROWS_MAX: i64 = 5_000;

/// Temperature and humidity of one step; or a sample's value, and nothing.
type Step = Bucket<2>;

/// A series of the log, by its number.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum SeriesId {
    /// A sensor's readings.
    Sensor(i64),
    /// A foreign publisher's samples.
    Source(i64),
}

impl SeriesId {
    /// Code of its schema, and its number.
    const fn key(self) -> (i64, i64) {
        match self {
            Self::Sensor(id) => (READINGS.code, id),
            Self::Source(id) => (SAMPLES.code, id),
        }
    }
}

/// A bucket of samples, of the shape of one of readings.
fn widened(bucket: Bucket<1>) -> Step {
    let [value] = bucket.aggregates;
    Bucket { at: bucket.at, count: bucket.count, aggregates: [value, Aggregate::EMPTY] }
}

/// A series in the steps of a chart.
#[derive(Debug)]
pub(in crate::store) struct Downsampled {
    /// Length of a step in ms; `None`: each bucket is one row.
    pub step: Option<i64>,
    /// Some of the range was not read.
    pub partial: bool,
    /// In the order of time.
    pub buckets: Vec<Step>,
}

/// Downsamples a series. The caller holds one snapshot around it.
pub(in crate::store) fn downsample(
    connection: &Connection,
    series: SeriesId,
    range: Range,
) -> rusqlite::Result<Downsampled> {
    let (code, id) = series.key();
    let horizon = Horizon::load_of(connection, code, id)?;
    let arrived = match series {
        SeriesId::Sensor(sensor) => arrived::drawn(connection, sensor)?,
        SeriesId::Source(_) => Vec::new(),
    };
    let reader = SeriesReader { connection, series, arrived };
    if range.from >= horizon.rows_from {
        let few = reader.count_all(range.from, range.to, range.steps() + 1)? <= range.steps();
        if few {
            let buckets = reader.all_rows(range.from, range.to)?;
            return Ok(Downsampled { step: None, partial: false, buckets });
        }
        if range.step < MINUTE_MS
            && reader.count_all(range.from, range.to, FINE_ROWS_MAX + 1)? <= FINE_ROWS_MAX
        {
            let mut steps = Steps::new(range.step);
            let (from, to) = whole_steps(range, range.step);
            reader.all_rows(from, to)?.iter().for_each(|row| steps.add(row));
            return Ok(steps.finish(false));
        }
    }
    let (tier, step) = tier_for(range, &horizon);
    let (mut steps, partial) = reader.read_rollups(tier, step, range)?;
    let (from, to) = whole_steps(range, step);
    for Drawn { row, .. } in reader.arrived_in(from, to) {
        if start_of(row.at, tier.span_ms()) >= horizon.rolled_from(tier) {
            steps.add(row);
        }
    }
    Ok(steps.finish(partial))
}

/// The coarsest tier that makes up the step and is kept from the beginning of the range on. When there is none,
/// the step is widened to the spans of a tier that is kept.
fn tier_for(range: Range, horizon: &Horizon) -> (Tier, i64) {
    let step = range.step.max(MINUTE_MS);
    let is_kept = |tier: &Tier| range.from >= horizon.rolled_from(*tier);
    let suits = |tier: &Tier| step % tier.span_ms() == 0 && is_kept(tier);
    if let Some(tier) = Tier::ALL.into_iter().rev().find(suits) {
        return (tier, step);
    }
    let is_wider = |tier: &Tier| tier.span_ms() > step && is_kept(tier);
    let tier = Tier::ALL.into_iter().find(is_wider).unwrap_or(Tier::Hour);
    (tier, divide_up(step, tier.span_ms()) * tier.span_ms())
}

/// The range, widened to whole steps, so that a chart that is moved keeps its points.
fn whole_steps(range: Range, step: i64) -> (i64, i64) {
    (start_of(range.from, step), start_of(range.to - 1, step) + step)
}

/// Buckets of one length, to which parts are added in any order.
struct Steps {
    step: i64,
    buckets: BTreeMap<i64, Step>,
}

impl Steps {
    const fn new(step: i64) -> Self {
        Self { step, buckets: BTreeMap::new() }
    }

    fn add(&mut self, part: &Step) {
        let start = start_of(part.at, self.step);
        self.buckets.entry(start).or_insert_with(|| Bucket::empty(start)).merge(part);
    }

    fn finish(self, partial: bool) -> Downsampled {
        Downsampled {
            step: Some(self.step),
            partial,
            buckets: self.buckets.into_values().collect(),
        }
    }
}

/// Reads the rows and roll-ups of one series.
struct SeriesReader<'a> {
    connection: &'a Connection,
    series: SeriesId,
    /// Readings that are still to be moved to their place, in the order of time.
    arrived: Vec<Drawn>,
}

impl SeriesReader<'_> {
    /// Rows that are still to be moved, in a range of time.
    fn arrived_in(&self, from: i64, to: i64) -> impl Iterator<Item = &Drawn> {
        let first = self.arrived.partition_point(|drawn| drawn.row.at < from);
        self.arrived[first..].iter().take_while(move |drawn| drawn.row.at < to)
    }

    /// As [`SeriesReader::count`], with single rows that are still to be moved.
    fn count_all(&self, from: i64, to: i64, most: i64) -> rusqlite::Result<i64> {
        let arrived = self.arrived_in(from, to).filter(|drawn| drawn.is_kept).count();
        Ok(self.count(from, to, most)?.saturating_add(i64::try_from(arrived).unwrap_or(i64::MAX)))
    }

    /// As [`SeriesReader::rows`], with single rows that are still to be moved.
    fn all_rows(&self, from: i64, to: i64) -> rusqlite::Result<Vec<Step>> {
        let mut rows = self.rows(from, to)?;
        let arrived = self.arrived_in(from, to).filter(|drawn| drawn.is_kept);
        rows.extend(arrived.map(|drawn| drawn.row));
        rows.sort_by_key(|row| row.at);
        Ok(rows)
    }

    /// Rows in their place in a range of time, counted up to `most`.
    fn count(&self, from: i64, to: i64, most: i64) -> rusqlite::Result<i64> {
        let (_, id) = self.series.key();
        let (table, series) = match self.series {
            SeriesId::Sensor(_) => (READINGS.table, READINGS.series),
            SeriesId::Source(_) => (SAMPLES.table, SAMPLES.series),
        };
        self.connection
            .prepare_cached(&format!(
                "SELECT count(*) FROM (
                     SELECT 1 FROM {table} WHERE {series} = ? AND at >= ? AND at < ? LIMIT ?)"
            ))?
            .query_row(params![id, from, to, most], |row| row.get(0))
    }

    /// Rows in their place in a range of time, in its order.
    fn rows(&self, from: i64, to: i64) -> rusqlite::Result<Vec<Step>> {
        match self.series {
            SeriesId::Sensor(id) => self
                .connection
                .prepare_cached(&READINGS.select_rows())?
                .query_map(params![id, from, to], schema::read_row)?
                .collect(),
            SeriesId::Source(id) => self
                .connection
                .prepare_cached(&SAMPLES.select_rows())?
                .query_map(params![id, from, to], |row| schema::read_row(row).map(widened))?
                .collect(),
        }
    }

    fn spans(&self, tier: Tier, from: i64, to: i64) -> rusqlite::Result<Vec<Step>> {
        match self.series {
            SeriesId::Sensor(id) => compute::spans(self.connection, &READINGS, tier, id, from, to),
            SeriesId::Source(id) => {
                let spans = compute::spans(self.connection, &SAMPLES, tier, id, from, to)?;
                Ok(spans.into_iter().map(widened).collect())
            }
        }
    }

    /// The steps of a range, without rows that are still to be moved, and whether some of it was not read.
    fn read_rollups(&self, tier: Tier, step: i64, range: Range) -> rusqlite::Result<(Steps, bool)> {
        let (from, to) = whole_steps(range, step);
        let mut steps = Steps::new(step);
        let mut budget = ROWS_MAX;
        let mut partial = false;

        // Before this time the backfill has not made roll-ups yet.
        let rolled_from = self.backfill_end()?.map_or(from, |end| end.clamp(from, to));
        if rolled_from > from {
            let rows = self.count(from, rolled_from, budget + 1)?;
            if rows <= budget {
                budget -= rows;
                self.rows(from, rolled_from)?.iter().for_each(|row| steps.add(row));
            } else {
                partial = true;
            }
        }
        // The roll-ups of dirty quarters are out of date: their rows are read, the newest first, within the budget.
        let mut fresh = BTreeSet::new();
        for quarter in self.dirty(rolled_from, to)? {
            let (start, end) = (quarter.max(rolled_from), (quarter + QUARTER_MS).min(to));
            budget -= self.count(start, end, budget + 1)?;
            if budget < 0 {
                partial = true;
                break;
            }
            self.rows(start, end)?.iter().for_each(|row| steps.add(row));
            fresh.insert(quarter);
        }
        let hours: BTreeSet<i64> =
            fresh.iter().map(|quarter| start_of(*quarter, HOUR_MS)).collect();
        for span in self.spans(tier, rolled_from, to)? {
            let stale = match tier {
                Tier::Hour => hours.contains(&span.at),
                _ => fresh.contains(&start_of(span.at, QUARTER_MS)),
            };
            if !stale {
                steps.add(&span);
            }
        }
        if tier == Tier::Hour {
            for hour in hours.iter().filter(|hour| **hour >= rolled_from) {
                for quarter in self.spans(Tier::Quarter, *hour, hour + HOUR_MS)? {
                    if !fresh.contains(&quarter.at) {
                        steps.add(&quarter);
                    }
                }
            }
        }
        Ok((steps, partial))
    }

    /// Until when the rows of this series have no roll-ups; `None` when the backfill is done.
    fn backfill_end(&self) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT before FROM backlog WHERE family = ? AND series = ?")?
            .query_row(<[i64; 2]>::from(self.series.key()), |row| row.get(0))
            .optional()
    }

    /// Dirty quarters that reach into a range of time, the newest first.
    fn dirty(&self, from: i64, to: i64) -> rusqlite::Result<Vec<i64>> {
        let (code, id) = self.series.key();
        self.connection
            .prepare_cached(
                "SELECT at FROM dirty WHERE family = ? AND series = ? AND at > ? AND at < ?
                 ORDER BY at DESC",
            )?
            .query_map(params![code, id, from - QUARTER_MS, to], |row| row.get(0))?
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

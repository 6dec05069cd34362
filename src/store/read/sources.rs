//! Other publishers' series: every source with its latest sample, and its samples over a range of time as a chart shows
//! them.

use rusqlite::{OptionalExtension, params};

use crate::clock;
use crate::store::read::downsampling::{SeriesId, downsample};
use crate::store::read::log::Log;
use crate::store::read::range::Range;
use crate::store::read::reporting_interval::{READINGS, median};
use crate::store::retention::ahead::AHEAD_MS;
use crate::store::rollup::aggregate::Band;

/// A number that a publisher sends again and again.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Source {
    /// The topic.
    pub topic: String,
    /// Its name in the payload; empty for a plain number.
    pub field: String,
    /// Median time between its latest samples, ms; `None` while there are fewer than three.
    pub interval_ms: Option<i64>,
    /// The latest sample; `None` when no single one is kept.
    pub latest: Option<Sample>,
}

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Sample {
    /// Its arrival, Unix ms UTC.
    pub at: i64,
    /// In the unit of its publisher.
    pub value: f64,
}

/// Samples of one source as a chart shows them, in the order of time. Steps without one have no point.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SampleSeries {
    /// As [`Series::step_ms`](crate::store::Series::step_ms).
    pub step_ms: Option<i64>,
    /// As [`Series::partial`](crate::store::Series::partial).
    pub partial: bool,
    /// Start of the step or the sample's own time in Unix ms UTC, samples in it, and their values; `None` where their mean
    /// is not known.
    pub points: Vec<(i64, i64, Option<Band>)>,
}

impl Log {
    /// Every source, by topic and field. `may_read` says of a topic whether it is wanted.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn sources(&self, may_read: impl Fn(&str) -> bool) -> rusqlite::Result<Vec<Source>> {
        let until = clock::unix_ms().saturating_add(AHEAD_MS);
        let snapshot = self.connection.unchecked_transaction()?;
        let mut latest = self.connection.prepare_cached(
            "SELECT at, value FROM sample WHERE source = ? AND at <= ? ORDER BY at DESC, id DESC LIMIT ?",
        )?;
        let mut sources = self
            .connection
            .prepare_cached("SELECT id, topic, field FROM source ORDER BY topic, field")?;
        let mut rows = sources.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (id, topic): (i64, String) = (row.get(0)?, row.get(1)?);
            if !may_read(&topic) {
                continue;
            }
            let samples: Vec<Sample> = latest
                .query_map(params![id, until, READINGS], |row| {
                    Ok(Sample { at: row.get(0)?, value: row.get(1)? })
                })?
                .collect::<rusqlite::Result<_>>()?;
            let between = samples.windows(2).map(|pair| pair[0].at.saturating_sub(pair[1].at));
            let interval_ms = median(between.collect());
            let latest = samples.first().copied();
            found.push(Source { topic, field: row.get(2)?, interval_ms, latest });
        }
        drop(rows);
        drop((sources, latest));
        snapshot.finish()?;
        Ok(found)
    }

    /// A source's samples over a range. Empty when there is no such source.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn samples(
        &self,
        topic: &str,
        field: &str,
        range: Range,
    ) -> rusqlite::Result<SampleSeries> {
        let snapshot = self.connection.unchecked_transaction()?;
        let source: Option<i64> = self
            .connection
            .prepare_cached("SELECT id FROM source WHERE topic = ? AND field = ?")?
            .query_row([topic, field], |row| row.get(0))
            .optional()?;
        let found = source
            .map(|source| downsample(&self.connection, SeriesId::Source(source), range))
            .transpose()?;
        snapshot.finish()?;
        Ok(found.map_or_else(SampleSeries::default, |found| SampleSeries {
            step_ms: found.step,
            partial: found.partial,
            points: (found.buckets.iter())
                .map(|bucket| (bucket.at, bucket.count, bucket.aggregates[0].band()))
                .collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::rollup::schema::{HOUR_MS, MINUTE_MS};
    use crate::store::{Record, Retention, Store};

    const START_MS: i64 = 489_000 * HOUR_MS;
    const HOURS: i64 = 72;

    /// Single samples, those that are rolled up, and those of which only roll-ups are left give one series.
    #[test]
    fn a_chart_of_samples_has_them_all_wherever_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("humidor.db");
        let mut store = Store::open(&path).unwrap();
        let keep_raw = Some(Duration::from_hours(24));
        store.retain(Retention { keep_raw, ..Retention::EVERYTHING });
        let sample = |field: &str, minute: i64, value: f64| Record::Foreign {
            topic: "tele/hall/SENSOR".to_owned(),
            at_ms: START_MS + minute * MINUTE_MS,
            numbers: vec![(field.to_owned(), value)].into(),
        };
        let of_minute = |minute: i64| {
            // Sums of which are exact in any order.
            let value = f64::from(i32::try_from(minute % 60).unwrap()) / 1_024.0;
            [sample("power", minute, value), sample("other", minute, 7.0)]
        };
        let records: Vec<Record> = (0..HOURS * 60).flat_map(of_minute).collect();
        store.append(&records.iter().collect::<Vec<_>>()).unwrap();
        let log = Log::open(&path).unwrap();
        let to = START_MS + HOURS * HOUR_MS;
        let series = |field: &str| {
            let range = Range::new(START_MS, to, Some(HOUR_MS.cast_unsigned())).unwrap();
            log.samples("tele/hall/SENSOR", field, range).unwrap()
        };
        let before = series("power");
        assert_eq!((before.step_ms, before.points.len()), (Some(HOUR_MS), 72));
        for (_, count, band) in &before.points {
            let whole = Band { min: 0.0, mean: 29.5 / 1_024.0, max: 59.0 / 1_024.0 };
            assert_eq!((*count, *band), (60, Some(whole)));
        }
        while store.maintain(to).unwrap() {}
        assert_eq!(series("power"), before, "two thirds of it from roll-ups");
        let rows: i64 =
            log.connection.query_row("SELECT count(*) FROM sample", [], |row| row.get(0)).unwrap();
        assert!(rows < HOURS * 60, "{rows}");

        let found = log.sources(|topic| topic.starts_with("tele/")).unwrap();
        let shown: Vec<_> = found.iter().map(|s| (&*s.field, s.interval_ms)).collect();
        assert_eq!(shown, [("other", Some(MINUTE_MS)), ("power", Some(MINUTE_MS))]);
        assert_eq!(found[1].latest, Some(Sample { at: to - MINUTE_MS, value: 59.0 / 1_024.0 }));
        assert_eq!(log.sources(|_| false).unwrap(), []);
        assert_eq!(series("nothing"), SampleSeries::default());
    }
}

//! A sensor's series over a range of time, as a chart shows it: single readings while they are few; minimum,
//! mean and maximum of each step when they are many.

use rusqlite::OptionalExtension;

use crate::reading::Id;
use crate::store::read::downsampling::{Downsampled, SeriesId, downsample};
use crate::store::read::log::Log;
use crate::store::read::range::Range;
use crate::store::rollup::aggregate::{Band, Bucket};

/// Which readings a chart shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesQuery {
    /// The node.
    pub node: Id,
    /// Its sensor.
    pub sensor: Id,
    /// When.
    pub range: Range,
}

/// The points of a chart, in the order of time. Steps without a row have no point.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct Series {
    /// Length of a point's span in ms, at least the one asked for; `None` when each point is one row at
    /// its own time, which is how it is when there are no more rows than steps.
    pub step_ms: Option<i64>,
    /// Some of the range could not be read within the bounds of one query; asking for less of it, or
    /// later, shows the rest.
    pub partial: bool,
    /// At most [`POINTS_MAX`](crate::store::POINTS_MAX), and one more where the range begins within a step.
    pub points: Vec<Point>,
}

impl From<Downsampled> for Series {
    fn from(found: Downsampled) -> Self {
        let points = found.buckets.into_iter().map(Point::from).collect();
        Self { step_ms: found.step, partial: found.partial, points }
    }
}

/// Readings of one step.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Point {
    /// Start of the step, or the reading's own time; Unix ms UTC.
    pub at: i64,
    /// Readings in it.
    pub count: i64,
    /// °C.
    pub temperature: Option<Band>,
    /// Relative humidity in %.
    pub humidity: Option<Band>,
}

impl From<Bucket<2>> for Point {
    fn from(bucket: Bucket<2>) -> Self {
        let [temperature, humidity] = bucket.aggregates.map(|aggregate| aggregate.band());
        Self { at: bucket.at, count: bucket.count, temperature, humidity }
    }
}

impl Log {
    /// A sensor's readings over a range. Empty when there is no such sensor.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn series(&self, query: &SeriesQuery) -> rusqlite::Result<Series> {
        let snapshot = self.connection.unchecked_transaction()?;
        let sensor: Option<i64> = self
            .connection
            .prepare_cached(
                "SELECT sensor.id FROM sensor JOIN node ON node.id = sensor.node
                 WHERE node.name = ? AND sensor.name = ?",
            )?
            .query_row([query.node.as_str(), query.sensor.as_str()], |row| row.get(0))
            .optional()?;
        let found = sensor
            .map(|sensor| downsample(&self.connection, SeriesId::Sensor(sensor), query.range))
            .transpose()?;
        snapshot.finish()?;
        Ok(found.map_or_else(Series::default, Series::from))
    }
}

//! `/api/v1/sensors`, `/latest` and `/series`: the sensors, their latest readings, and readings over a range.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::state::ApiState;
use crate::clock;
use crate::reading::Id;
use crate::store::{Band, Log, Range, Reading, SeriesQuery};
use crate::web::auth::Identity;
use crate::web::http_error::HttpError;
use crate::web::turns::Turn;

/// Range of a series whose query names no start: the last hour.
const RANGE_DEFAULT: Duration = Duration::from_hours(1);

/// The range of a query: from (inclusive), to (exclusive), both Unix ms UTC, and a step in ms.
///
/// # Errors
/// 400 when it is empty, out of bounds, or has too many steps.
pub fn range(
    from: Option<i64>,
    to: Option<i64>,
    step: Option<u64>,
) -> Result<(i64, i64, Range), HttpError> {
    let to = to.unwrap_or_else(clock::unix_ms);
    let hour = i64::try_from(RANGE_DEFAULT.as_millis()).unwrap_or(i64::MAX);
    let from = from.unwrap_or(to.saturating_sub(hour).max(0));
    let range = Range::new(from, to, step).map_err(|error| HttpError::bad_request(&error))?;
    Ok((from, to, range))
}

#[derive(Debug, Serialize)]
struct SensorEntry {
    node: String,
    sensor: String,
    /// Median time between its latest readings, ms.
    interval_ms: Option<i64>,
    latest: Option<Reading>,
}

/// Every sensor with its usual interval and latest reading.
pub async fn sensors(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
    Extension(turn): Extension<Turn>,
) -> Result<Response, HttpError> {
    let sensors = state.log.read(&turn, move |log| {
        let mut intervals = log.reporting_intervals_ms()?;
        let mut found = log.overview()?.sensors;
        found.retain(|found| identity.may_read_sensor(&found.node, &found.sensor));
        let sensors = found.into_iter().map(|found| {
            let key = (found.node, found.sensor);
            let interval_ms = intervals.remove(&key);
            SensorEntry { node: key.0, sensor: key.1, interval_ms, latest: found.latest }
        });
        Ok(sensors.collect::<Vec<_>>())
    });
    Ok(Json(sensors.await?).into_response())
}

/// The latest reading of every sensor.
pub async fn latest(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
    Extension(turn): Extension<Turn>,
) -> Result<Response, HttpError> {
    let overview = state.log.read(&turn, Log::overview).await?;
    let latest: Vec<Reading> = overview
        .sensors
        .into_iter()
        .filter(|found| identity.may_read_sensor(&found.node, &found.sensor))
        .filter_map(|found| found.latest)
        .collect();
    Ok(Json(latest).into_response())
}

/// Parameters of a series.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesParameters {
    node: Id,
    sensor: Id,
    /// Inclusive, Unix ms UTC.
    from: Option<i64>,
    /// Exclusive, Unix ms UTC.
    to: Option<i64>,
    /// ms.
    step: Option<u64>,
}

/// Minimum, mean and maximum of each point, column by column as the chart needs them.
#[derive(Debug, Serialize)]
pub struct Columns {
    min: Vec<Option<f64>>,
    mean: Vec<Option<f64>>,
    max: Vec<Option<f64>>,
}

impl Columns {
    /// The columns of a quantity, whose bands are rounded by `round`.
    pub fn new<P>(
        points: &[P],
        round: fn(Band) -> Band,
        quantity: impl Fn(&P) -> Option<Band>,
    ) -> Self {
        let bands: Vec<Option<Band>> =
            points.iter().map(|point| quantity(point).map(round)).collect();
        let column = |select: fn(&Band) -> f64| -> Vec<Option<f64>> {
            bands.iter().map(|band| band.as_ref().map(select)).collect()
        };
        Self {
            min: column(|band| band.min),
            mean: column(|band| band.mean),
            max: column(|band| band.max),
        }
    }
}

/// No supported sensor resolves more, and a mean with sixteen digits takes three times the bytes.
fn round_to_thousandths(band: Band) -> Band {
    let round = |value: f64| {
        let rounded = (value * 1000.0).round() / 1000.0;
        if rounded.is_finite() { rounded } else { value }
    };
    Band { min: round(band.min), mean: round(band.mean), max: round(band.max) }
}

/// Readings of one sensor over a range, downsampled where they are many.
pub async fn series(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
    Extension(turn): Extension<Turn>,
    parameters: Result<Query<SeriesParameters>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(parameters) = parameters?;
    let (from, to, range) = range(parameters.from, parameters.to, parameters.step)?;
    if !identity.may_read_sensor(parameters.node.as_str(), parameters.sensor.as_str()) {
        return Ok(identity.refuse("read this sensor"));
    }
    let query = SeriesQuery { node: parameters.node, sensor: parameters.sensor, range };
    let series = state.log.read(&turn, move |log| log.series(&query)).await?;
    let points = series.points;
    Ok(Json(json!({
        "from": from,
        "to": to,
        "step_ms": series.step_ms,
        "partial": series.partial,
        "at": points.iter().map(|point| point.at).collect::<Vec<_>>(),
        "count": points.iter().map(|point| point.count).collect::<Vec<_>>(),
        "temperature": Columns::new(&points, round_to_thousandths, |point| point.temperature),
        "humidity": Columns::new(&points, round_to_thousandths, |point| point.humidity),
    }))
    .into_response())
}

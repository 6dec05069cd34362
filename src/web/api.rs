//! `/api/v1/`: nodes, sensors, their latest readings and series, and outputs. Described for programs by
//! `assets/openapi.json`.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Web;
use super::entry::Visitor;
use super::feed::Named;
use super::problem::Problem;
use crate::clock;
use crate::reading::Id;
use crate::store::{Band, Point, Range, Reading, SeriesQuery};
use crate::wire::{FOR_MAX_MS, NodeTopics};

/// Shown when nobody says which range: the last hour.
const RANGE_DEFAULT: Duration = Duration::from_hours(1);

/// A query's parameters, or what is wrong with them.
type Asked<T> = Result<Query<T>, QueryRejection>;

/// The program, and what the asker may do.
pub async fn about(State(web): State<Web>, Extension(visitor): Extension<Visitor>) -> Json<Value> {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": option_env!("HUMIDOR_REVISION"),
        "run": &*web.run,
        "started": web.started_ms,
        "now": clock::unix_ms(),
        "user": visitor.user.as_deref(),
        "may": { "read": visitor.read, "switch": visitor.switch },
        "login": web.entry.has_users(),
    }))
}

/// Every board that said something of itself.
pub async fn nodes(State(web): State<Web>) -> Response {
    let boards = web.feed.boards();
    let nodes: Vec<_> = boards.iter().map(|(node, board)| Named::new(node, board)).collect();
    Json(nodes).into_response()
}

#[derive(Debug, Serialize)]
struct Listed {
    node: String,
    sensor: String,
    /// Median time between its latest readings, ms.
    interval_ms: Option<i64>,
    latest: Option<Reading>,
}

/// Every sensor with its usual interval and latest reading.
pub async fn sensors(State(web): State<Web>) -> Result<Response, Problem> {
    let sensors = web.database.read(|log| {
        let found = log.overview()?.sensors.into_iter().map(|found| {
            let interval_ms = log.reporting_interval_ms(&found.node, &found.sensor)?;
            Ok(Listed { node: found.node, sensor: found.sensor, interval_ms, latest: found.latest })
        });
        found.collect::<rusqlite::Result<Vec<_>>>()
    });
    Ok(Json(sensors.await?).into_response())
}

/// The latest reading of every sensor.
pub async fn latest(State(web): State<Web>) -> Result<Response, Problem> {
    let overview = web.database.read(crate::store::Log::overview).await?;
    let latest: Vec<Reading> =
        overview.sensors.into_iter().filter_map(|found| found.latest).collect();
    Ok(Json(latest).into_response())
}

/// What a series is asked for by.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesParameters {
    node: Id,
    sensor: Id,
    from: Option<i64>,
    to: Option<i64>,
    step: Option<u64>,
}

/// Least, mean and greatest of each point, column by column as a chart takes them.
#[derive(Debug, Serialize)]
struct Columns {
    min: Vec<Option<f64>>,
    mean: Vec<Option<f64>>,
    max: Vec<Option<f64>>,
}

impl Columns {
    fn new(points: &[Point], of: impl Fn(&Point) -> Option<Band>) -> Self {
        let column = |pick: fn(&Band) -> f64| -> Vec<Option<f64>> {
            points.iter().map(|point| of(point).as_ref().map(pick).map(thousandths)).collect()
        };
        Self {
            min: column(|band| band.min),
            mean: column(|band| band.mean),
            max: column(|band| band.max),
        }
    }
}

/// No sensor here is finer, and a mean with sixteen digits is three times the bytes.
fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Readings of one sensor over a range.
pub async fn series(
    State(web): State<Web>,
    asked: Asked<SeriesParameters>,
) -> Result<Response, Problem> {
    let Query(asked) = asked?;
    let to = asked.to.unwrap_or_else(clock::unix_ms);
    let hour = i64::try_from(RANGE_DEFAULT.as_millis()).unwrap_or(i64::MAX);
    let from = asked.from.unwrap_or(to.saturating_sub(hour).max(0));
    let range = Range::new(from, to, asked.step).map_err(|error| Problem::bad(&error))?;
    let query = SeriesQuery { node: asked.node, sensor: asked.sensor, range };
    let series = web.database.read(move |log| log.series(&query)).await?;
    let points = series.points;
    Ok(Json(json!({
        "from": from,
        "to": to,
        "step_ms": series.step_ms,
        "partial": series.partial,
        "at": points.iter().map(|point| point.at).collect::<Vec<_>>(),
        "count": points.iter().map(|point| point.count).collect::<Vec<_>>(),
        "temperature": Columns::new(&points, |point| point.temperature),
        "humidity": Columns::new(&points, |point| point.humidity),
    }))
    .into_response())
}

/// Every output with its state.
pub async fn outputs(State(web): State<Web>) -> Response {
    let boards = web.feed.boards();
    let outputs: Vec<Value> = boards
        .iter()
        .flat_map(|(node, board)| board.outputs.iter().map(move |output| (node, output)))
        .map(|(node, (output, on))| json!({ "node": node, "output": output, "on": on }))
        .collect();
    Json(outputs).into_response()
}

/// Every alarm and whether it is raised.
pub async fn alarms(State(web): State<Web>) -> Response {
    let states = web.alarms.states().into_iter().map(|alarm| {
        json!({
            "name": alarm.name, "raised": alarm.raised, "since": alarm.since_ms,
            "detail": alarm.detail, "raised_count": alarm.raised_count,
        })
    });
    Json(states.collect::<Vec<Value>>()).into_response()
}

/// What an output is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switching {
    on: bool,
    for_ms: Option<u64>,
}

/// Tells an output what to be. 202: the board has been told, and says itself when the line has followed.
pub async fn switch(
    State(web): State<Web>,
    Extension(visitor): Extension<Visitor>,
    path: Result<Path<(Id, Id)>, PathRejection>,
    body: Result<Json<Switching>, JsonRejection>,
) -> Result<Response, Problem> {
    let Path((node, output)) = path?;
    let Json(wanted) = body?;
    let topic = format!("{}/set", NodeTopics::new(node.clone()).output(&output));
    if !visitor.may_write(&topic) {
        return Ok(visitor.refused("switch this output"));
    }
    if wanted.for_ms.is_some_and(|ms| !(1..=FOR_MAX_MS).contains(&ms)) {
        return Err(Problem::bad(&format!("`for_ms` is 1 to {FOR_MAX_MS}")));
    }
    let known =
        web.feed.boards().get(&node).is_some_and(|board| board.outputs.contains_key(&output));
    if !known {
        return Err(Problem::missing(format!("{node} has told of no output `{output}`")));
    }
    let state = if wanted.on { "ON" } else { "OFF" };
    let command = match wanted.for_ms {
        None => state.to_owned(),
        Some(ms) => json!({ "state": state, "for_ms": ms }).to_string(),
    };
    tracing::info!(%node, %output, command, user = visitor.user.as_deref(), "an output is told by HTTP");
    let stopping = |error: crate::broker::Ending| Problem::busy(error.to_string());
    web.insider.say(topic, command.into()).await.map_err(stopping)?;
    Ok(StatusCode::ACCEPTED.into_response())
}

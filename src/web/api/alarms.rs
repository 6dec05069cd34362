//! `/api/v1/alarms`: the state of every alarm, and the history of their changes.

use std::collections::HashMap;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::state::ApiState;
use crate::broker::AlarmRule;
use crate::reading::Id;
use crate::web::auth::Identity;
use crate::web::http_error::HttpError;
use crate::web::turns::Turn;

/// Changes that a request without a limit gets.
const CHANGES_DEFAULT: usize = 50;
/// Most changes of one request.
const CHANGES_MAX: usize = 1_000;

/// The state of every alarm in the order of the configuration. Its rule and its cause name sensors and their values, so
/// they are there for those who may read these.
pub async fn alarms(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
) -> Response {
    let states = state.alarms.states().into_iter();
    let states = states.filter(|alarm| identity.may_read_alarm(&alarm.name)).map(|alarm| {
        let whole = identity.may_read_filter(&alarm.source);
        let detail = if whole { &*alarm.detail } else { "" };
        let mut value = json!({
            "name": alarm.name, "raised": alarm.raised, "since": alarm.since_ms,
            "detail": detail, "raised_count": alarm.raised_count,
        });
        if !whole {
            return value;
        }
        value["node"] = json!(alarm.node);
        for (member, of_rule) in rule(&alarm.rule).as_object_mut().into_iter().flatten() {
            value[member.as_str()] = of_rule.take();
        }
        value
    });
    Json(states.collect::<Vec<Value>>()).into_response()
}

fn rule(rule: &AlarmRule) -> Value {
    match rule {
        AlarmRule::Threshold { sensor, quantity, side, limit, .. } => json!({
            "kind": "threshold", "sensor": sensor, "quantity": quantity.to_string(),
            "side": side.name(), "limit": limit,
        }),
        AlarmRule::Silent { sensor, limit } => {
            let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            json!({ "kind": "silent", "sensor": sensor, "limit_ms": limit_ms })
        }
        AlarmRule::Gap { .. } => json!({ "kind": "gap" }),
        AlarmRule::Clock { .. } => json!({ "kind": "clock" }),
        AlarmRule::Disk { .. } => json!({ "kind": "disk" }),
        AlarmRule::Fault { output, .. } => json!({ "kind": "fault", "output": output }),
        AlarmRule::Version { .. } => json!({ "kind": "version" }),
        AlarmRule::Upstream { .. } => json!({ "kind": "upstream" }),
    }
}

/// Parameters of the history.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangesParameters {
    /// From 1 to [`CHANGES_MAX`].
    limit: Option<usize>,
}

/// The latest changes of the configured alarms, the newest first.
pub async fn changes(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
    Extension(turn): Extension<Turn>,
    parameters: Result<Query<ChangesParameters>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(ChangesParameters { limit }) = parameters?;
    let limit = limit.unwrap_or(CHANGES_DEFAULT);
    if !(1..=CHANGES_MAX).contains(&limit) {
        return Err(HttpError::bad_request(&format!("`limit` must be from 1 to {CHANGES_MAX}")));
    }
    // Without its rule nothing says who may read an alarm.
    let readable: HashMap<Id, bool> = state
        .alarms
        .states()
        .into_iter()
        .filter(|alarm| identity.may_read_alarm(&alarm.name))
        .map(|alarm| (alarm.name, identity.may_read_filter(&alarm.source)))
        .collect();
    let names = readable.keys().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    let rows = state.log.read(&turn, move |log| log.alarm_changes(&names, limit)).await?;
    let changes = rows.iter().map(|row| {
        let whole = readable.iter().any(|(name, whole)| name.as_str() == row.name && *whole);
        let detail = if whole { &*row.detail } else { "" };
        json!({ "name": row.name, "at": row.at, "raised": row.raised, "detail": detail })
    });
    Ok(Json(changes.collect::<Vec<Value>>()).into_response())
}

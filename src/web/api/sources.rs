//! `/api/v1/sources` and `/api/v1/sources/series`: the numbers of other publishers that the log keeps, and their samples
//! over a range.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::readings::{Columns, range};
use super::state::ApiState;
use crate::web::auth::Identity;
use crate::web::http_error::HttpError;

/// Every source with its usual interval and latest sample.
pub async fn sources(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
) -> Result<Response, HttpError> {
    let sources = state.log.read(move |log| log.sources(|topic| identity.may_read_foreign(topic)));
    Ok(Json(sources.await?).into_response())
}

/// Parameters of a series.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    topic: String,
    /// Empty for a plain number.
    #[serde(default)]
    field: String,
    /// Inclusive, Unix ms UTC.
    from: Option<i64>,
    /// Exclusive, Unix ms UTC.
    to: Option<i64>,
    /// ms.
    step: Option<u64>,
}

/// The number with seven digits, as a chart shows it: the sizes of other publishers' numbers are not known.
fn round_to_digits(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

/// Samples of one source over a range, downsampled where they are many.
pub async fn series(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(Parameters { topic, field, from, to, step }) = parameters?;
    let (from, to, range) = range(from, to, step)?;
    if !identity.may_read_foreign(&topic) {
        return Ok(identity.refuse("read this topic"));
    }
    let series = state.log.read(move |log| log.samples(&topic, &field, range)).await?;
    Ok(Json(json!({
        "from": from,
        "to": to,
        "step_ms": series.step_ms,
        "partial": series.partial,
        "at": series.points.iter().map(|(at, ..)| *at).collect::<Vec<_>>(),
        "count": series.points.iter().map(|(_, count, _)| *count).collect::<Vec<_>>(),
        "value": Columns::new(&series.points, round_to_digits, |(.., value)| *value),
    }))
    .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_keep_their_digits() {
        for (value, rounded) in [
            (0.005_25, 0.005_25),
            (1.0 / 3.0, 0.333_333_3),
            (-123_456_789.0, -123_456_800.0),
            (0.0, 0.0),
            (f64::MAX, 1.797_693e308),
            (5e-324, 5e-324),
        ] {
            assert!((round_to_digits(value) - rounded).abs() <= f64::EPSILON * rounded.abs());
        }
    }
}

//! `/api/v1/sources`, `/series` and `/lost` below it: the numbers of other publishers that the log keeps, their samples over
//! a range, and what it does not keep.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::readings::{Columns, range};
use super::state::ApiState;
use crate::store::Band;
use crate::web::auth::Identity;
use crate::web::http_error::HttpError;
use crate::web::turns::Turn;

/// Every source with its usual interval and latest sample.
pub async fn sources(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
    Extension(turn): Extension<Turn>,
) -> Result<Response, HttpError> {
    let sources =
        state.log.read(&turn, move |log| log.sources(|topic| identity.may_read_foreign(topic)));
    Ok(Json(sources.await?).into_response())
}

/// What other publishers sent since the broker's start and the log did not keep: texts that were meant as numbers, with the
/// number that would be kept, and by topic how many numbers cannot be.
pub async fn lost(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
) -> Response {
    let near = state.counters.near_numbers().all().into_iter();
    let near = near.filter(|it| identity.may_read_foreign(&it.topic)).map(|it| {
        json!({
            "topic": it.topic,
            "field": it.number.field,
            "came": it.number.came,
            "meant": it.number.meant,
            "count": it.count,
            "at": it.at_ms,
        })
    });
    let left_out = state.counters.left_out().by_name().into_iter();
    // Further topics count together, under none.
    let left_out =
        left_out.filter(|(topic, _)| topic.is_empty() || identity.may_read_foreign(topic));
    let left_out = left_out.map(|(topic, count)| json!({ "topic": &*topic, "count": count }));
    Json(near.chain(left_out).collect::<Vec<_>>()).into_response()
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

/// A band as a chart shows it. Its ends are numbers that were published, with every digit: a meter's last one counts. A mean
/// between them has as many as their difference tells; sixteen would take three times the bytes.
fn with_a_short_mean(band: Band) -> Band {
    let spread = band.max - band.min;
    if spread.is_nan() || spread <= 0.0 {
        return Band { mean: band.min, ..band };
    }
    // The exponent's range is that of a double.
    #[expect(clippy::cast_possible_truncation)]
    let decimals = 3 - spread.log10().floor() as i32;
    let mean = match usize::try_from(decimals) {
        Ok(decimals) => format!("{:.decimals$}", band.mean).parse().unwrap_or(band.mean),
        Err(_) => band.mean.round(),
    };
    Band { mean, ..band }
}

/// Samples of one source over a range, downsampled where they are many.
pub async fn series(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
    Extension(turn): Extension<Turn>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(Parameters { topic, field, from, to, step }) = parameters?;
    let (from, to, range) = range(from, to, step)?;
    if !identity.may_read_foreign(&topic) {
        return Ok(identity.refuse("read this topic"));
    }
    let series = state.log.read(&turn, move |log| log.samples(&topic, &field, range)).await?;
    Ok(Json(json!({
        "from": from,
        "to": to,
        "step_ms": series.step_ms,
        "partial": series.partial,
        "at": series.points.iter().map(|(at, ..)| *at).collect::<Vec<_>>(),
        "count": series.points.iter().map(|(_, count, _)| *count).collect::<Vec<_>>(),
        "value": Columns::new(&series.points, with_a_short_mean, |(.., value)| *value),
    }))
    .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_band_keep_their_digits_and_its_mean_those_that_tell() {
        for (min, mean, max, short) in [
            (12_345_678.0, 12_345_678.0, 12_345_678.0, 12_345_678.0),
            (12_345_678.0, 12_345_679.333_333_334, 12_345_681.0, 12_345_679.333),
            (0.0, 1.0 / 3.0, 1.0, 0.333),
            (0.1, 0.1 + 1e-17, 0.1, 0.1),
            (0.1 + 0.2, 0.4, 0.5, 0.4),
            (1e12, 1_000_000_123_456.7, 2e12, 1_000_000_123_457.0),
            (0.0, 4e-324, 5e-324, 5e-324),
            (-f64::MAX, 0.0, f64::MAX, 0.0),
        ] {
            let band = with_a_short_mean(Band { min, mean, max });
            assert_eq!((band.min.to_bits(), band.max.to_bits()), (min.to_bits(), max.to_bits()));
            assert!((band.mean - short).abs() <= f64::EPSILON * short.abs(), "{band:?}");
        }
    }
}

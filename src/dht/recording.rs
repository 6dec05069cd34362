//! Recorded pulse trains from JSON files, so that published trains can be decoded.
//!
//! One object or an array of objects, other fields ignored:
//!
//! ```json
//! {"id": "kitchen", "model": "DHT22", "first": "low", "us": [80, 80, 54, 26]}
//! ```
//!
//! `us` are the widths in µs, `first` is the level of the first one. Libraries that record pulses
//! mostly start after the response; such trains, and only those, get a nominal response prepended.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::train::edges_from_widths;
use super::{Edge, FRAME_BITS, Level, Model, ModelError, NS_PER_US};

/// Most widths in one recording: more than a hundred frames.
pub const WIDTHS_MAX: usize = 10_000;
/// Longest width: far above any pulse, and 10,000 of them still fit into the clock.
pub const WIDTH_MAX: Duration = Duration::from_secs(10);

/// Pulses of a train that starts after the response: two for each bit, and the closing low.
const AFTER_RESPONSE: usize = 2 * FRAME_BITS + 1;

/// One recorded exchange, ready for [`decode`](super::decode).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The name in the file, if any.
    pub id: Option<String>,
    /// The sensor's model as the file says it.
    pub model: Model,
    /// The edges, from time 0, with the prepended response if there was none.
    pub edges: Vec<Edge>,
}

/// The text is not a list of recordings. Indices count from 0.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Not JSON at all.
    #[error("the recordings are not JSON: {source}")]
    Json {
        /// Where and why.
        source: serde_json::Error,
    },
    /// An empty array.
    #[error("there is no recording in the file: give an object with `model`, `first` and `us`")]
    Empty,
    /// A field is missing or has the wrong type.
    #[error(
        "recording {index}: {source}: give `model` (text), `first` (low or high) and `us` (a list of numbers)"
    )]
    Fields {
        /// Which recording.
        index: usize,
        /// Which field.
        source: serde_json::Error,
    },
    /// The model is unknown.
    #[error("recording {index}: {source}")]
    Model {
        /// Which recording.
        index: usize,
        /// The unknown model.
        source: ModelError,
    },
    /// No width or too many.
    #[error("recording {index} has {count} widths in `us`: give 1 to {WIDTHS_MAX}")]
    Count {
        /// Which recording.
        index: usize,
        /// How many widths it has.
        count: usize,
    },
    /// A width that no clock can have measured.
    #[error(
        "recording {index}: width {position} in `us` is {us}: give µs from 0 to 10000000 (10 s)"
    )]
    Width {
        /// Which recording.
        index: usize,
        /// Which width.
        position: usize,
        /// The width as given, in µs.
        us: f64,
    },
}

#[derive(Deserialize)]
struct Fields {
    id: Option<String>,
    model: String,
    first: First,
    us: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum First {
    Low,
    High,
}

/// Reads one recording (an object) or several (an array of objects), in the order of the text.
///
/// # Errors
/// A [`RecordingError`] that names the first recording that cannot be used. Whether a train is a
/// frame is left to the decoder.
pub fn parse(text: &str) -> Result<Vec<Recording>, RecordingError> {
    let value = serde_json::from_str(text).map_err(|source| RecordingError::Json { source })?;
    let values = match value {
        Value::Array(values) => values,
        value => vec![value],
    };
    if values.is_empty() {
        return Err(RecordingError::Empty);
    }
    values.into_iter().enumerate().map(|(index, value)| recording(index, value)).collect()
}

fn recording(index: usize, value: Value) -> Result<Recording, RecordingError> {
    let fields: Fields =
        serde_json::from_value(value).map_err(|source| RecordingError::Fields { index, source })?;
    let model = fields.model.parse().map_err(|source| RecordingError::Model { index, source })?;
    let count = fields.us.len();
    if !(1..=WIDTHS_MAX).contains(&count) {
        return Err(RecordingError::Count { index, count });
    }
    let widths_ns = fields
        .us
        .into_iter()
        .enumerate()
        .map(|(position, us)| nanoseconds(us).ok_or(RecordingError::Width { index, position, us }))
        .collect::<Result<Vec<u64>, _>>()?;
    let first = match fields.first {
        First::Low => Level::Low,
        First::High => Level::High,
    };
    Ok(Recording { id: fields.id, model, edges: edges_with_response(first, &widths_ns) })
}

fn nanoseconds(us: f64) -> Option<u64> {
    // Refuses what is negative or not a number.
    let width = Duration::try_from_secs_f64(us / 1e6).ok()?;
    if width > WIDTH_MAX {
        return None;
    }
    u64::try_from(width.as_nanos()).ok()
}

/// A train without a response has nothing to anchor on, so it gets one exactly when its length says
/// that the response, or the response and the first bit's low, is all that is missing.
fn edges_with_response(first: Level, widths_ns: &[u64]) -> Vec<Edge> {
    let missing_us: &[u64] = match (first, widths_ns.len()) {
        (Level::Low, AFTER_RESPONSE) => &[80, 80],
        (Level::High, count) if count + 1 == AFTER_RESPONSE => &[80, 80, 50],
        _ => return edges_from_widths(first, widths_ns),
    };
    let whole: Vec<u64> =
        missing_us.iter().map(|us| us * NS_PER_US).chain(widths_ns.iter().copied()).collect();
    edges_from_widths(Level::Low, &whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    fn one(first: &str, count: usize) -> Recording {
        let us = vec!["50"; count].join(",");
        let text = format!(r#"{{"model":"dht22","first":"{first}","us":[{us}]}}"#);
        parse(&text).unwrap().remove(0)
    }

    #[test]
    fn an_object_is_a_recording_and_an_array_is_several() {
        let text = r#"{"id":"a","model":"am2302","first":"high","us":[30, 80.5],"mood":"ignored"}"#;
        let recording = parse(text).unwrap().remove(0);
        assert_eq!(recording.id.as_deref(), Some("a"));
        assert_eq!(recording.model, Model::Dht22);
        assert_eq!(recording.edges, edges_from_widths(Level::High, &[30_000, 80_500]));
        assert_eq!(parse(&format!("[{text},{text}]")).unwrap().len(), 2);
    }

    #[test]
    fn a_response_is_prepended_only_where_exactly_that_is_missing() {
        for (first, count, edges) in [
            ("low", 81, 84),
            ("high", 80, 84),
            ("low", 80, 81),
            ("low", 82, 83),
            ("low", 83, 84),
            ("high", 79, 80),
            ("high", 81, 82),
            ("high", 84, 85),
        ] {
            assert_eq!(one(first, count).edges.len(), edges, "{count} from {first}");
        }
    }

    #[test]
    fn a_message_names_the_recording_and_what_to_give() {
        let good = r#"{"model":"dht11","first":"low","us":[50]}"#;
        for (bad, expected) in [
            (r#"{"model":"dht11","first":"low"}"#, "recording 1: missing field `us`"),
            (r#"{"model":"dht11","first":"up","us":[50]}"#, "recording 1: unknown variant `up`"),
            (
                r#"{"model":"bmp","first":"low","us":[50]}"#,
                "recording 1: `bmp` is not a sensor model",
            ),
            (r#"{"model":"dht11","first":"low","us":[]}"#, "recording 1 has 0 widths"),
            (
                r#"{"model":"dht11","first":"low","us":[1,-1]}"#,
                "recording 1: width 1 in `us` is -1:",
            ),
            (r#"{"model":"dht11","first":"low","us":[10000001]}"#, "width 0 in `us` is 10000001:"),
            ("7", "recording 1: invalid type"),
        ] {
            let message = message(&format!("[{good},{bad}]"));
            assert!(message.contains(expected), "{message}");
        }
        assert!(message("[]").contains("no recording"));
        assert!(message("{").contains("line 1"));
        assert!(message(r#"{"model":"dht11","first":"low","us":[1e999]}"#).contains("not JSON"));
    }

    #[test]
    fn a_recording_has_at_most_10000_widths() {
        assert_eq!(one("low", WIDTHS_MAX).edges.len(), WIDTHS_MAX + 1);
        let us = vec!["50"; WIDTHS_MAX + 1].join(",");
        let text = format!(r#"{{"model":"dht22","first":"low","us":[{us}]}}"#);
        assert!(message(&text).contains("10001 widths"));
    }
}

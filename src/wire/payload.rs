//! Payloads of our own nodes: telemetry and health.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::reading::{ClockState, Id, Measurement, Stamp};

/// Largest telemetry or foreign payload that is looked into, in bytes.
pub const PAYLOAD_MAX_BYTES: usize = 8 * 1024;
/// What any sensor on this wire can mean, in °C. A DHT22 spans −40…80; the rest leaves room for a
/// thermocouple behind the same topic.
const TEMPERATURE_C: std::ops::RangeInclusive<f64> = -100.0..=300.0;
/// Relative humidity in %.
const HUMIDITY_PCT: std::ops::RangeInclusive<f64> = 0.0..=100.0;
/// Latest time stamp that is believed: the end of the year 9999, in Unix ms. It is what RFC 3339 can
/// still write.
const AT_MAX_MS: i64 = 253_402_300_799_999;
/// Longest run of a node that is believed: a hundred years in ms. With this bound no sum of a time and an
/// offset leaves 64 bits.
const MONO_MAX_MS: u64 = 100 * 366 * 86_400_000;

/// One reading on the wire: `humidor/<node>/sensor/<name>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// The run of the node that took the reading; `seq` counts within it.
    pub boot: Id,
    /// From 1, without holes, over all sensors of the node.
    pub seq: u64,
    /// Unix time in milliseconds UTC by the node's clock.
    pub at: i64,
    /// Whether that clock was set.
    pub clock: ClockState,
    /// Milliseconds since the node started.
    pub mono: u64,
    /// °C.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Relative humidity in %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub humidity: Option<f64>,
}

/// Why a payload on a telemetry topic is not a reading.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// More than [`PAYLOAD_MAX_BYTES`].
    #[error("payload over {PAYLOAD_MAX_BYTES} bytes")]
    Large,
    /// Not the JSON object of `docs/PROTOCOL.md`.
    #[error("not a telemetry object: {0}")]
    Json(#[from] serde_json::Error),
    /// NaN, an infinity, or a number beyond the largest double.
    #[error("a value is not a finite number: {0}")]
    NotFinite(serde_json::Error),
    /// A field says what cannot be.
    #[error("`{field}` is out of range")]
    Range {
        /// The field's name on the wire.
        field: &'static str,
    },
    /// Neither temperature nor humidity.
    #[error("no value: neither temperature nor humidity")]
    NoValue,
}

impl PayloadError {
    /// A short name to count by.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Large => "payload-large",
            Self::Json(_) => "payload-json",
            Self::NotFinite(_) => "payload-not-finite",
            Self::Range { .. } => "payload-range",
            Self::NoValue => "payload-no-value",
        }
    }
}

impl Telemetry {
    /// The wire form of a reading.
    #[must_use]
    pub fn new(boot: Id, seq: u64, stamp: Stamp, measurement: Measurement) -> Self {
        Self {
            boot,
            seq,
            at: stamp.at_ms,
            clock: stamp.clock,
            mono: stamp.mono_ms,
            temperature: Some(measurement.temperature()),
            humidity: Some(measurement.humidity()),
        }
    }

    /// Reads a payload; anything that is not a reading is an error with its cause.
    ///
    /// # Errors
    /// [`PayloadError`], by cause.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        if payload.len() > PAYLOAD_MAX_BYTES {
            return Err(PayloadError::Large);
        }
        let telemetry: Self = serde_json::from_slice(payload).map_err(|error| {
            if names_no_finite_number(payload, &error) {
                PayloadError::NotFinite(error)
            } else {
                PayloadError::Json(error)
            }
        })?;
        let checks = [
            // SQLite's integers are signed; a counter that does not fit was never counted.
            ("seq", telemetry.seq >= 1 && i64::try_from(telemetry.seq).is_ok()),
            ("at", (0..=AT_MAX_MS).contains(&telemetry.at)),
            ("mono", telemetry.mono <= MONO_MAX_MS),
            ("temperature", telemetry.temperature.is_none_or(|t| TEMPERATURE_C.contains(&t))),
            ("humidity", telemetry.humidity.is_none_or(|h| HUMIDITY_PCT.contains(&h))),
        ];
        if let Some((field, _)) = checks.into_iter().find(|(_, fits)| !fits) {
            return Err(PayloadError::Range { field });
        }
        if telemetry.temperature.is_none() && telemetry.humidity.is_none() {
            return Err(PayloadError::NoValue);
        }
        Ok(telemetry)
    }

    /// The payload's bytes.
    ///
    /// # Panics
    /// Never: numbers and ids always serialise.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of numbers and ids always serialises")
    }
}

/// Largest health message that is read, in bytes.
const HEALTH_MAX_BYTES: usize = 16 * 1024;
/// Most sensors, outputs, complaints and filters in it that are read: a board has at most forty lines of a kind.
const HEALTH_ENTRIES_MAX: usize = 64;
/// Longest complaint that is kept, in bytes; the longest of ours has 300.
const HEALTH_TEXT_MAX_BYTES: usize = 1024;
/// Most causes of a sensor's failures.
const HEALTH_CAUSES_MAX: usize = 32;

/// Reads of a sensor over a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCounts {
    /// Those that gave a reading.
    pub good: u64,
    /// Those that gave none. A measurement that waited for one that agrees, and got it, is neither.
    pub failed: u64,
}

/// A node's retained health message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Version of the node's software.
    pub version: String,
    /// The commit it was built from; `None` where the build was not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// This run of the node.
    pub boot: Id,
    /// Unix ms UTC by the node's clock.
    pub at: i64,
    /// Whether that clock is set.
    pub clock: ClockState,
    /// Readings taken in this run.
    pub taken: u64,
    /// Readings that wait for an acknowledgement.
    pub outbox: u64,
    /// Readings given up because the outbox was full, ever.
    pub dropped: u64,
    /// `disk` or `memory`: whether the outbox outlives the process.
    pub outbox_kind: String,
    /// Per sensor: reads that gave nothing, by cause.
    pub failures: BTreeMap<String, BTreeMap<String, u64>>,
    /// Per sensor: reads of the last hour.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reads_1h: BTreeMap<String, ReadCounts>,
    /// Outputs whose lines do not follow, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub output_faults: BTreeMap<String, String>,
    /// What somebody should look at; empty on a healthy node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<String>,
    /// Since when the broker has accepted the connection, Unix ms UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_at: Option<i64>,
    /// The last acknowledgement of a reading in this run, Unix ms UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_at: Option<i64>,
    /// Time of the oldest reading that waits, Unix ms UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_at: Option<i64>,
    /// Why the last connection failed or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that was, Unix ms UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<i64>,
    /// Topic filters that the broker refuses or does not answer, or that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// Free bytes where the outbox is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free: Option<u64>,
    /// Commands that a later one replaced before the output was switched, since the start.
    #[serde(default)]
    pub passed_over: u64,
}

/// Keeps the first entries of a map.
fn keep<V>(map: &mut BTreeMap<String, V>, entries: usize) {
    while map.len() > entries {
        map.pop_last();
    }
}

impl Health {
    /// Reads a payload; `None` when it is none, or longer than [`HEALTH_MAX_BYTES`].
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        if payload.len() > HEALTH_MAX_BYTES {
            return None;
        }
        let mut health: Self = serde_json::from_slice(payload).ok()?;
        // In memory an entry takes many times its text, and no board has more of them.
        keep(&mut health.failures, HEALTH_ENTRIES_MAX);
        for causes in health.failures.values_mut() {
            keep(causes, HEALTH_CAUSES_MAX);
        }
        keep(&mut health.reads_1h, HEALTH_ENTRIES_MAX);
        keep(&mut health.output_faults, HEALTH_ENTRIES_MAX);
        health.complaints.truncate(HEALTH_ENTRIES_MAX);
        for complaint in &mut health.complaints {
            complaint.truncate(complaint.floor_char_boundary(HEALTH_TEXT_MAX_BYTES));
        }
        health.refused.truncate(HEALTH_ENTRIES_MAX);
        Some(health)
    }
}

/// Whether JSON ends in an error where a number should stand that is not finite: beyond the largest double, or spelled as
/// JavaScript and Python spell it.
fn names_no_finite_number(json: &[u8], error: &serde_json::Error) -> bool {
    if error.to_string().starts_with("number out of range") {
        return true;
    }
    let line = json.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    // The error points at the first byte that does not fit, or behind it.
    let rest = line.and_then(|line| line.get(error.column().saturating_sub(2)..)).unwrap_or(b"");
    let rest = rest.trim_ascii_start();
    let rest = rest.strip_prefix(b":").unwrap_or(rest).trim_ascii_start();
    let rest = rest.strip_prefix(b"-").unwrap_or(rest);
    rest.starts_with(b"NaN") || rest.starts_with(b"Infinity")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"boot":"b1","seq":17,"at":1760000000123,"clock":"synced","mono":98765,"temperature":21.5,"humidity":57.1}"#;

    #[test]
    fn telemetry_survives_the_wire() {
        let telemetry = Telemetry::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(telemetry.temperature, Some(21.5));
        assert_eq!(String::from_utf8(telemetry.to_json()).unwrap(), GOOD);
    }

    #[test]
    fn what_is_not_a_reading_is_refused_by_cause() {
        for (payload, cause) in [
            ("", "payload-json"),
            ("81.5", "payload-json"),
            (r#"{"seq":1}"#, "payload-json"),
            (&GOOD.replace("\"b1\"", "\"B 1\""), "payload-json"),
            (&GOOD.replace(":17,", ":0,"), "payload-range"),
            (&GOOD.replace(":17,", ":18446744073709551615,"), "payload-range"),
            (&GOOD.replace("98765", "9223372036854775807"), "payload-range"),
            (&GOOD.replace("1760000000123", "-1"), "payload-range"),
            (&GOOD.replace("21.5", "1e9"), "payload-range"),
            (&GOOD.replace("57.1", "100.1"), "payload-range"),
            (&GOOD.replace(r#","temperature":21.5,"humidity":57.1"#, ""), "payload-no-value"),
            (&" ".repeat(PAYLOAD_MAX_BYTES + 1), "payload-large"),
        ] {
            let error = Telemetry::parse(payload.as_bytes()).unwrap_err();
            assert_eq!(error.name(), cause, "{payload}: {error}");
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_refused_by_name() {
        for spelled in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1.8e308"] {
            let error = Telemetry::parse(GOOD.replace("21.5", spelled).as_bytes()).unwrap_err();
            assert_eq!(error.name(), "payload-not-finite", "{spelled}: {error}");
        }
    }
}

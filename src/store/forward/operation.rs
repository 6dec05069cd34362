//! An operation on the upstream database, and its bytes in the queue.
//!
//! An operation is a byte with its kind, then its fields in their order: texts with their length before them, counts and
//! lengths as LEB128, other numbers in eight bytes, little-endian.

use crate::reading::{ClockState, Id};
use crate::wire::Telemetry;

const READING: u8 = 1;
const RUN: u8 = 2;
const SAMPLE: u8 = 3;
const ALARM: u8 = 4;

/// Flags of a reading.
const SYNCED: u8 = 1;
const HAS_TEMPERATURE: u8 = 2;
const HAS_HUMIDITY: u8 = 4;

/// A reading as its node sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardedReading {
    /// The node.
    pub node: String,
    /// The node's run.
    pub boot: String,
    /// Number in the run.
    pub seq: i64,
    /// The sensor.
    pub sensor: String,
    /// Unix ms by the node's clock.
    pub at: i64,
    /// Whether that clock was set.
    pub synced: bool,
    /// Milliseconds since the node started.
    pub mono: i64,
    /// °C.
    pub temperature: Option<f64>,
    /// Relative humidity in %.
    pub humidity: Option<f64>,
}

/// The clock of a run was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedRun {
    /// The node.
    pub node: String,
    /// The run.
    pub boot: String,
    /// Unix ms minus the run's monotonic ms.
    pub offset_ms: i64,
    /// Readings before this number are corrected.
    pub synced_seq: i64,
}

/// A number of another publisher.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardedSample {
    /// The topic.
    pub topic: String,
    /// JSON member, empty for a plain number.
    pub field: String,
    /// Unix ms of its arrival by the broker's clock.
    pub at: i64,
    /// Whether that clock was set.
    pub synced: bool,
    /// The number.
    pub value: f64,
}

/// An alarm was raised or cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedAlarm {
    /// Its name.
    pub name: String,
    /// Unix ms by the broker's clock.
    pub at: i64,
    /// Raised, or cleared.
    pub raised: bool,
    /// Why.
    pub detail: String,
}

/// An operation on the upstream database.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Insert a reading.
    Reading(ForwardedReading),
    /// Correct the times of a run's readings.
    Run(ForwardedRun),
    /// Insert a sample.
    Sample(ForwardedSample),
    /// Insert a change of an alarm.
    Alarm(ForwardedAlarm),
}

pub(in crate::store) fn put_reading(
    bytes: &mut Vec<u8>,
    node: &Id,
    sensor: &Id,
    telemetry: &Telemetry,
) {
    bytes.push(READING);
    put_text(bytes, node.as_str());
    put_text(bytes, telemetry.boot.as_str());
    put_count(bytes, telemetry.seq);
    put_text(bytes, sensor.as_str());
    put_number(bytes, telemetry.at);
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    bytes.push(
        flag(telemetry.clock == ClockState::Synced, SYNCED)
            | flag(telemetry.temperature.is_some(), HAS_TEMPERATURE)
            | flag(telemetry.humidity.is_some(), HAS_HUMIDITY),
    );
    put_count(bytes, telemetry.mono);
    for value in [telemetry.temperature, telemetry.humidity].into_iter().flatten() {
        bytes.extend(value.to_le_bytes());
    }
}

pub(in crate::store) fn put_run(
    bytes: &mut Vec<u8>,
    node: &Id,
    telemetry: &Telemetry,
    offset: i64,
) {
    bytes.push(RUN);
    put_text(bytes, node.as_str());
    put_text(bytes, telemetry.boot.as_str());
    put_number(bytes, offset);
    put_count(bytes, telemetry.seq);
}

pub(in crate::store) fn put_sample(
    bytes: &mut Vec<u8>,
    topic: &str,
    field: &str,
    at: i64,
    synced: bool,
    value: f64,
) {
    bytes.push(SAMPLE);
    put_text(bytes, topic);
    put_text(bytes, field);
    put_number(bytes, at);
    bytes.push(u8::from(synced));
    bytes.extend(value.to_le_bytes());
}

pub(in crate::store) fn put_alarm(
    bytes: &mut Vec<u8>,
    name: &Id,
    at: i64,
    raised: bool,
    detail: &str,
) {
    bytes.push(ALARM);
    put_text(bytes, name.as_str());
    put_number(bytes, at);
    bytes.push(u8::from(raised));
    put_text(bytes, detail);
}

/// All operations of a row; `None` when the bytes are not whole operations.
pub(in crate::store) fn decode(mut bytes: &[u8]) -> Option<Vec<Operation>> {
    let mut operations = Vec::new();
    while !bytes.is_empty() {
        operations.push(take_operation(&mut bytes)?);
    }
    Some(operations)
}

fn take_operation(bytes: &mut &[u8]) -> Option<Operation> {
    Some(match take_byte(bytes)? {
        READING => {
            let (node, boot) = (take_text(bytes)?, take_text(bytes)?);
            let seq = take_count(bytes)?;
            let (sensor, at) = (take_text(bytes)?, take_number(bytes)?);
            let flags = take_byte(bytes)?;
            let mono = take_count(bytes)?;
            let mut value = |flag: u8| {
                if flags & flag == 0 { Some(None) } else { take_double(bytes).map(Some) }
            };
            Operation::Reading(ForwardedReading {
                node,
                boot,
                seq,
                sensor,
                at,
                synced: flags & SYNCED != 0,
                mono,
                temperature: value(HAS_TEMPERATURE)?,
                humidity: value(HAS_HUMIDITY)?,
            })
        }
        RUN => Operation::Run(ForwardedRun {
            node: take_text(bytes)?,
            boot: take_text(bytes)?,
            offset_ms: take_number(bytes)?,
            synced_seq: take_count(bytes)?,
        }),
        SAMPLE => Operation::Sample(ForwardedSample {
            topic: take_text(bytes)?,
            field: take_text(bytes)?,
            at: take_number(bytes)?,
            synced: take_byte(bytes)? != 0,
            value: take_double(bytes)?,
        }),
        ALARM => Operation::Alarm(ForwardedAlarm {
            name: take_text(bytes)?,
            at: take_number(bytes)?,
            raised: take_byte(bytes)? != 0,
            detail: take_text(bytes)?,
        }),
        _ => return None,
    })
}

fn put_count(bytes: &mut Vec<u8>, mut count: u64) {
    loop {
        let low = count.to_le_bytes()[0];
        if count < 0x80 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
        count >>= 7;
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_count(bytes, text.len() as u64);
    bytes.extend(text.as_bytes());
}

fn put_number(bytes: &mut Vec<u8>, number: i64) {
    bytes.extend(number.to_le_bytes());
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// A count of at most 63 bits.
fn take_count(bytes: &mut &[u8]) -> Option<i64> {
    let mut count = 0_i64;
    for shift in (0..63).step_by(7) {
        let byte = take_byte(bytes)?;
        count |= i64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(count);
        }
    }
    None
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(take_count(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn take_eight(bytes: &mut &[u8]) -> Option<[u8; 8]> {
    let (eight, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*eight)
}

fn take_number(bytes: &mut &[u8]) -> Option<i64> {
    take_eight(bytes).map(i64::from_le_bytes)
}

fn take_double(bytes: &mut &[u8]) -> Option<f64> {
    take_eight(bytes).map(f64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> Id {
        text.parse().unwrap()
    }

    proptest! {
        #[test]
        fn a_reading_is_what_it_was(seq in 0..=i64::MAX.cast_unsigned(), at: i64, mono in 0..=i64::MAX.cast_unsigned(),
            temperature in proptest::option::of(-1e300..1e300_f64), humidity in proptest::option::of(0.0..100.0_f64), set: bool) {
            let clock = if set { ClockState::Synced } else { ClockState::Unsynced };
            let telemetry = Telemetry { boot: id("b-1"), seq, at, clock, mono, temperature, humidity };
            let mut bytes = Vec::new();
            put_reading(&mut bytes, &id("press"), &id("hall"), &telemetry);
            put_run(&mut bytes, &id("press"), &telemetry, at);
            put_sample(&mut bytes, "plant/é", "", at, set, 0.5);
            put_alarm(&mut bytes, &id("hot"), at, set, "31 °C");
            let (seq, mono) = (seq.cast_signed(), mono.cast_signed());
            let text = str::to_owned;
            let expected = vec![
                Operation::Reading(ForwardedReading {
                    node: text("press"), boot: text("b-1"), seq, sensor: text("hall"), at, synced: set, mono, temperature, humidity }),
                Operation::Run(ForwardedRun { node: text("press"), boot: text("b-1"), offset_ms: at, synced_seq: seq }),
                Operation::Sample(ForwardedSample { topic: text("plant/é"), field: text(""), at, synced: set, value: 0.5 }),
                Operation::Alarm(ForwardedAlarm { name: text("hot"), at, raised: set, detail: text("31 °C") }),
            ];
            prop_assert_eq!(decode(&bytes), Some(expected));
            for cut in 1..bytes.len() {
                // No part of it is taken for something else than fewer operations.
                prop_assert!(decode(&bytes[..cut]).is_none_or(|found| found.len() < 4));
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&bytes);
        }
    }
}

//! Readings as lines: aligned for people, CSV and JSON lines for programs.

use std::io::{self, Write};

use crate::store::{Foreign, Reading, Record};
use crate::visible_text::visible;

/// Columns of a reading's node and sensor, and most of a topic and a name.
const NAME_COLUMNS: std::ops::RangeInclusive<usize> = 25..=64;

/// A row of the log.
#[derive(Debug)]
pub enum Entry {
    /// A board's.
    Reading(Reading),
    /// Another publisher's.
    Sample(Foreign),
}

/// Writes rows of both kinds. The values of other publishers stand below each other as far as the names seen before allow.
#[derive(Debug, Default)]
pub struct Lines {
    widest: usize,
}

impl Lines {
    /// Writes these.
    pub fn write(&mut self, out: &mut impl Write, entries: &[Entry]) -> io::Result<()> {
        let samples = entries.iter().filter_map(|entry| match entry {
            Entry::Sample(sample) => Some(columns(&name(sample))),
            Entry::Reading(_) => None,
        });
        self.widest = samples.fold(self.widest, usize::max);
        let width = self.widest.clamp(*NAME_COLUMNS.start(), *NAME_COLUMNS.end());
        for entry in entries {
            match entry {
                Entry::Reading(reading) => line(out, reading)?,
                Entry::Sample(sample) => {
                    let (at, name) = (time(sample.at), name(sample));
                    let space = " ".repeat(width.saturating_sub(columns(&name)));
                    writeln!(out, "{at}  {name}{space} {:>6}", sample.value)?;
                }
            }
        }
        out.flush()
    }
}

/// Topic, and the name in its payload. Both come from the network.
fn name(sample: &Foreign) -> String {
    let name = format!("{} {}", visible(&sample.topic, None), visible(&sample.field, None));
    name.trim_end().to_owned()
}

/// Columns on a terminal: letters from Hangul on take two.
fn columns(text: &str) -> usize {
    text.chars().map(|c| if c < '\u{1100}' { 1 } else { 2 }).sum()
}

fn time(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms)
        .map_or_else(|_| format!("{at_ms:>20}"), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// Writes one aligned line. `~` marks a time from a clock that was not set.
pub fn line(out: &mut impl Write, reading: &Reading) -> io::Result<()> {
    let at = time(reading.at);
    let doubt = if reading.clock == "unsynced" { '~' } else { ' ' };
    let value = |value: Option<f64>, unit: &str| {
        value.map_or_else(|| format!("{:>6} {unit}", "–"), |value| format!("{value:>6.1} {unit}"))
    };
    writeln!(
        out,
        "{at}{doubt} {:<12} {:<12} {}  {}  #{}",
        reading.node,
        reading.sensor,
        value(reading.temperature, "°C"),
        value(reading.humidity, "%"),
        reading.seq
    )
}

/// The reading in a committed record, if it is one.
pub fn of_record(record: &Record) -> Option<Reading> {
    let Record::Reading { node, sensor, telemetry } = record else { return None };
    Some(Reading {
        node: node.to_string(),
        sensor: sensor.to_string(),
        boot: telemetry.boot.to_string(),
        seq: i64::try_from(telemetry.seq).unwrap_or(i64::MAX),
        at: telemetry.at,
        clock: telemetry.clock.as_str().to_owned(),
        temperature: telemetry.temperature,
        humidity: telemetry.humidity,
    })
}

/// Prints committed readings until the broker ends. It needs a thread of its own: a write to a stopped terminal blocks.
pub fn follow(mut live: tokio::sync::broadcast::Receiver<crate::broker::Live>) {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match live.blocking_recv() {
            Ok(records) => {
                let mut lines = Vec::new();
                for reading in records.iter().filter_map(of_record) {
                    let _ = line(&mut lines, &reading);
                }
                // A closed terminal must not end the broker.
                let _ = io::stdout().write_all(&lines);
            }
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(
                    missed,
                    "standard output is too slow: some batches were stored and not printed"
                );
            }
            Err(RecvError::Closed) => return,
        }
    }
}

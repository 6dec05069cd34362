//! Readings as lines: aligned for people, CSV and JSON lines for programs.

use std::io::{self, Write};

use crate::store::{Reading, Record};

/// Writes one aligned line. `~` marks a time from a clock that was not set.
pub fn line(out: &mut impl Write, reading: &Reading) -> io::Result<()> {
    let at = jiff::Timestamp::from_millisecond(reading.at).map_or_else(
        |_| format!("{:>20}", reading.at),
        |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    );
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

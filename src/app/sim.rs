//! `humidor sim`: fills a log with simulated readings of a long time, by the same append and the same maintenance as the
//! broker.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::failure::Failure;
use super::start_log;
use crate::cli::Sim;
use crate::clock;
use crate::config::{self, Layers};
use crate::exit::Code;
use crate::sim::history::Board;
use crate::store::{LOG_FILE, Record, Store};

const HOUR_MS: i64 = 3_600_000;
/// Approximate number of readings in one transaction.
const BATCH_READINGS: usize = 20_000;
/// Time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Fills the log with the past `days` up to now.
pub fn run(options: &Sim, layers: Layers) -> Result<(), Failure> {
    start_log(&layers.logging());
    let path = config::data(layers)?.join(LOG_FILE);
    if path.exists() && !options.add {
        return Err(Failure::new(
            Code::Usage,
            anyhow!(
                "{} exists already; choose another folder with --data, or use --add to add the simulated boards to it",
                path.display()
            ),
        ));
    }
    let mut store = Store::open(&path)?;
    let end_ms = clock::unix_ms();
    let start_ms = end_ms - i64::from(options.days) * 24 * HOUR_MS;
    let mut boards: Vec<Board> =
        (0..options.nodes).map(|number| Board::new(number, start_ms)).collect();
    let interval_ms = i64::try_from(options.interval.as_millis()).unwrap_or(i64::MAX);

    let started = Instant::now();
    let mut progress = Progress::new(options.days);
    let (mut at_ms, mut readings) = (start_ms, 0);
    let mut records: Vec<Record> = Vec::new();
    while at_ms < end_ms {
        at_ms = (at_ms + HOUR_MS).min(end_ms);
        for board in &mut boards {
            let (node, sensor) = (board.node().clone(), board.sensor().clone());
            records.extend(board.play(at_ms, interval_ms).map(|telemetry| Record::Reading {
                node: node.clone(),
                sensor: sensor.clone(),
                telemetry,
            }));
        }
        if records.len() >= BATCH_READINGS || at_ms == end_ms {
            readings += store.bulk_load(&records.iter().collect::<Vec<_>>())?.readings;
            records.clear();
            while store.maintain_bulk_load(at_ms)? {}
            progress.show(at_ms - start_ms, readings);
        }
    }
    let (bytes, took) = (store.finish_bulk_load(&path)?, started.elapsed());
    progress.end();
    writeln!(
        std::io::stdout(),
        "{}: {readings} readings of {} boards over {} {}, {} MiB, in {:.0} s",
        path.display(),
        options.nodes,
        options.days,
        if options.days == 1 { "day" } else { "days" },
        bytes / 1024 / 1024,
        took.as_secs_f64()
    )?;
    Ok(())
}

/// Progress on standard error: one line that changes on a terminal, else a new line each time.
struct Progress {
    days: u32,
    shown: Instant,
    end: char,
}

impl Progress {
    fn new(days: u32) -> Self {
        let end = if std::io::stderr().is_terminal() { '\r' } else { '\n' };
        Self { days, shown: Instant::now(), end }
    }

    fn show(&mut self, past_ms: i64, readings: u64) {
        if self.shown.elapsed() >= PROGRESS_INTERVAL {
            self.shown = Instant::now();
            let mut out = std::io::stderr();
            let day = past_ms / (24 * HOUR_MS);
            let _ = write!(out, "day {day} of {}, {readings} readings {}", self.days, self.end);
            let _ = out.flush();
        }
    }

    fn end(&self) {
        if self.end == '\r' {
            eprintln!();
        }
    }
}

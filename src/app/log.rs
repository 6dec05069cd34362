//! `humidor tail`, `export` and `db`: the log, read beside a running broker.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;

use super::failure::Failure;
use super::{block_on, print};
use crate::cli::{Export, Tail as TailOptions};
use crate::clock;
use crate::config::{self, Layers};
use crate::exit::Code;
use crate::export_format::{READING_COLUMNS, RowWriter, SAMPLE_COLUMNS};
use crate::reading::Id;
use crate::store::{
    Foreign, LOG_FILE, Log, Reading, Retention, SampleTail, Selection, Stats, Tail, is_damage,
};
use crate::upstream;

/// Bytes of the file for one row and for one minute of a series in the roll-ups, with their share of the indexes.
const ROW_BYTES: f64 = 95.0;
const SPAN_BYTES: f64 = 90.0;
/// How often a tail looks for new commits. SQLite has a counter for them, so that a look takes microseconds.
const TAIL_INTERVAL: Duration = Duration::from_millis(200);

/// Follows the log until a signal or a closed pipe.
pub fn tail(options: &TailOptions, layers: Layers) -> Result<(), Failure> {
    let path = log_path(layers)?;
    let (readings, mut tail) = Tail::start(open(&path)?, options.lines)?;
    let (samples, mut sample_tail) = SampleTail::start(open(&path)?, options.lines)?;
    let mut lines = print::Lines::default();
    let mut out = io::stdout().lock();
    let mut latest = in_time(readings, samples, clock::unix_ms());
    let first = latest.len().saturating_sub(options.lines);
    lines.write(&mut out, &latest.split_off(first))?;
    if options.no_follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(TAIL_INTERVAL);
        let new = in_time(tail.read_new()?, sample_tail.read_new()?, clock::unix_ms());
        lines.write(&mut out, &new)?;
    }
}

/// Puts samples among readings, which keep their order. A reading whose time nobody knows counts as of the next one.
fn in_time(readings: Vec<Reading>, samples: Vec<Foreign>, now_ms: i64) -> Vec<print::Entry> {
    let mut entries: Vec<(i64, print::Entry)> = Vec::new();
    let mut latest = now_ms;
    for reading in readings.into_iter().rev() {
        latest = if reading.clock == "unsynced" { latest } else { latest.min(reading.at) };
        entries.push((latest, print::Entry::Reading(reading)));
    }
    entries.reverse();
    entries.extend(samples.into_iter().map(|sample| (sample.at, print::Entry::Sample(sample))));
    entries.sort_by_key(|(at, _)| *at);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// Writes the selected readings or samples to standard output.
pub fn export(options: &Export, layers: Layers) -> Result<(), Failure> {
    let path = log_path(layers)?;
    let selection = Selection {
        from_ms: options.from,
        to_ms: options.to,
        node: options.node.clone(),
        sensor: options.sensor.clone(),
    };
    let log = open(&path)?;
    let out = BufWriter::new(io::stdout().lock());
    let mut rows = RowWriter::new(options.format, out).on_terminal(io::stdout().is_terminal());
    let exported = (|| {
        if options.samples {
            rows.header(SAMPLE_COLUMNS)?;
            log.export_samples(&selection, |mut sample| {
                Ok::<_, ExportError>(rows.row(&mut sample)?)
            })?;
        } else {
            rows.header(READING_COLUMNS)?;
            log.export(&selection, |mut reading| Ok::<_, ExportError>(rows.row(&mut reading)?))?;
        }
        Ok(rows.flush()?)
    })();
    exported.map_err(|error: ExportError| match error {
        ExportError::Write(error) => Failure::from(error),
        ExportError::Log(error) => error.into(),
    })?;
    if !options.samples && !log.has_any(&selection)? {
        let of = |kind: &str, name: Option<&Id>| name.map(|name| format!("{kind} `{name}`"));
        let wanted = [of("sensor", options.sensor.as_ref()), of("node", options.node.as_ref())];
        let wanted = wanted.into_iter().flatten().collect::<Vec<_>>().join(" of ");
        if !wanted.is_empty() {
            writeln!(io::stderr(), "{} has no {wanted}", path.display())?;
        }
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Log(#[from] rusqlite::Error),
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Full integrity check.
pub fn check(layers: Layers) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let path = log_path(layers)?;
    let log = open(&path)?;
    // A page that cannot be read at all ends the check itself.
    let complaints = match log.check() {
        Err(error) if is_damage(&error) => vec![error.to_string()],
        checked => checked?,
    };
    if complaints.is_empty() {
        writeln!(out, "{}: no damage found", path.display())?;
        return notes(&mut out, &log);
    }
    for complaint in &complaints {
        writeln!(out, "{complaint}")?;
    }
    Err(Failure::new(
        Code::Data,
        anyhow!(
            "{} is damaged. The broker moves it aside at its next start and begins a new log; `sqlite3 {} .recover` may recover rows",
            path.display(),
            path.display()
        ),
    ))
}

/// What is no damage and still of note: what could not be computed, and times that cannot be right.
fn notes(out: &mut impl Write, log: &Log) -> Result<(), Failure> {
    let unknown = log.unknown_means()?;
    if unknown > 0 {
        writeln!(
            out,
            "{unknown} spans of samples have no mean: an earlier version could not compute it, and their rows are deleted"
        )?;
    }
    for sensor in log.ahead(clock::unix_ms())? {
        writeln!(
            out,
            "ahead of the clock: {}/{}: {} readings from {} to {}; they are kept as long as others that came with them",
            sensor.node,
            sensor.sensor,
            sensor.readings,
            time(Some(sensor.first)),
            time(Some(sensor.last))
        )?;
    }
    for (series, at, cause) in log.set_aside()? {
        writeln!(out, "set aside: {series} from {} cannot be rolled up: {cause}", time(Some(at)))?;
    }
    Ok(())
}

fn time(ms: Option<i64>) -> String {
    ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| "–".to_owned(), |at| at.to_string())
}

/// Prints counts, sizes and the time range.
pub fn stats(layers: Layers) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let (folder, retention) = config::data_and_retention(layers)?;
    let path = folder.join(LOG_FILE);
    let stats = open(&path)?.stats()?;
    let mut rows = vec![
        ("database", path.display().to_string()),
        ("size", format!("{} KiB, {} KiB of it free", stats.bytes / 1024, stats.free_bytes / 1024)),
        ("nodes", stats.nodes.to_string()),
        ("sensors", stats.sensors.to_string()),
        ("readings", stats.readings.to_string()),
        ("from", time(stats.first_ms)),
        ("to", time(stats.last_ms)),
        ("samples", stats.samples.to_string()),
    ];
    let [minutes, quarters, hours] = stats.rolled_up;
    rows.push(("roll-ups", format!("{minutes} minutes, {quarters} quarters, {hours} hours")));
    rows.push(("waiting", format!("{} quarters, {} older series", stats.dirty, stats.backfill)));
    let rows_from = stats.rows_from_ms.map_or("all".to_owned(), |ms| time(Some(ms)));
    let own = match stats.own_horizons {
        0 => String::new(),
        own => format!(", later for {own} series that fill the log"),
    };
    rows.push(("rows from", rows_from + &own));
    rows.extend(outlook(&stats, &retention));
    let refused: Vec<String> =
        stats.refused.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    rows.push(("refused", if refused.is_empty() { "0".to_owned() } else { refused.join(", ") }));
    for (name, value) in rows {
        writeln!(out, "{name:<10}{value}")?;
    }
    Ok(())
}

/// The growth of one day, and when retention deletes rows. Estimated with [`ROW_BYTES`] a row and [`SPAN_BYTES`] a minute
/// of a series; a year of ten boards took 82 bytes a reading with its roll-ups.
fn outlook(stats: &Stats, retention: &Retention) -> [(&'static str, String); 2] {
    let days = retention.keep_raw.map_or(f64::INFINITY, |keep| keep.as_secs_f64() / 86_400.0);
    // Estimates, far below 2^53.
    #[expect(clippy::cast_precision_loss)]
    let (rows, series, max) = (
        stats.rows_last_day as f64 * ROW_BYTES,
        stats.sensors.max(1) as f64 * 1440.0 * SPAN_BYTES,
        retention.max_bytes as f64,
    );
    let minutes = series.min(rows / ROW_BYTES * SPAN_BYTES);
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / 1_048_576.0);
    let full = max / (rows + minutes).max(1.0);
    let verdict = if full < days {
        format!(
            "the file reaches its limit of {} after about {full:.0} days; then the oldest rows are deleted",
            mib(max)
        )
    } else {
        format!(
            "rows are deleted after {days:.0} days, at a size of about {}; the limit is {}",
            mib((rows + minutes) * days),
            mib(max)
        )
    };
    let a_day = format!(
        "{} rows, about {} and {} of roll-ups",
        stats.rows_last_day,
        mib(rows),
        mib(minutes)
    );
    [("last day", a_day), ("outlook", verdict)]
}

/// Prints the numbers that are missing between two readings.
pub fn gaps(layers: Layers) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let (data, target) = config::data_and_upstream(layers)?;
    let mut gaps = open(&data.join(LOG_FILE))?.gaps()?;
    if let Some(target) = target
        && !gaps.is_empty()
    {
        gaps = block_on(async { Ok(upstream::gaps(target, &gaps).await?) })?;
    }
    for gap in &gaps {
        writeln!(
            out,
            "{:<16} {:<20} {}..={}  ({} missing)",
            gap.node,
            gap.boot,
            gap.from,
            gap.to,
            gap.to - gap.from + 1
        )?;
    }
    if gaps.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(
            Code::Data,
            anyhow!(
                "{} gaps: the node has not delivered these readings yet, or its full outbox deleted them (see the node's health)",
                gaps.len()
            ),
        ))
    }
}

/// The path of the log.
pub fn log_path(layers: Layers) -> Result<PathBuf, Failure> {
    Ok(config::data(layers)?.join(LOG_FILE))
}

/// Opens the log for reading.
pub fn open(path: &Path) -> Result<Log, Failure> {
    if let Err(error) = path.try_exists()
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        let error = anyhow!(
            "{} cannot be reached: {error}. Run this as the user of the broker, or as root",
            path.display()
        );
        return Err(Failure::new(Code::Permission, error));
    }
    if !path.exists() {
        let folder = path.parent().filter(|folder| folder.is_file());
        let error = folder.map_or_else(
            || {
                anyhow!(
                    "there is no log at {}; set its folder with --data or HUMIDOR_DATA",
                    path.display()
                )
            },
            |file| {
                anyhow!(
                    "{} is a file, not a folder; set the log's folder with --data or HUMIDOR_DATA",
                    file.display()
                )
            },
        );
        return Err(Failure::new(Code::NoDevice, error));
    }
    Log::open(path).map_err(|error| {
        let code = match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
                Code::Data
            }
            Some(
                rusqlite::ErrorCode::PermissionDenied
                | rusqlite::ErrorCode::CannotOpen
                | rusqlite::ErrorCode::ReadOnly,
            ) => Code::Permission,
            _ => Code::Data,
        };
        Failure::new(code, anyhow!("{} cannot be read as a log: {error}", path.display()))
    })
}

//! `humidor tail`, `export` and `db`: the log, read beside a running broker.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;

use super::print;
use crate::cli::{Export, ExportFormat, Tail as TailOptions};
use crate::config::{self, Layers};
use crate::exit::{Code, Failure};
use crate::reading::Id;
use crate::store::{LOG_FILE, Log, Reading, Retention, Selection, Stats, Tail};

/// Bytes of the file that a row and a rolled-up minute take with their share of the indexes.
const ROW_BYTES: f64 = 95.0;
const SPAN_BYTES: f64 = 90.0;
/// How often a tail looks for new commits. SQLite tells by a counter, so a look costs microseconds.
const TAIL_INTERVAL: Duration = Duration::from_millis(200);

/// Follows the log until a signal or a closed pipe.
pub fn tail(options: &TailOptions, layers: Layers) -> Result<(), Failure> {
    let path = log_path(layers)?;
    let (latest, mut tail) = Tail::start(open(&path)?, options.lines)?;
    let mut out = io::stdout().lock();
    print_all(&mut out, &latest)?;
    if options.no_follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(TAIL_INTERVAL);
        print_all(&mut out, &tail.read_new()?)?;
    }
}

fn print_all(out: &mut impl Write, readings: &[Reading]) -> io::Result<()> {
    readings.iter().try_for_each(|reading| print::line(out, reading))?;
    out.flush()
}

/// Writes the selected readings or samples to standard output.
pub fn export(options: &Export, layers: Layers) -> Result<(), Failure> {
    let path = log_path(layers)?;
    let usage = |error: String| Failure::new(Code::Usage, anyhow!(error));
    let id = |text: &Option<String>| text.as_deref().map(str::parse::<Id>).transpose();
    let selection = Selection {
        from_ms: options.from.as_deref().map(time).transpose().map_err(usage)?,
        to_ms: options.to.as_deref().map(time).transpose().map_err(usage)?,
        node: id(&options.node).map_err(|error| usage(format!("--node: {error}")))?,
        sensor: id(&options.sensor).map_err(|error| usage(format!("--sensor: {error}")))?,
    };
    let log = open(&path)?;
    let out = BufWriter::new(io::stdout().lock());
    let exported = match options.format {
        ExportFormat::Csv => export_csv(&log, &selection, options.samples, out),
        ExportFormat::Jsonl => export_jsonl(&log, &selection, options.samples, out),
    };
    exported.map_err(|error| match error {
        ExportError::Write(error) => error.into(),
        ExportError::Log(error) => error.into(),
    })
}

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Log(#[from] rusqlite::Error),
    #[error(transparent)]
    Write(#[from] io::Error),
}

impl From<csv::Error> for ExportError {
    fn from(error: csv::Error) -> Self {
        // `io::Error::from` would hide that a pipe was closed.
        Self::Write(match error.into_kind() {
            csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        })
    }
}

fn export_csv(
    log: &Log,
    selection: &Selection,
    samples: bool,
    out: impl Write,
) -> Result<(), ExportError> {
    // The header stands there even when no row follows.
    let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(out);
    if samples {
        csv.write_record(["topic", "field", "at", "value"])?;
        log.export_samples(selection, |sample| Ok::<_, ExportError>(csv.serialize(sample)?))?;
    } else {
        csv.write_record(print::CSV_HEADER)?;
        log.export(selection, |reading| Ok::<_, ExportError>(csv.serialize(reading)?))?;
    }
    Ok(csv.flush()?)
}

fn export_jsonl(
    log: &Log,
    selection: &Selection,
    samples: bool,
    mut out: impl Write,
) -> Result<(), ExportError> {
    fn write(out: &mut impl Write, row: &impl serde::Serialize) -> Result<(), ExportError> {
        serde_json::to_writer(&mut *out, row).map_err(io::Error::from)?;
        Ok(out.write_all(b"\n")?)
    }
    if samples {
        log.export_samples(selection, |sample| write(&mut out, &sample))?;
    } else {
        log.export(selection, |reading| write(&mut out, &reading))?;
    }
    Ok(out.flush()?)
}

/// Full integrity check.
pub fn check(layers: Layers) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let path = log_path(layers)?;
    let complaints = open(&path)?.check()?;
    if complaints.is_empty() {
        writeln!(out, "{}: sound", path.display())?;
        return Ok(());
    }
    for complaint in &complaints {
        writeln!(out, "{complaint}")?;
    }
    Err(Failure::new(
        Code::Data,
        anyhow!(
            "{} is damaged; the broker moves it aside at its next start, `sqlite3 {} .recover` may get rows back",
            path.display(),
            path.display()
        ),
    ))
}

/// What the log holds.
pub fn stats(mut layers: Layers) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let retention = config::retention(&mut layers);
    let (path, retention) = layers
        .clone()
        .finish(config::data_folder(&mut layers).zip(retention))
        .map(|(folder, retention)| (folder.join(LOG_FILE), retention))?;
    let stats = open(&path)?.stats()?;
    let time = |ms: Option<i64>| {
        ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .map_or_else(|| "–".to_owned(), |at| at.to_string())
    };
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
    rows.push(("rows from", stats.rows_from_ms.map_or("all".to_owned(), |ms| time(Some(ms)))));
    rows.extend(outlook(&stats, &retention));
    let refused: Vec<String> =
        stats.refused.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    rows.push(("refused", if refused.is_empty() { "0".to_owned() } else { refused.join(", ") }));
    for (name, value) in rows {
        writeln!(out, "{name:<10}{value}")?;
    }
    Ok(())
}

/// What a day takes, and what retention will do about it. Rows are taken as [`ROW_BYTES`] each, a minute of
/// a series as [`SPAN_BYTES`]; a year of ten boards came to 82 bytes a reading with its roll-ups.
fn outlook(stats: &Stats, retention: &Retention) -> [(&'static str, String); 2] {
    let days = retention.keep_raw.map_or(f64::INFINITY, |keep| keep.as_secs_f64() / 86_400.0);
    // Estimates, and far below 2^53.
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
            "the limit of {} is reached after about {full:.0} days; then the oldest rows go",
            mib(max)
        )
    } else {
        format!(
            "rows go after {days:.0} days, at about {}; the limit is {}",
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

/// Missing numbers.
pub fn gaps(layers: Layers) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let path = log_path(layers)?;
    let gaps = open(&path)?.gaps()?;
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
                "{} gaps: readings still on their way, or given up by a full outbox (see the node's health)",
                gaps.len()
            ),
        ))
    }
}

/// A compact copy under a new name, complete or not there at all.
pub fn backup(target: &Path, layers: Layers) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let path = log_path(layers)?;
    let log = open(&path)?;
    if target.exists() {
        return Err(Failure::new(
            Code::Usage,
            anyhow!("{} exists; a backup never overwrites", target.display()),
        ));
    }
    let mut partial = target.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = (|| -> Result<(), Failure> {
        match std::fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        log.copy_to(&partial)?;
        // SQLite does not sync this copy; a power cut after our word must not undo it.
        File::open(&partial)?.sync_all()?;
        std::fs::rename(&partial, target)?;
        let folder = target
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        Ok(File::open(folder)?.sync_all()?)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written?;
    writeln!(out, "{}", target.display())?;
    Ok(())
}

fn log_path(mut layers: Layers) -> Result<PathBuf, Failure> {
    let folder = config::data_folder(&mut layers);
    Ok(layers.finish(folder)?.join(LOG_FILE))
}

fn open(path: &Path) -> Result<Log, Failure> {
    if !path.exists() {
        return Err(Failure::new(
            Code::NoDevice,
            anyhow!(
                "there is no log at {}; name its folder with --data or HUMIDOR_DATA",
                path.display()
            ),
        ));
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

/// RFC 3339, a date, a date and time (UTC), or Unix ms.
fn time(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    let utc = |civil: jiff::civil::DateTime| {
        civil.to_zoned(jiff::tz::TimeZone::UTC).map(|at| at.timestamp())
    };
    text.parse::<jiff::Timestamp>()
        .or_else(|_| text.parse::<jiff::civil::DateTime>().and_then(utc))
        .map(jiff::Timestamp::as_millisecond)
        .map_err(|_| {
            format!("`{text}` is not a time: write 2026-11-22, 2026-11-22T08:00Z or Unix ms")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        for (text, ms) in [
            ("1760000000123", 1_760_000_000_123),
            ("2026-11-22", 1_795_305_600_000),
            ("2026-11-22T08:00Z", 1_795_334_400_000),
            ("2026-11-22T08:00:00+09:00", 1_795_302_000_000),
            ("2026-11-22 08:00", 1_795_334_400_000),
        ] {
            assert_eq!(time(text), Ok(ms), "{text}");
        }
        assert!(time("yesterday").is_err());
    }
}

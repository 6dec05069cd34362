//! What a large log costs: charts by range, an export of everything, and acknowledging while retention
//! deletes: `cargo bench --bench series`.
//!
//! Prints one line of JSON a figure. The log is a year of 10 boards at 10 s, 31 million readings, made by
//! `humidor sim` in a temporary folder (about 4 GB); `SERIES_LOG` names a folder that has one already and
//! `SERIES_DAYS` makes a shorter one, of which no longer ranges are asked. Exits with 1 when an export has not every reading.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use humidor::reading::{ClockState, Id};
use humidor::store::{LOG_FILE, Log, Range, Record, Retention, SeriesQuery, Store};
use humidor::wire::Telemetry;
use serde_json::json;

const DAY_MS: i64 = 86_400_000;
/// Queries of each range.
const QUERIES: usize = 300;
/// Commits of each kind for the ingest figure.
const COMMITS: usize = 2_000;

fn main() {
    let scratch = tempfile::tempdir().expect("a temporary folder can be made");
    let folder =
        std::env::var_os("SERIES_LOG").map_or_else(|| scratch.path().join("year"), PathBuf::from);
    if !folder.join(LOG_FILE).exists() {
        fill(&folder);
    }
    charts(&folder.join(LOG_FILE));
    export(&folder);
    ingest(scratch.path());
}

fn figure(name: &str, value: &serde_json::Value) {
    println!("{}", json!({ "figure": name, "value": value }));
}

fn humidor() -> Command {
    Command::new(env!("CARGO_BIN_EXE_humidor"))
}

fn fill(folder: &Path) {
    let days = std::env::var("SERIES_DAYS").unwrap_or_else(|_| "365".to_owned());
    let started = Instant::now();
    let done = humidor()
        .args(["sim", "--nodes", "10", "--days", &days, "--data"])
        .arg(folder)
        .stdout(Stdio::null())
        .status()
        .expect("the binary runs");
    assert!(done.success());
    let bytes = std::fs::metadata(folder.join(LOG_FILE)).map_or(0, |file| file.len());
    figure("sim_seconds", &json!(started.elapsed().as_secs()));
    figure("sim_bytes", &json!(bytes));
}

/// p50, p99 and maximum in ms.
fn quantiles(mut times: Vec<Duration>) -> serde_json::Value {
    times.sort();
    let ms = |time: Duration| (time.as_secs_f64() * 1e5).round() / 100.0;
    let at = |share: usize| ms(times[(times.len() * share / 100).min(times.len() - 1)]);
    json!({ "p50_ms": at(50), "p99_ms": at(99), "max_ms": ms(times[times.len() - 1]) })
}

fn charts(path: &Path) {
    let log = Log::open(path).expect("the log opens");
    let stats = log.stats().expect("the log can be read");
    figure("readings", &json!(stats.readings));
    let overview = log.overview().expect("the log can be read");
    let last = stats.last_ms.expect("there are readings");
    let whole_days = (last - stats.first_ms.expect("there are readings")) / DAY_MS + 1;
    let first = last - whole_days * DAY_MS;
    let mut rng = fastrand::Rng::with_seed(1);
    for (name, length, points) in [
        ("10 minutes", DAY_MS / 144, None),
        ("1 hour", DAY_MS / 24, None),
        ("6 hours", DAY_MS / 4, None),
        ("1 day", DAY_MS, None),
        ("1 day, most points", DAY_MS, Some(2_000)),
        ("33 hours at 60 s, most points", 2_000 * 60_000, Some(2_000)),
        ("1 week", 7 * DAY_MS, None),
        ("1 month", 30 * DAY_MS, None),
        ("1 month, most points", 30 * DAY_MS, Some(2_000)),
        ("1 year", 365 * DAY_MS, None),
        ("1 year, most points", 365 * DAY_MS, Some(2_000)),
    ] {
        if length > last - first {
            continue;
        }
        let times = (0..QUERIES)
            .map(|_| {
                let sensor = &overview.sensors[rng.usize(..overview.sensors.len())];
                let from = first + rng.i64(0..=(last - first - length));
                let step = points.map(|points: i64| (length / points + 1).cast_unsigned());
                let query = SeriesQuery {
                    node: sensor.node.parse().expect("an id"),
                    sensor: sensor.sensor.parse().expect("an id"),
                    range: Range::new(from, from + length, step).expect("a range"),
                };
                let started = Instant::now();
                let series = log.series(&query).expect("the log can be read");
                assert!(!series.partial);
                started.elapsed()
            })
            .collect();
        figure(&format!("chart, {name}"), &quantiles(times));
    }
    let times = (0..QUERIES)
        .map(|_| {
            let started = Instant::now();
            log.overview().expect("the log can be read");
            started.elapsed()
        })
        .collect();
    figure("overview", &quantiles(times));
}

/// First byte, and the largest memory, of writing everything as CSV.
fn export(folder: &Path) {
    let readings =
        Log::open(&folder.join(LOG_FILE)).and_then(|log| log.stats()).expect("stats").readings;
    let started = Instant::now();
    let mut child = humidor()
        .args(["export", "--data"])
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut out = child.stdout.take().expect("its output is piped");
    let mut chunk = vec![0; 1 << 20];
    let (mut lines, mut first, mut most_kib) = (0_i64, None, 0);
    loop {
        let count = out.read(&mut chunk).expect("the output can be read");
        if count == 0 {
            break;
        }
        first.get_or_insert_with(|| started.elapsed());
        let newlines = chunk[..count].split(|byte| *byte == b'\n').count() - 1;
        lines += i64::try_from(newlines).expect("fits");
        most_kib = most_kib.max(resident_kib(child.id()));
    }
    child.wait().expect("it ends");
    figure("export_first_byte_ms", &json!(first.map_or(0, |first| first.as_millis())));
    figure("export_rss_kib", &json!(most_kib));
    figure("export_seconds", &json!(started.elapsed().as_secs()));
    if lines != readings + 1 {
        eprintln!("{lines} lines for {readings} readings");
        std::process::exit(1);
    }
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

/// One reading a commit, as a few boards make them, with and without a step of retention between two
/// commits. An acknowledgement waits for the step before it at most, so the step counts in full.
fn ingest(folder: &Path) {
    let path = folder.join("ingest").join(LOG_FILE);
    let mut store = Store::open(&path).expect("the log opens");
    let id = |text: &str| text.parse::<Id>().expect("an id");
    let start = 20_000 * DAY_MS;
    let mut seq = 0;
    let mut reading = |at: i64| {
        seq += 1;
        Record::Reading {
            node: id("press"),
            sensor: id("hall"),
            telemetry: Telemetry {
                boot: id("b"),
                seq,
                at,
                clock: ClockState::Synced,
                mono: 0,
                temperature: Some(21.5),
                humidity: Some(57.1),
            },
        }
    };
    let old: Vec<Record> = (0..400_000).map(|n| reading(start + n * 1_000)).collect();
    for batch in old.chunks(10_000) {
        store.append(&batch.iter().collect::<Vec<_>>()).expect("appended");
    }
    let now = start + 30 * DAY_MS;
    store.append(&[&reading(now)]).expect("appended");
    while store.maintain(now).expect("maintained") {}
    let mut measure = |store: &mut Store, deleting: bool, n: usize| {
        let at = now + i64::try_from(n).expect("fits") * 1_000;
        let started = Instant::now();
        if deleting {
            store.maintain(now + DAY_MS).expect("maintained");
        }
        store.append(&[&reading(at)]).expect("appended");
        started.elapsed()
    };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let keep = Retention { keep_raw: Some(Duration::from_hours(24)), ..Retention::EVERYTHING };
    store.retain(keep);
    // Turn and turn about, so that both see the same machine.
    for n in 0..COMMITS {
        without.push(measure(&mut store, false, 2 * n));
        with.push(measure(&mut store, true, 2 * n + 1));
    }
    let (without, with) = (quantiles(without), quantiles(with));
    let p99 = |times: &serde_json::Value| times["p99_ms"].as_f64().unwrap_or(0.0);
    figure("commit_without_retention", &without);
    figure("commit_while_retention_deletes", &with);
    figure("commit_p99_ratio", &json!((p99(&with) / p99(&without) * 100.0).round() / 100.0));
    drop(store);
    let left = Log::open(&path).and_then(|log| log.stats()).map_or(0, |stats| stats.readings);
    figure("readings_left_of_400000", &json!(left));
}

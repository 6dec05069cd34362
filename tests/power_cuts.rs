//! Promise 1 where the power goes: what was acknowledged is on the disk, once, whatever the writer was doing.
//!
//! A process writes to a log under a preloaded library that keeps, in a second folder, only what was fsynced
//! (`support/power.c`). It is killed at some moment, and the second folder is what the disk has then. `POWER_CUTS` says
//! how often.

#[path = "support/power.rs"]
mod power;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use humidor::node::{OUTBOX_FILE, Outbox};
use humidor::reading::{ClockState, Id, Measurement, Stamp};
use humidor::store::{LOG_FILE, Log, Record, Retention, Selection, Store};
use humidor::wire::Telemetry;
use power::{Disk, library, order_failures};
use rusqlite::Connection;

const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 489_000 * HOUR_MS;
/// Between two readings of a run, ms: a hundred commits are five days.
const INTERVAL_MS: u64 = 600_000;
const RUNS: u64 = 30;
/// Readings of each run in a commit.
const PER_COMMIT: u64 = 8;
/// Attempts of one write: more than any order fails.
const FAILURES_MAX: u32 = 20;
/// Orders of failures, each of one error, some fsyncs, and the files whose names end so.
const ORDERS: [&str; 5] =
    ["EIO 1 -wal", "EIO 1 .db", "ENOSPC 1 -wal", "EIO 5 -wal", "ENOSPC 3 .db"];
/// Commits that a worker makes when nobody kills it.
const COMMITS: u64 = 200;

fn cuts() -> u64 {
    std::env::var("POWER_CUTS").map_or(12, |text| text.parse().expect("POWER_CUTS is a number"))
}

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn reading(run: u64, seq: u64) -> Record {
    let telemetry = Telemetry {
        boot: id("b"),
        seq,
        at: START_MS + (seq * INTERVAL_MS).cast_signed(),
        // Every third board learns the time late.
        clock: if run.is_multiple_of(3) && seq < 400 {
            ClockState::Unsynced
        } else {
            ClockState::Synced
        },
        mono: seq * INTERVAL_MS,
        temperature: Some(20.0),
        humidity: Some(50.0),
    };
    Record::Reading { node: id(&format!("n{run}")), sensor: id("air"), telemetry }
}

/// The process that is killed: appends, moves, retains, and says how many commits are acknowledged.
#[test]
#[ignore = "a part of the others: they start it"]
fn worker() {
    let folder = PathBuf::from(std::env::var_os("POWER_LIVE").expect("started by another test"));
    let mut store = Store::open(&folder.join(LOG_FILE)).unwrap();
    let keep_raw = Some(Duration::from_hours(24));
    store.retain(Retention { keep_raw, ..Retention::EVERYTHING });
    for commit in 0..COMMITS {
        let first = commit * PER_COMMIT + 1;
        let records: Vec<Record> = (first..first + PER_COMMIT)
            .flat_map(|seq| (0..RUNS).map(move |run| reading(run, seq)))
            .collect();
        order_failure(commit);
        let records: Vec<&Record> = records.iter().collect();
        until_done(|| store.append(&records));
        // Past the harness of the tests, which keeps what a test prints.
        writeln!(std::io::stderr(), "acknowledged {}", commit + 1).unwrap();
        for _ in 0..25 {
            let now_ms = START_MS + ((first + PER_COMMIT) * INTERVAL_MS).cast_signed();
            if commit % 20 == 19 {
                until_done(|| store.maintain(now_ms));
            } else if commit % 5 > 2 {
                until_done(|| store.move_arrived(Duration::ZERO));
            }
        }
    }
}

/// How the process ended.
#[derive(Debug, Clone, Copy)]
enum Side {
    /// The power went.
    Cut,
    /// It was killed, and the machine went on.
    Killed,
}

/// The writer of a node's outbox: takes readings, and says how many are safe. A few are acknowledged by the broker.
#[test]
#[ignore = "a part of the others: they start it"]
fn outbox_worker() {
    let folder = PathBuf::from(std::env::var_os("POWER_LIVE").expect("started by another test"));
    let outbox = Outbox::open(&folder, id("b"), u64::MAX).unwrap();
    let measurement = Measurement { temperature_dc: 200, humidity_dp: 500 };
    for n in 0..COMMITS {
        order_failure(n);
        let stamp = Stamp { at_ms: START_MS, clock: ClockState::Synced, mono_ms: n };
        outbox.push(&id("air"), stamp, measurement);
        if n % 10 == 9 {
            // The reading with this number: ids and numbers begin at 1.
            until_done(|| outbox.remove(&[n.cast_signed()]));
        }
        if outbox.write_error().is_none() {
            writeln!(std::io::stderr(), "acknowledged {}", n + 1).unwrap();
        }
    }
}

/// Orders the failure that the test wants before this commit.
fn order_failure(commit: u64) {
    let wanted = std::env::var("POWER_ORDER").unwrap_or_default();
    if let Some((at, order)) = wanted.split_once(' ')
        && at.parse() == Ok(commit)
    {
        let file = std::env::var_os("POWER_FAILS").expect("started by another test");
        order_failures(Path::new(&file), order);
    }
}

/// Tries again as the broker and the node do.
fn until_done<T>(mut attempt: impl FnMut() -> rusqlite::Result<T>) -> T {
    for _ in 0..FAILURES_MAX {
        if let Ok(done) = attempt() {
            return done;
        }
    }
    panic!("failed {FAILURES_MAX} times")
}

struct Cut {
    disk: Disk,
    acknowledged: u64,
}

impl Cut {
    /// Starts a worker and kills it `delay` after it has acknowledged `commits`. Variables of `environment` tell it more.
    fn make(
        worker: &str,
        library: &Path,
        commits: u64,
        delay: Duration,
        environment: &[(&str, String)],
    ) -> Self {
        let disk = Disk::new();
        let mut command = Command::new(std::env::current_exe().unwrap());
        disk.preload(library, &mut command);
        command
            .args([worker, "--exact", "--ignored", "--nocapture"])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut worker = command.spawn().unwrap();
        let mut lines = BufReader::new(worker.stderr.take().unwrap()).lines();
        let mut acknowledged = 0;
        let mut read = |until: u64| {
            for line in lines.by_ref().map_while(Result::ok) {
                // The last line may have been cut short by the kill.
                let number = line.strip_prefix("acknowledged ").map(str::parse::<u64>);
                acknowledged =
                    number.and_then(Result::ok).map_or(acknowledged, |n| n.max(acknowledged));
                if acknowledged >= until {
                    break;
                }
            }
        };
        read(commits);
        std::thread::sleep(delay);
        worker.kill().unwrap();
        worker.wait().unwrap();
        // What it said before it was killed and nobody had read.
        read(u64::MAX);
        assert!(acknowledged >= commits, "{acknowledged} of {commits} commits");
        Self { disk, acknowledged }
    }

    fn log(&self, side: Side) -> PathBuf {
        let folder = match side {
            Side::Cut => self.disk.after_a_cut(),
            Side::Killed => self.disk.live(),
        };
        folder.join(LOG_FILE)
    }

    /// The numbers in a log, by board, and that each is there once.
    fn numbers(path: &Path) -> BTreeSet<(String, i64)> {
        let log = Log::open(path).unwrap();
        assert_eq!(log.check().unwrap(), Vec::<String>::new(), "the file is sound");
        let mut numbers = BTreeSet::new();
        log.export(&Selection::default(), |row| {
            assert!(numbers.insert((row.node, row.seq)), "twice: {}", row.seq);
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
        let sql = Connection::open(path).unwrap();
        let rows: i64 =
            sql.query_row("SELECT count(*) FROM readings", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, i64::try_from(numbers.len()).unwrap(), "the view says the same");
        // What retention deleted was there.
        let deleted: Vec<(String, i64, i64)> = sql
            .prepare(
                "SELECT node.name, first, last FROM pruned JOIN run ON run.id = pruned.run
                 JOIN node ON node.id = run.node",
            )
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for (node, first, last) in deleted {
            for seq in first..=last {
                assert!(numbers.insert((node.clone(), seq)), "kept and deleted: {seq}");
            }
        }
        numbers
    }

    /// Whether all that was acknowledged is in the log.
    fn is_whole(&self, path: &Path) -> bool {
        let numbers = Self::numbers(path);
        let last = (self.acknowledged * PER_COMMIT).cast_signed();
        (0..RUNS).all(|run| (1..=last).all(|seq| numbers.contains(&(format!("n{run}"), seq))))
    }

    /// The log goes on: a repeat of everything is a repeat, and all of it ends in its place.
    fn goes_on(&self, path: &Path) {
        let mut store = Store::open(path).unwrap();
        let before = Self::numbers(path);
        let last = self.acknowledged * PER_COMMIT;
        let repeats: Vec<Record> =
            (1..=last).flat_map(|seq| (0..RUNS).map(move |run| reading(run, seq))).collect();
        let again = store.append(&repeats.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(again.readings, 0, "a repeat is not stored again");
        while store.move_arrived(Duration::from_millis(1)).unwrap() {}
        assert_eq!(Self::numbers(path), before);
    }
}

/// Cuts at random moments; afterwards all that was acknowledged is on this side, and the log goes on.
fn nothing_is_lost_or_doubled(side: Side, seed: u64) {
    let library = library();
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..cuts() {
        let (commits, delay) = (rng.u64(1..100), Duration::from_micros(rng.u64(0..8_000)));
        let cut = Cut::make("worker", &library, commits, delay, &[]);
        let log = cut.log(side);
        assert!(cut.is_whole(&log), "after {} commits", cut.acknowledged);
        cut.goes_on(&log);
    }
    let _ = std::fs::remove_file(library);
}

#[test]
fn a_power_cut_loses_and_doubles_nothing() {
    nothing_is_lost_or_doubled(Side::Cut, 14);
}

#[test]
fn a_killed_writer_loses_and_doubles_nothing() {
    nothing_is_lost_or_doubled(Side::Killed, 15);
}

/// The order of a failure before commit `at`.
fn order(at: u64, n: usize) -> [(&'static str, String); 1] {
    [("POWER_ORDER", format!("{at} {}", ORDERS[n % ORDERS.len()]))]
}

#[test]
fn a_power_cut_after_a_failed_fsync_loses_and_doubles_nothing() {
    let library = library();
    let mut rng = fastrand::Rng::with_seed(16);
    for n in 0..usize::try_from(cuts()).unwrap() {
        let (at, more) = (rng.u64(0..60), rng.u64(1..40));
        let failure = order(at, n);
        let cut = Cut::make("worker", &library, at + more, Duration::ZERO, &failure);
        let log = cut.log(Side::Cut);
        assert!(cut.is_whole(&log), "after {} commits, {failure:?}", cut.acknowledged);
        cut.goes_on(&log);
    }
    let _ = std::fs::remove_file(library);
}

#[test]
fn a_power_cut_after_a_failed_fsync_loses_nothing_of_an_outbox() {
    let library = library();
    let mut rng = fastrand::Rng::with_seed(17);
    for n in 0..usize::try_from(cuts()).unwrap() {
        let (at, more) = (rng.u64(0..60), rng.u64(1..100));
        let failure = order(at, n);
        let cut = Cut::make("outbox_worker", &library, at + more, Duration::ZERO, &failure);
        let file = Connection::open(cut.disk.after_a_cut().join(OUTBOX_FILE)).unwrap();
        let one = |sql| file.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(one("PRAGMA integrity_check"), "ok");
        drop(file);
        let outbox = Outbox::open(&cut.disk.after_a_cut(), id("c"), u64::MAX).unwrap();
        let kept: BTreeSet<i64> =
            outbox.peek(0, usize::MAX).unwrap().iter().map(|entry| entry.id).collect();
        let removed = |id: &i64| id % 10 == 9;
        let lost: Vec<i64> = (1..=cut.acknowledged.cast_signed())
            .filter(|id| !kept.contains(id) && !removed(id))
            .collect();
        assert_eq!(lost, Vec::<i64>::new(), "of {}, {failure:?}", cut.acknowledged);
    }
    let _ = std::fs::remove_file(library);
}

/// The control: where a sync does nothing, the cut must lose something, or these tests see nothing.
#[test]
fn without_a_sync_a_power_cut_loses_readings() {
    let library = library();
    let ignores = [("POWER_IGNORES_SYNC", "1".to_owned())];
    let cut = Cut::make("worker", &library, 20, Duration::ZERO, &ignores);
    let disk = cut.log(Side::Cut);
    let kept = Log::open(&disk).is_ok_and(|_| cut.is_whole(&disk));
    assert!(!kept, "nothing was lost");
    let _ = std::fs::remove_file(library);
}

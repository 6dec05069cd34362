//! Roll-ups equal a direct aggregation of everything that was accepted, after any sequence of appends,
//! repeats, corrected times, retention and crashes; and what retention deleted is still known.

#[path = "support/killable_log.rs"]
mod killable_log;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use humidor::reading::{ClockState, Id};
use humidor::store::{Band, Log, Point, Range, Record, Retention, Series, SeriesQuery};
use humidor::wire::Telemetry;
use killable_log::KillableLog;
use proptest::prelude::*;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// A whole day.
const BASE_MS: i64 = 20_370 * DAY_MS;
const KEEP: Duration = Duration::from_hours(24);

/// The runs of one node: when they began, what their unset clock said at that time, and the number from
/// which the clock is set.
const RUNS: [(i64, i64, u64); 5] = [
    (BASE_MS, BASE_MS, 1),
    (BASE_MS, 0, 12),
    // Its clock was kept over a power cut, as far as the last shutdown.
    (BASE_MS, BASE_MS - 30 * HOUR_MS, 20),
    // An outbox that was away for longer than rows are kept.
    (BASE_MS - 40 * DAY_MS, BASE_MS - 40 * DAY_MS, 1),
    // Never set.
    (BASE_MS, 0, u64::MAX),
];
/// Between two readings of a run, in ms: several to a quarter, and not in step with anything.
const INTERVAL_MS: i64 = 411_000;

type Key = (usize, u64);

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<Key>),
    Maintain { steps: usize, after_ms: i64 },
    Crash,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = (0..RUNS.len(), 1..40_u64);
    let stretch = (0..RUNS.len(), 1..40_u64, 1..20_u64)
        .prop_map(|(run, first, count)| (first..first + count).map(|seq| (run, seq)).collect());
    let op = prop_oneof![
        3 => proptest::collection::vec(key, 1..6).prop_map(Op::Append),
        4 => stretch.prop_map(Op::Append),
        4 => (0..30_usize, 0..12 * HOUR_MS).prop_map(|(steps, after_ms)| Op::Maintain { steps, after_ms }),
        1 => Just(Op::Crash),
    ];
    proptest::collection::vec(op, 1..30)
}

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

const fn mono((_, seq): Key) -> i64 {
    seq.cast_signed() * INTERVAL_MS
}

fn sensor((_, seq): Key) -> &'static str {
    if seq.is_multiple_of(3) { "oil" } else { "hall" }
}

fn temperature((run, seq): Key) -> f64 {
    f64::from(u32::try_from(seq * 37 % 101).unwrap()) / 10.0
        + f64::from(u32::try_from(run).unwrap())
}

fn humidity(key: Key) -> Option<f64> {
    (!key.1.is_multiple_of(4)).then(|| 40.0 + temperature(key))
}

fn record(key: Key) -> Record {
    let (run, seq) = key;
    let (began, unset, synced_from) = RUNS[run];
    let synced = seq >= synced_from;
    let telemetry = Telemetry {
        boot: id(&format!("b{run}")),
        seq,
        at: mono(key) + if synced { began } else { unset },
        clock: if synced { ClockState::Synced } else { ClockState::Unsynced },
        mono: mono(key).cast_unsigned(),
        temperature: Some(temperature(key)),
        humidity: humidity(key),
    };
    Record::Reading { node: id("press"), sensor: id(sensor(key)), telemetry }
}

/// What must be in the roll-ups.
#[derive(Debug, Default)]
struct Model {
    /// Every reading ever accepted, and the time it counts at.
    at: BTreeMap<Key, i64>,
    /// The least number with a set clock that was seen, by run: what comes first says the offset.
    synced: BTreeMap<usize, u64>,
    /// Readings whose time is final since their rows are given up.
    fixed: BTreeSet<Key>,
    rows_from: Option<i64>,
}

impl Model {
    fn accept(&mut self, keys: &[Key]) -> (u64, u64) {
        let (mut new, mut repeats) = (0, 0);
        for key in keys {
            let (run, seq) = *key;
            let (began, unset, synced_from) = RUNS[run];
            if seq >= synced_from {
                // Only the first one with a set clock counts, and all of them say the same offset.
                let first = *self.synced.entry(run).or_insert(seq);
                for (other, at) in &mut self.at {
                    if other.0 == run && other.1 < first && !self.fixed.contains(other) {
                        *at = began + mono(*other);
                    }
                }
            }
            let corrected = self.synced.get(&run).is_some_and(|first| seq < *first);
            let at = mono(*key) + if seq >= synced_from || corrected { began } else { unset };
            if self.at.contains_key(key) {
                repeats += 1;
            } else {
                new += 1;
                self.at.insert(*key, at);
            }
        }
        (new, repeats)
    }

    /// Rows before `rows_from` are given up, all but the parked ones.
    fn give_up(&mut self, rows_from: i64, parked: &BTreeSet<Key>) {
        for (key, at) in &self.at {
            if *at < rows_from && !parked.contains(key) {
                self.fixed.insert(*key);
            }
        }
        self.rows_from = Some(rows_from);
    }

    fn spans(&self, name: &str, step: i64, parked: &BTreeSet<Key>) -> BTreeMap<i64, Vec<Key>> {
        let mut spans: BTreeMap<i64, Vec<Key>> = BTreeMap::new();
        for (key, at) in &self.at {
            if sensor(*key) == name && !parked.contains(key) {
                spans.entry(at.div_euclid(step) * step).or_default().push(*key);
            }
        }
        spans
    }
}

struct World {
    log: KillableLog,
    now_ms: i64,
    model: Model,
    /// Readings of another node, which goes on while time passes: nothing is too old before something is
    /// newer.
    ticks: u64,
}

impl World {
    fn new() -> Self {
        let log = KillableLog::new(Retention { keep_raw: Some(KEEP), ..Retention::EVERYTHING });
        Self { log, now_ms: BASE_MS + HOUR_MS, model: Model::default(), ticks: 0 }
    }

    fn parked(&self) -> BTreeSet<Key> {
        self.log.sql()
            .prepare(
                "SELECT run.boot, seq FROM reading JOIN run ON run.id = reading.run WHERE clock = 3
                 UNION ALL
                 SELECT run.boot, seq FROM arrived JOIN run ON run.id = arrived.run WHERE clock = 3",
            )
            .unwrap()
            .query_map([], |row| {
                let boot: String = row.get(0)?;
                Ok((boot[1..].parse().unwrap(), row.get::<_, i64>(1)?.cast_unsigned()))
            })
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    /// Returns whether there was more to do.
    fn maintain(&mut self) -> bool {
        let more = self.log.store().maintain(self.now_ms).unwrap();
        let rows_from =
            self.log.sql().query_row("SELECT rows FROM kept", [], |row| row.get(0)).unwrap();
        // What is parked goes too when it has waited for too long.
        let parked = self.parked();
        self.model.give_up(rows_from, &parked);
        more
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.ticks += 1;
        let telemetry = Telemetry {
            boot: id("b"),
            seq: self.ticks,
            at: self.now_ms,
            clock: ClockState::Synced,
            mono: self.ticks,
            temperature: Some(20.0),
            humidity: None,
        };
        let tick = Record::Reading { node: id("tick"), sensor: id("tock"), telemetry };
        self.log.append(&[tick]);
    }

    fn settle(&mut self) {
        // Two rounds: a quarter that was touched while a round passed it waits for the next.
        for _ in 0..2 {
            self.pass(HOUR_MS);
            while self.maintain() {}
        }
    }

    fn append(&mut self, keys: &[Key]) {
        let records: Vec<Record> = keys.iter().copied().map(record).collect();
        let appended = self.log.append(&records);
        // What arrives for a time whose rows are given up is final, unless it is parked.
        let expected = self.model.accept(keys);
        assert_eq!((appended.readings, appended.repeats), expected, "{keys:?}");
        // Corrections come in steps; only a reading that is still waiting may be final before them.
        while self.store_is_correcting() {
            self.log.append(&[]);
        }
        if let Some(rows_from) = self.model.rows_from {
            let parked = self.parked();
            self.model.give_up(rows_from, &parked);
        }
    }

    fn store_is_correcting(&self) -> bool {
        self.log.number("SELECT count(*) FROM run WHERE restamp_from IS NOT NULL") > 0
    }

    fn check(&self, settled: bool) {
        let parked = self.parked();
        let log = self.log.read();
        for name in ["hall", "oil"] {
            for (step, from, to) in [
                (60_000, BASE_MS - DAY_MS / 4, BASE_MS + DAY_MS),
                (120_000, BASE_MS - 40 * DAY_MS, BASE_MS - 38 * DAY_MS),
                (60_000, 0, DAY_MS),
                (900_000, BASE_MS - 10 * DAY_MS, BASE_MS + 10 * DAY_MS),
                (HOUR_MS, BASE_MS - 41 * DAY_MS, BASE_MS + 40 * DAY_MS),
                (4 * HOUR_MS, BASE_MS - 300 * DAY_MS, BASE_MS + 30 * DAY_MS),
            ] {
                let range = Range::new(from, to, Some(step.cast_unsigned())).unwrap();
                let query = SeriesQuery { node: id("press"), sensor: id(name), range };
                let drawn = regroup(&log.series(&query).unwrap(), step, from, to);
                let expected: BTreeMap<i64, _> = self
                    .model
                    .spans(name, step, &parked)
                    .into_iter()
                    .filter(|(at, _)| (from..to).contains(at))
                    .map(|(at, keys)| (at, aggregate(&keys)))
                    .collect();
                assert_eq!(drawn, expected, "{name} by {step} ms from {from}");
            }
            if settled {
                self.check_tables(name, &parked);
            }
        }
        self.check_gaps(&log);
    }

    fn check_tables(&self, name: &str, parked: &BTreeSet<Key>) {
        let sql = self.log.sql();
        for (view, step) in [("1m", 60_000), ("15m", 900_000), ("1h", HOUR_MS)] {
            let found: BTreeMap<i64, _> = sql
                .prepare(&format!("SELECT * FROM readings_{view} WHERE sensor = ?"))
                .unwrap()
                .query_map([name], |row| {
                    let band = |first| {
                        let [min, mean, max]: [Option<f64>; 3] =
                            [row.get(first)?, row.get(first + 1)?, row.get(first + 2)?];
                        Ok::<_, rusqlite::Error>(
                            min.zip(mean).zip(max).map(|((min, mean), max)| band(min, mean, max)),
                        )
                    };
                    Ok((row.get(2)?, (row.get::<_, i64>(3)?, band(4)?, band(7)?)))
                })
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let expected: BTreeMap<i64, _> = self
                .model
                .spans(name, step, parked)
                .into_iter()
                .map(|(at, keys)| (at, aggregate(&keys)))
                .collect();
            assert_eq!(found, expected, "{name} in readings_{view}");
        }
    }

    /// A hole is a number that was never accepted, whether its neighbours are still there or not.
    fn check_gaps(&self, log: &Log) {
        let mut missing = BTreeSet::new();
        for run in 0..RUNS.len() {
            let last = self.model.at.keys().filter(|key| key.0 == run).map(|key| key.1).max();
            missing.extend(
                (1..last.unwrap_or(0))
                    .map(|seq| (run, seq))
                    .filter(|key| !self.model.at.contains_key(key)),
            );
        }
        let mut found = BTreeSet::new();
        for gap in log.gaps().unwrap() {
            let run: usize = gap.boot[1..].parse().unwrap();
            found.extend((gap.from..=gap.to).map(|seq| (run, seq.cast_unsigned())));
        }
        assert_eq!(found, missing);
    }
}

/// Rounded, so that the order of a sum does not matter.
fn band(min: f64, mean: f64, max: f64) -> [String; 3] {
    [format!("{min:.1}"), format!("{mean:.6}"), format!("{max:.1}")]
}

type Aggregate = (i64, Option<[String; 3]>, Option<[String; 3]>);

fn aggregate(keys: &[Key]) -> Aggregate {
    let of = |values: Vec<f64>| {
        let mean = values.iter().sum::<f64>() / f64::from(u32::try_from(values.len()).unwrap());
        let min = values.iter().copied().reduce(f64::min);
        let max = values.iter().copied().reduce(f64::max);
        min.zip(max).map(|(min, max)| band(min, mean, max))
    };
    (
        i64::try_from(keys.len()).unwrap(),
        of(keys.iter().map(|key| temperature(*key)).collect()),
        of(keys.iter().filter_map(|key| humidity(*key)).collect()),
    )
}

/// Few readings come one by one; here they are grouped like many.
fn regroup(series: &Series, step: i64, from: i64, to: i64) -> BTreeMap<i64, Aggregate> {
    assert!(!series.partial);
    let mut groups: BTreeMap<i64, Vec<Point>> = BTreeMap::new();
    for point in &series.points {
        assert!(series.step_ms.is_some() || point.count == 1);
        groups.entry(point.at.div_euclid(step) * step).or_default().push(*point);
    }
    groups.retain(|at, _| (from..to).contains(at));
    let merge = |points: &[Point], value: fn(&Point) -> Option<Band>| {
        let bands: Vec<Band> = points.iter().filter_map(value).collect();
        let min = bands.iter().map(|band| band.min).reduce(f64::min)?;
        let max = bands.iter().map(|band| band.max).reduce(f64::max)?;
        let mean = bands.iter().map(|band| band.mean).sum::<f64>()
            / f64::from(u32::try_from(bands.len()).unwrap());
        Some(band(min, mean, max))
    };
    groups
        .into_iter()
        .map(|(at, points)| {
            // Means are only averaged where each is of one reading.
            assert!(points.len() == 1 || points.iter().all(|point| point.count == 1));
            let count = points.iter().map(|point| point.count).sum();
            (at, (count, merge(&points, |p| p.temperature), merge(&points, |p| p.humidity)))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn roll_ups_equal_a_direct_aggregation(ops in ops()) {
        let mut world = World::new();
        for op in ops {
            match op {
                Op::Append(keys) => world.append(&keys),
                Op::Maintain { steps, after_ms } => {
                    world.pass(after_ms);
                    for _ in 0..steps {
                        world.maintain();
                    }
                }
                Op::Crash => world.log.kill(),
            }
            world.check(false);
        }
        world.settle();
        world.check(true);
    }
}

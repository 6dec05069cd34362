//! Whatever steps the broker's clock makes: no acknowledged sample or reading goes, and none is at a time that it never had.
//!
//! The clock is a fake one, so that hours take seconds. `HUMIDOR_CLOCK_STEPS_CASES` sets how many runs are tried.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use humidor::reading::{ClockState, Id};
use humidor::store::{LOG_FILE, Log, Record, Retention, Selection, Store};
use humidor::timeline::{BrokerClock, Saved};
use humidor::wire::Telemetry;
use proptest::prelude::*;
use tempfile::TempDir;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The true time at the beginning: a day of 2026.
const START_MS: i64 = 20_500 * DAY_MS;
/// Where a kernel without a battery begins, and a clock that is wrong the other way.
const FLOORS_MS: [i64; 3] = [0, 19_500 * DAY_MS, 47_000 * DAY_MS];

#[derive(Debug, Clone)]
enum Op {
    /// Time passes while a sample and a reading come each so many ms.
    Pass { ms: i64, every_ms: i64 },
    /// The clock is stepped.
    Step(i64),
    /// It is put to one of the floors.
    Floor(usize),
    /// It is set, by a time source.
    Set,
    /// The broker is killed and starts again; with `true` the machine too, and its clock is at a floor.
    Restart(Option<usize>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (1..40 * MINUTE_MS, 20_000..8 * MINUTE_MS).prop_map(|(ms, every_ms)| Op::Pass { ms, every_ms }),
        3 => (-DAY_MS..DAY_MS).prop_map(Op::Step),
        1 => (-90_000..90_000_i64).prop_map(Op::Step),
        1 => (0..FLOORS_MS.len()).prop_map(Op::Floor),
        2 => Just(Op::Set),
        1 => Just(Op::Restart(None)),
        1 => (0..FLOORS_MS.len()).prop_map(|floor| Op::Restart(Some(floor))),
    ];
    proptest::collection::vec(op, 1..16)
}

/// A sample or reading that was acknowledged.
#[derive(Debug)]
struct Acknowledged {
    /// Log time of its arrival.
    arrived_ms: i64,
    /// Every time that it had.
    times: BTreeSet<i64>,
    /// The start of the kernel in which it came.
    boot: usize,
    /// Whether its time is final.
    settled: bool,
}

struct World {
    folder: TempDir,
    store: Option<Store>,
    true_ms: i64,
    /// Unix time by the clock minus true time.
    wrong_by_ms: i64,
    is_set: bool,
    boot: usize,
    saved: Saved,
    samples: BTreeMap<u32, Acknowledged>,
    /// Times of the readings by number, by their board's clock, which is right.
    readings: BTreeMap<u64, i64>,
}

impl World {
    fn new(floor: usize) -> Self {
        let saved = Saved {
            boot: String::new(),
            base_ms: 0,
            correction_ms: 0,
            latest_ms: 0,
            is_set: false,
        };
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            store: None,
            true_ms: START_MS,
            wrong_by_ms: FLOORS_MS[floor] - START_MS,
            is_set: false,
            boot: 0,
            saved,
            samples: BTreeMap::new(),
            readings: BTreeMap::new(),
        };
        world.start_kernel();
        world.open();
        world
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(LOG_FILE)
    }

    const fn clock_ms(&self) -> i64 {
        self.true_ms + self.wrong_by_ms
    }

    /// Log time goes on where it was saved last: here it counts as the true time does, from an origin of its own.
    fn start_kernel(&mut self) {
        self.boot += 1;
        let log_ms = self.log_ms().max(self.saved.latest_ms);
        self.saved.boot = format!("kernel-{}", self.boot);
        self.saved.base_ms = log_ms - self.true_ms;
        self.saved.latest_ms = log_ms;
    }

    const fn log_ms(&self) -> i64 {
        self.saved.base_ms + self.true_ms
    }

    fn open(&mut self) {
        self.store = None;
        let mut store = Store::open(&self.path()).unwrap();
        store.retain(Retention {
            keep_raw: Some(Duration::from_hours(90 * 24)),
            ..Retention::EVERYTHING
        });
        self.store = Some(store);
        self.tell();
    }

    /// What the broker does before each commit.
    fn tell(&mut self) {
        self.saved.latest_ms = self.log_ms();
        self.saved.correction_ms = self.clock_ms() - self.log_ms();
        let (correction_ms, is_set, boot) = (self.saved.correction_ms, self.is_set, self.boot);
        for sample in self.samples.values_mut().filter(|sample| !sample.settled) {
            if sample.boot == boot {
                sample.times.insert(sample.arrived_ms + correction_ms);
            }
            sample.settled = sample.boot != boot;
        }
        self.saved.is_set = is_set;
        let clock = BrokerClock { timeline: self.saved.clone() };
        self.store.as_mut().unwrap().tell_time(clock);
    }

    fn maintain(&mut self, steps: usize) -> bool {
        self.tell();
        let now_ms = self.clock_ms();
        let more = (0..steps).all(|_| self.store.as_mut().unwrap().maintain(now_ms).unwrap());
        // All is done: what came before the clock was set has its time now, and no later step changes it.
        if !more && self.is_set {
            self.samples.values_mut().for_each(|sample| sample.settled = true);
        }
        more
    }

    fn come(&mut self) {
        self.tell();
        let n = u32::try_from(self.samples.len()).unwrap();
        let sample = Record::Foreign {
            topic: "plant".to_owned(),
            at_ms: self.log_ms(),
            numbers: vec![(String::new(), f64::from(n))].into(),
        };
        let seq = u64::from(n) + 1;
        let id = |text: &str| text.parse::<Id>().unwrap();
        let telemetry = Telemetry {
            boot: id("b"),
            seq,
            at: self.true_ms,
            clock: ClockState::Synced,
            mono: seq,
            temperature: Some(20.0),
            humidity: None,
        };
        let reading = Record::Reading { node: id("press"), sensor: id("hall"), telemetry };
        let alarm = Record::Alarm {
            name: id("hot"),
            at_ms: self.log_ms(),
            raised: true,
            detail: n.to_string(),
        };
        self.store.as_mut().unwrap().append(&[&sample, &reading, &alarm]).unwrap();
        let times = BTreeSet::from([self.clock_ms()]);
        let (boot, settled) = (self.boot, self.is_set);
        let sample = Acknowledged { arrived_ms: self.log_ms(), times, boot, settled };
        self.samples.insert(n, sample);
        self.readings.insert(seq, self.true_ms);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Pass { ms, every_ms } => {
                let until = self.true_ms + ms;
                while self.true_ms < until {
                    self.come();
                    self.true_ms += every_ms;
                    self.maintain(3);
                }
                while self.maintain(1) {}
            }
            // The kernel says then that nobody disciplines its clock.
            Op::Step(ms) => (self.wrong_by_ms, self.is_set) = (self.wrong_by_ms + ms, false),
            Op::Floor(floor) => {
                (self.wrong_by_ms, self.is_set) = (FLOORS_MS[*floor] - self.true_ms, false);
            }
            Op::Set => (self.wrong_by_ms, self.is_set) = (0, true),
            Op::Restart(None) => self.open(),
            Op::Restart(Some(floor)) => {
                self.true_ms += 3 * HOUR_MS;
                (self.wrong_by_ms, self.is_set) = (FLOORS_MS[*floor] - self.true_ms, false);
                self.start_kernel();
                self.open();
            }
        }
    }

    /// Every sample with its time, and every reading.
    fn found(&self) -> (Vec<(u32, i64)>, BTreeMap<u64, i64>) {
        let log = Log::open(&self.path()).unwrap();
        let (mut samples, mut readings) = (Vec::new(), BTreeMap::new());
        log.export_samples(&Selection::default(), |sample| {
            // A number of this test.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            samples.push((sample.value as u32, sample.at));
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
        log.export(&Selection::default(), |reading| {
            readings.insert(reading.seq.cast_unsigned(), reading.at);
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
        samples.sort_unstable();
        (samples, readings)
    }

    /// The changes of the alarm by number, with their times.
    fn changes(&self) -> Vec<(u32, i64)> {
        let log = Log::open(&self.path()).unwrap();
        let rows = log.alarm_changes(&["hot".to_owned()], usize::MAX).unwrap();
        rows.into_iter().rev().map(|row| (row.detail.parse().unwrap(), row.at)).collect()
    }

    /// Samples that the roll-ups count.
    fn rolled_up(&self) -> usize {
        let log = rusqlite::Connection::open(self.path()).unwrap();
        let sum = "SELECT coalesce(sum(count), 0) FROM sample_1h";
        log.query_row(sum, [], |row| row.get(0)).unwrap()
    }

    fn check(&self) {
        let (samples, readings) = self.found();
        assert_eq!(samples.len(), self.samples.len(), "a sample is gone, or there twice");
        for (n, at) in samples {
            let sample = &self.samples[&n];
            assert!(sample.times.contains(&at), "#{n} is at {at}, of {sample:?}");
        }
        assert_eq!(readings, self.readings);
        let changes = self.changes();
        assert_eq!(changes.len(), self.samples.len(), "a change of the alarm is gone");
        for (n, at) in changes {
            let sample = &self.samples[&n];
            assert!(sample.times.contains(&at), "change {n} is at {at}, of {sample:?}");
        }
    }
}

fn config() -> ProptestConfig {
    let cases = std::env::var("HUMIDOR_CLOCK_STEPS_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(24), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn nothing_goes_and_nothing_is_at_a_time_it_never_had(
        floor in 0..FLOORS_MS.len(), ops in ops()) {
        let mut world = World::new(floor);
        for op in &ops {
            world.apply(op);
            world.check();
        }
        // In the end the clock is set, and what came since the kernel's start is where it belongs.
        world.apply(&Op::Set);
        world.apply(&Op::Pass { ms: 3 * HOUR_MS, every_ms: HOUR_MS });
        world.check();
        let (samples, _) = world.found();
        let last: Vec<(u32, i64)> = samples.into_iter().rev().take(3).collect();
        let expected: Vec<(u32, i64)> =
            world.readings.iter().rev().take(3).map(|(seq, at)| (u32::try_from(seq - 1).unwrap(), *at)).collect();
        let changes: Vec<(u32, i64)> = world.changes().into_iter().rev().take(3).collect();
        prop_assert_eq!((&last, &changes), (&expected, &expected));
        prop_assert!(world.rolled_up() <= world.samples.len(), "counted twice");
    }
}

/// The clock was four hours ahead, and it is four hours later: the present quarter has the roll-up of a sample that is no
/// longer there.
#[test]
fn the_present_quarter_does_not_count_what_a_wrong_clock_put_there() {
    let mut world = World::new(0);
    for op in [
        Op::Pass { ms: 21 * MINUTE_MS, every_ms: 7 * MINUTE_MS },
        Op::Step(START_MS + 4 * HOUR_MS + 5 * MINUTE_MS),
        Op::Pass { ms: 39 * MINUTE_MS, every_ms: 13 * MINUTE_MS },
        Op::Set,
        Op::Pass { ms: 3 * HOUR_MS, every_ms: 3 * HOUR_MS },
    ] {
        world.apply(&op);
        world.check();
    }
    assert_eq!(world.rolled_up(), world.samples.len());
}

/// As it was reported: three samples before the clock is set, in a log that keeps ninety days.
#[test]
fn samples_from_before_the_clock_was_set_are_kept_and_corrected() {
    for (floor, floor_ms) in FLOORS_MS.into_iter().enumerate() {
        let mut world = World::new(floor);
        // The log has rows from before, of the present.
        world.apply(&Op::Set);
        world.come();
        world.true_ms += 100 * DAY_MS;
        world.come();
        while world.maintain(1) {}
        let before = world.found().0.len();
        world.apply(&Op::Restart(Some(floor)));
        let came = world.true_ms;
        for _ in 0..3 {
            world.come();
            world.true_ms += 1_000;
        }
        while world.maintain(1) {}
        world.apply(&Op::Set);
        world.come();
        while world.maintain(1) {}
        let times: Vec<i64> = world.found().0.into_iter().skip(before).map(|(_, at)| at).collect();
        assert_eq!(times, [came, came + 1_000, came + 2_000, came + 3_000], "floor {floor}");
        let changes: Vec<i64> =
            world.changes().into_iter().map(|(_, at)| at).rev().take(4).collect();
        assert_eq!(changes.into_iter().rev().collect::<Vec<_>>(), times, "floor {floor}");
        // Their own stamps are kept, and retention takes them when their time has come.
        let raw = rusqlite::Connection::open(world.path()).unwrap();
        let one = |sql| raw.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let original =
            one("SELECT at - shift FROM early, sample WHERE id BETWEEN first AND last LIMIT 1");
        assert_eq!(original, floor_ms);
        assert_eq!(one("SELECT min(at_original) FROM alarm"), floor_ms);
        world.true_ms += 100 * DAY_MS;
        world.come();
        while world.maintain(1) {}
        assert_eq!((world.found().0.len(), one("SELECT count(*) FROM early")), (1, 0));
    }
}

/// The broker ends right after times were corrected, and its clock is wrong again when it is back: they are right, and stay.
#[test]
fn a_time_that_was_corrected_by_a_set_clock_is_settled_with_it() {
    let mut world = World::new(0);
    let came = world.true_ms;
    world.come();
    while world.maintain(1) {}
    world.apply(&Op::Set);
    while world.found().0 != [(0, came)] || world.changes() != [(0, came)] {
        assert!(world.maintain(1), "corrected in the end");
    }
    world.apply(&Op::Floor(0));
    world.apply(&Op::Restart(None));
    while world.maintain(1) {}
    assert_eq!((world.found().0, world.changes()), (vec![(0, came)], vec![(0, came)]));
}

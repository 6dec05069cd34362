//! A log whose readings are only partly moved from the table of arrivals to their place says the same as one whose
//! readings all are: rows, charts, latest, counts and gaps, through corrected times, repeats, retention and restarts.

#[path = "support/killable_log.rs"]
mod killable_log;

use std::collections::BTreeSet;
use std::time::Duration;

use humidor::reading::{ClockState, Id};
use humidor::store::{
    Gap, Range, Reading, Record, Retention, Selection, Series, SeriesQuery, Store,
};
use humidor::wire::Telemetry;
use killable_log::KillableLog;
use proptest::prelude::*;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const BASE_MS: i64 = 20_370 * DAY_MS;
const KEEP: Duration = Duration::from_hours(24);
/// Between two readings of a run, ms.
const INTERVAL_MS: i64 = 411_000;
/// The runs of two nodes: what their clock was ahead of the time since their start while it was not set, and the number
/// from which it was. One began long ago.
const RUNS: [(&str, i64, i64, u64); 4] = [
    ("press", BASE_MS, BASE_MS, 1),
    ("press", BASE_MS, 0, 15),
    ("roof", BASE_MS - 40 * DAY_MS, BASE_MS - 40 * DAY_MS, 1),
    ("roof", BASE_MS, BASE_MS - 30 * HOUR_MS, 20),
];

type Key = (usize, u64);

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<Key>),
    /// Moves some of what arrived in the one log, and all of it in the other.
    Move(usize),
    /// Everything that is due, in both.
    Maintain(i64),
    /// The power goes: what the disk has is what is there.
    Cut,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = (0..RUNS.len(), 1..40_u64);
    let stretch = (0..RUNS.len(), 1..40_u64, 1..30_u64)
        .prop_map(|(run, first, count)| (first..first + count).map(|seq| (run, seq)).collect());
    let op = prop_oneof![
        3 => proptest::collection::vec(key, 1..8).prop_map(Op::Append),
        4 => stretch.prop_map(Op::Append),
        4 => (1..6_usize).prop_map(Op::Move),
        2 => (0..30 * HOUR_MS).prop_map(Op::Maintain),
        1 => Just(Op::Cut),
    ];
    proptest::collection::vec(op, 1..25)
}

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn record((run, seq): Key) -> Record {
    let (node, began, unset, synced_from) = RUNS[run];
    let (mono, synced) = (seq.cast_signed() * INTERVAL_MS, seq >= synced_from);
    let telemetry = Telemetry {
        boot: id(&format!("b{run}")),
        seq,
        at: mono + if synced { began } else { unset },
        clock: if synced { ClockState::Synced } else { ClockState::Unsynced },
        mono: mono.cast_unsigned(),
        temperature: Some(f64::from(u32::try_from(seq * 37 % 101).unwrap()) / 8.0),
        humidity: (seq % 4 != 0).then_some(50.0),
    };
    let sensor = id(if seq % 3 == 0 { "oil" } else { "hall" });
    Record::Reading { node: id(node), sensor, telemetry }
}

fn tick(number: u64, at: i64) -> Record {
    let telemetry = Telemetry {
        boot: id("b"),
        seq: number,
        at,
        clock: ClockState::Synced,
        mono: number,
        temperature: Some(1.0),
        humidity: None,
    };
    Record::Reading { node: id("tick"), sensor: id("tock"), telemetry }
}

/// A log, and what the outside sees of it.
struct Subject(KillableLog);

#[derive(Debug)]
struct Seen {
    rows: Vec<Reading>,
    view: BTreeSet<String>,
    latest: Vec<Option<Reading>>,
    intervals: Vec<((String, String), i64)>,
    series: Vec<Series>,
    counts: (i64, Option<i64>, Option<i64>, i64),
    gaps: Vec<Gap>,
}

impl Subject {
    fn new() -> Self {
        Self(KillableLog::new(Retention { keep_raw: Some(KEEP), ..Retention::EVERYTHING }))
    }

    fn store(&mut self) -> &mut Store {
        self.0.store()
    }

    fn move_all(&mut self) {
        while self.store().move_arrived(Duration::ZERO).unwrap() {}
    }

    /// What waits for its corrected time in table `reading` gets it in steps, which one log may be ahead with.
    fn correct(&mut self) {
        let waiting = "SELECT count(*) FROM run WHERE restamp_from IS NOT NULL";
        while self.0.number(waiting) > 0 {
            self.store().append(&[]).unwrap();
        }
    }

    /// Rows that are still to be moved.
    fn unmoved(&self) -> i64 {
        self.0.number("SELECT count(*) FROM arrived")
    }

    fn seen(&self) -> Seen {
        let log = self.0.read();
        let mut rows = Vec::new();
        log.export(&Selection::default(), |row| {
            rows.push(row);
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
        let sql = self.0.sql();
        let mut view = sql.prepare("SELECT * FROM readings").unwrap();
        let view = view
            .query_map([], |row| {
                let column = |n: usize| row.get::<_, rusqlite::types::Value>(n).unwrap();
                Ok(format!("{:?}", (0..8).map(column).collect::<Vec<_>>()))
            })
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let mut series = Vec::new();
        for (node, sensor) in [("press", "hall"), ("press", "oil"), ("roof", "hall")] {
            for (from, to, step) in [
                (BASE_MS - HOUR_MS, BASE_MS + 6 * HOUR_MS, 60_000),
                (BASE_MS + HOUR_MS, BASE_MS + 2 * HOUR_MS, 5_000),
                (BASE_MS - 41 * DAY_MS, BASE_MS + 10 * DAY_MS, HOUR_MS),
                (BASE_MS - 40 * DAY_MS, BASE_MS - 39 * DAY_MS, 900_000),
                (0, DAY_MS, 900_000),
                (BASE_MS, BASE_MS + HOUR_MS, 30 * DAY_MS),
            ] {
                let range = Range::new(from, to, Some(step.cast_unsigned())).unwrap();
                let query = SeriesQuery { node: id(node), sensor: id(sensor), range };
                series.push(log.series(&query).unwrap());
            }
        }
        let stats = log.stats().unwrap();
        let mut intervals: Vec<_> = log.reporting_intervals_ms().unwrap().into_iter().collect();
        intervals.sort();
        Seen {
            rows,
            view,
            latest: log.overview().unwrap().sensors.into_iter().map(|found| found.latest).collect(),
            intervals,
            series,
            counts: (stats.readings, stats.first_ms, stats.last_ms, stats.rows_last_day),
            gaps: log.gaps().unwrap(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_log_half_moved_says_what_one_wholly_moved_says(ops in ops()) {
        let (mut half, mut whole) = (Subject::new(), Subject::new());
        let (mut now_ms, mut ticks) = (BASE_MS + HOUR_MS, 0);
        for op in ops {
            match op {
                Op::Append(keys) => {
                    let records: Vec<Record> = keys.into_iter().map(record).collect();
                    prop_assert_eq!(half.0.append(&records), whole.0.append(&records));
                }
                Op::Move(steps) => {
                    for _ in 0..steps {
                        half.store().move_arrived(Duration::ZERO).unwrap();
                    }
                    whole.move_all();
                    prop_assert_eq!(whole.unmoved(), 0);
                }
                Op::Maintain(after_ms) => {
                    (now_ms, ticks) = (now_ms + after_ms, ticks + 1);
                    for subject in [&mut half, &mut whole] {
                        subject.store().append(&[&tick(ticks, now_ms)]).unwrap();
                        // Rows that awaited their clock are deleted one round after the others.
                        for round in 0..2 {
                            while subject.store().maintain(now_ms + round * HOUR_MS).unwrap() {}
                        }
                    }
                    now_ms += HOUR_MS;
                }
                Op::Cut => half.0.kill(),
            }
            whole.move_all();
            half.correct();
            whole.correct();
            let (half, whole) = (half.seen(), whole.seen());
            prop_assert_eq!(half.rows, whole.rows);
            prop_assert_eq!(half.view, whole.view);
            prop_assert_eq!(half.latest, whole.latest);
            prop_assert_eq!(half.intervals, whole.intervals);
            prop_assert_eq!(half.series, whole.series);
            prop_assert_eq!(half.counts, whole.counts);
            prop_assert_eq!(half.gaps, whole.gaps);
        }
    }
}

//! Whatever boards flood a small log with, in whichever order, with which clocks, across moves, restarts and cuts: each
//! reading counts once in the roll-ups of its time, none is stored twice, and a quiet board keeps all of its rows.

#[path = "support/killable_log.rs"]
mod killable_log;

use std::collections::BTreeMap;

use humidor::reading::{ClockState, Id};
use humidor::store::{Record, Retention};
use humidor::wire::Telemetry;
use killable_log::KillableLog;
use proptest::prelude::*;

const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 489_000 * HOUR_MS;
const MAX_BYTES: u64 = 1024 * 1024;
/// Two boards with a set clock and one without.
const BOARDS: [&str; 3] = ["press", "roof", "oven"];
const WITHOUT_CLOCK: usize = 2;

#[derive(Debug, Clone)]
enum Op {
    /// Readings of a board: how many, so many ms apart, and the first one so many ms before now.
    Flood(usize, i64, i64, i64),
    /// One reading of the quiet board.
    Quiet,
    /// The clock of the board without one is set.
    Set,
    Time(i64),
    Move(usize),
    Maintain(usize),
    Settle,
    Restart,
    Cut,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let flood = (0..BOARDS.len(), 200..3_000_i64, 1..2_000_i64, 0..8 * HOUR_MS)
        .prop_map(|(board, rows, every, ago)| Op::Flood(board, rows, every, ago));
    let latest =
        (0..BOARDS.len(), 500..3_000_i64).prop_map(|(board, rows)| Op::Flood(board, rows, 1, rows));
    let op = prop_oneof![
        4 => flood,
        4 => latest,
        3 => Just(Op::Quiet),
        1 => Just(Op::Set),
        3 => (0..40 * 60_000_i64).prop_map(Op::Time),
        2 => (1..200_usize).prop_map(Op::Move),
        4 => (1..400_usize).prop_map(Op::Maintain),
        4 => Just(Op::Settle),
        1 => Just(Op::Restart),
        2 => Just(Op::Cut),
    ];
    proptest::collection::vec(op, 4..24)
}

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

/// A log, and what was acknowledged of it.
struct Subject {
    log: KillableLog,
    now_ms: i64,
    /// Last number of each board, and of the quiet one.
    seqs: [i64; 4],
    /// Readings of boards with a set clock by board and hour.
    hours: BTreeMap<(String, i64), i64>,
    clock_set: bool,
}

impl Subject {
    fn new() -> Self {
        let log = KillableLog::new(Retention { keep_raw: None, max_bytes: MAX_BYTES });
        let now_ms = START_MS + 100 * HOUR_MS;
        let (seqs, hours) = ([0; 4], BTreeMap::new());
        Self { log, now_ms, seqs, hours, clock_set: false }
    }

    fn reading(&mut self, board: usize, at: i64) -> Record {
        self.seqs[board] += 1;
        let name = BOARDS.get(board).copied().unwrap_or("quiet");
        let without = board == WITHOUT_CLOCK && !self.clock_set;
        if board != WITHOUT_CLOCK {
            *self.hours.entry((name.to_owned(), at - at.rem_euclid(HOUR_MS))).or_default() += 1;
        }
        let mono = (at - START_MS).max(0);
        let telemetry = Telemetry {
            boot: id("b"),
            seq: self.seqs[board].cast_unsigned(),
            at: if without { mono } else { at },
            clock: if without { ClockState::Unsynced } else { ClockState::Synced },
            mono: mono.cast_unsigned(),
            temperature: Some(20.1),
            humidity: Some(50.1),
        };
        Record::Reading { node: id(name), sensor: id("air"), telemetry }
    }

    fn append(&mut self, records: &[Record]) {
        let appended = self.log.append(records);
        assert_eq!(appended.readings, u64::try_from(records.len()).unwrap());
    }

    fn apply(&mut self, op: &Op) {
        let now_ms = self.now_ms;
        match *op {
            Op::Flood(board, rows, every, ago) => {
                let from = now_ms - ago.max(rows * every);
                let records: Vec<_> =
                    (0..rows).map(|n| self.reading(board, from + n * every)).collect();
                self.append(&records);
            }
            Op::Quiet => {
                let record = self.reading(3, now_ms);
                self.append(&[record]);
            }
            Op::Set => self.clock_set = true,
            Op::Time(ms) => self.now_ms += ms,
            Op::Move(steps) => {
                for _ in 0..steps {
                    self.log.store().move_arrived(std::time::Duration::ZERO).unwrap();
                }
            }
            Op::Maintain(steps) => {
                for _ in 0..steps {
                    self.log.store().maintain(now_ms).unwrap();
                }
            }
            Op::Settle => while self.log.store().maintain(now_ms).unwrap() {},
            Op::Restart => self.log.reopen(),
            Op::Cut => self.log.kill(),
        }
        self.check_rows();
    }

    /// At any moment: a reading is there once, or was deleted.
    fn check_rows(&self) {
        let rows = self.log.number("SELECT count(*) FROM readings");
        let deleted = self.log.number("SELECT coalesce(sum(last - first + 1), 0) FROM pruned");
        // One that arrived before its horizon is only counted in the roll-ups, and still to be moved.
        let folded = self.log.number("SELECT count(*) FROM arrived WHERE NOT is_kept");
        assert_eq!(rows + deleted + folded, self.seqs.iter().sum::<i64>());
        let quiet = self.log.number("SELECT count(*) FROM readings WHERE node = 'quiet'");
        assert_eq!(quiet, self.seqs[3], "the quiet board");
    }

    fn check_end(&mut self) {
        // Until every quarter is rolled up.
        for _ in 0..2 {
            self.now_ms += 2 * HOUR_MS;
            let record = self.reading(3, self.now_ms);
            self.append(&[record]);
            let now_ms = self.now_ms + HOUR_MS;
            while self.log.store().maintain(now_ms).unwrap() {}
            self.log.store().append(&[]).unwrap();
        }
        self.check_rows();
        assert_eq!(self.log.number("SELECT count(*) FROM dirty"), 0);
        let connection = self.log.sql();
        let mut statement = connection
            .prepare("SELECT node, at, count FROM readings_1h WHERE node <> 'oven'")
            .unwrap();
        let found: BTreeMap<(String, i64), i64> = statement
            .query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        // Of a board that has nothing else to give, the oldest hours go.
        let kept_from = |node: &str| {
            let sql = format!(
                "SELECT max((SELECT hours FROM kept), coalesce((
                    SELECT hours FROM kept_of JOIN sensor ON sensor.id = series JOIN node ON node.id = node
                    WHERE family = 0 AND node.name = '{node}'), (SELECT hours FROM kept)))"
            );
            self.log.number(&sql)
        };
        let mut expected = self.hours.clone();
        expected.retain(|(node, at), _| *at >= kept_from(node));
        assert_eq!(found, expected);
        // Those that wait for their clock are in no roll-up.
        if kept_from("oven") == i64::MIN {
            let awaiting = self.log.number("SELECT count(*) FROM reading WHERE clock = 3");
            let oven = "SELECT coalesce(sum(count), 0) FROM readings_1h WHERE node = 'oven'";
            assert_eq!(self.log.number(oven) + awaiting, self.seqs[WITHOUT_CLOCK]);
        }
        // No minute has more rows than its roll-up counts.
        let lacking = "SELECT count(*) FROM (
                SELECT sensor AS series, at / 60000 * 60000 AS minute, count(*) AS rows
                FROM reading WHERE clock <> 3 GROUP BY 1, 2)
            JOIN reading_1m AS span ON span.sensor = series AND span.at = minute
            WHERE rows > span.count";
        assert_eq!(self.log.number(lacking), 0);
        let log = self.log.read();
        assert_eq!(log.gaps().unwrap(), []);
        assert_eq!(log.check().unwrap(), Vec::<String>::new());
    }
}

fn cases() -> u32 {
    std::env::var("HUMIDOR_FAIR_SHARE_CASES").map_or(12, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn each_reading_counts_once_and_the_quiet_board_keeps_its_rows(ops in ops()) {
        let mut subject = Subject::new();
        for op in &ops {
            subject.apply(op);
        }
        subject.check_end();
    }
}

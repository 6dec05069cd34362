//! Promise 2 against a model: the log is a set of (node, boot, seq), whatever is sent how often, in which batches, with
//! clocks set or not, across moves, corrections, retention, restarts and cuts.

#[path = "support/killable_log.rs"]
mod killable_log;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use humidor::reading::{ClockState, Id};
use humidor::store::{Appended, Gap, LOG_FILE, Log, Record, Retention, Selection, Store, Tail};
use humidor::wire::Telemetry;
use killable_log::KillableLog;
use proptest::prelude::*;

type Key = (u8, u8, u64);

const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 489_000 * HOUR_MS;
/// The clock of the second run of each node is set from this number on.
const SYNCED_FROM: u64 = 7;

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<Key>),
    /// So many pieces of a move.
    Move(usize),
    /// All maintenance that is due so many hours later: with four hours of rows kept, some go.
    Maintain(i64),
    Restart,
    /// The files as a killed process leaves them.
    Cut,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = (0..3_u8, 0..2_u8, 1..12_u64);
    let op = prop_oneof![
        8 => proptest::collection::vec(key, 0..6).prop_map(Op::Append),
        4 => (1..5_usize).prop_map(Op::Move),
        2 => (0..9_i64).prop_map(Op::Maintain),
        1 => Just(Op::Restart),
        1 => Just(Op::Cut),
    ];
    proptest::collection::vec(op, 0..40)
}

fn record((node, boot, seq): Key) -> Record {
    let id = |text: String| text.parse::<Id>().unwrap();
    let mono = seq.cast_signed() * HOUR_MS;
    let synced = boot == 0 || seq >= SYNCED_FROM;
    let telemetry = Telemetry {
        boot: id(format!("b{boot}")),
        seq,
        at: mono + if synced { START_MS } else { 0 },
        clock: if synced { ClockState::Synced } else { ClockState::Unsynced },
        mono: mono.cast_unsigned(),
        temperature: Some(20.0),
        humidity: None,
    };
    Record::Reading { node: id(format!("n{node}")), sensor: id(format!("s{}", seq % 2)), telemetry }
}

/// The obvious way to find holes: count up.
fn gaps(model: &BTreeSet<Key>) -> Vec<Gap> {
    let mut runs: BTreeMap<(u8, u8), BTreeSet<u64>> = BTreeMap::new();
    for (node, boot, seq) in model {
        runs.entry((*node, *boot)).or_default().insert(*seq);
    }
    let mut gaps: Vec<Gap> = Vec::new();
    for ((node, boot), seqs) in runs {
        for missing in (1..*seqs.last().unwrap()).filter(|seq| !seqs.contains(seq)) {
            let missing = i64::try_from(missing).unwrap();
            let (node, boot) = (format!("n{node}"), format!("b{boot}"));
            match gaps.last_mut() {
                Some(gap) if gap.node == node && gap.boot == boot && gap.to + 1 == missing => {
                    gap.to = missing;
                }
                _ => gaps.push(Gap { node, boot, from: missing, to: missing }),
            }
        }
    }
    gaps
}

/// The keys of the rows, each of which must be there once.
fn rows(log: &Log) -> BTreeSet<(String, String, u64)> {
    let mut found = BTreeSet::new();
    log.export(&Selection::default(), |row| {
        let key = (row.node, row.boot, row.seq.cast_unsigned());
        assert!(found.insert(key.clone()), "twice: {key:?}");
        Ok::<_, rusqlite::Error>(())
    })
    .unwrap();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_set(ops in ops()) {
        let keep_raw = Some(Duration::from_hours(4));
        let mut log = KillableLog::new(Retention { keep_raw, ..Retention::EVERYTHING });
        let (mut model, mut now_ms, mut retained) = (BTreeSet::new(), START_MS, false);
        for op in ops {
            match op {
                Op::Restart => log.reopen(),
                Op::Cut => log.kill(),
                Op::Move(pieces) => {
                    for _ in 0..pieces {
                        log.store().move_arrived(Duration::ZERO).unwrap();
                    }
                }
                Op::Maintain(hours) => {
                    now_ms += hours * HOUR_MS;
                    retained = true;
                    while log.store().maintain(now_ms).unwrap() {}
                }
                Op::Append(keys) => {
                    let records: Vec<Record> = keys.iter().copied().map(record).collect();
                    let appended = log.append(&records);
                    let new = keys.iter().filter(|key| model.insert(**key)).count() as u64;
                    let repeats = keys.len() as u64 - new;
                    prop_assert_eq!(appended, Appended { readings: new, repeats, ..Appended::default() });
                }
            }
            let seen = log.read();
            let found = rows(&seen);
            let accepted: BTreeSet<_> =
                model.iter().map(|(n, b, seq)| (format!("n{n}"), format!("b{b}"), *seq)).collect();
            prop_assert!(found.is_subset(&accepted));
            if !retained {
                prop_assert_eq!(&found, &accepted);
            }
            let count = i64::try_from(found.len()).unwrap();
            prop_assert_eq!(seen.stats().unwrap().readings, count);
            prop_assert_eq!(log.number("SELECT count(*) FROM readings"), count);
            // What retention deleted is no hole.
            let mut holes = seen.gaps().unwrap();
            holes.sort_by(|a, b| (&a.node, &a.boot, a.from).cmp(&(&b.node, &b.boot, b.from)));
            prop_assert_eq!(holes, gaps(&model));
        }
        prop_assert_eq!(log.read().check().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_tail_shows_every_reading_once_and_in_each_nodes_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOG_FILE);
    let mut store = Store::open(&path).unwrap();
    store.append(&[&record((0, 0, 1)), &record((0, 0, 2))]).unwrap();
    let (latest, mut tail) = Tail::start(Log::open(&path).unwrap(), 1).unwrap();
    assert_eq!(latest.iter().map(|row| row.seq).collect::<Vec<_>>(), [2]);
    assert!(tail.read_new().unwrap().is_empty());
    store.append(&[&record((1, 0, 1)), &record((0, 0, 3))]).unwrap();
    store.append(&[&record((0, 0, 3)), &record((0, 1, 1))]).unwrap();
    let mut new: Vec<_> =
        tail.read_new().unwrap().into_iter().map(|row| (row.node, row.boot, row.seq)).collect();
    new.sort();
    let of = |node: &str, boot: &str, seq| (node.to_owned(), boot.to_owned(), seq);
    assert_eq!(new, [of("n0", "b0", 3), of("n0", "b1", 1), of("n1", "b0", 1)]);
    assert!(tail.read_new().unwrap().is_empty());
}

#[test]
fn a_tail_shows_what_is_moved_between_two_looks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOG_FILE);
    let mut store = Store::open(&path).unwrap();
    let (_, mut tail) = Tail::start(Log::open(&path).unwrap(), 0).unwrap();
    let mut shown = Vec::new();
    for seq in 1..=40 {
        store.append(&[&record((0, 0, seq))]).unwrap();
        match seq % 4 {
            // Moved before it is looked for, after it was shown, and both.
            0 => while store.move_arrived(Duration::ZERO).unwrap() {},
            1 => {}
            2 => shown.extend(tail.read_new().unwrap()),
            _ => {
                store.move_arrived(Duration::ZERO).unwrap();
                shown.extend(tail.read_new().unwrap());
            }
        }
    }
    shown.extend(tail.read_new().unwrap());
    assert_eq!(shown.iter().map(|row| row.seq).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
}

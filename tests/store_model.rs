//! Promise 2 against a model: the log is a set of (node, boot, seq), whatever is sent how often, in
//! which batches, across restarts.

use std::collections::{BTreeMap, BTreeSet};

use humidor::reading::{ClockState, Id};
use humidor::store::{Appended, Gap, LOG_FILE, Log, Record, Selection, Store, Tail};
use humidor::wire::Telemetry;
use proptest::prelude::*;

type Key = (u8, u8, u64);

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<Key>),
    Restart,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = (0..3_u8, 0..2_u8, 1..12_u64);
    let op = prop_oneof![
        8 => proptest::collection::vec(key, 0..6).prop_map(Op::Append),
        1 => Just(Op::Restart),
    ];
    proptest::collection::vec(op, 0..25)
}

fn record((node, boot, seq): Key) -> Record {
    let id = |text: String| text.parse::<Id>().unwrap();
    let telemetry = Telemetry {
        boot: id(format!("b{boot}")),
        seq,
        at: i64::try_from(seq).unwrap() * 1000,
        clock: ClockState::Synced,
        mono: seq,
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_set(ops in ops()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let mut store = Store::open(&path).unwrap();
        let (_, mut tail) = Tail::start(Log::open(&path).unwrap(), 0).unwrap();
        let mut model = BTreeSet::new();
        for op in ops {
            match op {
                Op::Restart => {
                    drop(store);
                    store = Store::open(&path).unwrap();
                }
                Op::Append(keys) => {
                    let records: Vec<Record> = keys.iter().copied().map(record).collect();
                    let appended = store.append(&records.iter().collect::<Vec<_>>()).unwrap();
                    let new = keys.iter().filter(|key| model.insert(**key)).count() as u64;
                    let repeats = keys.len() as u64 - new;
                    prop_assert_eq!(appended, Appended { readings: new, repeats, ..Appended::default() });
                }
            }
        }
        let log = Log::open(&path).unwrap();
        let mut found = BTreeSet::new();
        log.export(&Selection::default(), |row| {
            found.insert((row.node, row.boot, u64::try_from(row.seq).unwrap()));
            Ok::<_, rusqlite::Error>(())
        }).unwrap();
        let expected: BTreeSet<_> = model.iter().map(|(n, b, seq)| (format!("n{n}"), format!("b{b}"), *seq)).collect();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(log.stats().unwrap().readings, i64::try_from(model.len()).unwrap());
        let mut holes = log.gaps().unwrap();
        holes.sort_by(|a, b| (&a.node, &a.boot, a.from).cmp(&(&b.node, &b.boot, b.from)));
        prop_assert_eq!(holes, gaps(&model));
        let _ = tail.read_new().unwrap();
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

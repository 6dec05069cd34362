//! The queue together with the writer that fills it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::reading::ClockState;
use crate::store::{
    ForwardReader, Operation, Record, Retention, Store, StoredPlace, forward_again,
};
use crate::wire::Telemetry;

const HOUR_MS: i64 = 3_600_000;
const NOW_MS: i64 = 489_000 * HOUR_MS;
const BACKLOG: u64 = 1 << 20;

struct Rig {
    _folder: tempfile::TempDir,
    path: PathBuf,
    store: Store,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("humidor.db");
        let store = Store::open(&path).unwrap();
        Self { _folder: folder, path, store }
    }

    fn reopen(&mut self) {
        let path = self.path.with_file_name("other.db");
        // The lock is the store's: it goes before the log is opened again.
        self.store = Store::open(&path).unwrap();
        self.store = Store::open(&self.path).unwrap();
    }

    fn append(&mut self, readings: impl IntoIterator<Item = Record>) -> u64 {
        let readings: Vec<Record> = readings.into_iter().collect();
        self.store.append(&readings.iter().collect::<Vec<_>>()).unwrap().readings
    }

    fn reader(&self) -> ForwardReader {
        ForwardReader::open(&self.path).unwrap()
    }

    fn queued(&self, after: i64) -> Vec<Operation> {
        let page = self.reader().page(after, 1_000_000).unwrap();
        page.map_or_else(Vec::new, |page| page.operations.into_iter().map(|(_, op)| op).collect())
    }

    /// Numbers of the readings that are sent from the rows, and how many operations those were.
    fn stored(&self, from_ms: i64) -> (BTreeSet<i64>, usize) {
        let reader = self.reader();
        let (mut place, mut found, mut count) = (Some(StoredPlace::START), BTreeSet::new(), 0);
        while let Some(at) = place {
            let page = reader.stored(at, from_ms, 7).unwrap();
            place = page.next;
            for operation in page.operations {
                if let Operation::Reading(reading) = operation {
                    assert_eq!(reading.at, NOW_MS - HOUR_MS + reading.seq, "as it was stamped");
                    found.insert(reading.seq);
                    count += 1;
                }
            }
        }
        (found, count)
    }
}

fn reading_at(seq: u64, at: i64, clock: ClockState) -> Record {
    let boot = "b".parse().unwrap();
    let telemetry =
        Telemetry { boot, seq, at, clock, mono: seq, temperature: Some(20.5), humidity: None };
    Record::Reading { node: "press".parse().unwrap(), sensor: "hall".parse().unwrap(), telemetry }
}

fn reading(seq: u64) -> Record {
    reading_at(seq, NOW_MS - HOUR_MS + seq.cast_signed(), ClockState::Synced)
}

fn seqs(operations: &[Operation]) -> Vec<i64> {
    let seq = |operation: &Operation| match operation {
        Operation::Reading(reading) => Some(reading.seq),
        _ => None,
    };
    operations.iter().filter_map(seq).collect()
}

#[test]
fn each_new_reading_is_queued_once_and_a_repeat_is_not() {
    let mut rig = Rig::new();
    let progress = rig.store.forward(BACKLOG).unwrap();
    assert_eq!(rig.append([1, 2, 3, 2].map(reading)), 3);
    assert_eq!(rig.append([3, 4].map(reading)), 1);
    assert_eq!(seqs(&rig.queued(0)), [1, 2, 3, 4]);
    assert_eq!(progress.queued(), 4);
    // A row is a commit, and a page ends with one.
    let page = rig.reader().page(0, 2).unwrap().unwrap();
    assert_eq!((page.position, page.operations.len()), (3, 3));
    assert_eq!(rig.reader().mark(3).unwrap(), Some(page.mark));
    assert_eq!(rig.reader().mark(2).unwrap(), None);
    assert_eq!(seqs(&rig.queued(3)), [4]);
}

/// As it is sent, a page is in memory several times.
#[test]
fn a_page_of_long_topics_is_small_however_many_operations_it_may_have() {
    let mut rig = Rig::new();
    rig.store.forward(64 << 20).unwrap();
    let topic = |n: u64| format!("{n}/{}", "x".repeat(60_000));
    let samples = (0..100).map(|n| Record::Foreign {
        topic: topic(n),
        at_ms: NOW_MS,
        numbers: vec![(String::new(), 1.0)].into(),
    });
    rig.append(samples);
    let (mut after, mut pages) = (0, Vec::new());
    while let Some(page) = rig.reader().page(after, 1_000).unwrap() {
        assert_eq!(page.after, after);
        after = page.position;
        pages.push(page.operations.len());
    }
    assert_eq!(pages.iter().sum::<usize>(), 100);
    assert!(pages.iter().all(|operations| operations * 60_000 <= 3 << 20), "{pages:?}");
}

#[test]
fn a_reading_that_leaves_no_row_is_queued_all_the_same() {
    let mut rig = Rig::new();
    rig.store.retain(Retention { keep_raw: Some(Duration::from_hours(24)), max_bytes: u64::MAX });
    rig.append([reading(1)]);
    while rig.store.maintain(NOW_MS).unwrap() {}
    rig.store.forward(BACKLOG).unwrap();
    rig.append([reading_at(2, NOW_MS - 90 * 24 * HOUR_MS, ClockState::Synced)]);
    while rig.store.maintain(NOW_MS + HOUR_MS).unwrap() {}
    let rows: i64 = rig
        .store
        .connection
        .query_row("SELECT count(*) FROM readings WHERE seq = 2", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0);
    assert_eq!(seqs(&rig.queued(0)), [2]);
}

#[test]
fn the_clock_of_a_run_is_queued_before_the_reading_that_tells_it() {
    let mut rig = Rig::new();
    rig.store.forward(BACKLOG).unwrap();
    rig.append([reading_at(7, 5_000, ClockState::Unsynced)]);
    rig.append([reading_at(8, NOW_MS, ClockState::Synced), reading(9)]);
    let queued = rig.queued(0);
    assert_eq!(seqs(&queued), [7, 8, 9]);
    let Operation::Run(run) = &queued[1] else { panic!("{:?}", queued[1]) };
    assert_eq!((run.offset_ms, run.synced_seq), (NOW_MS - 8, 8));
    // The other half of this run may be at another broker.
    rig.append([reading_at(1, NOW_MS, ClockState::Synced)]);
    assert_eq!(rig.queued(0).len(), 5);
}

#[test]
fn a_log_that_is_not_forwarded_has_nothing_of_it() {
    let mut rig = Rig::new();
    rig.append((1..=2_000).map(reading));
    while rig.store.maintain(NOW_MS).unwrap() {}
    assert_eq!(rig.reader().bounds().unwrap(), (0, 0));
    assert_eq!(rig.reader().identity().unwrap(), None);
    assert!(!forward_again(&rig.path, 0, true).unwrap());
}

#[test]
fn stored_readings_are_requested_when_forwarding_begins_or_resumes() {
    let mut rig = Rig::new();
    rig.append((1..=20).map(reading));
    while rig.store.move_arrived(Duration::from_millis(50)).unwrap() {}
    rig.append((21..=30).map(reading));
    rig.store.forward(BACKLOG).unwrap();
    let first = rig.reader().identity().unwrap().unwrap();
    assert_eq!((first.again, first.again_from), (1, i64::MIN));
    assert_eq!(rig.stored(i64::MIN), ((1..=30).collect(), 30));
    assert_eq!(rig.stored(NOW_MS - HOUR_MS + 25).0, (25..=30).collect());

    // A restart changes nothing, and a time without an upstream database that stored nothing neither.
    rig.reopen();
    rig.store.forward(BACKLOG).unwrap();
    rig.append([reading(31)]);
    rig.reopen();
    rig.reopen();
    rig.store.forward(BACKLOG).unwrap();
    assert_eq!(rig.reader().identity().unwrap(), Some(first.clone()));

    rig.reopen();
    rig.append([reading(32)]);
    rig.reopen();
    rig.store.forward(BACKLOG).unwrap();
    let second = rig.reader().identity().unwrap().unwrap();
    assert_eq!((second.log.clone(), second.again), (first.log, 2));
    assert_eq!(rig.stored(i64::MIN).0, (1..=32).collect());

    assert!(forward_again(&rig.path, 77, true).unwrap());
    let third = rig.reader().identity().unwrap().unwrap();
    assert_eq!((third.again, third.again_from), (3, 77));
    assert_ne!(third.log, second.log);
}

#[test]
fn the_queue_keeps_a_part_of_what_is_forwarded_and_gives_the_oldest_up_beyond_its_limit() {
    let mut rig = Rig::new();
    let limit = 40_000;
    let progress = rig.store.forward(limit).unwrap();
    let bounds = |rig: &Rig| rig.reader().bounds().unwrap();
    let bytes = |rig: &Rig| -> u64 {
        let sql = "SELECT sum(length(batch)) FROM forward";
        rig.store.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    for n in 0..20 {
        rig.append((n * 20 + 1..=n * 20 + 20).map(reading));
    }
    while rig.store.maintain(NOW_MS).unwrap() {}
    assert_eq!(bounds(&rig), (0, 400), "nothing is forwarded");
    progress.set_forwarded(100);
    while rig.store.maintain(NOW_MS).unwrap() {}
    assert_eq!(bounds(&rig), (80, 400), "the newest that is forwarded stays");
    // They are sent in turn with stored readings, which are not all there yet.
    progress.set_released(200);
    while rig.store.maintain(NOW_MS).unwrap() {}
    assert_eq!(progress.forwarded(), 100);
    assert!(bounds(&rig).0 > 100, "{:?}", bounds(&rig));
    progress.set_forwarded(400);
    while rig.store.maintain(NOW_MS).unwrap() {}
    assert!(bounds(&rig).0 > 80 && bytes(&rig) <= limit / 4, "{:?} {}", bounds(&rig), bytes(&rig));
    assert_eq!(progress.overflowed(), 0);

    for n in 0..100 {
        rig.append((n * 20 + 1_001..=n * 20 + 1_020).map(reading));
    }
    while rig.store.maintain(NOW_MS).unwrap() {}
    let (first, last) = bounds(&rig);
    assert_eq!(last, 2_400);
    assert!(bytes(&rig) <= limit, "{}", bytes(&rig));
    assert_eq!(progress.overflowed(), (first - 400).cast_unsigned());

    // Without an upstream database it goes, but for the number of its end.
    rig.reopen();
    while rig.store.maintain(NOW_MS).unwrap() {}
    assert_eq!(bounds(&rig), (2_380, 2_400));
    rig.store.forward(limit).unwrap();
    rig.append([reading(9_999)]);
    assert_eq!(bounds(&rig), (2_380, 2_401));
}

#[test]
fn what_is_rolled_back_is_not_queued() {
    let mut rig = Rig::new();
    rig.store.forward(BACKLOG).unwrap();
    rig.append([1, 2].map(reading));
    rig.store.connection.execute_batch(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON main.arrival WHEN new.seq = 4 BEGIN SELECT raise(ABORT, 'no'); END",
    ).unwrap();
    let records = [3, 4].map(reading);
    assert!(rig.store.append(&records.each_ref()).is_err());
    rig.store.connection.execute_batch("DROP TRIGGER full").unwrap();
    rig.append([4, 3].map(reading));
    assert_eq!(seqs(&rig.queued(0)), [1, 2, 4, 3]);
    assert_eq!(rig.reader().bounds().unwrap(), (0, 4));
}

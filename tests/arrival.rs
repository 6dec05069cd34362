//! Rows that wait in the table of arrivals, as readers and the maintenance see them.
use humidor::reading::ClockState;
use humidor::store::{LOG_FILE, Log, Record, Retention, Store, Tail};
use humidor::wire::Telemetry;
use rusqlite::Connection;
use std::time::Duration;

const HOUR_MS: i64 = 3_600_000;
const START: i64 = 489_000 * HOUR_MS;

fn reading(node: &str, boot: &str, seq: u64, at: i64) -> Record {
    let telemetry = Telemetry {
        boot: boot.parse().unwrap(),
        seq,
        at,
        clock: ClockState::Synced,
        mono: 1000,
        temperature: Some(20.0),
        humidity: None,
    };
    Record::Reading { node: node.parse().unwrap(), sensor: "hall".parse().unwrap(), telemetry }
}
fn add(store: &mut Store, records: &[Record]) {
    store.append(&records.iter().collect::<Vec<_>>()).unwrap();
}

#[test]
fn the_highest_number_counts_once_while_its_row_is_in_both_tables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG_FILE);
    let mut store = Store::open(&path).unwrap();
    add(&mut store, &[reading("a", "b", i64::MAX.cast_unsigned(), START)]);
    let log = Log::open(&path).unwrap();
    loop {
        let more = store.move_arrived(Duration::ZERO).unwrap();
        let gaps = log.gaps().unwrap();
        assert_eq!(gaps.len(), 1);
        if !more {
            break;
        }
    }
}

#[test]
fn a_tail_does_not_print_what_was_there_before_it_as_new() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG_FILE);
    let mut store = Store::open(&path).unwrap();
    let all: Vec<_> =
        (1..=100).map(|s| reading("a", "b", s, START + s.cast_signed() * 1000)).collect();
    add(&mut store, &all);
    let (latest, mut tail) = Tail::start(Log::open(&path).unwrap(), 10).unwrap();
    assert_eq!(latest.len(), 10);
    assert_eq!(tail.read_new().unwrap().len(), 0);
    while store.move_arrived(Duration::from_millis(1)).unwrap() {}
    assert_eq!(tail.read_new().unwrap().len(), 0, "moved rows are not new");
}

/// The view must not hide the indexes of its tables from other programs.
#[test]
fn the_view_looks_up_a_node_and_does_not_read_the_whole_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG_FILE);
    drop(Store::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    for rest in [
        "WHERE node = 'a' AND at > 5",
        "WHERE node = 'a' AND boot = 'b' AND seq = 5",
        "WHERE node = 'a' ORDER BY at DESC LIMIT 1",
    ] {
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN SELECT * FROM readings {rest}"))
            .unwrap();
        let plan: Vec<String> =
            statement.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        assert!(
            plan.iter().any(|step| step.starts_with("SEARCH reading USING PRIMARY KEY")),
            "{rest}: {plan:#?}"
        );
        assert!(!plan.iter().any(|step| step.starts_with("SCAN reading")), "{rest}: {plan:#?}");
    }
}

/// A flood that always leaves enough to move must not keep the round from deleting.
#[test]
fn a_flood_does_not_stop_retention() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOG_FILE);
    let mut store = Store::open(&path).unwrap();
    store.retain(Retention { keep_raw: Some(Duration::from_hours(24)), ..Retention::EVERYTHING });
    let reader = Connection::open(&path).unwrap();
    let one = |sql: &str| reader.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let mut seq = 0;
    for _ in 0..20_000 {
        while one("SELECT coalesce((SELECT max(id) FROM arrival), moved) - moved FROM arrival_move")
            < 20_000
        {
            let all: Vec<_> = (1..=1000)
                .map(|n| reading("a", "b", seq + n, START + (seq + n).cast_signed() * 10_000))
                .collect();
            seq += 1000;
            add(&mut store, &all);
        }
        assert!(store.maintain(START + 2000 * HOUR_MS).unwrap());
        if one("SELECT rows FROM kept") > START {
            return;
        }
    }
    panic!("not deleted");
}

//! Promise 5: a reading taken before the clock was set gets its true time once that is known, and the
//! original is kept.

use std::time::Duration;

use humidor::reading::{ClockState, Id};
use humidor::store::{LOG_FILE, Log, Reading, Record, Selection, Store};
use humidor::wire::Telemetry;

const BOOT_AT_MS: i64 = 1_760_000_000_000;

fn reading(seq: u64, clock: ClockState) -> Record {
    let mono = seq * 1000;
    let at = match clock {
        ClockState::Synced => BOOT_AT_MS + i64::try_from(mono).unwrap(),
        // A board without a battery wakes up in 1970.
        ClockState::Unsynced => i64::try_from(mono).unwrap(),
    };
    let id = |text: &str| text.parse::<Id>().unwrap();
    let telemetry =
        Telemetry { boot: id("b"), seq, at, clock, mono, temperature: Some(20.0), humidity: None };
    Record::Reading { node: id("roof"), sensor: id("sun"), telemetry }
}

fn rows(data: &std::path::Path) -> Vec<Reading> {
    let mut rows = Vec::new();
    let log = Log::open(&data.join(LOG_FILE)).unwrap();
    log.export(&Selection::default(), |row| {
        rows.push(row);
        Ok::<_, rusqlite::Error>(())
    })
    .unwrap();
    rows
}

#[test]
fn readings_from_before_the_clock_was_set_are_restamped_in_small_steps() {
    let data = tempfile::tempdir().unwrap();
    let mut store = Store::open(&data.path().join(LOG_FILE)).unwrap();
    // More than one step's worth.
    let early: Vec<Record> = (1..=1200).map(|seq| reading(seq, ClockState::Unsynced)).collect();
    store.append(&early.iter().collect::<Vec<_>>()).unwrap();
    while store.move_arrived(Duration::from_millis(1)).unwrap() {}
    assert!(rows(data.path()).iter().all(|row| row.clock == "unsynced" && row.at < 10_000_000));

    store.append(&[&reading(1201, ClockState::Synced)]).unwrap();
    let first_step = rows(data.path()).iter().filter(|row| row.clock == "restamped").count();
    assert!((1..1200).contains(&first_step), "one commit corrects some and not all: {first_step}");

    // A restart in the middle of it forgets nothing.
    drop(store);
    let mut store = Store::open(&data.path().join(LOG_FILE)).unwrap();
    for seq in 1202..=1206 {
        store.append(&[&reading(seq, ClockState::Synced)]).unwrap();
    }
    for row in rows(data.path()) {
        assert_eq!(row.at, BOOT_AT_MS + row.seq * 1000, "#{}", row.seq);
        assert_eq!(row.clock, if row.seq <= 1200 { "restamped" } else { "synced" });
    }
    let raw = rusqlite::Connection::open(data.path().join(LOG_FILE)).unwrap();
    let originals: i64 = raw
        .query_row(
            "SELECT count(*) FROM reading WHERE at_original = seq * 1000 AND seq <= 1200",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(originals, 1200, "the node's own stamps are kept");
}

#[test]
fn a_straggler_from_before_is_stamped_when_it_arrives() {
    let data = tempfile::tempdir().unwrap();
    let mut store = Store::open(&data.path().join(LOG_FILE)).unwrap();
    store.append(&[&reading(5, ClockState::Synced)]).unwrap();
    store.append(&[&reading(2, ClockState::Unsynced)]).unwrap();
    // A clock that lost its source later is still the best there is.
    store.append(&[&reading(9, ClockState::Unsynced)]).unwrap();
    let rows = rows(data.path());
    let of = |seq| rows.iter().find(|row| row.seq == seq).unwrap();
    assert_eq!((of(2).at, of(2).clock.as_str()), (BOOT_AT_MS + 2000, "restamped"));
    assert_eq!(of(9).clock, "unsynced");
}

#[test]
fn extreme_stamps_do_no_harm() {
    let data = tempfile::tempdir().unwrap();
    let mut store = Store::open(&data.path().join(LOG_FILE)).unwrap();
    let payload = |seq: u64, at: &str, clock: &str, mono: &str| {
        format!(
            r#"{{"boot":"b","seq":{seq},"at":{at},"clock":"{clock}","mono":{mono},"temperature":1}}"#
        )
    };
    let extreme = [
        payload(1, "0", "unsynced", "3162240000000"),
        payload(2, "253402300799999", "unsynced", "0"),
        payload(9_223_372_036_854_775_807, "253402300799999", "synced", "0"),
        payload(3, "0", "unsynced", "3162240000000"),
    ];
    for payload in extreme {
        let telemetry = Telemetry::parse(payload.as_bytes()).unwrap();
        let record =
            Record::Reading { node: "a".parse().unwrap(), sensor: "s".parse().unwrap(), telemetry };
        store.append(&[&record]).unwrap();
    }
    assert_eq!(rows(data.path()).len(), 4);
}

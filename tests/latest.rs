//! The latest reading is the newest one of the newest run, whatever its time says; and a time ahead of the clock neither
//! hides what comes after it nor stays for ever.

use std::path::Path;
use std::time::Duration;

use humidor::clock::unix_ms;
use humidor::reading::{ClockState, Id};
use humidor::store::{LOG_FILE, Log, Record, Retention, Selection, Store, Tail};
use humidor::wire::Telemetry;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 1440 * MINUTE_MS;
/// The year 2099.
const FAR_MS: i64 = 4_070_908_800_000;

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

/// A reading of run `boot`, with its number as the temperature.
fn reading(boot: &str, seq: u32, at: i64, clock: ClockState) -> Record {
    let telemetry = Telemetry {
        boot: id(boot),
        seq: u64::from(seq),
        at,
        clock,
        mono: u64::from(seq) * 60_000,
        temperature: Some(f64::from(seq)),
        humidity: None,
    };
    Record::Reading { node: id("press"), sensor: id("hall"), telemetry }
}

fn synced(boot: &str, seq: u32, at: i64) -> Record {
    reading(boot, seq, at, ClockState::Synced)
}

/// A board without a battery, whose clock nobody has set.
fn unset(boot: &str, seq: u32) -> Record {
    reading(boot, seq, i64::from(seq) * MINUTE_MS, ClockState::Unsynced)
}

fn latest(path: &Path) -> (String, i64) {
    let found = Log::open(path).unwrap().overview().unwrap().sensors.remove(0).latest.unwrap();
    let (tail, _) = Tail::start(Log::open(path).unwrap(), 3).unwrap();
    let last = tail.last().unwrap();
    assert_eq!((&last.boot, last.seq), (&found.boot, found.seq), "tail: {tail:?}");
    (found.boot, found.seq)
}

/// Appends, and looks at the latest reading before and after it is moved to its place.
fn latest_after(store: &mut Store, path: &Path, records: &[Record]) -> (String, i64) {
    store.append(&records.iter().collect::<Vec<_>>()).unwrap();
    let found = latest(path);
    while store.move_arrived(Duration::from_millis(1)).unwrap() {}
    assert_eq!(latest(path), found, "after the move");
    found
}

fn is(boot: &str, seq: i64) -> (String, i64) {
    (boot.to_owned(), seq)
}

#[test]
fn a_time_ahead_of_the_clock_hides_nothing_and_does_not_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOG_FILE);
    let now = unix_ms();
    let mut store = Store::open(&path).unwrap();
    store.retain(Retention { keep_raw: Some(Duration::from_hours(48)), ..Retention::EVERYTHING });
    let minute = |seq: u32| synced("b1", seq, now - (30 - i64::from(seq)) * MINUTE_MS);
    let first: Vec<Record> = (1..20).map(minute).collect();
    assert_eq!(latest_after(&mut store, &path, &first), is("b1", 19));
    assert_eq!(latest_after(&mut store, &path, &[synced("b1", 20, FAR_MS)]), is("b1", 20));
    let rest: Vec<Record> = (21..29).map(minute).collect();
    assert_eq!(latest_after(&mut store, &path, &rest), is("b1", 28));
    // A backlog is older than what is shown.
    assert_eq!(latest_after(&mut store, &path, &[synced("b0", 7, now - DAY_MS)]), is("b1", 28));
    assert_eq!(latest_after(&mut store, &path, &[synced("b1", 30, now)]), is("b1", 30));

    let log = Log::open(&path).unwrap();
    let listed = log.ahead(now).unwrap();
    assert_eq!((listed.len(), listed[0].readings, listed[0].first), (1, 1, FAR_MS));
    assert_eq!(log.quick_stats().unwrap().ahead, 1);
    let intervals = log.reporting_intervals_ms().unwrap();
    assert_eq!(intervals[&("press".to_owned(), "hall".to_owned())], MINUTE_MS);
    assert_eq!(log.stats().unwrap().rows_last_day, 29, "and not of the last day of 2098");
    let (tail, _) = Tail::start(Log::open(&path).unwrap(), 100).unwrap();
    let order: Vec<i64> = tail.iter().filter(|row| row.boot == "b1").map(|row| row.seq).collect();
    assert_eq!(order, (1..=28).chain([30]).collect::<Vec<_>>());

    // Retention takes it with those that came with it.
    let mut kept_until = |days: i64| {
        let at = now + days * DAY_MS;
        let seq = 30 + u32::try_from(days).unwrap();
        store.append(&[&synced("b1", seq, at)]).unwrap();
        while store.maintain(at).unwrap() {}
        let mut far = 0;
        let selection = Selection { from_ms: Some(FAR_MS), ..Selection::default() };
        log.export(&selection, |_| {
            far += 1;
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
        far
    };
    assert_eq!(kept_until(1), 1);
    assert_eq!(kept_until(4), 0);
    assert_eq!(
        log.gaps().unwrap().iter().filter(|gap| gap.boot == "b1" && gap.from == 20).count(),
        0
    );
}

#[test]
fn a_board_that_reboots_without_time_shows_its_new_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOG_FILE);
    let now = unix_ms();
    let mut store = Store::open(&path).unwrap();
    assert_eq!(latest_after(&mut store, &path, &[synced("b1", 9, now)]), is("b1", 9));
    assert_eq!(latest_after(&mut store, &path, &[unset("b2", 1)]), is("b2", 1));
    // The rest of the earlier run comes late.
    assert_eq!(
        latest_after(&mut store, &path, &[synced("b1", 10, now), unset("b2", 2)]),
        is("b2", 2)
    );
    assert_eq!(latest_after(&mut store, &path, &[unset("b3", 1)]), is("b3", 1));
    assert_eq!(latest_after(&mut store, &path, &[synced("b3", 2, now)]), is("b3", 2));
}

#[test]
fn a_time_from_the_far_future_does_not_say_when_the_run_began() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOG_FILE);
    let now = unix_ms();
    let mut store = Store::open(&path).unwrap();
    while store.maintain(now).unwrap() {}
    let began = now - 60 * MINUTE_MS;
    store.append(&[&unset("b1", 1), &synced("b1", 2, FAR_MS), &unset("b1", 3)]).unwrap();
    store.append(&[&synced("b1", 4, began + 4 * MINUTE_MS)]).unwrap();
    store.append(&[&synced("b1", 5, began + 5 * MINUTE_MS)]).unwrap();
    let mut rows = Vec::new();
    let log = Log::open(&path).unwrap();
    log.export(&Selection::default(), |row| {
        rows.push((row.seq, row.at - began));
        Ok::<_, rusqlite::Error>(())
    })
    .unwrap();
    let minutes = |n: i64| (n, n * MINUTE_MS);
    assert_eq!(rows, [minutes(1), minutes(3), minutes(4), minutes(5), (2, FAR_MS - began)]);
}

//! What retention promises: the file stays below its limit, what was deleted is still known, and a reading
//! that waits for its time is not deleted before it can have it.

use std::path::Path;
use std::time::Duration;

use humidor::reading::{ClockState, Id};
use humidor::store::{LOG_FILE, Log, Range, Record, Retention, SeriesQuery, Store};
use humidor::wire::Telemetry;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const START_MS: i64 = 20_370 * DAY_MS;

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn reading(node: &str, seq: u64, at: i64, clock: ClockState, mono: i64) -> Record {
    let telemetry = Telemetry {
        boot: id("b"),
        seq,
        at,
        clock,
        mono: mono.cast_unsigned(),
        temperature: Some(20.0),
        humidity: Some(50.0),
    };
    Record::Reading { node: id(node), sensor: id("air"), telemetry }
}

fn synced(node: &str, seq: u64, at: i64) -> Record {
    reading(node, seq, at, ClockState::Synced, at - START_MS)
}

fn settle(store: &mut Store, now_ms: i64) {
    while store.maintain(now_ms).unwrap() {}
}

fn size(path: &Path, suffix: &str) -> u64 {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    std::fs::metadata(name).map_or(0, |file| file.len())
}

fn keep_a_day(path: &Path) -> Store {
    let mut store = Store::open(path).unwrap();
    let keep_raw = Some(Duration::from_hours(24));
    store.retain(Retention { keep_raw, ..Retention::EVERYTHING });
    store
}

fn rows_of(path: &Path, node: &str) -> Vec<(i64, String)> {
    let mut rows = Vec::new();
    Log::open(path)
        .unwrap()
        .export(&humidor::store::Selection::default(), |row| {
            if row.node == node {
                rows.push((row.at, row.clock));
            }
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
    rows
}

#[test]
fn the_files_stay_below_their_limits_and_old_times_stay_as_roll_ups() {
    const MAX_BYTES: u64 = 16 * 1024 * 1024;
    /// An eighth of the limit, at which it is copied into the file, and what one commit here adds.
    const WAL_MAX_BYTES: u64 = MAX_BYTES / 8 + 1024 * 1024;
    const NODES: [&str; 4] = ["press", "store", "roof", "oven"];
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join(LOG_FILE);
    let mut store = Store::open(&path).unwrap();
    store.retain(Retention { keep_raw: None, max_bytes: MAX_BYTES });
    let mut seq = 0;
    // 60 days of four sensors every minute, 346,000 rows, about 35 MB if nothing went.
    for hour in 0..60 * 24 / 6 {
        let mut records = Vec::new();
        for minute in 0..6 * 60 {
            seq += 1;
            let at = START_MS + hour * 6 * HOUR_MS + minute * 60_000;
            records.extend(NODES.iter().map(|node| synced(node, seq, at)));
        }
        store.append(&records.iter().collect::<Vec<_>>()).unwrap();
        settle(&mut store, START_MS + (hour + 1) * 6 * HOUR_MS);
        assert!(size(&path, "") <= MAX_BYTES, "hour {hour}: {} bytes", size(&path, ""));
        let wal = size(&path, "-wal");
        assert!(wal <= WAL_MAX_BYTES, "hour {hour}: {wal} bytes of write-ahead log");
        assert!(size(&path, "-shm") <= 128 * 1024, "{} bytes", size(&path, "-shm"));
    }
    let log = Log::open(&path).unwrap();
    let stats = log.stats().unwrap();
    assert!(stats.readings < 300_000, "rows were given up: {}", stats.readings);
    assert!(stats.first_ms > Some(START_MS), "the oldest of them");
    assert!(stats.free_bytes < stats.bytes / 8, "{} free of {}", stats.free_bytes, stats.bytes);
    let query = |node: &str| SeriesQuery {
        node: id(node),
        sensor: id("air"),
        range: Range::new(START_MS, START_MS + 60 * DAY_MS, Some(HOUR_MS.cast_unsigned())).unwrap(),
    };
    for node in NODES {
        let hours = log.series(&query(node)).unwrap();
        assert_eq!(hours.points.len(), 60 * 24, "every hour is still drawn");
        assert!(hours.points.iter().all(|point| point.count == 60));
    }
    assert_eq!(log.gaps().unwrap(), [], "what was deleted is not missing");
    assert_eq!(log.check().unwrap(), Vec::<String>::new());
    let again = store.append(&[&synced("press", 1, START_MS)]).unwrap();
    assert_eq!((again.readings, again.repeats), (0, 1), "and not new either");
}

#[test]
fn a_reading_from_1970_waits_for_its_time_and_then_has_it() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join(LOG_FILE);
    let mut store = keep_a_day(&path);
    store
        .append(&[&synced("press", 1, START_MS), &synced("press", 2, START_MS + 5 * DAY_MS)])
        .unwrap();
    let now_ms = START_MS + 5 * DAY_MS;
    settle(&mut store, now_ms);
    assert_eq!(rows_of(&path, "press").len(), 1, "the other is too old");

    let early: Vec<_> = (1..=3)
        .map(|n| reading("roof", n, 1000, ClockState::Unsynced, 1000 * n.cast_signed()))
        .collect();
    store.append(&early.iter().collect::<Vec<_>>()).unwrap();
    settle(&mut store, now_ms + HOUR_MS);
    assert_eq!(rows_of(&path, "roof"), vec![(1000, "unsynced".to_owned()); 3]);

    store.append(&[&reading("roof", 4, now_ms, ClockState::Synced, 4000)]).unwrap();
    settle(&mut store, now_ms + 2 * HOUR_MS);
    let times: Vec<_> = rows_of(&path, "roof").into_iter().map(|row| row.0).collect();
    assert_eq!(times, [now_ms - 3000, now_ms - 2000, now_ms - 1000, now_ms]);
}

/// The same on a log whose horizon was never raised before: the readings had a place at that time, and were rolled up there.
#[test]
fn a_reading_from_1970_waits_for_its_time_on_a_new_log_too() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join(LOG_FILE);
    let now_ms = START_MS + 5 * DAY_MS;
    let mut store = Store::open(&path).unwrap();
    let early: Vec<_> = (1..=120)
        .map(|n| reading("roof", n, 1000, ClockState::Unsynced, 1000 * n.cast_signed()))
        .collect();
    store.append(&early.iter().collect::<Vec<_>>()).unwrap();
    store.append(&[&synced("press", 1, now_ms)]).unwrap();
    settle(&mut store, now_ms);
    drop(store);

    let mut store = keep_a_day(&path);
    store.append(&[&synced("press", 2, now_ms + 1)]).unwrap();
    for round in 1..4 {
        settle(&mut store, now_ms + round * HOUR_MS);
        assert_eq!(rows_of(&path, "roof").len(), 120, "after round {round}");
    }
    assert_eq!(Log::open(&path).unwrap().gaps().unwrap(), []);
    store.append(&[&reading("roof", 121, now_ms, ClockState::Synced, 121_000)]).unwrap();
    settle(&mut store, now_ms + 4 * HOUR_MS);
    let times: Vec<_> = rows_of(&path, "roof").into_iter().map(|row| row.0).collect();
    assert_eq!(times, (0..121).map(|n| now_ms - 120_000 + n * 1000).collect::<Vec<_>>());
    // Each counts once, and where it belongs.
    let connection = rusqlite::Connection::open(&path).unwrap();
    let counted = |before: i64| -> i64 {
        let sql = "SELECT coalesce(sum(count), 0) FROM readings_1m WHERE node = 'roof' AND at < ?";
        connection.query_row(sql, [before], |row| row.get(0)).unwrap()
    };
    assert_eq!(counted(DAY_MS), 0, "in 1970");
    assert_eq!(counted(i64::MAX), 121);
}

#[test]
fn a_board_that_never_knows_the_time_does_not_fill_the_disk() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join(LOG_FILE);
    let mut store = keep_a_day(&path);
    store
        .append(&[&synced("press", 1, START_MS), &synced("press", 2, START_MS + 5 * DAY_MS)])
        .unwrap();
    settle(&mut store, START_MS + 5 * DAY_MS);
    let lost: Vec<_> = (1..=48)
        .map(|n| n * HOUR_MS)
        .map(|mono| {
            reading("roof", (mono / HOUR_MS).cast_unsigned(), mono, ClockState::Unsynced, mono)
        })
        .collect();
    store.append(&lost.iter().collect::<Vec<_>>()).unwrap();
    settle(&mut store, START_MS + 5 * DAY_MS + HOUR_MS);
    // By the broker's clock the newest is of now, and so the first ones are older than a day.
    let left = rows_of(&path, "roof").len();
    assert!((22..=26).contains(&left), "{left}");
    let again = store.append(&[&lost[0]]).unwrap();
    assert_eq!(again.repeats, 1);
}

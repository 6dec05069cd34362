//! Whatever number a foreign publisher sends, the maintenance of the log goes on, and the mean of it is a number.

use std::path::Path;
use std::time::Duration;

use humidor::store::{LOG_FILE, Log, Record, Retention, Store};
use rusqlite::Connection;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const QUARTER_MS: i64 = 900_000;
/// A whole day.
const START_MS: i64 = 20_370 * DAY_MS;
/// The largest power of ten below the largest double, as in the report.
const HUGE: f64 = 1.797e308;

fn sample(field: &str, at_ms: i64, value: f64) -> Record {
    Record::Foreign {
        topic: "plant".to_owned(),
        at_ms,
        numbers: vec![(field.to_owned(), value)].into(),
    }
}

fn append(store: &mut Store, records: &[Record]) {
    store.append(&records.iter().collect::<Vec<_>>()).unwrap();
}

fn settle(store: &mut Store, now_ms: i64) {
    while store.maintain(now_ms).unwrap() {}
}

/// Rows of a view of samples: field, count and mean.
fn means(path: &Path, view: &str) -> Vec<(String, i64, Option<f64>)> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection
        .prepare(&format!("SELECT field, count, mean FROM {view} ORDER BY field, at"))
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn one(path: &Path, sql: &str) -> i64 {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Twice in a minute, and the opposite twice in another minute of the quarter.
fn poison(field: &str, start_ms: i64) -> Vec<Record> {
    let at = |second: i64, value| sample(field, start_ms + second * 1_000, value);
    vec![at(0, HUGE), at(1, HUGE), at(60, -HUGE), at(61, -HUGE)]
}

#[test]
fn numbers_whose_sum_no_double_holds_stop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOG_FILE);
    let mut store = Store::open(&path).unwrap();
    store.retain(Retention { keep_raw: Some(Duration::from_hours(24)), ..Retention::EVERYTHING });
    append(&mut store, &poison("a", START_MS));
    append(&mut store, &[sample("b", START_MS, 1.0), sample("b", START_MS + DAY_MS * 3, 2.0)]);
    settle(&mut store, START_MS + 4 * DAY_MS);

    let minutes = means(&path, "samples_1m");
    assert_eq!(minutes[0], ("a".to_owned(), 2, Some(HUGE)));
    assert_eq!(minutes[1], ("a".to_owned(), 2, Some(-HUGE)));
    for view in ["samples_15m", "samples_1h"] {
        assert_eq!(means(&path, view)[0], ("a".to_owned(), 4, Some(0.0)), "{view}");
    }
    // And what follows goes on: the other series, retention, and the marks.
    assert_eq!(means(&path, "samples_1h")[1], ("b".to_owned(), 1, Some(1.0)));
    assert_eq!(one(&path, "SELECT count(*) FROM sample"), 1, "the last day");
    assert_eq!(one(&path, "SELECT count(*) FROM dirty"), 0);
    // A late one is added to the span, though its row is not kept.
    append(&mut store, &[sample("a", START_MS + 62_000, HUGE)]);
    settle(&mut store, START_MS + 5 * DAY_MS);
    let (_, count, mean) = means(&path, "samples_1h").swap_remove(0);
    assert!(count == 5 && (mean.unwrap() / HUGE - 0.2).abs() < 1e-12, "{count} {mean:?}");
}

/// What 0.1.0 and versions up to this one have left: infinite sums in minutes and quarters, and sums that are no number
/// in an hour.
#[test]
fn a_log_that_was_poisoned_before_recovers_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOG_FILE);
    let mut store = Store::open(&path).unwrap();
    let (kept, given_up) = (START_MS + 2 * DAY_MS, START_MS);
    for start_ms in [given_up, kept] {
        append(&mut store, &poison("a", start_ms));
        append(&mut store, &[sample("a", start_ms + QUARTER_MS, 3.0)]);
    }
    append(&mut store, &[sample("b", kept + DAY_MS, 2.0)]);
    settle(&mut store, kept + 2 * DAY_MS);
    drop(store);
    let old = Connection::open(&path).unwrap();
    old.execute_batch(&format!(
        "UPDATE sample_1m SET value_sum = iif(value_max > 0, 9e999, -9e999), value_mean = NULL WHERE count = 2;
         UPDATE sample_15m SET value_sum = NULL, value_mean = NULL WHERE count = 4;
         UPDATE sample_1h SET value_sum = NULL, value_mean = NULL WHERE count = 5;
         INSERT INTO dirty VALUES (1, 1, {kept});
         DELETE FROM sample WHERE at < {kept};"
    ))
    .unwrap();
    drop(old);

    let mut store = Store::open(&path).unwrap();
    store.retain(Retention { keep_raw: Some(Duration::from_hours(12)), ..Retention::EVERYTHING });
    settle(&mut store, kept + 2 * DAY_MS);
    // From its rows the one that has them; the other one's mean is not known, and says so.
    let hours = means(&path, "samples_1h");
    assert_eq!(hours[0], ("a".to_owned(), 5, None));
    assert_eq!((hours[1].1, hours[1].2.map(|mean| (mean * 1e9).round())), (5, Some(6e8)));
    assert_eq!(one(&path, "SELECT count(*) FROM dirty"), 0);
    assert_eq!(one(&path, "SELECT count(*) FROM sample"), 1, "retention goes on");
    // Whatever comes late to the hour that is not known is acknowledged, and counts in it.
    append(&mut store, &[sample("a", given_up + 1_000, 1.0)]);
    settle(&mut store, kept + 3 * DAY_MS);
    assert_eq!(means(&path, "samples_1h")[0], ("a".to_owned(), 6, None));
    let found = Log::open(&path).unwrap().unknown_means().unwrap();
    assert_eq!(found, 4, "two minutes, a quarter and an hour");
}

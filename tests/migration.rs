//! A log of release 0.1.0 opens, with every reading, roll-up and chart as that release showed them.
//!
//! `fixtures/log-0.1.0.db` was written by its binary: `humidor sim --nodes 2 --days 2 --interval 10m`, then a broker with
//! readings from before a clock was set, one that awaits its clock, foreign numbers, a refusal and a retained message.
//! `fixtures/log-0.1.0.json` is what its API answered. A log of thirty million readings, to see how long it takes to open:
//! `humidor sim --nodes 10 --days 350`, by the binary of that release.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use humidor::mqtt::{Message, QoS};
use humidor::store::{
    Change, Gap, LOG_FILE, Log, OpenError, Queued, Range, SeriesQuery, Store, Target,
};
use rusqlite::Connection;
use rusqlite::types::Value;
use serde_json::json;

/// The views that other programs may read.
const VIEWS: [&str; 9] = [
    "readings",
    "samples",
    "alarms",
    "readings_1m",
    "readings_15m",
    "readings_1h",
    "samples_1m",
    "samples_15m",
    "samples_1h",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Every row of a query, as text.
fn rows(connection: &Connection, sql: &str) -> BTreeSet<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        let values: Vec<Value> = (0..columns).map(|n| row.get(n).unwrap()).collect();
        Ok(format!("{values:?}"))
    };
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

/// The columns of a view or table, and its rows.
fn view(path: &Path, name: &str) -> (Vec<String>, BTreeSet<String>) {
    columns_of(path, name, "*")
}

fn columns_of(path: &Path, name: &str, columns: &str) -> (Vec<String>, BTreeSet<String>) {
    let connection = Connection::open(path).unwrap();
    let sql = format!("SELECT {columns} FROM {name}");
    let statement = connection.prepare(&sql).unwrap();
    let columns = statement.column_names().map(str::to_owned).collect();
    drop(statement);
    (columns, rows(&connection, &sql))
}

fn answers_of_0_1_0() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(fixture("log-0.1.0.json")).unwrap()).unwrap()
}

/// To thousandths, as the API gives values.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// What this version says where 0.1.0 gave `answers`.
fn answers_now(path: &Path, answers: &serde_json::Value) -> serde_json::Value {
    let log = Log::open(path).unwrap();
    let intervals = log.reporting_intervals_ms().unwrap();
    let sensors: Vec<_> = log
        .overview()
        .unwrap()
        .sensors
        .into_iter()
        .map(|found| {
            let interval = intervals.get(&(found.node.clone(), found.sensor.clone()));
            json!({ "node": found.node, "sensor": found.sensor, "interval_ms": interval,
                    "latest": found.latest })
        })
        .collect();
    let series: Vec<_> = answers["series"].as_array().unwrap().iter().map(|asked| {
        let (node, sensor) = (asked["node"].as_str().unwrap(), asked["sensor"].as_str().unwrap());
        let time = |name: &str| asked["answer"][name].as_i64().unwrap();
        let range = Range::new(time("from"), time("to"), asked["step"].as_u64()).unwrap();
        let query =
            SeriesQuery { node: node.parse().unwrap(), sensor: sensor.parse().unwrap(), range };
        let found = log.series(&query).unwrap();
        let of = |value: fn(&humidor::store::Point) -> serde_json::Value| -> Vec<_> {
            found.points.iter().map(value).collect()
        };
        let columns = |band: fn(&humidor::store::Point) -> Option<humidor::store::Band>| {
            let column = |value: fn(humidor::store::Band) -> f64| -> Vec<Option<f64>> {
                found.points.iter().map(|point| band(point).map(value).map(rounded)).collect()
            };
            json!({ "min": column(|b| b.min), "mean": column(|b| b.mean), "max": column(|b| b.max) })
        };
        json!({ "node": node, "sensor": sensor, "step": asked["step"], "answer": {
            "from": time("from"), "to": time("to"), "step_ms": found.step_ms,
            "partial": found.partial, "at": of(|point| json!(point.at)),
            "count": of(|point| json!(point.count)),
            "temperature": columns(|point| point.temperature),
            "humidity": columns(|point| point.humidity),
        } })
    }).collect();
    json!({ "sensors": sensors, "series": series })
}

#[test]
fn a_log_of_0_1_0_opens_and_shows_what_it_showed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOG_FILE);
    std::fs::copy(fixture("log-0.1.0.db"), &path).unwrap();
    let before: Vec<_> = VIEWS.iter().map(|name| view(&path, name)).collect();
    let tables = ["node", "sensor", "run", "reading", "sample", "refusal", "retained", "dirty"];
    let table = |name: &&str| view(&path, name);
    let tables_before: Vec<_> = tables.iter().map(table).collect();

    let answers = answers_of_0_1_0();
    assert_eq!(answers_now(&path, &answers), answers, "a backup is read as it is");
    let gap = Gap { node: "late".to_owned(), boot: "b".to_owned(), from: 4, to: 4 };
    assert_eq!(Log::open(&path).unwrap().gaps().unwrap(), [gap]);
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes == std::fs::read(fixture("log-0.1.0.db")).unwrap(), "and stays as it is");

    let mut store = Store::open(&path).unwrap();
    for (name, before) in VIEWS.iter().zip(&before) {
        assert!(&view(&path, name) == before, "{name}");
    }
    for (name, before) in tables.iter().zip(&tables_before) {
        // A later version may have added columns.
        assert!(&columns_of(&path, name, &before.0.join(", ")) == before, "{name}");
    }
    assert_eq!(answers_now(&path, &answers), answers);
    assert_eq!(Log::open(&path).unwrap().check().unwrap(), Vec::<String>::new());

    // And after the maintenance of this version: nothing moves, nothing goes.
    while store.move_arrived(Duration::from_millis(1)).unwrap() {}
    assert!(view(&path, "readings") == before[0]);
    assert_eq!(answers_now(&path, &answers), answers);
}

/// Until schema 13 a message was stored with each session that it waits for. Such rows stay as they are.
#[test]
fn messages_that_wait_in_an_older_log_are_delivered_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOG_FILE);
    std::fs::copy(fixture("log-0.1.0.db"), &path).unwrap();
    let older = Connection::open(&path).unwrap();
    let version: i64 = older.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert!(version < 13);
    older
        .execute_batch(
            "INSERT INTO session (id, client_id, expiry_s) VALUES (1, 'kim' || char(1) || 'a', 900), (2, 'b', 900);
             INSERT INTO queued (session, number, qos, retain, identifiers, topic, payload, properties, publisher, expires_at, size)
             VALUES (1, 7, 1, 1, x'00000009', 't/a', x'2131', x'', 'kim', 4000000000000, 70),
                    (2, 3, 2, 0, x'', NULL, NULL, NULL, '', NULL, 0),
                    (2, 4, 2, 0, x'', 't/a', x'2131', x'', 'kim', NULL, 70);",
        )
        .unwrap();
    drop(older);

    let mut store = Store::open(&path).unwrap();
    let waiting = |session| Queued::open(&path).unwrap().page(session, 0).unwrap();
    let [first] = &waiting(1)[..] else { panic!("{:?}", waiting(1)) };
    assert_eq!((first.number, first.retain, &first.identifiers[..]), (7, true, &[9][..]));
    let message = first.message.as_ref().unwrap();
    assert_eq!((message.topic.as_str(), &message.payload[..]), ("t/a", &b"!1"[..]));
    assert_eq!((&*message.publisher, message.expires_at_ms), ("kim", Some(4_000_000_000_000)));
    let held = |session| -> Vec<(i64, bool)> {
        waiting(session).iter().map(|row| (row.number, row.message.is_some())).collect()
    };
    assert_eq!(held(2), [(3, false), (4, true)], "of one only PUBREL is left");

    // They go as they came, beside messages that are stored once.
    let target =
        |session| Target { session, qos: QoS::AtLeastOnce, retain: false, identifiers: vec![] };
    let message = Arc::new(Message::own("t", vec![b'x'; 1_000]));
    let queue = Change::Queue { message, targets: vec![target(1), target(2)] };
    store.commit(&[], &[&queue, &Change::Done { session: 1, number: 7 }]).unwrap();
    store.commit(&[], &[&Change::Release { session: 2, number: 4 }]).unwrap();
    assert_eq!(held(1), [(8, true)]);
    assert_eq!(held(2), [(3, false), (4, false), (5, true)]);
    store.commit(&[], &[&Change::End { session: 1 }, &Change::End { session: 2 }]).unwrap();
    let left = rows(
        &Connection::open(&path).unwrap(),
        "SELECT id FROM message UNION ALL SELECT number FROM queued",
    );
    assert_eq!(left, BTreeSet::new());
}

#[test]
fn a_log_of_a_newer_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOG_FILE);
    drop(Store::open(&path).unwrap());
    let newer = Connection::open(&path).unwrap();
    let version: i64 = newer.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    newer.pragma_update(None, "user_version", version + 1).unwrap();
    drop(newer);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(OpenError::Newer { .. })));
    assert!(std::fs::read(&path).unwrap() == before);
}

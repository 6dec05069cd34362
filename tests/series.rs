//! A series is what a direct aggregation of the stored rows gives, whatever the step.

use std::path::Path;

use humidor::reading::{ClockState, Id};
use humidor::store::{Band, LOG_FILE, Log, Range, Record, Selection, SeriesQuery, Store};
use humidor::wire::Telemetry;

const START_MS: i64 = 1_760_000_000_000;

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn reading(seq: u64, at: i64, temperature: Option<f64>, humidity: Option<f64>) -> Record {
    let telemetry = Telemetry {
        boot: id("b"),
        seq,
        at,
        clock: ClockState::Synced,
        mono: seq * 1000,
        temperature,
        humidity,
    };
    Record::Reading { node: id("press"), sensor: id("hall"), telemetry }
}

fn query(from_ms: i64, to_ms: i64, step_ms: Option<u64>) -> SeriesQuery {
    SeriesQuery {
        node: id("press"),
        sensor: id("hall"),
        range: Range::new(from_ms, to_ms, step_ms).unwrap(),
    }
}

fn log_of(data: &Path, records: &[Record]) -> Log {
    let path = data.join(LOG_FILE);
    let mut store = Store::open(&path).unwrap();
    store.append(&records.iter().collect::<Vec<_>>()).unwrap();
    Log::open(&path).unwrap()
}

#[test]
fn few_readings_are_shown_each_at_its_own_time() {
    let data = tempfile::tempdir().unwrap();
    let log = log_of(
        data.path(),
        &[
            reading(1, START_MS + 1, Some(21.5), Some(50.0)),
            reading(2, START_MS + 10_007, Some(21.7), None),
            reading(3, START_MS + 20_000, Some(22.0), None),
        ],
    );
    let series = log.series(&query(START_MS, START_MS + 20_000, Some(10_000))).unwrap();
    assert_eq!(series.step_ms, None);
    let times: Vec<_> = series.points.iter().map(|point| point.at).collect();
    assert_eq!(times, [START_MS + 1, START_MS + 10_007], "the end of the range is exclusive");
    assert_eq!(series.points[1].humidity, None);
}

#[test]
fn many_readings_are_shown_as_bands() {
    let data = tempfile::tempdir().unwrap();
    let start = START_MS - START_MS % 60_000;
    let records: Vec<Record> = (0..120_u32)
        .map(|i| {
            reading(
                u64::from(i) + 1,
                start + i64::from(i) * 1000,
                Some(f64::from(i)),
                (i % 2 == 0).then_some(40.0),
            )
        })
        .collect();
    let log = log_of(data.path(), &records);
    // The range begins within a step; the step is whole all the same.
    let series = log.series(&query(start + 30_000, start + 120_000, Some(60_000))).unwrap();
    assert_eq!(series.step_ms, Some(60_000));
    let [first, second] = series.points[..] else { panic!("{series:?}") };
    assert_eq!((first.at, first.count), (start, 60));
    assert_eq!(first.temperature, Some(Band { min: 0.0, mean: 29.5, max: 59.0 }));
    assert_eq!(second.temperature, Some(Band { min: 60.0, mean: 89.5, max: 119.0 }));
    assert_eq!(second.humidity, Some(Band { min: 40.0, mean: 40.0, max: 40.0 }));
}

#[test]
fn foreign_numbers_are_a_series_too() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join(LOG_FILE);
    let sample = |at_ms, value| Record::Foreign {
        topic: "plant/press".to_owned(),
        at_ms,
        numbers: vec![("rpm".to_owned(), value), ("load".to_owned(), 1.0)].into(),
    };
    let start = START_MS - START_MS % 60_000;
    let mut store = Store::open(&path).unwrap();
    store.append(&[&sample(start, 1400.0), &sample(start + 500, 1500.0)]).unwrap();
    while store.maintain(start + 86_400_000).unwrap() {}
    let minutes: Vec<(String, i64, i64, f64, f64, f64)> = rusqlite::Connection::open(&path)
        .unwrap()
        .prepare("SELECT field, at, count, min, mean, max FROM samples_1m ORDER BY field, at")
        .unwrap()
        .query_map([], |row| {
            let (field, at, count) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((field, at, count, row.get(3)?, row.get(4)?, row.get(5)?))
        })
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let expected = [
        ("load".to_owned(), start, 2, 1.0, 1.0, 1.0),
        ("rpm".to_owned(), start, 2, 1400.0, 1450.0, 1500.0),
    ];
    assert_eq!(minutes, expected);
    let mut latest = Vec::new();
    Log::open(&path)
        .unwrap()
        .export_samples(&Selection::default(), |sample| {
            latest.push((sample.field, sample.at));
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
    assert_eq!(latest.iter().filter(|(field, _)| field == "rpm").count(), 2);
    assert_eq!(latest.last(), Some(&("load".to_owned(), start + 500)));
}

#[test]
fn the_overview_has_the_latest_reading_of_every_sensor() {
    let data = tempfile::tempdir().unwrap();
    let log = log_of(
        data.path(),
        &[reading(1, START_MS + 5_000, Some(21.5), None), reading(2, START_MS, Some(20.0), None)],
    );
    let overview = log.overview().unwrap();
    assert_eq!(overview.sensors.len(), 1);
    let latest = overview.sensors[0].latest.as_ref().unwrap();
    // The highest number of the newest run, whatever its time says.
    assert_eq!((latest.seq, latest.at, latest.temperature), (2, START_MS, Some(20.0)));
    assert!(
        log.series(&SeriesQuery { node: id("none"), ..query(0, 1, None) })
            .unwrap()
            .points
            .is_empty()
    );
}

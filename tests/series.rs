//! A series is what a direct aggregation of the stored rows gives, whatever the step.

use std::path::Path;

use humidor::reading::{ClockState, Id};
use humidor::store::{Band, LOG_FILE, Log, Range, Record, SampleQuery, SeriesQuery, Store};
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
    let sample = |at_ms, value| Record::Foreign {
        topic: "plant/press".to_owned(),
        at_ms,
        numbers: vec![("rpm".to_owned(), value), ("load".to_owned(), 1.0)],
    };
    let log = log_of(data.path(), &[sample(START_MS, 1400.0), sample(START_MS + 500, 1500.0)]);
    let series = log
        .sample_series(&SampleQuery {
            topic: "plant/press".to_owned(),
            field: "rpm".to_owned(),
            range: Range::new(START_MS, START_MS + 60_000, None).unwrap(),
        })
        .unwrap();
    assert_eq!(series.points.len(), 2);
    let overview = log.overview().unwrap();
    let fields: Vec<_> = overview.sources.iter().map(|source| source.field.as_str()).collect();
    assert_eq!(fields, ["load", "rpm"]);
    assert_eq!(overview.sources[1].latest.as_ref().map(|sample| sample.at), Some(START_MS + 500));
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
    assert_eq!((latest.at, latest.temperature), (START_MS + 5_000, Some(21.5)));
    assert!(
        log.series(&SeriesQuery { node: id("none"), ..query(0, 1, None) })
            .unwrap()
            .points
            .is_empty()
    );
}

//! What the demo's log holds at its start: thirty days of its boards, as if they had run all the time.

use std::path::Path;

use crate::reading::{ClockState, Id};
use crate::sim::world;
use crate::store::{LOG_FILE, OpenError, Record, Store};
use crate::wire::Telemetry;

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The age from which on, and the time between two readings of that age, in ms: dense enough for a chart of that range, and
/// few enough to be written in under a second. The last hour is as dense as the live readings.
const AGES: [(i64, i64); 5] = [
    (30 * DAY_MS, HOUR_MS),
    (7 * DAY_MS, 15 * MINUTE_MS),
    (DAY_MS, 2 * MINUTE_MS),
    (6 * HOUR_MS, 20 * SECOND_MS),
    (HOUR_MS, 2 * SECOND_MS),
];
/// The first board was without power from the first of these ages to the second, in ms: in the chart that the page shows first.
const POWER_CUT_MS: (i64, i64) = (9 * MINUTE_MS, 6 * MINUTE_MS);

/// A sensor of the demo.
#[derive(Debug, Clone)]
pub struct Past {
    pub node: Id,
    pub sensor: Id,
    /// Whether the power cut was its board's.
    pub had_power_cut: bool,
}

/// Fills the log in `folder`, which must be new, up to `now_ms` (Unix ms).
///
/// # Errors
/// When the log cannot be written.
pub fn fill(folder: &Path, sensors: &[Past], now_ms: i64) -> Result<(), OpenError> {
    let path = folder.join(LOG_FILE);
    let mut store = Store::open(&path)?;
    let sqlite = |source| OpenError::Sqlite { path: path.clone(), source };
    for sensor in sensors {
        let records: Vec<Record> = readings(sensor, now_ms)
            .map(|telemetry| Record::Reading {
                node: sensor.node.clone(),
                sensor: sensor.sensor.clone(),
                telemetry,
            })
            .collect();
        store.bulk_load(&records.iter().collect::<Vec<_>>()).map_err(sqlite)?;
    }
    while store.maintain_bulk_load(now_ms).map_err(sqlite)? {}
    store.finish_bulk_load(&path)?;
    Ok(())
}

fn readings(sensor: &Past, now_ms: i64) -> impl Iterator<Item = Telemetry> {
    let room = world::room(&sensor.node, &sensor.sensor);
    // A run counts once for all sensors of its board.
    let run = |name: &str| -> Id {
        format!("{name}-{}", sensor.sensor).parse().expect("an id and a dash behind a word")
    };
    let (before, after) = (run("before"), run("after"));
    let begin_ms = now_ms - AGES[0].0;
    let had_power_cut = sensor.had_power_cut;
    ages()
        .filter(move |age| !(had_power_cut && (POWER_CUT_MS.1..POWER_CUT_MS.0).contains(age)))
        .zip(1..)
        .map(move |(age, seq)| {
            let at = now_ms - age;
            let measured = world::measurement(room, at);
            let is_after = had_power_cut && age < POWER_CUT_MS.1;
            Telemetry {
                boot: if is_after { after.clone() } else { before.clone() },
                seq,
                at,
                clock: ClockState::Synced,
                mono: (at - begin_ms).unsigned_abs(),
                temperature: Some(measured.temperature()),
                humidity: Some(measured.humidity()),
            }
        })
}

/// The ages of the readings in ms, the oldest first.
fn ages() -> impl Iterator<Item = i64> {
    let until = AGES.iter().skip(1).map(|(age, _)| *age).chain([0]);
    AGES.iter().zip(until).flat_map(|(&(from, step), until)| {
        (0..).map(move |n| from - n * step).take_while(move |age| *age > until)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Log, Range, SeriesQuery};

    fn past(name: &str, had_power_cut: bool) -> Past {
        let id = |text: &str| -> Id { text.parse().unwrap() };
        Past { node: id(name), sensor: id("hall"), had_power_cut }
    }

    #[test]
    fn a_chart_of_any_range_is_filled_and_has_the_one_gap() {
        let folder = tempfile::tempdir().unwrap();
        let now_ms = 1_760_000_000_000;
        fill(folder.path(), &[past("press", true), past("roof", false)], now_ms).unwrap();
        let log = Log::open(&folder.path().join(LOG_FILE)).unwrap();
        for span in [15 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS] {
            for (node, gaps) in [("press", 1), ("roof", 0)] {
                let range = Range::new(now_ms - span, now_ms, None).unwrap();
                let sensor = past(node, false);
                let series = log
                    .series(&SeriesQuery { node: sensor.node, sensor: sensor.sensor, range })
                    .unwrap();
                let points = &series.points;
                assert!(points.len() > 300, "{node} {span}: {}", points.len());
                let mut between: Vec<_> =
                    points.windows(2).map(|two| two[1].at - two[0].at).collect();
                let longest = *between.iter().max().unwrap();
                between.sort_unstable();
                let usual = between[between.len() / 2];
                let is_visible = gaps == 1 && usual < MINUTE_MS;
                assert_eq!(longest > usual * 5 / 2, is_visible, "{node} {span}: {longest} {usual}");
            }
        }
        assert_eq!(log.overview().unwrap().sensors.len(), 2);
    }

    #[test]
    fn days_and_nights_differ() {
        let values: Vec<f64> = readings(&past("roof", false), 1_760_000_000_000)
            .filter_map(|telemetry| telemetry.temperature)
            .collect();
        let (low, high) = values
            .iter()
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
        assert!(high - low > 3.0, "{low} to {high}");
    }
}

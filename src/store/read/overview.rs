//! Every sensor with its latest reading.

use std::collections::BTreeMap;

use rusqlite::OptionalExtension;

use crate::clock;
use crate::store::read::arrived::{self, ARRIVED, ArrivedRun};
use crate::store::read::log::{Log, READINGS, Reading, reading};
use crate::store::write::newest::{RunAge, newest_of, noted};

/// The sensors of the log.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Overview {
    /// By node and name.
    pub sensors: Vec<SensorOverview>,
}

/// A sensor.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SensorOverview {
    /// Node id.
    pub node: String,
    /// Sensor id.
    pub sensor: String,
    /// The newest reading: the highest number in the newest run, whatever its time says.
    pub latest: Option<Reading>,
}

impl Log {
    /// Every sensor with its latest reading: a few look-ups each, in one snapshot. Those of a board whose rows are being
    /// deleted are left out.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn overview(&self) -> rusqlite::Result<Overview> {
        let snapshot = self.connection.unchecked_transaction()?;
        let sensors = self.sensor_overviews(clock::unix_ms())?;
        snapshot.finish()?;
        Ok(Overview { sensors })
    }

    fn sensor_overviews(&self, now_ms: i64) -> rusqlite::Result<Vec<SensorOverview>> {
        let arrived = arrived::newest(&self.connection)?;
        self.connection
            .prepare_cached(
                "SELECT sensor.id, node.name, sensor.name FROM sensor JOIN node ON node.id = sensor.node
                 WHERE node.name NOT IN (SELECT node FROM forgotten WHERE cleared = 1)
                 ORDER BY node.name, sensor.name",
            )?
            .query_map([], |row| {
                let latest = self.newest(row.get(0)?, arrived.get(&row.get(0)?), now_ms)?;
                Ok(SensorOverview { node: row.get(1)?, sensor: row.get(2)?, latest })
            })?
            .collect()
    }

    /// The newest reading of a sensor. `arrived` has its rows that are still to be moved, by run.
    fn newest(
        &self,
        sensor: i64,
        arrived: Option<&BTreeMap<i64, ArrivedRun>>,
        now_ms: i64,
    ) -> rusqlite::Result<Option<Reading>> {
        // Age, highest number, and the row's id where it is still to be moved.
        let mut runs: BTreeMap<i64, (RunAge, i64, Option<i64>)> = BTreeMap::new();
        for (run, seq) in noted(&self.connection, sensor)? {
            runs.insert(run, (RunAge::load(&self.connection, run, now_ms)?, seq, None));
        }
        for (run, ArrivedRun { began, highest: (seq, id) }) in arrived.into_iter().flatten() {
            if runs.get(run).is_none_or(|(_, placed, _)| seq >= placed) {
                runs.insert(*run, (RunAge::new(*run, *began, now_ms), *seq, Some(*id)));
            }
        }
        while let Some(run) = newest_of(runs.values().map(|(age, ..)| *age)) {
            let found = match runs.remove(&run.id) {
                Some((_, _, Some(id))) => self
                    .connection
                    .prepare_cached(&format!("{ARRIVED} WHERE reading.id = ?"))?
                    .query_row([id], reading)
                    .optional()?,
                Some((_, seq, None)) => self
                    .connection
                    .prepare_cached(&format!(
                        "{READINGS} WHERE reading.run = ? AND reading.seq = ?"
                    ))?
                    .query_row([run.id, seq], reading)
                    .optional()?,
                None => break,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        self.latest_by_time(sensor)
    }

    /// The reading of a sensor with the latest time: when those that are noted as the newest were deleted, or were never
    /// noted, in a log of an earlier version.
    fn latest_by_time(&self, sensor: i64) -> rusqlite::Result<Option<Reading>> {
        let placed = self
            .connection
            .prepare_cached(&format!(
                "{READINGS} WHERE reading.sensor = ?
                 ORDER BY reading.at DESC, reading.run DESC, reading.seq DESC LIMIT 1"
            ))?
            .query_row([sensor], |row| Ok(((row.get(4)?, row.get(8)?, row.get(3)?), reading(row)?)))
            .optional()?;
        let arrived = arrived::find(&self.connection, Some(sensor), (i64::MIN, i64::MAX))?;
        let Some(arrived) = arrived.last() else { return Ok(placed.map(|(_, reading)| reading)) };
        match placed {
            Some((place, reading)) if place > arrived.place => Ok(Some(reading)),
            _ => self
                .connection
                .prepare_cached(&format!("{ARRIVED} WHERE reading.id = ?"))?
                .query_row([arrived.id], reading)
                .optional(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::reading::ClockState;
    use crate::store::{Record, Store};
    use crate::wire::Telemetry;

    const START_MS: i64 = 1_760_000_000_000;

    /// A board that restarts all the time comes back and sends its newest reading first, and then those of earlier runs.
    #[test]
    fn the_newest_of_thousands_of_runs_that_wait_is_found_without_a_look_at_each() {
        let runs = std::env::var("HUMIDOR_WAITING_RUNS").map_or(3_000, |n| n.parse().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("humidor.db");
        let mut store = Store::open(&path).unwrap();
        let reading = |run: u64| Record::Reading {
            node: "press".parse().unwrap(),
            sensor: "s".parse().unwrap(),
            telemetry: Telemetry {
                boot: format!("b{run}").parse().unwrap(),
                seq: 1,
                at: START_MS + run.cast_signed() * 60_000,
                clock: ClockState::Synced,
                mono: 1,
                temperature: Some(20.0),
                humidity: None,
            },
        };
        let readings: Vec<Record> = [runs].into_iter().chain(1..runs).map(reading).collect();
        store.append(&readings.iter().collect::<Vec<_>>()).unwrap();
        let newest = format!("b{runs}");
        let log = Log::open(&path).unwrap();
        let started = std::time::Instant::now();
        let overview = log.overview().unwrap();
        println!("the newest of {runs} runs that wait: {:?}", started.elapsed());
        let [sensor] = &overview.sensors[..] else { panic!("{overview:?}") };
        assert_eq!(sensor.latest.as_ref().unwrap().boot, newest);
        let age = log.connection.prepare_cached("SELECT offset_ms FROM run WHERE id = ?").unwrap();
        assert_eq!(age.get_status(StatementStatus::Run), 0, "looks at single runs");
        assert_eq!(log.latest(1).unwrap()[0].boot, newest);
    }
}

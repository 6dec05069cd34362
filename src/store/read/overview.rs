//! Every sensor with its latest reading.

use std::collections::BTreeMap;

use rusqlite::OptionalExtension;

use crate::clock;
use crate::store::read::arrived::{self, ARRIVED};
use crate::store::read::log::{Log, READINGS, Reading, reading};
use crate::store::write::newest::{newest_of, noted};

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

    /// The newest reading of a sensor. `arrived` has, by run, the highest number of its rows that are still to be moved,
    /// and the row's id.
    fn newest(
        &self,
        sensor: i64,
        arrived: Option<&BTreeMap<i64, (i64, i64)>>,
        now_ms: i64,
    ) -> rusqlite::Result<Option<Reading>> {
        let placed = noted(&self.connection, sensor)?.into_iter();
        let mut runs: BTreeMap<i64, (i64, Option<i64>)> =
            placed.map(|(run, seq)| (run, (seq, None))).collect();
        for (run, (seq, id)) in arrived.into_iter().flatten() {
            let known = runs.entry(*run).or_insert((*seq, Some(*id)));
            if *seq >= known.0 {
                *known = (*seq, Some(*id));
            }
        }
        while let Some(run) = newest_of(&self.connection, runs.keys().copied(), now_ms)? {
            let found = match runs.remove(&run.id) {
                Some((_, Some(id))) => self
                    .connection
                    .prepare_cached(&format!("{ARRIVED} WHERE reading.id = ?"))?
                    .query_row([id], reading)
                    .optional()?,
                Some((seq, None)) => self
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

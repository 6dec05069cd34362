//! Every sensor with its latest reading.

use crate::store::read::arrived::{self, ARRIVED};
use crate::store::read::log::{Log, READINGS, Reading, reading};

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
    /// The reading of the latest time.
    pub latest: Option<Reading>,
}

impl Log {
    /// Every sensor with its latest reading: two look-ups each, in one snapshot.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn overview(&self) -> rusqlite::Result<Overview> {
        let snapshot = self.connection.unchecked_transaction()?;
        let sensors = self.sensor_overviews()?;
        snapshot.finish()?;
        Ok(Overview { sensors })
    }

    fn sensor_overviews(&self) -> rusqlite::Result<Vec<SensorOverview>> {
        let arrived = arrived::latest(&self.connection, 1)?;
        let mut latest_arrived =
            self.connection.prepare_cached(&format!("{ARRIVED} WHERE reading.id = ?"))?;
        let mut latest = self.connection.prepare_cached(&format!(
            "{READINGS} WHERE reading.sensor = ?
             ORDER BY reading.at DESC, reading.run DESC, reading.seq DESC LIMIT 1"
        ))?;
        self.connection
            .prepare_cached(
                "SELECT sensor.id, node.name, sensor.name FROM sensor JOIN node ON node.id = sensor.node
                 ORDER BY node.name, sensor.name",
            )?
            .query_map([], |row| {
                let sensor: i64 = row.get(0)?;
                let mut found = latest.query_map([sensor], |row| {
                    Ok(((row.get(4)?, row.get(8)?, row.get(3)?), reading(row)?))
                })?;
                let placed = found.next().transpose()?;
                let arrived = arrived
                    .get(&sensor)
                    .and_then(|rows| rows.first())
                    .filter(|row| placed.as_ref().is_none_or(|(place, _)| row.place > *place));
                let latest = match arrived {
                    Some(row) => Some(latest_arrived.query_row([row.id], reading)?),
                    None => placed.map(|(_, reading)| reading),
                };
                Ok(SensorOverview { node: row.get(1)?, sensor: row.get(2)?, latest })
            })?
            .collect()
    }
}

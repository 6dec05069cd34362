//! Every sensor with its latest reading, from the indexes alone.

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
        let mut latest = self.connection.prepare_cached(&format!(
            "{READINGS} WHERE reading.sensor = ? ORDER BY reading.at DESC LIMIT 1"
        ))?;
        self.connection
            .prepare_cached(
                "SELECT sensor.id, node.name, sensor.name FROM sensor JOIN node ON node.id = sensor.node
                 ORDER BY node.name, sensor.name",
            )?
            .query_map([], |row| {
                let mut found = latest.query_map([row.get::<_, i64>(0)?], reading)?;
                Ok(SensorOverview {
                    node: row.get(1)?,
                    sensor: row.get(2)?,
                    latest: found.next().transpose()?,
                })
            })?
            .collect()
    }
}

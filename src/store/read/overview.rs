//! What there is: every sensor and every foreign source with its latest value, from the indexes alone.

use rusqlite::params;

use crate::store::read::log::{Foreign, Log, READINGS, Reading, reading};

/// Every series of the log.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Overview {
    /// By node and name.
    pub sensors: Vec<SensorOverview>,
    /// By topic and field.
    pub sources: Vec<SourceOverview>,
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

/// A number of a foreign publisher.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SourceOverview {
    /// Topic.
    pub topic: String,
    /// JSON member, empty for a plain number.
    pub field: String,
    /// The number that came last.
    pub latest: Option<Foreign>,
}

impl Log {
    /// Every sensor and every foreign source with its latest value: two look-ups each.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn overview(&self) -> rusqlite::Result<Overview> {
        let snapshot = self.connection.unchecked_transaction()?;
        let overview =
            Overview { sensors: self.sensor_overviews()?, sources: self.source_overviews()? };
        snapshot.finish()?;
        Ok(overview)
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

    fn source_overviews(&self) -> rusqlite::Result<Vec<SourceOverview>> {
        let mut latest = self.connection.prepare_cached(
            "SELECT at, value FROM sample WHERE source = ? ORDER BY at DESC, id DESC LIMIT 1",
        )?;
        self.connection
            .prepare_cached("SELECT id, topic, field FROM source ORDER BY topic, field")?
            .query_map([], |row| {
                let (topic, field): (String, String) = (row.get(1)?, row.get(2)?);
                let mut found = latest.query_map(params![row.get::<_, i64>(0)?], |sample| {
                    Ok(Foreign {
                        topic: topic.clone(),
                        field: field.clone(),
                        at: sample.get(0)?,
                        value: sample.get(1)?,
                    })
                })?;
                let latest = found.next().transpose()?;
                drop(found);
                Ok(SourceOverview { topic, field, latest })
            })?
            .collect()
    }
}

//! Readings whose time is ahead of this machine's clock.

use std::collections::BTreeMap;

use crate::store::read::arrived;
use crate::store::read::log::Log;
use crate::store::retention::ahead::AHEAD_MS;

/// Readings of a sensor that are ahead of the clock by more than a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// Node id.
    pub node: String,
    /// Sensor id.
    pub sensor: String,
    /// How many they are.
    pub readings: i64,
    /// Time of the earliest, Unix ms UTC by its node's clock.
    pub first: i64,
    /// Time of the latest.
    pub last: i64,
}

impl Log {
    /// Sensors with readings more than a minute ahead of `now_ms`, Unix ms. A look-up a sensor, and a look at each of
    /// those readings.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn ahead(&self, now_ms: i64) -> rusqlite::Result<Vec<Ahead>> {
        let after = now_ms.saturating_add(AHEAD_MS);
        let snapshot = self.connection.unchecked_transaction()?;
        let mut arrived = BTreeMap::<i64, Vec<i64>>::new();
        for row in arrived::find(&self.connection, None, (after.saturating_add(1), i64::MAX))? {
            arrived.entry(row.sensor).or_default().push(row.place.0);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT sensor.id, node.name, sensor.name,
                    (SELECT count(*) FROM reading WHERE sensor = sensor.id AND at > ?1),
                    (SELECT min(at) FROM reading WHERE sensor = sensor.id AND at > ?1),
                    (SELECT max(at) FROM reading WHERE sensor = sensor.id AND at > ?1)
             FROM sensor JOIN node ON node.id = sensor.node ORDER BY node.name, sensor.name",
        )?;
        let mut rows = statement.query([after])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let more = arrived.remove(&row.get(0)?).unwrap_or_default();
            let readings: i64 =
                row.get::<_, i64>(3)? + i64::try_from(more.len()).unwrap_or(i64::MAX);
            let first = more.iter().copied().chain(row.get::<_, Option<i64>>(4)?).min();
            let last = more.iter().copied().chain(row.get::<_, Option<i64>>(5)?).max();
            if let (Some(first), Some(last)) = (first, last) {
                found.push(Ahead { node: row.get(1)?, sensor: row.get(2)?, readings, first, last });
            }
        }
        drop(rows);
        snapshot.finish()?;
        Ok(found)
    }
}

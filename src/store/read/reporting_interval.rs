//! The usual time between two readings of a sensor: a sensor is late when more has passed.

use std::collections::HashMap;

use rusqlite::params;

use crate::clock;
use crate::store::read::arrived;
use crate::store::read::log::Log;
use crate::store::retention::ahead::AHEAD_MS;

/// Latest readings of a sensor that its interval is taken from.
pub(in crate::store) const READINGS: usize = 16;

impl Log {
    /// The median time between the latest readings of each sensor, in ms, by node and name; none for a sensor with
    /// fewer than three. The median, because an outage among them, or a burst after one, is not its interval.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn reporting_intervals_ms(&self) -> rusqlite::Result<HashMap<(String, String), i64>> {
        // What is ahead of the clock says nothing of the present.
        let until = clock::unix_ms().saturating_add(AHEAD_MS);
        let snapshot = self.connection.unchecked_transaction()?;
        let arrived = arrived::latest(&self.connection, READINGS)?;
        let mut placed = self.connection.prepare_cached(
            "SELECT at FROM reading WHERE sensor = ? AND at <= ? ORDER BY at DESC LIMIT ?",
        )?;
        let mut sensors = self.connection.prepare_cached(
            "SELECT sensor.id, node.name, sensor.name FROM sensor JOIN node ON node.id = sensor.node",
        )?;
        let mut rows = sensors.query([])?;
        let mut intervals = HashMap::new();
        while let Some(row) = rows.next()? {
            let sensor: i64 = row.get(0)?;
            let mut latest: Vec<i64> = placed
                .query_map(params![sensor, until, READINGS], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            latest.extend(
                arrived
                    .get(&sensor)
                    .into_iter()
                    .flatten()
                    .map(|row| row.place.0)
                    .filter(|at| *at <= until),
            );
            latest.sort_unstable_by(|a, b| b.cmp(a));
            latest.truncate(READINGS);
            let between = latest.windows(2).map(|pair| pair[0].saturating_sub(pair[1]));
            if let Some(interval) = median(between.collect()) {
                intervals.insert((row.get(1)?, row.get(2)?), interval);
            }
        }
        drop(rows);
        snapshot.finish()?;
        Ok(intervals)
    }
}

/// The median of the times between readings; `None` of fewer than two.
pub(in crate::store) fn median(mut intervals: Vec<i64>) -> Option<i64> {
    intervals.sort_unstable();
    if intervals.len() < 2 { None } else { intervals.get(intervals.len() / 2).copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_not_the_interval() {
        assert_eq!(median(vec![10, 10, 86_400_000, 11, 10]), Some(10));
        assert_eq!(median(vec![10]), None);
    }
}

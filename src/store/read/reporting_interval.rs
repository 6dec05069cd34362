//! The usual time between two readings of a sensor: a sensor is late when more has passed.

use crate::store::read::log::Log;

/// Latest readings of a sensor that its interval is taken from.
const READINGS: usize = 16;

impl Log {
    /// The median time between the latest readings of a sensor, in ms; `None` while there are fewer than three.
    /// The median, because an outage among them, or a burst after one, is not its interval.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn reporting_interval_ms(&self, node: &str, sensor: &str) -> rusqlite::Result<Option<i64>> {
        let latest: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT at FROM reading WHERE sensor = (
                     SELECT sensor.id FROM sensor JOIN node ON node.id = sensor.node
                     WHERE node.name = ? AND sensor.name = ?)
                 ORDER BY at DESC LIMIT ?",
            )?
            .query_map(rusqlite::params![node, sensor, READINGS], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(median(latest.windows(2).map(|pair| pair[0].saturating_sub(pair[1])).collect()))
    }
}

fn median(mut intervals: Vec<i64>) -> Option<i64> {
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

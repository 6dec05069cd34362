//! Checks the log and copies it, beside a running broker.

use std::path::Path;

use crate::store::read::log::{Log, NUMBERS_AND_TIMES};
use crate::store::rollup::schema::{SAMPLES, Tier};

impl Log {
    /// Every complaint of a full integrity check; empty when the log is sound.
    ///
    /// # Errors
    /// When the check itself cannot run.
    pub fn check(&self) -> rusqlite::Result<Vec<String>> {
        let verdicts = self
            .connection
            .prepare("PRAGMA integrity_check")?
            .query_map([], |row| row.get::<_, String>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(verdicts.into_iter().filter(|verdict| verdict != "ok").collect())
    }

    /// Spans of samples whose mean is not known: an earlier version has stored a sum that is no number, and the rows are
    /// not kept any more. It looks at every span.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn unknown_means(&self) -> rusqlite::Result<i64> {
        let mean = if self.version < NUMBERS_AND_TIMES { "NULL" } else { "value_mean" };
        let mut found = 0;
        for tier in Tier::ALL {
            let sql = format!(
                "SELECT count(*) FROM {} WHERE value_count > 0 AND {mean} IS NULL
                 AND (value_sum IS NULL OR abs(value_sum) = 9e999)",
                SAMPLES.rolled(tier)
            );
            found += self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0))?;
        }
        Ok(found)
    }

    /// Spans that could not be rolled up: the series, the start of the quarter in Unix ms, and why.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn set_aside(&self) -> rusqlite::Result<Vec<(String, i64, String)>> {
        self.connection
            .prepare(
                "SELECT coalesce(iif(family = 0,
                            (SELECT node.name || '/' || sensor.name FROM sensor
                             JOIN node ON node.id = sensor.node WHERE sensor.id = series),
                            (SELECT trim(topic || ' ' || field) FROM source WHERE source.id = series)),
                        series), at, cause FROM set_aside ORDER BY at",
            )?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    }

    /// Writes a compact copy of the log as it is now to `target`, which must not exist.
    ///
    /// `VACUUM INTO` reads one snapshot: unlike SQLite's page-wise backup, which starts over with
    /// every commit of the broker, it always ends.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn copy_to(&self, target: &Path) -> rusqlite::Result<()> {
        self.connection.execute("VACUUM INTO ?", [target.to_string_lossy()]).map(|_| ())
    }
}

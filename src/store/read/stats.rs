//! What a monitor asks of the log every few seconds: nothing here counts rows of readings.

use crate::store::read::log::Log;

/// Size and refusals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuickStats {
    /// Size of the database in bytes, without its write-ahead log.
    pub bytes: i64,
    /// Messages acknowledged and refused since the log was begun, by cause.
    pub refused: Vec<(String, i64)>,
}

impl Log {
    /// Size and refusals: a look at the header, and a sum over at most some thousand rows.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn quick_stats(&self) -> rusqlite::Result<QuickStats> {
        let one = |sql: &str| self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let refused = self
            .connection
            .prepare_cached("SELECT cause, sum(count) FROM refusal GROUP BY cause ORDER BY cause")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(QuickStats { bytes: one("PRAGMA page_size")? * one("PRAGMA page_count")?, refused })
    }
}

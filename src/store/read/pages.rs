//! Readings page by page, for a reader of any slowness: between two pages no transaction is open, so that an
//! export over a slow line does not keep the write-ahead log from being taken into the database.

use rusqlite::params;

use crate::store::read::log::{Log, READINGS, Reading, Selection, reading};

/// Readings of one page: some milliseconds of work, some hundred kilobytes.
pub const PAGE_ROWS: usize = 2_000;

/// Where an export has got to.
#[derive(Debug)]
pub struct Pages {
    from: i64,
    to: i64,
    /// Sensors to go, the present one last.
    sensors: Vec<i64>,
    /// Time, run and number of the last reading given of the present one.
    after: Option<(i64, i64, i64)>,
}

impl Log {
    /// Starts an export of `selection`, sensor by sensor, each in the order of time.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn pages(&self, selection: &Selection) -> rusqlite::Result<Pages> {
        let mut sensors = self.sensors(selection)?;
        sensors.reverse();
        let from = selection.from_ms.unwrap_or(i64::MIN);
        let to = selection.to_ms.unwrap_or(i64::MAX);
        Ok(Pages { from, to, sensors, after: None })
    }

    /// The next readings, at most [`PAGE_ROWS`]; none when all were given. A reading whose time is corrected
    /// meanwhile may be given twice or not at all.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn next_page(&self, pages: &mut Pages) -> rusqlite::Result<Vec<Reading>> {
        // The index by time ends in the key of the table, so that this order needs no sorting.
        let mut statement = self.connection.prepare_cached(&format!(
            "{READINGS} WHERE reading.sensor = ?1 AND reading.at >= ?2 AND reading.at < ?3
                 AND (reading.at, reading.run, reading.seq) > (?2, ?4, ?5)
             ORDER BY reading.at, reading.run, reading.seq LIMIT ?6"
        ))?;
        while let Some(sensor) = pages.sensors.last() {
            let (at, run, seq) = pages.after.unwrap_or((pages.from, i64::MIN, i64::MIN));
            let mut rows = statement.query(params![sensor, at, pages.to, run, seq, PAGE_ROWS])?;
            let mut page = Vec::new();
            while let Some(row) = rows.next()? {
                pages.after = Some((row.get(4)?, row.get(8)?, row.get(3)?));
                page.push(reading(row)?);
            }
            if page.len() < PAGE_ROWS {
                pages.sensors.pop();
                pages.after = None;
            }
            if !page.is_empty() {
                return Ok(page);
            }
        }
        Ok(Vec::new())
    }
}

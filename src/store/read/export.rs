//! Exports the log page by page, for a reader of any slowness.
//!
//! Between two pages no transaction is open, so that an export over a slow line does not keep the write-ahead log
//! from being taken into the database.

use rusqlite::params;

use crate::export_format::Row;
use crate::store::read::arrived::{self, ARRIVED, Found, Place};
use crate::store::read::log::{Log, READINGS, Reading, Selection, reading};

/// Readings of one page: some milliseconds of work, some hundred kilobytes.
pub const PAGE_ROWS: usize = 2_000;
/// Most rows that are still to be moved whose places an export remembers at once: 6 MB. Of more, it looks for each
/// sensor's when it comes to it.
const ARRIVED_ROWS: i64 = 131_072;
/// Samples of one page.
const SAMPLE_PAGE_ROWS: i64 = 500;

/// The position of an export.
#[derive(Debug)]
pub struct Pages {
    from: i64,
    to: i64,
    /// Sensors that are not finished, the current one last.
    sensors: Vec<i64>,
    /// The place of the last reading of the current sensor.
    after: Option<Place>,
    /// Rows that were still to be moved when the export began, or its current sensor did, in the order of sensor and
    /// place. One that was moved since is found where it is now.
    arrived: Vec<Found>,
    /// Whether `arrived` holds those of every sensor.
    arrived_whole: bool,
}

/// A stored number of a foreign publisher, as the view `samples` has it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Foreign {
    /// Topic it came on.
    pub topic: String,
    /// JSON member, empty for a plain number.
    pub field: String,
    /// Arrival, Unix ms UTC.
    pub at: i64,
    /// The number.
    pub value: f64,
}

impl Row for Foreign {
    fn each_text(&mut self, each: &mut dyn FnMut(&mut String)) {
        each(&mut self.topic);
        each(&mut self.field);
    }
}

impl Log {
    /// Starts an export of `selection`, sensor by sensor, each in the order of time.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn pages(&self, selection: &Selection) -> rusqlite::Result<Pages> {
        let mut sensors = self.sensors(selection)?;
        sensors.reverse();
        let (from, to) = selection.bounds();
        let mut pages = Pages {
            from,
            to,
            sensors,
            after: None,
            arrived: Vec::new(),
            arrived_whole: arrived::count(&self.connection)? <= ARRIVED_ROWS,
        };
        let sensor = if pages.arrived_whole { None } else { pages.sensors.last().copied() };
        self.find_arrived(&mut pages, sensor)?;
        Ok(pages)
    }

    /// Whether the log has a sensor of `selection`, at whatever time.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn has_any(&self, selection: &Selection) -> rusqlite::Result<bool> {
        Ok(!self.sensors(selection)?.is_empty())
    }

    fn find_arrived(&self, pages: &mut Pages, sensor: Option<i64>) -> rusqlite::Result<()> {
        pages.arrived = arrived::find(&self.connection, sensor, (pages.from, pages.to))?;
        Ok(())
    }

    /// The next readings, at most [`PAGE_ROWS`]; none when all were given. A reading whose time is corrected
    /// meanwhile may be given twice or not at all.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn next_page(&self, pages: &mut Pages) -> rusqlite::Result<Vec<Reading>> {
        while let Some(sensor) = pages.sensors.last().copied() {
            // In one snapshot a row is in one of the tables.
            let snapshot = self.connection.unchecked_transaction()?;
            let page = self.page(pages, sensor)?;
            snapshot.finish()?;
            if page.len() < PAGE_ROWS {
                pages.sensors.pop();
                pages.after = None;
                if !pages.arrived_whole {
                    self.find_arrived(pages, pages.sensors.last().copied())?;
                }
            }
            if !page.is_empty() {
                return Ok(page);
            }
        }
        Ok(Vec::new())
    }

    /// The next readings of a sensor: all that are left when they are fewer than [`PAGE_ROWS`].
    fn page(&self, pages: &mut Pages, sensor: i64) -> rusqlite::Result<Vec<Reading>> {
        // The index by time ends in the key of the table, so that this order needs no sorting.
        let mut statement = self.connection.prepare_cached(&format!(
            "{READINGS} WHERE reading.sensor = ?1 AND reading.at >= ?2 AND reading.at < ?3
                 AND (reading.at, reading.run, reading.seq) > (?2, ?4, ?5)
             ORDER BY reading.at, reading.run, reading.seq LIMIT ?6"
        ))?;
        let after = pages.after.unwrap_or((pages.from, i64::MIN, i64::MIN));
        let mut rows =
            statement.query(params![sensor, after.0, pages.to, after.1, after.2, PAGE_ROWS])?;
        let mut page: Vec<(Place, Reading)> = Vec::new();
        while let Some(row) = rows.next()? {
            page.push(((row.get(4)?, row.get(8)?, row.get(3)?), reading(row)?));
        }
        let end = (page.len() == PAGE_ROWS).then(|| page[PAGE_ROWS - 1].0);
        self.add_arrived(pages, sensor, end, &mut page)?;
        page.sort_by_key(|(place, _)| *place);
        page.truncate(PAGE_ROWS);
        if let Some((last, _)) = page.last() {
            pages.after = Some(*last);
        }
        Ok(page.into_iter().map(|(_, reading)| reading).collect())
    }

    /// Adds the rows that are still to be moved: of `sensor`, after the last page and not after `end`.
    fn add_arrived(
        &self,
        pages: &Pages,
        sensor: i64,
        end: Option<Place>,
        page: &mut Vec<(Place, Reading)>,
    ) -> rusqlite::Result<()> {
        let after = pages.after.unwrap_or((i64::MIN, i64::MIN, i64::MIN));
        let first = pages.arrived.partition_point(|row| (row.sensor, row.place) <= (sensor, after));
        let next = pages.arrived[first..]
            .iter()
            .take_while(|row| row.sensor == sensor && end.is_none_or(|end| row.place < end));
        let mut room = PAGE_ROWS;
        let mut statement = self
            .connection
            .prepare_cached(&format!("{ARRIVED} WHERE reading.id = ? AND reading.is_kept"))?;
        for row in next {
            if room == 0 {
                break;
            }
            let mut rows = statement.query([row.id])?;
            while let Some(row) = rows.next()? {
                let place: Place = (row.get(4)?, row.get(8)?, row.get(3)?);
                if (pages.from..pages.to).contains(&place.0) {
                    page.push((place, reading(row)?));
                    room -= 1;
                }
            }
        }
        Ok(())
    }

    /// Calls `each` for every selected reading, sensor by sensor, each in the order of time. Nothing
    /// is collected: memory stays the same for ten rows and ten million.
    ///
    /// A reading whose time is corrected meanwhile may come twice or not at all; its number tells.
    ///
    /// # Errors
    /// The error of SQLite, or of `each`.
    pub fn export<E: From<rusqlite::Error>>(
        &self,
        selection: &Selection,
        mut each: impl FnMut(Reading) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pages = self.pages(selection)?;
        loop {
            let page = self.next_page(&mut pages)?;
            if page.is_empty() {
                return Ok(());
            }
            page.into_iter().try_for_each(&mut each)?;
        }
    }

    /// Calls `each` for every foreign number in the time range, source by source, page by page as
    /// [`Log::export`].
    ///
    /// # Errors
    /// The error of SQLite, or of `each`.
    pub fn export_samples<E: From<rusqlite::Error>>(
        &self,
        selection: &Selection,
        mut each: impl FnMut(Foreign) -> Result<(), E>,
    ) -> Result<(), E> {
        let (from, to) = selection.bounds();
        let sources: Vec<i64> = self
            .connection
            .prepare_cached("SELECT id FROM source ORDER BY id")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for source in sources {
            let mut after = (from.saturating_sub(1), i64::MAX);
            loop {
                let page = self.sample_page(source, after, to)?;
                let Some((id, last)) = page.last() else { break };
                after = (last.at, *id);
                page.into_iter().try_for_each(|(_, sample)| each(sample))?;
            }
        }
        Ok(())
    }

    fn sample_page(
        &self,
        source: i64,
        (at, id): (i64, i64),
        to: i64,
    ) -> rusqlite::Result<Vec<(i64, Foreign)>> {
        self.connection
            .prepare_cached(
                "SELECT sample.id, source.topic, source.field, sample.at, sample.value
                 FROM source CROSS JOIN sample ON sample.source = source.id
                 WHERE source.id = ? AND sample.at < ? AND (sample.at, sample.id) > (?, ?)
                 ORDER BY sample.at, sample.id LIMIT ?",
            )?
            .query_map(params![source, to, at, id, SAMPLE_PAGE_ROWS], |row| {
                let (topic, field) = (row.get(1)?, row.get(2)?);
                Ok((row.get(0)?, Foreign { topic, field, at: row.get(3)?, value: row.get(4)? }))
            })?
            .collect()
    }
}

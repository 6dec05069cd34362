//! Everything of a selection, page by page, for an export of any length.

use rusqlite::params;

use crate::store::read::log::{Foreign, Log, Reading, Selection};

/// Samples that an export reads at once.
const EXPORT_PAGE_ROWS: i64 = 500;

impl Log {
    /// Calls `each` for every selected reading, sensor by sensor, each in the order of time. Nothing
    /// is collected: memory stays the same for ten rows and ten million.
    ///
    /// It reads page by page and holds no snapshot while `each` runs: a slow reader must not keep the
    /// write-ahead log from being cut back. A reading whose time is corrected meanwhile may come twice, or
    /// not; its number tells.
    ///
    /// # Errors
    /// What SQLite said, or what `each` returned.
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
    /// What SQLite said, or what `each` returned.
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
            .query_map(params![source, to, at, id, EXPORT_PAGE_ROWS], |row| {
                let (topic, field) = (row.get(1)?, row.get(2)?);
                Ok((row.get(0)?, Foreign { topic, field, at: row.get(3)?, value: row.get(4)? }))
            })?
            .collect()
    }
}

//! Backfills the roll-ups of a log from before there were roll-ups, in small steps.

use rusqlite::{OptionalExtension, Transaction, params};
use tracing::info;

use crate::store::rollup::aggregate::start_of;
use crate::store::rollup::compute;
use crate::store::rollup::schema::{HOUR_MS, READINGS, SAMPLES, SeriesSchema};
use crate::store::rollup::set_aside::or_set_aside;

/// Rolls up some hours, the newest first. `logs` says when progress is to be logged. Returns whether all
/// is done.
pub(in crate::store) fn roll(
    transaction: &Transaction<'_>,
    mut logs: impl FnMut() -> bool,
    has_time: impl Fn() -> bool,
) -> rusqlite::Result<bool> {
    loop {
        let next: Option<(i64, i64, i64)> = transaction
            .prepare_cached("SELECT family, series, before FROM backlog LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((code, series, before)) = next else { return Ok(true) };
        let newest = if code == READINGS.code {
            newest_hour(transaction, &READINGS, series, before)?
        } else {
            newest_hour(transaction, &SAMPLES, series, before)?
        };
        if logs() {
            let left: i64 = transaction
                .prepare_cached("SELECT count(*) FROM backlog")?
                .query_row([], |row| row.get(0))?;
            let at = newest.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            info!(
                series_left = left,
                at = at.map(|at| at.to_string()),
                "rolling up older readings"
            );
        }
        match newest {
            Some(hour) => transaction
                .prepare_cached("UPDATE backlog SET before = ? WHERE family = ? AND series = ?")?
                .execute(params![hour, code, series])?,
            None => transaction
                .prepare_cached("DELETE FROM backlog WHERE family = ? AND series = ?")?
                .execute(params![code, series])?,
        };
        if !has_time() {
            return Ok(false);
        }
    }
}

/// Whether rows of an older log still have no roll-ups.
pub(in crate::store) fn is_pending(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM backlog)")?
        .query_row([], |row| row.get(0))
}

/// Rolls up the newest hour before `before` that has rows, and returns its start.
fn newest_hour<const N: usize>(
    transaction: &Transaction<'_>,
    schema: &SeriesSchema<N>,
    series: i64,
    before: i64,
) -> rusqlite::Result<Option<i64>> {
    let newest: Option<i64> = transaction
        .prepare_cached(&format!(
            "SELECT max(at) FROM {} WHERE {} = ? AND at < ?",
            schema.table, schema.series
        ))?
        .query_row(params![series, before], |row| row.get(0))?;
    let Some(newest) = newest else { return Ok(None) };
    let hour = start_of(newest, HOUR_MS);
    or_set_aside(transaction, (schema.code, series, hour), || {
        compute::roll_hour(transaction, schema, series, hour)
    })?;
    Ok(Some(hour))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Id;
    use crate::store::file::migrate::Database;
    use crate::store::file::open::open_checked;
    use crate::store::file::schema;
    use crate::store::{Log, Range, SeriesQuery, Store};

    const START_MS: i64 = 489_000 * HOUR_MS;
    const ROWS: i64 = 3_000;

    fn old_log(path: &std::path::Path) {
        let before = Database { migrations: &schema::LOG.migrations[..3], ..schema::LOG };
        let (connection, _, _lock) = open_checked(path, before).unwrap();
        connection
            .execute_batch(&format!(
                "INSERT INTO node VALUES (1, 'press'); INSERT INTO sensor VALUES (1, 1, 'hall');
                 INSERT INTO run (id, node, boot) VALUES (1, 1, 'b');
                 INSERT INTO reading (run, seq, sensor, at, clock, mono, temperature)
                 SELECT 1, value, 1, {START_MS} + value * 60000, 1, value, value % 7
                 FROM (WITH RECURSIVE n (value) AS (
                     SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < {ROWS}) SELECT value FROM n);"
            ))
            .unwrap();
    }

    #[test]
    fn what_was_recorded_before_there_were_roll_ups_is_rolled_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("humidor.db");
        old_log(&path);
        let mut store = Store::open(&path).unwrap();
        let id = |text: &str| text.parse::<Id>().unwrap();
        let to = START_MS + (ROWS + 1) * 60_000;
        let range = Range::new(START_MS, to, Some(HOUR_MS.cast_unsigned())).unwrap();
        let query = SeriesQuery { node: id("press"), sensor: id("hall"), range };
        let log = Log::open(&path).unwrap();
        let rolled = || {
            let count =
                |sql| log.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
            (count("SELECT count(*) FROM reading_1m"), count("SELECT count(*) FROM backlog"))
        };

        let before = log.series(&query).unwrap();
        assert_eq!(before.points.iter().map(|point| point.count).sum::<i64>(), ROWS);
        assert_eq!(rolled(), (0, 1));
        // Half of it, then a restart: the newest hours come from the roll-ups, the others from the rows.
        while rolled().0 < ROWS / 2 {
            assert!(store.maintain(to).unwrap());
        }
        drop(store);
        assert_eq!(log.series(&query).unwrap(), before);
        let mut store = Store::open(&path).unwrap();
        while store.maintain(to).unwrap() {}
        assert_eq!(rolled(), (ROWS, 0));
        assert_eq!(log.series(&query).unwrap(), before);
    }
}

//! Deletes runs and series of which nothing is kept any more, so that names that were used once do not stay for ever.
//!
//! A reading that comes again is told by its run. Of the runs without rows the latest [`RUNS_REMEMBERED`] of each node
//! therefore stay; of their deleted numbers, the highest ranges of each (see [`deleted_ranges`]). The highest id of each table stays too: no id is given twice while the broker runs.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::store::retention::deleted_ranges;
use crate::store::rollup::schema::{READINGS, SAMPLES, SeriesSchema, Tier};
use crate::store::write::cache::WriterCache;
use crate::store::write::record::SeriesName;

/// Runs without rows that are remembered of each node. A board that starts every day has two months of them.
const RUNS_REMEMBERED: i64 = 64;
/// Ranges of deleted numbers that one piece of work deletes.
const RANGES: i64 = 50;

/// The position of the sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Cursor {
    /// Ranges of deleted numbers of the run after this one, from this number on.
    Ranges(i64, i64),
    /// Runs after this one.
    Runs(i64),
    /// Sensors after this one.
    Sensors(i64),
    /// Foreign series after this one.
    Sources(i64),
}

impl Cursor {
    /// Before everything.
    pub const START: Self = Self::Ranges(i64::MIN, i64::MIN);
}

/// Sweeps while there is time. Returns the position to go on from; `None` when all is done.
pub(in crate::store) fn step(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    mut cursor: Cursor,
    has_time: impl Fn() -> bool,
) -> rusqlite::Result<Option<Cursor>> {
    loop {
        let next = match cursor {
            Cursor::Ranges(after, from) => Some(
                deleted_ranges::join_some(transaction, (after, from))?
                    .map_or(Cursor::Runs(i64::MIN), |(after, from)| Cursor::Ranges(after, from)),
            ),
            Cursor::Runs(after) => Some(
                sweep_run(transaction, cache, after)?
                    .map_or(Cursor::Sensors(i64::MIN), Cursor::Runs),
            ),
            Cursor::Sensors(after) => Some(
                sweep_sensor(transaction, cache, after)?
                    .map_or(Cursor::Sources(i64::MIN), Cursor::Sensors),
            ),
            Cursor::Sources(after) => sweep_source(transaction, cache, after)?.map(Cursor::Sources),
        };
        let Some(next) = next else {
            cache.renew_names(transaction)?;
            return Ok(None);
        };
        cursor = next;
        if !has_time() {
            return Ok(Some(cursor));
        }
    }
}

/// Looks at the next run of which rows were deleted. Returns the run to go on after, `None` when there are no more.
fn sweep_run(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    after: i64,
) -> rusqlite::Result<Option<i64>> {
    let run: Option<i64> = transaction
        .prepare_cached("SELECT min(run) FROM pruned WHERE run > ?")?
        .query_row([after], |row| row.get(0))?;
    let Some(run) = run else { return Ok(None) };
    if cache.arrivals(transaction)?.numbers.knows(run) {
        return Ok(Some(run));
    }
    let is_kept: bool = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM reading WHERE run = ?1)
                 OR EXISTS (SELECT 1 FROM parked WHERE run = ?1)
                 OR ?1 = (SELECT max(id) FROM run)",
        )?
        .query_row([run], |row| row.get(0))?;
    if is_kept || !is_outlived(transaction, run)? {
        return Ok(Some(run));
    }
    let deleted = transaction
        .prepare_cached(
            "DELETE FROM pruned WHERE run = ?1 AND first <= (
                 SELECT max(first) FROM (SELECT first FROM pruned WHERE run = ?1 ORDER BY first LIMIT ?2))",
        )?
        .execute(params![run, RANGES])?;
    if i64::try_from(deleted).is_ok_and(|deleted| deleted == RANGES) {
        // There may be more, and the last of them goes with the run.
        return Ok(Some(after));
    }
    transaction.prepare_cached("DELETE FROM ahead WHERE run = ?")?.execute([run])?;
    transaction.prepare_cached("DELETE FROM run WHERE id = ?")?.execute([run])?;
    cache.interner.forget_run(run);
    Ok(Some(run))
}

/// Whether so many later runs of the same node are known that this one need not be.
fn is_outlived(transaction: &Transaction<'_>, run: i64) -> rusqlite::Result<bool> {
    let later: Option<i64> = transaction
        .prepare_cached(
            "SELECT 1 FROM run WHERE node = (SELECT node FROM run WHERE id = ?1) AND id > ?1
             LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![run, RUNS_REMEMBERED - 1], |row| row.get(0))
        .optional()?;
    Ok(later.is_some())
}

/// As [`sweep_run`], for the next sensor. A node goes with its last one.
fn sweep_sensor(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    after: i64,
) -> rusqlite::Result<Option<i64>> {
    // Rows that wait to be moved have no index: their sensors are known by their names.
    if !cache.knows_waiting_sensors(transaction)? {
        return Ok(None);
    }
    let next: Option<(i64, i64, String, String, bool)> = transaction
        .prepare_cached(
            "SELECT sensor.id, node.id, node.name, sensor.name, sensor.id = (SELECT max(id) FROM sensor)
             FROM sensor JOIN node ON node.id = sensor.node WHERE sensor.id > ? ORDER BY sensor.id LIMIT 1",
        )?
        .query_row([after], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })
        .optional()?;
    let Some((id, node, node_name, name, is_last)) = next else { return Ok(None) };
    let (Ok(node_id), Ok(sensor)) = (node_name.parse(), name.parse()) else { return Ok(Some(id)) };
    if is_last
        || cache.interner.knows_sensor(&node_id, &sensor)
        || has_rows(transaction, &READINGS, id)?
    {
        return Ok(Some(id));
    }
    delete_sensor(transaction, cache, id)?;
    cache.deleted.push(SeriesName::Sensor { node: node_id, sensor });
    let has_others: bool = transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM sensor WHERE node = ?)")?
        .query_row([node], |row| row.get(0))?;
    if !has_others {
        let highest: Option<i64> = transaction
            .prepare_cached("SELECT max(id) FROM run")?
            .query_row([], |row| row.get(0))?;
        delete_node(transaction, cache, node, highest.unwrap_or(i64::MAX))?;
    }
    Ok(Some(id))
}

/// Deletes a sensor of which there are no rows and no spans.
pub(in crate::store) fn delete_sensor(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    sensor: i64,
) -> rusqlite::Result<()> {
    delete_notes(transaction, cache, READINGS.code, sensor)?;
    transaction.prepare_cached("DELETE FROM newest WHERE sensor = ?")?.execute([sensor])?;
    transaction.prepare_cached("DELETE FROM sensor WHERE id = ?")?.execute([sensor])?;
    Ok(())
}

/// Deletes what is noted of a series.
fn delete_notes(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    code: i64,
    series: i64,
) -> rusqlite::Result<()> {
    cache.horizons.forget(transaction, code, series)?;
    for table in ["dirty", "backlog", "set_aside"] {
        transaction
            .prepare_cached(&format!("DELETE FROM {table} WHERE family = ? AND series = ?"))?
            .execute(params![code, series])?;
    }
    Ok(())
}

/// Deletes a node that has no sensor any more, and its runs before `until`.
pub(in crate::store) fn delete_node(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    node: i64,
    until: i64,
) -> rusqlite::Result<()> {
    let runs: Vec<i64> = transaction
        .prepare_cached("SELECT id FROM run WHERE node = ? AND id < ?")?
        .query_map([node, until], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for run in runs {
        for table in ["pruned", "parked", "ahead"] {
            transaction
                .prepare_cached(&format!("DELETE FROM {table} WHERE run = ?"))?
                .execute([run])?;
        }
        transaction.prepare_cached("DELETE FROM run WHERE id = ?")?.execute([run])?;
        cache.interner.forget_run(run);
        cache.arrivals(transaction)?.numbers.forget(run);
    }
    transaction
        .prepare_cached(
            "DELETE FROM node WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM run WHERE node = ?1)",
        )?
        .execute([node])?;
    Ok(())
}

/// As [`sweep_run`], for the next foreign series.
fn sweep_source(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    after: i64,
) -> rusqlite::Result<Option<i64>> {
    let next: Option<(i64, String, String, bool)> = transaction
        .prepare_cached(
            "SELECT id, topic, field, id = (SELECT max(id) FROM source)
             FROM source WHERE id > ? ORDER BY id LIMIT 1",
        )?
        .query_row([after], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((id, topic, field, is_last)) = next else { return Ok(None) };
    if is_last
        || cache.interner.knows_source(&topic, &field)
        || has_rows(transaction, &SAMPLES, id)?
    {
        return Ok(Some(id));
    }
    delete_notes(transaction, cache, SAMPLES.code, id)?;
    transaction.prepare_cached("DELETE FROM mend WHERE source = ?")?.execute([id])?;
    transaction.prepare_cached("DELETE FROM source WHERE id = ?")?.execute([id])?;
    cache.deleted.push(SeriesName::Source { topic, field });
    Ok(Some(id))
}

/// Whether anything is kept of a series.
fn has_rows<const N: usize>(
    transaction: &Transaction<'_>,
    schema: &SeriesSchema<N>,
    series: i64,
) -> rusqlite::Result<bool> {
    let key = schema.series;
    let tables = Tier::ALL.map(|tier| schema.rolled(tier));
    let tables = [schema.table.to_owned()].into_iter().chain(tables);
    let kept: Vec<String> =
        tables.map(|table| format!("EXISTS (SELECT 1 FROM {table} WHERE {key} = ?1)")).collect();
    transaction
        .prepare_cached(&format!(
            "SELECT {} OR EXISTS (SELECT 1 FROM dirty WHERE family = ?2 AND series = ?1)
                 OR EXISTS (SELECT 1 FROM backlog WHERE family = ?2 AND series = ?1)",
            kept.join(" OR ")
        ))?
        .query_row(params![series, schema.code], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::reading::ClockState;
    use crate::store::rollup::schema::HOUR_MS;
    use crate::store::{Record, Retention, Store};
    use crate::wire::Telemetry;

    const START_MS: i64 = 489_000 * HOUR_MS;

    fn reading(node: &str, boot: &str, seq: u64, at: i64) -> Record {
        let telemetry = Telemetry {
            boot: boot.parse().unwrap(),
            seq,
            at,
            clock: ClockState::Synced,
            mono: seq,
            temperature: Some(20.0),
            humidity: None,
        };
        Record::Reading { node: node.parse().unwrap(), sensor: "s".parse().unwrap(), telemetry }
    }

    fn append(store: &mut Store, records: &[Record]) -> u64 {
        store.append(&records.iter().collect::<Vec<_>>()).unwrap().readings
    }

    fn settle(store: &mut Store, now_ms: i64) {
        while store.maintain(now_ms).unwrap() {}
    }

    fn count(store: &Store, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        store.connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn runs_without_rows_go_except_the_latest_of_each_node() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        let keep_raw = Some(Duration::from_hours(24));
        store.retain(Retention { keep_raw, ..Retention::EVERYTHING });
        let of_run = |n: i64| reading("press", &format!("b{n}"), 1, START_MS + n * 60_000);
        let all: Vec<Record> = (0..200).map(of_run).collect();
        assert_eq!(append(&mut store, &all), 200);
        let now = START_MS + 48 * HOUR_MS;
        append(&mut store, &[reading("press", "new", 1, now)]);
        settle(&mut store, now);
        assert_eq!((count(&store, "reading"), count(&store, "run")), (1, 201), "known lately");
        // What arrives next makes the earlier numbers old.
        for (seq, hours) in [(2, 1), (3, 2)] {
            let now = now + hours * HOUR_MS;
            append(&mut store, &[reading("press", "new", seq, now)]);
            settle(&mut store, now);
        }
        assert_eq!(count(&store, "run"), 64);
        assert_eq!(append(&mut store, &all[199..]), 0, "a repeat of a run that is remembered");
        assert_eq!(append(&mut store, &[reading("press", "new", 1, now)]), 0);
    }

    #[test]
    fn a_run_with_a_hole_after_each_reading_leaves_few_ranges() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        let keep_raw = Some(Duration::from_hours(24));
        store.retain(Retention { keep_raw, ..Retention::EVERYTHING });
        let of = |n: i64| reading("press", "b", 2 * n.cast_unsigned(), START_MS + n * 1_000);
        let all: Vec<Record> = (1..=5_000).map(of).collect();
        assert_eq!(append(&mut store, &all), 5_000);
        let now = START_MS + 48 * HOUR_MS;
        append(&mut store, &[reading("press", "b", 20_000, now)]);
        settle(&mut store, now);
        assert_eq!(count(&store, "reading"), 1);
        assert!(count(&store, "pruned") <= 257, "{} ranges", count(&store, "pruned"));
        assert_eq!(append(&mut store, &all), 0, "all are repeats");
        let late = [reading("press", "b", 9_999, now), reading("press", "b", 19_999, now)];
        assert_eq!(append(&mut store, &late), 2, "late ones of the highest numbers");
    }

    #[test]
    fn series_of_which_nothing_is_kept_go_with_their_node_and_those_that_wait_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        store.retain(Retention { keep_raw: None, max_bytes: u64::MAX - 1 });
        let made_up: Vec<Record> =
            (0..50).map(|n| reading(&format!("n{n}"), "b", 1, START_MS)).collect();
        append(&mut store, &made_up);
        let topic = |n: i64| format!("plant/{n}");
        let foreign: Vec<Record> = (0..50)
            .map(|n| Record::Foreign {
                topic: topic(n),
                at_ms: START_MS,
                numbers: vec![(String::new(), 1.0)].into(),
            })
            .collect();
        store.append(&foreign.iter().collect::<Vec<_>>()).unwrap();
        settle(&mut store, START_MS);
        // As retention by size leaves them, except the first of each.
        for table in ["reading", "reading_1m", "reading_15m", "reading_1h"] {
            store.connection.execute(&format!("DELETE FROM {table} WHERE sensor > 1"), []).unwrap();
        }
        for table in ["sample", "sample_1m", "sample_15m", "sample_1h"] {
            store.connection.execute(&format!("DELETE FROM {table} WHERE source > 1"), []).unwrap();
        }
        store.connection.execute("DELETE FROM dirty WHERE series > 1", []).unwrap();
        // This one waits to be moved.
        append(&mut store, &[reading("n7", "b", 2, START_MS + 1)]);
        for hour in 1..4 {
            let now = START_MS + hour * HOUR_MS;
            append(&mut store, &[reading("n7", "b", 2 + hour.cast_unsigned(), now)]);
            settle(&mut store, now);
        }
        let names: String = store
            .connection
            .query_row(
                "SELECT group_concat(name, ' ') FROM (SELECT name FROM node ORDER BY id)",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(names, "n0 n7 n49", "the last ids are not given twice");
        assert_eq!((count(&store, "sensor"), count(&store, "source")), (3, 2));
        assert_eq!(store.take_deleted_series().len(), 47 + 48);
        assert_eq!(append(&mut store, &made_up[8..9]), 1, "begun anew");
        settle(&mut store, START_MS + 5 * HOUR_MS);
        assert_eq!(count(&store, "readings"), 1 + 4 + 1);
    }
}

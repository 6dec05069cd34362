//! Deletes the data of a node that is to be forgotten, in small pieces.
//!
//! The table `forgotten` holds the requests, so that one survives a restart and another process can make it while the
//! broker runs. The broker first clears what MQTT keeps of the node, and then its rows go.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::reading::Id;
use crate::store::rollup::schema::{READINGS, Tier};
use crate::store::write::cache::WriterCache;
use crate::store::write::record::SeriesName;
use crate::store::write::sweep::{delete_node, delete_sensor};

/// Rows that one piece of work deletes.
const DELETE_ROWS: i64 = 50;

/// A node that is being forgotten.
#[derive(Debug)]
pub(in crate::store) struct Forgetting {
    node: String,
    /// Rows up to this id are moved to their place first.
    pub until: i64,
}

/// The node that is to be forgotten next, once MQTT keeps nothing of it.
pub(in crate::store) fn next(
    connection: &Connection,
    cache: &mut WriterCache,
) -> rusqlite::Result<Option<Forgetting>> {
    let node: Option<String> = connection
        .prepare_cached("SELECT node FROM forgotten WHERE cleared = 1 LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(node) = node else { return Ok(None) };
    Ok(Some(Forgetting { node, until: cache.arrivals(connection)?.last() }))
}

impl Forgetting {
    /// Whether the rows that had arrived when this began are in their place.
    pub fn is_moved(
        &self,
        cache: &mut WriterCache,
        connection: &Connection,
    ) -> rusqlite::Result<bool> {
        Ok(cache.arrivals(connection)?.unmoved_from > self.until)
    }

    /// Deletes while there is time. Returns whether all is deleted.
    pub fn step(
        &self,
        transaction: &Transaction<'_>,
        cache: &mut WriterCache,
        has_time: impl Fn() -> bool,
    ) -> rusqlite::Result<bool> {
        let node: Option<i64> = transaction
            .prepare_cached("SELECT id FROM node WHERE name = ?")?
            .query_row([&self.node], |row| row.get(0))
            .optional()?;
        if let Some(node) = node {
            let sensors: Vec<(i64, String)> = transaction
                .prepare_cached("SELECT id, name FROM sensor WHERE node = ?")?
                .query_map([node], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            for (sensor, _) in &sensors {
                while delete_piece(transaction, *sensor)? {
                    if !has_time() {
                        return Ok(false);
                    }
                }
            }
            transaction
                .prepare_cached(
                    "DELETE FROM newest WHERE sensor IN (SELECT id FROM sensor WHERE node = ?)",
                )?
                .execute([node])?;
            if !self.has_waiting(transaction, node)? {
                self.delete_names(transaction, cache, node, &sensors)?;
            }
        }
        transaction
            .prepare_cached("DELETE FROM forgotten WHERE node = ? AND cleared = 1")?
            .execute([&self.node])?;
        Ok(true)
    }

    /// Whether readings of the node have arrived meanwhile: it still publishes, and keeps its names for them.
    fn has_waiting(&self, transaction: &Transaction<'_>, node: i64) -> rusqlite::Result<bool> {
        transaction
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM arrival WHERE id > ?
                     AND sensor IN (SELECT id FROM sensor WHERE node = ?))",
            )?
            .query_row(params![self.until, node], |row| row.get(0))
    }

    fn delete_names(
        &self,
        transaction: &Transaction<'_>,
        cache: &mut WriterCache,
        node: i64,
        sensors: &[(i64, String)],
    ) -> rusqlite::Result<()> {
        for (sensor, _) in sensors {
            delete_sensor(transaction, cache, *sensor)?;
        }
        delete_node(transaction, cache, node, i64::MAX)?;
        // An id that is given anew must not meet what the cache knows of its former owner.
        let mut deleted = std::mem::take(&mut cache.deleted);
        cache.forget();
        if let Ok(node) = self.node.parse::<Id>() {
            let names = sensors.iter().filter_map(|(_, sensor)| sensor.parse().ok());
            deleted.extend(names.map(|sensor| SeriesName::Sensor { node: node.clone(), sensor }));
        }
        cache.deleted = deleted;
        Ok(())
    }
}

/// Deletes a few rows or spans of a sensor. Returns whether there were any.
fn delete_piece(transaction: &Transaction<'_>, sensor: i64) -> rusqlite::Result<bool> {
    // By the order of the key, since rows lie together in that order.
    let rows = transaction
        .prepare_cached(
            "DELETE FROM reading WHERE (run, seq) IN (
                 SELECT run, seq FROM reading INDEXED BY reading_by_time WHERE sensor = ? LIMIT ?)",
        )?
        .execute(params![sensor, DELETE_ROWS])?;
    if rows > 0 {
        return Ok(true);
    }
    for tier in Tier::ALL {
        let table = READINGS.rolled(tier);
        let spans = transaction
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE sensor = ?1 AND at IN (
                     SELECT at FROM {table} WHERE sensor = ?1 ORDER BY at LIMIT ?2)"
            ))?
            .execute(params![sensor, DELETE_ROWS])?;
        if spans > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::ClockState;
    use crate::store::rollup::schema::HOUR_MS;
    use crate::store::{Change, Log, Record, Selection, Store};
    use crate::wire::Telemetry;

    const START_MS: i64 = 489_000 * HOUR_MS;

    fn append(store: &mut Store, node: &str, seqs: std::ops::Range<u64>) -> u64 {
        let reading = |seq: u64| Record::Reading {
            node: node.parse().unwrap(),
            sensor: if seq.is_multiple_of(2) { "air" } else { "oil" }.parse().unwrap(),
            telemetry: Telemetry {
                boot: "b".parse().unwrap(),
                seq,
                at: START_MS + seq.cast_signed() * 10_000,
                clock: ClockState::Synced,
                mono: seq,
                temperature: Some(20.0),
                humidity: None,
            },
        };
        let records: Vec<Record> = seqs.map(reading).collect();
        store.append(&records.iter().collect::<Vec<_>>()).unwrap().readings
    }

    fn names(store: &Store) -> String {
        let sql = "SELECT group_concat(name, ' ') FROM (
            SELECT node.name || '/' || sensor.name AS name FROM sensor JOIN node ON node.id = sensor.node ORDER BY 1)";
        store.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_node_goes_with_all_its_rows_in_small_pieces_and_others_keep_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("humidor.db");
        let mut store = Store::open(&path).unwrap();
        append(&mut store, "oven", 1..500);
        append(&mut store, "press", 1..2_000);
        while store.maintain(START_MS + 100 * HOUR_MS).unwrap() {}
        // These are not in their place yet.
        append(&mut store, "press", 2_000..2_100);
        let press: Id = "press".parse().unwrap();
        store.commit(&[], &[&Change::Forget { node: press.clone() }]).unwrap();
        let now = START_MS + 100 * HOUR_MS;
        assert!(!store.maintain(now).unwrap(), "MQTT still has something of it");
        store.commit(&[], &[&Change::Cleared { node: press.clone() }]).unwrap();
        let shown = Log::open(&path).unwrap().overview().unwrap().sensors;
        assert!(shown.iter().all(|sensor| sensor.node == "oven"), "{shown:?}");
        let mut steps = 0;
        while store.maintain(now).unwrap() {
            steps += 1;
        }
        assert!(steps > 3, "{steps}");
        assert_eq!(names(&store), "oven/air oven/oil");
        assert_eq!(store.take_deleted_series().len(), 2);
        let mut rows = 0;
        let log = Log::open(&path).unwrap();
        log.export(&Selection::default(), |row| {
            rows += u32::from(row.node == "oven");
            assert_eq!(row.node, "oven");
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
        assert_eq!(rows, 499);
        for table in ["reading_1m", "reading_15m", "reading_1h", "dirty", "pruned", "run"] {
            let column = match table {
                "run" => "node",
                "dirty" => "series",
                "pruned" => "run",
                _ => "sensor",
            };
            let sql = format!("SELECT count(DISTINCT {column}) FROM {table}");
            let owners: i64 = store.connection.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert!(owners <= 2, "{table}");
        }
        // Its name may be used anew: nothing is known of the old numbers, nor taken for a repeat.
        assert_eq!(append(&mut store, "press", 1..11), 10);
        assert_eq!(append(&mut store, "oven", 1..500), 0);
    }

    #[test]
    fn a_node_that_still_publishes_keeps_what_comes_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("humidor.db");
        let mut store = Store::open(&path).unwrap();
        append(&mut store, "press", 1..3_000);
        let press: Id = "press".parse().unwrap();
        let changes =
            [Change::Forget { node: press.clone() }, Change::Cleared { node: press.clone() }];
        store.commit(&[], &changes.each_ref()).unwrap();
        let now = START_MS + 100 * HOUR_MS;
        let mut seq = 3_000;
        while store.maintain(now).unwrap() {
            if store.is_forgetting(&press).unwrap() {
                append(&mut store, "press", seq..seq + 1);
                seq += 1;
            }
        }
        let log = Log::open(&path).unwrap();
        let kept = log.latest(usize::MAX).unwrap();
        assert!((1..100).contains(&kept.len()), "{}", kept.len());
        assert_eq!(append(&mut store, "press", seq - 1..seq), 0, "a repeat");
    }
}

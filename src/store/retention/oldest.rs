//! Looks for the oldest and the newest data of the log.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use crate::clock::SET_FROM_MS;
use crate::store::retention::ahead::AHEAD_MS;
use crate::store::retention::horizon::{Horizon, Horizons};
use crate::store::retention::policy::Oldest;
use crate::store::retention::share::SeriesUse;
use crate::store::rollup::schema::{READINGS, SAMPLES, SeriesSchema, Tier};

/// Time of the newest row whose time is sure, and that is not ahead of `now_ms`, nor was it when it came; Unix ms.
pub(in crate::store) fn newest(
    connection: &Connection,
    now_ms: i64,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT max(at) FROM (
                 SELECT (SELECT at FROM reading WHERE sensor = sensor.id AND at <= ?1
                             AND (run, seq) NOT IN (SELECT run, seq FROM ahead)
                         ORDER BY at DESC LIMIT 1) AS at FROM sensor
                 UNION ALL
                 SELECT (SELECT at FROM sample WHERE source = source.id AND at <= ?1
                             AND sample.id > coalesce((SELECT last FROM early WHERE first <= sample.id
                                                       ORDER BY first DESC LIMIT 1), -1)
                         ORDER BY at DESC LIMIT 1) FROM source)",
        )?
        .query_row([now_ms], |row| row.get(0))
}

/// The oldest data of some series from their horizons on. Rows before those that go by their arrival count with the horizon.
pub(in crate::store) fn of(
    connection: &Connection,
    horizons: &Horizons,
    series: &[SeriesUse],
    correction_ms: i64,
) -> rusqlite::Result<Oldest> {
    let mut found = Oldest::default();
    // A node may have ten thousands of runs, and thousands of sensors.
    let mut arrived_of = HashMap::<i64, Option<i64>>::new();
    for of in series {
        let horizon = horizons.of_code(of.code, of.series);
        if of.code == READINGS.code {
            // It may be deleted by now.
            let Some(node) = node(connection, of.series)? else { continue };
            let arrived = match arrived_of.get(&node) {
                Some(known) => *known,
                None => {
                    *arrived_of.entry(node).or_insert(arrived(connection, node, correction_ms)?)
                }
            };
            let arrived = arrived.map(|at| at.max(horizon.rows_from));
            let readings = of_series(connection, &READINGS, of.series, &horizon)?;
            found.take(&Oldest { arrived, ..readings });
        } else {
            found.take(&of_series(connection, &SAMPLES, of.series, &horizon)?);
        }
    }
    Ok(found)
}

fn of_series<const N: usize>(
    connection: &Connection,
    schema: &SeriesSchema<N>,
    series: i64,
    horizon: &Horizon,
) -> rusqlite::Result<Oldest> {
    let oldest = |table: &str, from: i64| {
        connection
            .prepare_cached(&format!(
                "SELECT min(at) FROM {table} WHERE {} = ? AND at >= ?",
                schema.series
            ))?
            .query_row([series, from], |row| row.get(0))
    };
    let mut found = Oldest { rows: oldest(schema.table, horizon.rows_from)?, ..Oldest::default() };
    for tier in Tier::ALL {
        found.rolled[tier as usize] = oldest(&schema.rolled(tier), horizon.rolled_from(tier))?;
    }
    Ok(found)
}

/// Those of the sensors that have roll-ups ahead of `now_ms`, Unix ms by a clock that is set.
pub(in crate::store) fn rolled_ahead(
    connection: &Connection,
    series: &[SeriesUse],
    now_ms: i64,
) -> rusqlite::Result<Vec<i64>> {
    let mut found = Vec::new();
    if now_ms < SET_FROM_MS {
        return Ok(found);
    }
    for of in series.iter().filter(|of| of.code == READINGS.code) {
        for tier in Tier::ALL {
            let newest: Option<i64> = connection
                .prepare_cached(&format!(
                    "SELECT max(at) FROM {} WHERE sensor = ?",
                    READINGS.rolled(tier)
                ))?
                .query_row([of.series], |row| row.get(0))?;
            if newest.is_some_and(|at| at > now_ms.saturating_add(AHEAD_MS)) {
                found.push(of.series);
                break;
            }
        }
    }
    Ok(found)
}

fn node(connection: &Connection, sensor: i64) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT node FROM sensor WHERE id = ?")?
        .query_row([sensor], |row| row.get(0))
        .optional()
}

/// When the first of the readings came, Unix ms, that a node has ahead of the clock or without one: a look at each of its
/// runs.
fn arrived(
    connection: &Connection,
    node: i64,
    correction_ms: i64,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT min(arrived) FROM (
                 SELECT (SELECT min(arrived) FROM ahead WHERE ahead.run = run.id) + ?2 AS arrived
                 FROM run WHERE run.node = ?1
                 UNION ALL
                 SELECT booted_by + (SELECT mono FROM reading WHERE reading.run = parked.run ORDER BY seq LIMIT 1)
                 FROM run CROSS JOIN parked ON parked.run = run.id WHERE run.node = ?1)",
        )?
        .query_row([node, correction_ms], |row| row.get(0))
}

/// The name of a series, for people.
pub(in crate::store) fn name(connection: &Connection, of: &SeriesUse) -> rusqlite::Result<String> {
    let sql = if of.code == READINGS.code {
        "SELECT node.name || '/' || sensor.name FROM sensor JOIN node ON node.id = sensor.node WHERE sensor.id = ?"
    } else {
        "SELECT trim(topic || ' ' || field) FROM source WHERE id = ?"
    };
    let name =
        connection.prepare_cached(sql)?.query_row([of.series], |row| row.get(0)).optional()?;
    Ok(name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::schema::LOG;
    use crate::store::file::steps;

    const RUNS: i64 = 2_000;

    /// The oldest data of a node with so many sensors and [`RUNS`] runs, of which one has a reading ahead of the clock and
    /// one awaits it; and thousands of steps of SQLite's machine.
    fn of_node(sensors: i64) -> (Oldest, u64) {
        let mut connection = Connection::open_in_memory().unwrap();
        for script in LOG.migrations {
            connection.execute_batch(script).unwrap();
        }
        connection
            .execute_batch(&format!(
                "PRAGMA foreign_keys = OFF;
                 INSERT INTO node (id, name) VALUES (1, 'a'), (2, 'other');
                 WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {sensors})
                 INSERT INTO sensor (id, node, name) SELECT n, 1, 's' || n FROM n;
                 WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n <= {RUNS})
                 INSERT INTO run (id, node, boot) SELECT n, 1 + (n > {RUNS}), 'b' || n FROM n;
                 INSERT INTO ahead (run, seq, arrived) VALUES (7, 1, 500), (7, 2, 400), ({RUNS} + 1, 1, 5);
                 INSERT INTO parked (run, booted_by) VALUES (8, 1300), ({RUNS} + 1, 5);
                 INSERT INTO reading (run, seq, sensor, at, clock, mono) VALUES (8, 1, 1, 0, 3, 90);"
            ))
            .unwrap();
        let steps = steps::count(&mut connection);
        let series: Vec<SeriesUse> = (1..=sensors)
            .map(|series| SeriesUse {
                code: READINGS.code,
                series,
                owner: 0,
                holder: 0,
                bytes: 1,
                waiting: 0,
            })
            .collect();
        let horizons = Horizons::load(&connection).unwrap();
        let oldest = of(&connection, &horizons, &series, 1_000).unwrap();
        (oldest, steps())
    }

    #[test]
    fn the_runs_of_a_node_are_looked_at_once_however_many_sensors_it_has() {
        let (oldest, few) = of_node(10);
        assert_eq!((oldest.rows, oldest.arrived), (Some(0), Some(1_390)));
        let started = std::time::Instant::now();
        let (oldest, many) = of_node(5_000);
        println!("{few} and {many} thousand steps, {:?} with the rows' making", started.elapsed());
        assert_eq!(oldest.arrived, Some(1_390));
        assert!(many < few + 1_000, "{few} and {many} thousand steps");
    }
}

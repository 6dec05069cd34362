//! Looks for the oldest and the newest data of the log.

use rusqlite::{Connection, OptionalExtension};

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
    for of in series {
        let horizon = horizons.of_code(of.code, of.series);
        if of.code == READINGS.code {
            let arrived = arrived(connection, of.series, correction_ms)?;
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

/// When the first of the readings came, Unix ms, that a sensor's node has ahead of the clock or without one.
fn arrived(
    connection: &Connection,
    sensor: i64,
    correction_ms: i64,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT min(arrived) FROM (
                 SELECT (SELECT min(arrived) FROM ahead WHERE ahead.run = run.id) + ?2 AS arrived
                 FROM sensor JOIN run ON run.node = sensor.node WHERE sensor.id = ?1
                 UNION ALL
                 SELECT booted_by + (SELECT mono FROM reading WHERE reading.run = parked.run ORDER BY seq LIMIT 1)
                 FROM parked JOIN run ON run.id = parked.run
                 WHERE run.node = (SELECT node FROM sensor WHERE id = ?1))",
        )?
        .query_row([sensor, correction_ms], |row| row.get(0))
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

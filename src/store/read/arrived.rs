//! Rows that have arrived and are not in table `reading` yet. They have no index: each function looks at all of them
//! once, some ten thousand at most while the maintenance goes on.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Row, params};

use crate::store::file::schema::CLOCK_AWAITING;
use crate::store::rollup::aggregate::Bucket;
use crate::store::write::numbers::numbers_after;

/// As [`crate::store::read::log::READINGS`], of the rows that are still to be moved.
pub(in crate::store) const ARRIVED: &str = "
    SELECT node.name, sensor.name, run.boot, reading.seq, reading.at,
           CASE reading.clock WHEN 1 THEN 'synced' WHEN 2 THEN 'restamped' ELSE 'unsynced' END,
           reading.temperature, reading.humidity, reading.run, reading.mono, reading.id
    FROM arrived AS reading
    JOIN run ON run.id = reading.run
    JOIN node ON node.id = run.node
    JOIN sensor ON sensor.id = reading.sensor";

/// The place of a reading in the order of its sensor: time, run and number.
pub(in crate::store) type Place = (i64, i64, i64);

/// A row that can be found again by its id, until it is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Found {
    pub sensor: i64,
    pub place: Place,
    pub id: i64,
}

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    let place = (row.get(1)?, row.get(2)?, row.get(3)?);
    Ok(Found { sensor: row.get(0)?, place, id: row.get(4)? })
}

/// The numbers of all rows as ranges: run, first and last, in their order.
pub(in crate::store) fn numbers(connection: &Connection) -> rusqlite::Result<Vec<(i64, i64, i64)>> {
    let moved = connection
        .prepare_cached("SELECT moved FROM arrival_move")?
        .query_row([], |row| row.get(0))?;
    let ranges = numbers_after(connection, moved)?;
    let mut numbers: Vec<_> = ranges
        .iter()
        .flat_map(|(run, ranges)| ranges.iter().map(|(first, last)| (*run, first, last)))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The id of the latest row that ever arrived.
pub(in crate::store) fn last_id(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce((SELECT max(id) FROM arrival), sealed) FROM arrival_move")?
        .query_row([], |row| row.get(0))
}

/// Run and number of the rows after `id` that are in their place by now; `None` when that cannot be told, since some of
/// them are deleted here.
pub(in crate::store) fn placed_after(
    connection: &Connection,
    id: i64,
) -> rusqlite::Result<Option<Vec<(i64, i64)>>> {
    let first: Option<i64> = connection
        .prepare_cached("SELECT min(id) FROM arrival")?
        .query_row([], |row| row.get(0))?;
    let last = last_id(connection)?;
    // A log from before there was this table has no last id.
    if last < 0 || first.map_or(last > id, |first| first > id + 1) {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached(
        "SELECT arrival.run, arrival.seq FROM arrival_move CROSS JOIN arrival
         WHERE arrival.id > ? AND (arrival.id <= moved
             OR arrival.id <= sealed AND (arrival.run, arrival.seq) <= (arrival_move.run, arrival_move.seq))",
    )?;
    statement
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()
        .map(Some)
}

/// How many rows there are, those counted in that are no single rows.
pub(in crate::store) fn count(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "SELECT coalesce((SELECT max(id) FROM arrival), moved) - moved FROM arrival_move",
        )?
        .query_row([], |row| row.get(0))
}

/// The single rows from `from` (inclusive) to `to` (exclusive), Unix ms, of one sensor or of all, by sensor and place.
pub(in crate::store) fn find(
    connection: &Connection,
    sensor: Option<i64>,
    (from, to): (i64, i64),
) -> rusqlite::Result<Vec<Found>> {
    let mut rows: Vec<Found> = connection
        .prepare_cached(
            "SELECT sensor, at, run, seq, id FROM arrived
             WHERE is_kept AND (?1 IS NULL OR sensor = ?1) AND at >= ?2 AND at < ?3",
        )?
        .query_map(params![sensor, from, to], found)?
        .collect::<rusqlite::Result<_>>()?;
    rows.sort_unstable();
    Ok(rows)
}

/// The latest `most` single rows of each sensor, the latest first.
pub(in crate::store) fn latest(
    connection: &Connection,
    most: usize,
) -> rusqlite::Result<HashMap<i64, Vec<Found>>> {
    let mut statement =
        connection.prepare_cached("SELECT sensor, at, run, seq, id FROM arrived WHERE is_kept")?;
    let mut rows = statement.query([])?;
    let mut latest = HashMap::<i64, Vec<Found>>::new();
    // Sorted only now and then, so that a row costs little whatever `most` is.
    let keep = |of_sensor: &mut Vec<Found>| {
        of_sensor.sort_unstable_by_key(|row| std::cmp::Reverse(row.place));
        of_sensor.truncate(most);
    };
    while let Some(row) = rows.next()? {
        let row = found(row)?;
        let of_sensor = latest.entry(row.sensor).or_default();
        of_sensor.push(row);
        if of_sensor.len() / 2 > most {
            keep(of_sensor);
        }
    }
    latest.values_mut().for_each(keep);
    Ok(latest)
}

/// What a sensor has of a run among the single rows.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct ArrivedRun {
    /// When the run began, Unix ms by its node's clock; `None` until that was set.
    pub began: Option<i64>,
    /// The highest number, and the id of its row.
    pub highest: (i64, i64),
}

/// The runs in which a sensor has single rows: by sensor and run. As many as there are are looked at once, with the rows: a
/// board may have made up ten thousands.
pub(in crate::store) fn newest(
    connection: &Connection,
) -> rusqlite::Result<HashMap<i64, BTreeMap<i64, ArrivedRun>>> {
    let mut statement = connection.prepare_cached(
        "SELECT sensor, arrived.run, arrived.seq, arrived.id, run.offset_ms
         FROM arrived CROSS JOIN run ON run.id = arrived.run WHERE is_kept",
    )?;
    let mut rows = statement.query([])?;
    let mut newest = HashMap::<i64, BTreeMap<i64, ArrivedRun>>::new();
    while let Some(row) = rows.next()? {
        let run = ArrivedRun { began: row.get(4)?, highest: (row.get(2)?, row.get(3)?) };
        let known = newest.entry(row.get(0)?).or_default().entry(row.get(1)?).or_insert(run);
        known.highest = known.highest.max(run.highest);
    }
    Ok(newest)
}

/// A row as a chart takes it.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Drawn {
    pub row: Bucket<2>,
    /// Whether it is a single row; else it counts in the roll-ups alone.
    pub is_kept: bool,
}

/// The rows of a sensor that do not await their time, in its order.
pub(in crate::store) fn drawn(
    connection: &Connection,
    sensor: i64,
) -> rusqlite::Result<Vec<Drawn>> {
    let mut rows: Vec<Drawn> = connection
        .prepare_cached(
            "SELECT at, temperature, humidity, is_kept FROM arrived
             WHERE sensor = ? AND clock <> ?",
        )?
        .query_map(params![sensor, CLOCK_AWAITING], |row| {
            let values = [row.get(1)?, row.get(2)?];
            Ok(Drawn { row: Bucket::row(row.get(0)?, values), is_kept: row.get(3)? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    rows.sort_by_key(|drawn| drawn.row.at);
    Ok(rows)
}

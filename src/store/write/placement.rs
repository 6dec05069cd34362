//! Puts a reading in its place: into table `reading` with its corrected time when its run has one, or into the roll-ups
//! alone when single rows of its time are not kept any more.

use rusqlite::{Transaction, params};

use crate::store::file::schema::{CLOCK_AWAITING, CLOCK_RESTAMPED, CLOCK_UNSYNCED};
use crate::store::retention::deleted_ranges;
use crate::store::rollup::aggregate::Bucket;
use crate::store::rollup::schema::READINGS;
use crate::store::write::cache::WriterCache;

/// A row of table `arrival`; the times are Unix ms, `mono` ms since the node's start.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct ArrivedRow {
    pub seq: i64,
    pub sensor: i64,
    pub at: i64,
    pub clock: i64,
    pub mono: i64,
    /// Temperature and humidity.
    pub values: [Option<f64>; 2],
}

/// Places a row of `run`, whose offset in ms and first number with a set clock are `synced`. The view `arrived` says
/// the same of rows that are still to be placed.
pub(in crate::store) fn place(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    run: i64,
    synced: Option<(i64, i64)>,
    row: &ArrivedRow,
) -> rusqlite::Result<()> {
    let horizon = cache.horizons.of(&READINGS, row.sensor);
    let (at, clock, original) = match synced {
        Some((offset, synced_seq)) if row.clock == CLOCK_UNSYNCED && row.seq < synced_seq => {
            (row.mono.saturating_add(offset), CLOCK_RESTAMPED, Some(row.at))
        }
        // Its time may still be corrected to one after the horizon.
        None if row.clock == CLOCK_UNSYNCED
            && row.at < horizon.closed_until.max(cache.parking_until) =>
        {
            (row.at, CLOCK_AWAITING, None)
        }
        _ => (row.at, row.clock, None),
    };
    if at < horizon.closed_until && clock != CLOCK_AWAITING {
        cache.added_readings.add(row.sensor, &Bucket::row(at, row.values));
    }
    if at < horizon.rows_from && clock != CLOCK_AWAITING {
        return deleted_ranges::add(transaction, run, row.seq, row.seq);
    }
    let [temperature, humidity] = row.values;
    transaction
        .prepare_cached(
            "INSERT INTO reading (run, seq, sensor, at, clock, mono, temperature, humidity, at_original)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            run, row.seq, row.sensor, at, clock, row.mono, temperature, humidity, original
        ])?;
    if clock == CLOCK_AWAITING {
        transaction
            .prepare_cached("INSERT INTO parked (run) VALUES (?) ON CONFLICT DO NOTHING")?
            .execute([run])?;
        return Ok(());
    }
    if at < horizon.closed_until {
        return Ok(());
    }
    cache.marks.mark(transaction, &READINGS, row.sensor, at)
}

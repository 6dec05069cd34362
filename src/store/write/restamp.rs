//! Corrects the times of readings that were taken before their node's clock was set, from the offset of
//! their run.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::store::file::schema::{CLOCK_AWAITING, CLOCK_RESTAMPED, CLOCK_UNSYNCED};
use crate::store::retention::deleted_ranges;
use crate::store::retention::fold::fold;
use crate::store::rollup::aggregate::Bucket;
use crate::store::rollup::schema::READINGS;
use crate::store::write::cache::WriterCache;
use crate::store::write::{alarm_log, early};

/// Readings whose time is corrected in one commit, so that an acknowledgement never waits long
/// behind a correction.
const RESTAMP_ROWS_PER_COMMIT: i64 = 500;

struct Early {
    seq: i64,
    sensor: i64,
    at: i64,
    mono: i64,
    clock: i64,
    values: [Option<f64>; 2],
}

/// Corrects the next few times of readings, samples or alarms. Returns whether there is more to do.
pub(in crate::store) fn correct_some(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
) -> rusqlite::Result<bool> {
    // A few rows at most, which do not wait for the others.
    let alarms = alarm_log::step(transaction, cache)?;
    Ok(step(transaction, cache)? || early::step(transaction, cache)? || alarms)
}

/// Corrects the next few readings. Returns whether there is more to do.
fn step(transaction: &Transaction<'_>, cache: &mut WriterCache) -> rusqlite::Result<bool> {
    let waiting = transaction
        .prepare_cached(
            "SELECT id, offset_ms, synced_seq, restamp_from FROM run
             WHERE restamp_from IS NOT NULL LIMIT 1",
        )?
        .query_row([], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, i64>(3)?,
            ))
        })
        .optional()?;
    let Some((run, offset, synced_seq, from)) = waiting else { return Ok(false) };
    let early: Vec<Early> = transaction
        .prepare_cached(
            "SELECT seq, sensor, at, mono, clock, temperature, humidity FROM reading
             WHERE run = ? AND seq >= ? AND seq < ? ORDER BY seq LIMIT ?",
        )?
        .query_map(params![run, from, synced_seq, RESTAMP_ROWS_PER_COMMIT], |row| {
            Ok(Early {
                seq: row.get(0)?,
                sensor: row.get(1)?,
                at: row.get(2)?,
                mono: row.get(3)?,
                clock: row.get(4)?,
                values: [row.get(5)?, row.get(6)?],
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    for reading in &early {
        correct(transaction, cache, run, offset, reading)?;
    }
    let next = early.last().map(|reading| reading.seq + 1);
    transaction
        .prepare_cached("UPDATE run SET restamp_from = ? WHERE id = ?")?
        .execute(params![next, run])?;
    Ok(true)
}

fn correct(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    run: i64,
    offset: i64,
    reading: &Early,
) -> rusqlite::Result<()> {
    let horizon = cache.horizons.of(&READINGS, reading.sensor);
    let rolled_up = reading.clock == CLOCK_UNSYNCED && reading.at >= horizon.closed_until;
    // A reading stays where it is when it is in a roll-up that can no longer be computed afresh.
    if !rolled_up && reading.clock != CLOCK_AWAITING {
        return Ok(());
    }
    let at = reading.mono.saturating_add(offset);
    if rolled_up {
        cache.marks.mark(transaction, &READINGS, reading.sensor, reading.at)?;
    }
    if at < horizon.closed_until {
        let row = Bucket::row(at, reading.values);
        fold(transaction, &READINGS, reading.sensor, &row, &horizon)?;
    } else {
        cache.marks.mark(transaction, &READINGS, reading.sensor, at)?;
    }
    if at < horizon.rows_from {
        transaction
            .prepare_cached("DELETE FROM reading WHERE run = ? AND seq = ?")?
            .execute(params![run, reading.seq])?;
        return deleted_ranges::add(transaction, run, reading.seq, reading.seq);
    }
    transaction
        .prepare_cached(
            "UPDATE reading SET at_original = at, at = ?, clock = ? WHERE run = ? AND seq = ?",
        )?
        .execute(params![at, CLOCK_RESTAMPED, run, reading.seq])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::store::Store;

    #[test]
    fn a_run_to_correct_is_found_without_a_look_at_every_run() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("humidor.db")).unwrap();
        let plan: String = store
            .connection
            .query_row(
                "EXPLAIN QUERY PLAN SELECT id FROM run WHERE restamp_from IS NOT NULL LIMIT 1",
                [],
                |row| row.get(3),
            )
            .unwrap();
        assert!(plan.contains("run_to_restamp"), "{plan}");
    }
}

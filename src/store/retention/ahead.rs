//! Readings whose time is ahead of the broker's clock: marked with the time at which that was seen, by which retention takes
//! them. By their own they would stay for ever.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::store::retention::deleted_ranges;

/// A reading may be this far ahead of the broker's clock, in ms: clocks differ.
pub(in crate::store) const AHEAD_MS: i64 = 60_000;
/// Rows that one piece of work marks or looks at.
const ROWS: i64 = 50;

/// Marks readings that are ahead of `now_ms`, Unix ms, sensor by sensor after `after`; `log_ms` is now in log time. Returns
/// whether all are marked.
pub(in crate::store) fn mark(
    transaction: &Transaction<'_>,
    after: &mut i64,
    now_ms: i64,
    log_ms: i64,
    has_time: impl Fn() -> bool,
) -> rusqlite::Result<bool> {
    loop {
        let sensor: Option<i64> = transaction
            .prepare_cached("SELECT min(id) FROM sensor WHERE id > ?")?
            .query_row([*after], |row| row.get(0))?;
        let Some(sensor) = sensor else { return Ok(true) };
        let marked = transaction
            .prepare_cached(
                "INSERT INTO ahead (run, seq, arrived)
                 SELECT run, seq, ? FROM reading INDEXED BY reading_by_time
                 WHERE sensor = ? AND at > ? AND (run, seq) NOT IN (SELECT run, seq FROM ahead) LIMIT ?",
            )?
            .execute(params![log_ms, sensor, now_ms.saturating_add(AHEAD_MS), ROWS])?;
        if marked == 0 {
            *after = sensor;
        }
        if !has_time() {
            return Ok(false);
        }
    }
}

/// Looks at the next few marks after `after`: deletes the readings that came before `arrived_before`, in log time, and the
/// marks of readings that are not ahead of `now_ms`, Unix ms, any more. Returns the mark to go on after, `None` when there
/// are no more.
pub(in crate::store) fn delete_some(
    transaction: &Transaction<'_>,
    (run, seq): (i64, i64),
    now_ms: i64,
    arrived_before: i64,
) -> rusqlite::Result<Option<(i64, i64)>> {
    let marks: Vec<(i64, i64, i64)> = transaction
        .prepare_cached(
            "SELECT run, seq, arrived FROM ahead WHERE (run, seq) > (?, ?) ORDER BY run, seq LIMIT ?",
        )?
        .query_map(params![run, seq, ROWS], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (run, seq, arrived) in &marks {
        let at: Option<i64> = transaction
            .prepare_cached("SELECT at FROM reading WHERE run = ? AND seq = ?")?
            .query_row([run, seq], |row| row.get(0))
            .optional()?;
        let is_ahead = at.is_some_and(|at| at > now_ms.saturating_add(AHEAD_MS));
        if is_ahead && *arrived >= arrived_before {
            continue;
        }
        if is_ahead {
            transaction
                .prepare_cached("DELETE FROM reading WHERE run = ? AND seq = ?")?
                .execute([run, seq])?;
            deleted_ranges::add(transaction, *run, *seq, *seq)?;
        }
        transaction
            .prepare_cached("DELETE FROM ahead WHERE run = ? AND seq = ?")?
            .execute([run, seq])?;
    }
    Ok(marks.last().map(|(run, seq, _)| (*run, *seq)))
}

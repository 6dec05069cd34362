//! Readings whose time is ahead of the broker's clock: marked with the time at which that was seen, by which retention takes
//! them. By their own they would stay for ever.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::store::retention::deleted_ranges;

/// A reading may be this far ahead of the broker's clock, in ms: clocks differ.
pub(in crate::store) const AHEAD_MS: i64 = 60_000;
/// Rows that one piece of work marks or looks at.
const ROWS: i64 = 50;

/// The position of the marking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct MarkCursor {
    /// The sensor that is next, or any after it.
    sensor: i64,
    /// Time, run and number of the last reading of that sensor that was looked at.
    after: Option<(i64, i64, i64)>,
}

impl MarkCursor {
    /// Before everything.
    pub const START: Self = Self { sensor: i64::MIN, after: None };
}

/// Marks readings that are ahead of `now_ms`, Unix ms, sensor by sensor; `log_ms` is now in log time. Returns whether all
/// are marked.
pub(in crate::store) fn mark(
    transaction: &Transaction<'_>,
    cursor: &mut MarkCursor,
    now_ms: i64,
    log_ms: i64,
    has_time: impl Fn() -> bool,
) -> rusqlite::Result<bool> {
    loop {
        let sensor: Option<i64> = transaction
            .prepare_cached("SELECT min(id) FROM sensor WHERE id >= ?")?
            .query_row([cursor.sensor], |row| row.get(0))?;
        let Some(sensor) = sensor else { return Ok(true) };
        if sensor != cursor.sensor {
            *cursor = MarkCursor { sensor, after: None };
        }
        let ahead = (now_ms.saturating_add(AHEAD_MS), i64::MAX, i64::MAX);
        let (at, run, seq) = cursor.after.unwrap_or(ahead);
        let rows: Vec<(i64, i64, i64)> = transaction
            .prepare_cached(
                "SELECT at, run, seq FROM reading INDEXED BY reading_by_time
                 WHERE sensor = ? AND (at, run, seq) > (?, ?, ?) ORDER BY at, run, seq LIMIT ?",
            )?
            .query_map([sensor, at, run, seq, ROWS], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        for (_, run, seq) in &rows {
            transaction
                .prepare_cached(
                    "INSERT INTO ahead (run, seq, arrived) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                )?
                .execute([*run, *seq, log_ms])?;
        }
        cursor.after = rows.last().copied();
        if cursor.after.is_none() {
            let Some(next) = sensor.checked_add(1) else { return Ok(true) };
            cursor.sensor = next;
        }
        if !has_time() {
            return Ok(false);
        }
    }
}

/// Looks at the next few marks after `after`: deletes the readings that came before what `arrived_before` says of their
/// sensor, in log time, and the marks of readings that are not ahead of `now_ms`, Unix ms, any more. Returns the mark to go on after, `None` when there
/// are no more.
pub(in crate::store) fn delete_some(
    transaction: &Transaction<'_>,
    (run, seq): (i64, i64),
    now_ms: i64,
    arrived_before: impl Fn(i64) -> i64,
) -> rusqlite::Result<Option<(i64, i64)>> {
    let marks: Vec<(i64, i64, i64)> = transaction
        .prepare_cached(
            "SELECT run, seq, arrived FROM ahead WHERE (run, seq) > (?, ?) ORDER BY run, seq LIMIT ?",
        )?
        .query_map(params![run, seq, ROWS], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (run, seq, arrived) in &marks {
        let found: Option<(i64, i64)> = transaction
            .prepare_cached("SELECT at, sensor FROM reading WHERE run = ? AND seq = ?")?
            .query_row([run, seq], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let ahead = found.filter(|(at, _)| *at > now_ms.saturating_add(AHEAD_MS));
        let is_ahead = ahead.is_some();
        if ahead.is_some_and(|(_, sensor)| *arrived >= arrived_before(sensor)) {
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

//! The history of alarms: when each was raised and cleared, and its state when the broker stopped.

use rusqlite::{Connection, Transaction, params};

use crate::clock::SET_FROM_MS;
use crate::store::write::cache::WriterCache;
use crate::timeline::{DOUBT_MS, UNSET_STEP_MS};

/// Rows of table `alarm`; beyond it the oldest are deleted. With ten changes a day it holds years.
const ALARM_ROWS: i64 = 10_000;
/// Rows whose times one commit corrects.
const ROWS_PER_COMMIT: i64 = 500;

/// The latest change of an alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmRow {
    /// Its name.
    pub name: String,
    /// Unix ms UTC of the change.
    pub at: i64,
    /// Whether it was raised.
    pub raised: bool,
    /// Why, for people.
    pub detail: String,
    /// Unix time minus log time in `at`, ms, while the time is not sure; `None`: it is, or nobody will know it.
    pub correction_ms: Option<i64>,
}

/// The latest change of each alarm that ever changed.
pub(in crate::store) fn latest(connection: &Connection) -> rusqlite::Result<Vec<AlarmRow>> {
    let mut statement = connection.prepare(
        "SELECT name, at, raised, detail, correction FROM alarm WHERE id IN (SELECT max(id) FROM alarm GROUP BY name)
         ORDER BY name",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(AlarmRow {
            name: row.get(0)?,
            at: row.get(1)?,
            raised: row.get(2)?,
            detail: row.get(3)?,
            correction_ms: row.get(4)?,
        })
    })?;
    rows.collect()
}

/// A change, as it happened.
pub(in crate::store) struct Happened<'a> {
    /// Log time, ms.
    pub at_ms: i64,
    pub raised: bool,
    pub detail: &'a str,
}

/// Adds a change.
pub(in crate::store) fn append(
    transaction: &Transaction<'_>,
    cache: &WriterCache,
    name: &str,
    change: &Happened<'_>,
) -> rusqlite::Result<()> {
    let at = change.at_ms.saturating_add(cache.correction_ms);
    let correction_ms = (!cache.is_set).then_some(cache.correction_ms);
    transaction
        .prepare_cached(
            "INSERT INTO alarm (name, at, raised, detail, correction) VALUES (?, ?, ?, ?, ?)",
        )?
        .execute(params![name, at, change.raised, change.detail, correction_ms])?;
    let oldest = transaction.last_insert_rowid() - ALARM_ROWS;
    transaction.prepare_cached("DELETE FROM alarm WHERE id <= ?")?.execute([oldest])?;
    Ok(())
}

/// Corrects the next few times, by the rule of [`crate::timeline::BrokerClock::correction_of`]. Returns whether there is more
/// to do.
pub(in crate::store) fn step(
    transaction: &Transaction<'_>,
    cache: &WriterCache,
) -> rusqlite::Result<bool> {
    let (now_ms, is_set) = (cache.correction_ms, cache.is_set);
    let doubted_from = cache.log_ms.saturating_sub(DOUBT_MS);
    transaction
        .prepare_cached(
            "UPDATE alarm SET correction = NULL
             WHERE correction IS NOT NULL AND at - correction < ? AND at >= ?",
        )?
        .execute([doubted_from, SET_FROM_MS])?;
    let corrected = transaction
        .prepare_cached(
            "UPDATE alarm SET at_original = coalesce(at_original, at), at = at - correction + ?1, correction = ?1
             WHERE id IN (SELECT id FROM alarm WHERE correction IS NOT NULL
                          AND (abs(correction - ?1) >= ?2 OR (?3 AND correction <> ?1)) LIMIT ?4)",
        )?
        .execute(params![now_ms, UNSET_STEP_MS, is_set, ROWS_PER_COMMIT])?;
    if corrected == 0 && is_set {
        give_up_all(transaction)?;
    }
    Ok(corrected > 0)
}

/// Takes all times for what they are: they are sure, or the kernel that counted them has ended.
pub(in crate::store) fn give_up_all(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE alarm SET correction = NULL WHERE correction IS NOT NULL")?
        .execute([])?;
    Ok(())
}

//! The history of alarms: when each was raised and cleared, and its state when the broker stopped.

use rusqlite::{Connection, Transaction, params};

/// Rows of table `alarm`; beyond it the oldest are deleted. With ten changes a day it holds years.
const ALARM_ROWS: i64 = 10_000;

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
}

/// The latest change of each alarm that ever changed.
pub(in crate::store) fn latest(connection: &Connection) -> rusqlite::Result<Vec<AlarmRow>> {
    let mut statement = connection.prepare(
        "SELECT name, at, raised, detail FROM alarm WHERE id IN (SELECT max(id) FROM alarm GROUP BY name)
         ORDER BY name",
    )?;
    let rows = statement.query_map([], |row| {
        let (name, at, raised, detail) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(AlarmRow { name, at, raised, detail })
    })?;
    rows.collect()
}

/// Adds a change.
pub(in crate::store) fn append(
    transaction: &Transaction<'_>,
    name: &str,
    at: i64,
    raised: bool,
    detail: &str,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO alarm (name, at, raised, detail) VALUES (?, ?, ?, ?)")?
        .execute(params![name, at, raised, detail])?;
    let oldest = transaction.last_insert_rowid() - ALARM_ROWS;
    transaction.prepare_cached("DELETE FROM alarm WHERE id <= ?")?.execute([oldest])?;
    Ok(())
}

//! The history of alarms: when each was raised and cleared, and its state when the broker stopped.

use rusqlite::{Connection, Transaction, params};

use crate::clock::SET_FROM_MS;
use crate::store::write::cache::WriterCache;
use crate::timeline::{DOUBT_MS, UNSET_STEP_MS};

/// Rows of table `alarm`; beyond it the oldest rows of the alarms with most rows are deleted. With ten changes a day it holds years.
const ALARM_ROWS: i64 = 10_000;
/// Changes between two looks whether there are more: to count the rows takes a millisecond.
const CHANGES_PER_LOOK: i64 = 100;
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
    if transaction.last_insert_rowid() % CHANGES_PER_LOOK == 0 { trim(transaction) } else { Ok(()) }
}

/// Deletes what is beyond [`ALARM_ROWS`]. What an alarm leaves of its share, the others may have; each keeps its latest
/// row, which is its state after a restart.
fn trim(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut statement = transaction
        .prepare_cached("SELECT name, count(*) AS rows FROM alarm GROUP BY name ORDER BY rows")?;
    let alarms = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let alarms: Vec<(String, i64)> = alarms.collect::<rusqlite::Result<_>>()?;
    let mut left = ALARM_ROWS;
    for ((name, rows), others) in alarms.iter().zip((1..=alarms.len()).rev()) {
        let share = (left / i64::try_from(others).unwrap_or(i64::MAX)).max(1);
        if *rows > share {
            transaction
                .prepare_cached(
                    "DELETE FROM alarm WHERE name = ?1 AND id <=
                     (SELECT id FROM alarm WHERE name = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                )?
                .execute(params![name, share])?;
        }
        left -= share.min(*rows);
    }
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
            "UPDATE alarm SET at_original = coalesce(at_original, at), at = at - correction + ?1,
                 correction = CASE WHEN ?3 THEN NULL ELSE ?1 END
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Record, Store};

    fn changes(name: &str, count: usize) -> impl Iterator<Item = Record> {
        (1..=count).map(move |n| Record::Alarm {
            name: name.parse().unwrap(),
            at_ms: 0,
            raised: n % 2 == 1,
            detail: String::new(),
        })
    }

    #[test]
    fn an_alarm_that_changes_often_takes_no_row_of_one_that_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        let most = usize::try_from(ALARM_ROWS).unwrap();
        let mut append = |records: Vec<Record>| {
            store.append(&records.iter().collect::<Vec<_>>()).unwrap();
        };
        append(changes("lost", 1).chain(changes("hot", 301)).collect());
        append(changes("stuck", most + 1000).chain(changes("loose", most / 2)).collect());

        let last = store.alarms().unwrap().into_iter().map(|row| (row.name, row.raised));
        let expected = [("hot", true), ("loose", false), ("lost", true), ("stuck", false)];
        assert_eq!(last.collect::<Vec<_>>(), expected.map(|(name, on)| (name.to_owned(), on)));
        let rows = |name: &str| -> i64 {
            let count = "SELECT count(*) FROM alarm WHERE name = ?";
            store.connection.query_row(count, [name], |row| row.get(0)).unwrap()
        };
        assert_eq!((rows("lost"), rows("hot")), (1, 301));
        let (stuck, loose) = (rows("stuck"), rows("loose"));
        assert!(stuck + loose <= ALARM_ROWS, "{stuck} and {loose}");
        assert!(stuck.min(loose) > ALARM_ROWS * 9 / 20, "{stuck} and {loose}");
    }
}

//! The numbers of readings whose rows retention has deleted, as ranges of each run: a repeat of a deleted reading is
//! still recognised, and a missing number between two of them is still reported.

use rusqlite::{Connection, OptionalExtension, params};

/// Whether reading `seq` of `run` was stored once and deleted since.
pub(in crate::store) fn contains(
    connection: &Connection,
    run: i64,
    seq: i64,
) -> rusqlite::Result<bool> {
    let last: Option<i64> = connection
        .prepare_cached(
            "SELECT last FROM pruned WHERE run = ? AND first <= ? ORDER BY first DESC LIMIT 1",
        )?
        .query_row(params![run, seq], |row| row.get(0))
        .optional()?;
    Ok(last.is_some_and(|last| last >= seq))
}

/// The highest number of a run that was stored once and deleted since.
pub(in crate::store) fn newest(connection: &Connection, run: i64) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT last FROM pruned WHERE run = ? ORDER BY first DESC LIMIT 1")?
        .query_row([run], |row| row.get(0))
        .optional()
}

/// Adds `first..=last`, of which no number is in a range yet, and joins it with the ranges that it touches.
pub(in crate::store) fn add(
    connection: &Connection,
    run: i64,
    first: i64,
    last: i64,
) -> rusqlite::Result<()> {
    let before: Option<i64> = connection
        .prepare_cached("DELETE FROM pruned WHERE run = ? AND first = (SELECT max(first) FROM pruned WHERE run = ?1 AND first < ?2) AND last = ?2 - 1 RETURNING first")?
        .query_row(params![run, first], |row| row.get(0))
        .optional()?;
    let after: Option<i64> = connection
        .prepare_cached("DELETE FROM pruned WHERE run = ? AND first = ? RETURNING last")?
        .query_row(params![run, last.saturating_add(1)], |row| row.get(0))
        .optional()?;
    connection
        .prepare_cached("INSERT INTO pruned (run, first, last) VALUES (?, ?, ?)")?
        .execute(params![run, before.unwrap_or(first), after.unwrap_or(last)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE pruned (run, first, last, PRIMARY KEY (run, first))")
            .unwrap();
        for (first, last) in [(1, 3), (7, 9), (11, 11)] {
            add(&connection, 1, first, last).unwrap();
        }
        add(&connection, 2, 4, 6).unwrap();
        assert!(!contains(&connection, 1, 5).unwrap() && contains(&connection, 1, 3).unwrap());
        add(&connection, 1, 4, 6).unwrap();
        add(&connection, 1, 10, 10).unwrap();
        let ranges: Vec<(i64, i64)> = connection
            .prepare("SELECT first, last FROM pruned WHERE run = 1")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(ranges, [(1, 11)]);
    }
}

//! The numbers of readings whose rows retention has deleted, as ranges of each run: a repeat of a deleted reading is
//! still recognised, and a missing number between two of them is still reported.

use rusqlite::{Connection, OptionalExtension, params};

/// Ranges of one run that are kept apart, those with the highest numbers. A node that leaves every other number out would
/// fill the log with ranges, and they do not go with the data.
const RANGES_KEPT: i64 = 256;
/// Ranges that one piece of work looks at.
const RANGES: usize = 50;

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

/// Adds `first..=last` and joins it with the ranges that it touches. Either no number of it is in a range yet, or all are in
/// one that [`join_some`] made.
pub(in crate::store) fn add(
    connection: &Connection,
    run: i64,
    first: i64,
    last: i64,
) -> rusqlite::Result<()> {
    if contains(connection, run, first)? {
        return Ok(());
    }
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

/// Looks at the next few ranges of the run after `after`, from number `from` on, and joins those beyond [`RANGES_KEPT`]
/// between which no reading is stored: the numbers that were missing there count as deleted. Returns run and number to go
/// on with, `None` when there are no more runs.
pub(in crate::store) fn join_some(
    connection: &Connection,
    (after, from): (i64, i64),
) -> rusqlite::Result<Option<(i64, i64)>> {
    let run: Option<i64> = connection
        .prepare_cached("SELECT min(run) FROM pruned WHERE run > ?")?
        .query_row([after], |row| row.get(0))?;
    let Some(run) = run else { return Ok(None) };
    let until: Option<i64> = connection
        .prepare_cached(
            "SELECT first FROM pruned WHERE run = ? ORDER BY first DESC LIMIT 1 OFFSET ?",
        )?
        .query_row([run, RANGES_KEPT], |row| row.get(0))
        .optional()?;
    let Some(until) = until else { return Ok(Some((run, i64::MIN))) };
    let ranges: Vec<(i64, i64)> = connection
        .prepare_cached(
            "SELECT first, last FROM pruned WHERE run = ? AND first BETWEEN ? AND ? ORDER BY first LIMIT ?",
        )?
        .query_map(params![run, from, until, RANGES], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let (mut begin, mut last) = ranges.first().copied().unwrap_or((from, from));
    for (next, end) in ranges.iter().copied().skip(1) {
        let is_row_between: bool = connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM reading WHERE run = ? AND seq > ? AND seq < ?)",
            )?
            .query_row([run, last, next], |row| row.get(0))?;
        last = end;
        if is_row_between {
            begin = next;
            continue;
        }
        connection
            .prepare_cached("DELETE FROM pruned WHERE run = ? AND first = ?")?
            .execute([run, next])?;
        connection
            .prepare_cached("UPDATE pruned SET last = ? WHERE run = ? AND first = ?")?
            .execute([end, run, begin])?;
    }
    Ok(Some(if ranges.len() < RANGES { (run, i64::MIN) } else { (after, begin) }))
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

    #[test]
    fn of_many_ranges_the_highest_are_kept_apart_and_no_stored_reading_is_joined_over() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE pruned (run, first, last, PRIMARY KEY (run, first));
                 CREATE TABLE reading (run, seq, PRIMARY KEY (run, seq));
                 INSERT INTO reading VALUES (1, 401);",
            )
            .unwrap();
        let join = || {
            let (mut at, mut pieces) = (Some((i64::MIN, i64::MIN)), 0);
            while let Some(from) = at {
                at = join_some(&connection, from).unwrap();
                pieces += 1;
                assert!(pieces < 100, "it ends");
            }
        };
        let all = || -> Vec<(i64, i64, i64)> {
            let sql = "SELECT run, first, last FROM pruned ORDER BY run, first";
            let mut rows = connection.prepare(sql).unwrap();
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            rows.unwrap().map(Result::unwrap).collect()
        };
        for seq in (2..=2000).step_by(2) {
            add(&connection, 1, seq, seq).unwrap();
        }
        for seq in [3, 5] {
            add(&connection, 2, seq, seq).unwrap();
        }
        join();
        let kept = 2000 - 2 * RANGES_KEPT;
        assert_eq!(all()[..3], [(1, 2, 400), (1, 402, kept), (1, kept + 2, kept + 2)]);
        assert_eq!(all()[all().len() - 3..], [(1, 2000, 2000), (2, 3, 3), (2, 5, 5)]);
        assert!(contains(&connection, 1, 399).unwrap() && !contains(&connection, 1, 401).unwrap());
        assert!(!contains(&connection, 1, 1999).unwrap(), "it may still arrive");
        // The row between goes, and one that came while it was joined over.
        connection.execute("DELETE FROM reading", []).unwrap();
        for seq in [401, 403] {
            add(&connection, 1, seq, seq).unwrap();
        }
        join();
        assert_eq!(all()[0], (1, 2, kept));
    }
}

//! Spans whose roll-ups cannot be computed are set aside: said, kept in table `set_aside` for `humidor db check`, and never
//! in the way of those that follow.

use rusqlite::{Error, ErrorCode, Transaction, params};
use tracing::warn;

/// Computes roll-ups of the quarter of an hour that begins at `at`, or of the hour. When what is stored makes that
/// impossible, nothing of it is changed and the span is set aside.
///
/// # Errors
/// Those of the disk or of the file.
pub(in crate::store) fn or_set_aside(
    transaction: &Transaction<'_>,
    (code, series, at): (i64, i64, i64),
    compute: impl FnOnce() -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let run = |sql| transaction.prepare_cached(sql)?.execute([]).map(|_| ());
    run("SAVEPOINT span")?;
    let outcome = compute();
    match &outcome {
        Ok(()) => {
            transaction
                .prepare_cached("DELETE FROM set_aside WHERE family = ? AND series = ? AND at = ?")?
                .execute(params![code, series, at])?;
        }
        Err(cause) if is_of_the_data(cause) => {
            run("ROLLBACK TO span")?;
            transaction
                .prepare_cached("DELETE FROM dirty WHERE family = ? AND series = ? AND at = ?")?
                .execute(params![code, series, at])?;
            transaction
                .prepare_cached("REPLACE INTO set_aside VALUES (?, ?, ?, ?)")?
                .execute(params![code, series, at, cause.to_string()])?;
            warn!(
                family = code, series, at, %cause,
                "a span cannot be rolled up and is set aside; `humidor db check` lists it"
            );
        }
        Err(_) => return outcome,
    }
    run("RELEASE span")
}

/// Whether an error comes from what is stored, so that it would come again and again; else from the disk, or from a lock.
fn is_of_the_data(error: &Error) -> bool {
    match error {
        Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::ParameterOutOfRange
                | ErrorCode::TooBig
        ),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use crate::store::{Record, Store};

    const START_MS: i64 = 489_000 * 3_600_000;

    #[test]
    fn a_span_that_cannot_be_computed_does_not_block_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        let sample = |field: &str| Record::Foreign {
            topic: "plant".to_owned(),
            at_ms: START_MS,
            numbers: vec![(field.to_owned(), 1.0)].into(),
        };
        store.append(&[&sample("a"), &sample("b")]).unwrap();
        store
            .connection
            .execute_batch(
                "CREATE TEMP TRIGGER odd BEFORE INSERT ON sample_15m WHEN new.source = 1
                 BEGIN SELECT RAISE(ABORT, 'odd'); END",
            )
            .unwrap();
        let now_ms = START_MS + 2 * 3_600_000;
        while store.maintain(now_ms).unwrap() {}
        let one = |store: &Store, sql: &str| -> String {
            store.connection.query_row(sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(one(&store, "SELECT group_concat(source) FROM sample_1m"), "2");
        let aside = "SELECT coalesce(group_concat(series || ' ' || cause), '') FROM set_aside";
        assert_eq!(one(&store, aside), "1 odd");
        assert_eq!(one(&store, "SELECT count(*) || '' FROM dirty"), "0");
        // Once it can be computed, it is.
        store.connection.execute_batch("DROP TRIGGER odd").unwrap();
        store.append(&[&sample("a")]).unwrap();
        while store.maintain(now_ms + 3_600_000).unwrap() {}
        assert_eq!(one(&store, "SELECT group_concat(count) FROM sample_1h"), "2,1");
        assert_eq!(one(&store, aside), "");
    }
}

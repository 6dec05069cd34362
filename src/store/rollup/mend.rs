//! Mends roll-ups of an earlier version, once: spans with an infinite sum are computed afresh where their rows are kept.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::store::rollup::schema::SAMPLES;

/// Quarters that one piece of work looks at.
const QUARTERS: i64 = 256;

/// Looks at the next quarters of samples, and marks those that are to be computed afresh: their rows are kept from
/// what `rows_from` says of the source on, Unix ms. Returns whether all is done.
pub(in crate::store) fn step(
    transaction: &Transaction<'_>,
    rows_from: impl Fn(i64) -> i64,
    has_time: impl Fn() -> bool,
) -> rusqlite::Result<bool> {
    loop {
        let next: Option<(i64, i64)> = transaction
            .prepare_cached("SELECT source, before FROM mend LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((source, before)) = next else { return Ok(true) };
        // Newest first, down to the rows that are not kept any more.
        let first: Option<i64> = transaction
            .prepare_cached(
                "SELECT min(at) FROM (SELECT at FROM sample_15m WHERE source = ? AND at >= ? AND at < ?
                                      ORDER BY at DESC LIMIT ?)",
            )?
            .query_row(params![source, rows_from(source), before, QUARTERS], |row| row.get(0))?;
        match first {
            Some(first) => {
                transaction
                    .prepare_cached(
                        "INSERT INTO dirty (family, series, at)
                         SELECT ?1, source, at FROM sample_15m WHERE source = ?2 AND at >= ?3 AND at < ?4
                             AND value_mean IS NULL AND value_count > 0
                             AND (value_sum IS NULL OR abs(value_sum) = 9e999)
                         ON CONFLICT DO NOTHING",
                    )?
                    .execute(params![SAMPLES.code, source, first, before])?;
                transaction
                    .prepare_cached("UPDATE mend SET before = ? WHERE source = ?")?
                    .execute([first, source])?
            }
            None => transaction
                .prepare_cached("DELETE FROM mend WHERE source = ?")?
                .execute([source])?,
        };
        if !has_time() {
            return Ok(false);
        }
    }
}

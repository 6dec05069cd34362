//! Roll-ups: each series by minute, quarter of an hour and hour.
//!
//! Rows come late, out of order, twice, and their times change afterwards. So an append only marks the
//! quarter it touched as dirty, in its own transaction; later, while the writer is idle, dirty quarters are
//! computed afresh from their rows. A crash at any point leaves the mark or the result, and a query reads
//! dirty quarters from the rows. Where the rows are gone (retention), what still comes is folded in: that
//! is right exactly once, which the numbers of `pruned` guarantee.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, ToSql, Transaction, params};

use crate::store::retention::horizon::Horizon;
use crate::store::rollup::aggregate::{Bucket, start_of};
use crate::store::rollup::schema::{self, HOUR_MS, QUARTER_MS, SeriesSchema, Tier};

/// Remembers what is marked already, so that a series costs one mark a quarter and not one a row.
#[derive(Debug, Default)]
pub(in crate::store) struct Marks {
    /// The quarter last marked, by schema and series.
    last: HashMap<(i64, i64), i64>,
}

/// Series whose last mark is remembered. Past it the memory starts anew.
const MARKS_REMEMBERED: usize = 5_000;

impl Marks {
    /// Marks the quarter that `at` lies in.
    pub fn mark<const N: usize>(
        &mut self,
        transaction: &Transaction<'_>,
        schema: &SeriesSchema<N>,
        series: i64,
        at: i64,
    ) -> rusqlite::Result<()> {
        let quarter = start_of(at, QUARTER_MS);
        if self.last.get(&(schema.code, series)) == Some(&quarter) {
            return Ok(());
        }
        transaction
            .prepare_cached(
                "INSERT INTO dirty (family, series, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            )?
            .execute(params![schema.code, series, quarter])?;
        if self.last.len() >= MARKS_REMEMBERED {
            self.last.clear();
        }
        self.last.insert((schema.code, series), quarter);
        Ok(())
    }

    /// Forgets what a transaction that failed or a roll-up has made untrue.
    pub fn forget(&mut self) {
        self.last.clear();
    }
}

/// Computes one quarter of a series, and the hour it is in, from its rows, and takes its mark away.
pub(in crate::store) fn roll<const N: usize>(
    transaction: &Transaction<'_>,
    schema: &SeriesSchema<N>,
    series: i64,
    quarter: i64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM dirty WHERE family = ? AND series = ? AND at = ?")?
        .execute(params![schema.code, series, quarter])?;
    compute(transaction, schema, series, quarter)?;
    compute_hour(transaction, schema, series, quarter)
}

/// Computes the whole hour that begins at `hour`, for rows that were never marked.
pub(in crate::store) fn roll_hour<const N: usize>(
    transaction: &Transaction<'_>,
    schema: &SeriesSchema<N>,
    series: i64,
    hour: i64,
) -> rusqlite::Result<()> {
    for quarter in 0..4 {
        compute(transaction, schema, series, hour + quarter * QUARTER_MS)?;
    }
    compute_hour(transaction, schema, series, hour)
}

fn compute<const N: usize>(
    transaction: &Transaction<'_>,
    schema: &SeriesSchema<N>,
    series: i64,
    quarter: i64,
) -> rusqlite::Result<()> {
    let end = quarter + QUARTER_MS;
    let mut minutes: Vec<Bucket<N>> = Vec::new();
    let mut statement = transaction.prepare_cached(&schema.select_rows())?;
    for row in statement.query_map(params![series, quarter, end], schema::read_row)? {
        let row: Bucket<N> = row?;
        let minute = start_of(row.at, Tier::Minute.span_ms());
        match minutes.last_mut() {
            Some(last) if last.at == minute => last.merge(&row),
            _ => minutes.push(Bucket { at: minute, ..row }),
        }
    }
    drop(statement);
    for tier in [Tier::Minute, Tier::Quarter] {
        transaction
            .prepare_cached(&format!(
                "DELETE FROM {} WHERE {} = ? AND at >= ? AND at < ?",
                schema.rolled(tier),
                schema.series
            ))?
            .execute(params![series, quarter, end])?;
    }
    for minute in &minutes {
        put(transaction, schema, Tier::Minute, series, minute)?;
    }
    match sum(quarter, minutes.iter()) {
        Some(whole) => put(transaction, schema, Tier::Quarter, series, &whole),
        None => Ok(()),
    }
}

/// Sums the hour that `at` lies in from its quarters.
fn compute_hour<const N: usize>(
    transaction: &Transaction<'_>,
    schema: &SeriesSchema<N>,
    series: i64,
    at: i64,
) -> rusqlite::Result<()> {
    let hour = start_of(at, HOUR_MS);
    let quarters = spans(transaction, schema, Tier::Quarter, series, hour, hour + HOUR_MS)?;
    if let Some(whole) = sum(hour, quarters.iter()) {
        return put(transaction, schema, Tier::Hour, series, &whole);
    }
    transaction
        .prepare_cached(&format!(
            "DELETE FROM {} WHERE {} = ? AND at = ?",
            schema.rolled(Tier::Hour),
            schema.series
        ))?
        .execute(params![series, hour])?;
    Ok(())
}

fn sum<'a, const N: usize>(
    at: i64,
    parts: impl Iterator<Item = &'a Bucket<N>>,
) -> Option<Bucket<N>> {
    let mut whole = Bucket::empty(at);
    parts.for_each(|part| whole.merge(part));
    (whole.count > 0).then_some(whole)
}

/// The spans of a tier that begin in a range of time.
pub(in crate::store) fn spans<const N: usize>(
    connection: &Connection,
    schema: &SeriesSchema<N>,
    tier: Tier,
    series: i64,
    from: i64,
    to: i64,
) -> rusqlite::Result<Vec<Bucket<N>>> {
    connection
        .prepare_cached(&schema.select_spans(tier))?
        .query_map(params![series, from, to], schema::read_span)?
        .collect()
}

fn put<const N: usize>(
    transaction: &Transaction<'_>,
    schema: &SeriesSchema<N>,
    tier: Tier,
    series: i64,
    bucket: &Bucket<N>,
) -> rusqlite::Result<()> {
    let places = vec!["?"; 3 + 4 * N].join(", ");
    let mut statement = transaction
        .prepare_cached(&format!("REPLACE INTO {} VALUES ({places})", schema.rolled(tier)))?;
    let known: Vec<_> = bucket
        .aggregates
        .iter()
        .map(|aggregate| {
            let some = aggregate.count > 0;
            (
                aggregate.count,
                [aggregate.sum, aggregate.min, aggregate.max].map(|value| some.then_some(value)),
            )
        })
        .collect();
    let mut values: Vec<&dyn ToSql> = vec![&series, &bucket.at, &bucket.count];
    for (count, numbers) in &known {
        values.push(count);
        values.extend(numbers.iter().map(|number| number as &dyn ToSql));
    }
    statement.execute(values.as_slice())?;
    Ok(())
}

/// Adds one row to the spans it belongs to, as far as these are kept: for a row that is not kept itself.
pub(in crate::store) fn fold<const N: usize>(
    transaction: &Transaction<'_>,
    schema: &SeriesSchema<N>,
    series: i64,
    row: &Bucket<N>,
    horizon: &Horizon,
) -> rusqlite::Result<()> {
    for tier in Tier::ALL {
        let start = start_of(row.at, tier.span_ms());
        if start < horizon.rolled_from(tier) {
            continue;
        }
        let mut span = Bucket { at: start, ..*row };
        let before: Option<Bucket<N>> = transaction
            .prepare_cached(&schema.select_spans(tier))?
            .query_row(params![series, start, start + 1], schema::read_span)
            .optional()?;
        if let Some(before) = before {
            span.merge(&before);
        }
        put(transaction, schema, tier, series, &span)?;
    }
    Ok(())
}

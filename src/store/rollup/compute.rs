//! Computes roll-ups from rows.

use rusqlite::{Connection, ToSql, Transaction, params};

use crate::store::rollup::aggregate::{Bucket, Total, start_of};
use crate::store::rollup::schema::{self, HOUR_MS, QUARTER_MS, SeriesSchema, Tier};

/// Computes one quarter of a series and the hour around it from the rows, and removes the dirty mark.
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

/// Whether a quarter of a series has a roll-up.
pub(in crate::store) fn is_rolled<const N: usize>(
    transaction: &Transaction<'_>,
    schema: &SeriesSchema<N>,
    series: i64,
    quarter: i64,
) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM {} WHERE {} = ? AND at = ?)",
            schema.rolled(Tier::Quarter),
            schema.series
        ))?
        .query_row([series, quarter], |row| row.get(0))
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

/// Writes one span of a tier.
pub(in crate::store) fn put<const N: usize>(
    transaction: &Transaction<'_>,
    schema: &SeriesSchema<N>,
    tier: Tier,
    series: i64,
    bucket: &Bucket<N>,
) -> rusqlite::Result<()> {
    let places = vec!["?"; 3 + if schema.has_means { 5 } else { 4 } * N].join(", ");
    let mut statement = transaction.prepare_cached(&format!(
        "REPLACE INTO {} ({}, at, count, {}) VALUES ({places})",
        schema.rolled(tier),
        schema.series,
        schema.aggregates()
    ))?;
    let known: Vec<_> = bucket
        .aggregates
        .iter()
        .map(|aggregate| {
            let (sum, mean) = match aggregate.total {
                Total::Sum(sum) => (Some(sum), None),
                Total::Mean(mean) => (None, Some(mean)),
                Total::Unknown => (None, None),
            };
            let numbers = [sum, Some(aggregate.min), Some(aggregate.max), mean];
            (aggregate.count, numbers.map(|number| number.filter(|_| aggregate.count > 0)))
        })
        .collect();
    let mut values: Vec<&dyn ToSql> = vec![&series, &bucket.at, &bucket.count];
    for (count, numbers) in &known {
        values.push(count);
        values.extend(numbers[..3].iter().map(|number| number as &dyn ToSql));
    }
    let means = known.iter().filter(|_| schema.has_means);
    values.extend(means.map(|(_, numbers)| &numbers[3] as &dyn ToSql));
    statement.execute(values.as_slice())?;
    Ok(())
}

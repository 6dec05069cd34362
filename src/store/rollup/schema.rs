//! The tables of the two kinds of series, readings and foreign samples, and the tiers into which each is rolled up:
//! the names that queries are built from, in one place.

use crate::store::rollup::aggregate::{Aggregate, Bucket, Total};

pub(in crate::store) const MINUTE_MS: i64 = 60_000;
pub(in crate::store) const QUARTER_MS: i64 = 15 * MINUTE_MS;
pub(in crate::store) const HOUR_MS: i64 = 60 * MINUTE_MS;

/// The lengths of the spans into which rows are rolled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum Tier {
    Minute,
    Quarter,
    Hour,
}

impl Tier {
    /// Finest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Quarter, Self::Hour];

    pub const fn span_ms(self) -> i64 {
        match self {
            Self::Minute => MINUTE_MS,
            Self::Quarter => QUARTER_MS,
            Self::Hour => HOUR_MS,
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::Quarter => "15m",
            Self::Hour => "1h",
        }
    }
}

/// Tables with `N` values a row.
#[derive(Debug)]
pub(in crate::store) struct SeriesSchema<const N: usize> {
    /// The number that stands for it in the column `family` of the tables `dirty` and `backlog`.
    pub code: i64,
    /// The table of the single rows.
    pub table: &'static str,
    /// The column with the series of a row, named as the table that it refers to.
    pub series: &'static str,
    pub values: [&'static str; N],
    /// A condition of the rows that are in roll-ups; empty: all are.
    pub rolled_up: &'static str,
    /// Whether sums may exceed what a double holds, so that the roll-ups have a column for the mean.
    pub has_means: bool,
}

pub(in crate::store) const READINGS: SeriesSchema<2> = SeriesSchema {
    code: 0,
    table: "reading",
    series: "sensor",
    values: ["temperature", "humidity"],
    // One that awaits its clock has no time yet.
    rolled_up: "AND clock <> 3",
    // The payload's check bounds both.
    has_means: false,
};
pub(in crate::store) const SAMPLES: SeriesSchema<1> = SeriesSchema {
    code: 1,
    table: "sample",
    series: "source",
    values: ["value"],
    rolled_up: "",
    has_means: true,
};

impl<const N: usize> SeriesSchema<N> {
    /// The table of a tier.
    pub fn rolled(&self, tier: Tier) -> String {
        format!("{}_{}", self.table, tier.suffix())
    }

    /// Selects the single rows of a series in a range of time that are in its roll-ups: parameters series, from, to.
    pub fn select_rows(&self) -> String {
        format!(
            "SELECT at, {} FROM {} WHERE {} = ? AND at >= ? AND at < ? {} ORDER BY at",
            self.values.join(", "),
            self.table,
            self.series,
            self.rolled_up
        )
    }

    /// Selects the spans of a tier that begin in a range of time: parameters series, from, to.
    pub fn select_spans(&self, tier: Tier) -> String {
        format!(
            "SELECT at, count, {}{} FROM {} WHERE {} = ? AND at >= ? AND at < ? ORDER BY at",
            self.aggregates(),
            if self.has_means { String::new() } else { ", NULL".repeat(N) },
            self.rolled(tier),
            self.series
        )
    }

    /// The columns of the aggregates: four a value, and then the means of those that have one.
    pub fn aggregates(&self) -> String {
        let four = |value| format!("{value}_count, {value}_sum, {value}_min, {value}_max");
        let means = self.values.iter().filter(|_| self.has_means);
        let columns = self.values.iter().map(four);
        columns.chain(means.map(|value| format!("{value}_mean"))).collect::<Vec<_>>().join(", ")
    }
}

/// The row of [`SeriesSchema::select_rows`].
pub(in crate::store) fn read_row<const N: usize>(
    row: &rusqlite::Row<'_>,
) -> rusqlite::Result<Bucket<N>> {
    let mut values = [None; N];
    for (column, value) in values.iter_mut().enumerate() {
        *value = row.get(column + 1)?;
    }
    Ok(Bucket::row(row.get(0)?, values))
}

/// The row of [`SeriesSchema::select_spans`].
pub(in crate::store) fn read_span<const N: usize>(
    row: &rusqlite::Row<'_>,
) -> rusqlite::Result<Bucket<N>> {
    let mut bucket = Bucket::empty(row.get(0)?);
    bucket.count = row.get(1)?;
    for (index, aggregate) in bucket.aggregates.iter_mut().enumerate() {
        let column = 2 + 4 * index;
        let count = row.get(column)?;
        // A value that no row of the span had is null throughout.
        if count > 0 {
            let mean: Option<f64> = row.get(2 + 4 * N + index)?;
            *aggregate = Aggregate {
                count,
                total: mean.map_or(Total::of_sum(row.get(column + 1)?), Total::Mean),
                min: row.get(column + 2)?,
                max: row.get(column + 3)?,
            };
        }
    }
    Ok(bucket)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::store::file::schema::LOG;

    fn check<const N: usize>(connection: &Connection, schema: &SeriesSchema<N>) {
        for tier in Tier::ALL {
            let columns: Vec<String> = connection
                .prepare("SELECT name FROM pragma_table_info(?) ORDER BY cid")
                .unwrap()
                .query_map([schema.rolled(tier)], |row| row.get(0))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let mut expected = vec![schema.series.to_owned(), "at".to_owned(), "count".to_owned()];
            for value in schema.values {
                expected
                    .extend(["count", "sum", "min", "max"].map(|part| format!("{value}_{part}")));
            }
            let means = schema.values.iter().filter(|_| schema.has_means);
            expected.extend(means.map(|value| format!("{value}_mean")));
            assert_eq!(columns, expected, "{}", schema.rolled(tier));
            connection.prepare(&schema.select_spans(tier)).unwrap();
        }
        connection.prepare(&schema.select_rows()).unwrap();
    }

    #[test]
    fn the_scripts_make_the_tables_that_the_code_names() {
        let connection = Connection::open_in_memory().unwrap();
        LOG.migrations.iter().for_each(|script| connection.execute_batch(script).unwrap());
        check(&connection, &READINGS);
        check(&connection, &SAMPLES);
    }
}

//! Adds a row to the roll-ups of a time that is closed.
//!
//! Roll-ups are else computed from rows ([`crate::store::rollup::compute`]). Where rows are deleted, a late one is added to
//! what is there. That is right exactly once; [`crate::store::retention::deleted_ranges`] guarantees it.

use std::collections::BTreeMap;

use rusqlite::Transaction;

use crate::store::retention::horizon::{Horizon, Horizons};
use crate::store::rollup::aggregate::{Bucket, start_of};
use crate::store::rollup::compute;
use crate::store::rollup::schema::{MINUTE_MS, SeriesSchema, Tier};

/// Adds `row` to its span of each tier that is kept at its time.
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
        for before in compute::spans(transaction, schema, tier, series, start, start + 1)? {
            span.merge(&before);
        }
        compute::put(transaction, schema, tier, series, &span)?;
    }
    Ok(())
}

/// Rows of this transaction that are to be added. Those of one minute are added together: a flood has many of them.
#[derive(Debug)]
pub(in crate::store) struct Additions<const N: usize> {
    /// By series and start of the minute.
    minutes: BTreeMap<(i64, i64), Bucket<N>>,
}

impl<const N: usize> Default for Additions<N> {
    fn default() -> Self {
        Self { minutes: BTreeMap::new() }
    }
}

impl<const N: usize> Additions<N> {
    pub fn add(&mut self, series: i64, row: &Bucket<N>) {
        let at = start_of(row.at, MINUTE_MS);
        self.minutes.entry((series, at)).or_insert_with(|| Bucket::empty(at)).merge(row);
    }

    /// Adds them: before the transaction is committed.
    pub fn save(
        &mut self,
        transaction: &Transaction<'_>,
        schema: &SeriesSchema<N>,
        horizons: &Horizons,
    ) -> rusqlite::Result<()> {
        while let Some(((series, _), rows)) = self.minutes.pop_first() {
            fold(transaction, schema, series, &rows, &horizons.of(schema, series))?;
        }
        Ok(())
    }
}

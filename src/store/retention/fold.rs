//! Adds a row that is not kept itself to the roll-ups that are.
//!
//! Roll-ups are else computed from rows ([`compute`]). Where the rows are deleted, a late one is added to what is
//! there. That is right exactly once; [`crate::store::retention::deleted_ranges`] guarantees it.

use rusqlite::Transaction;

use crate::store::retention::horizon::Horizon;
use crate::store::rollup::aggregate::{Bucket, start_of};
use crate::store::rollup::compute;
use crate::store::rollup::schema::{SeriesSchema, Tier};

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

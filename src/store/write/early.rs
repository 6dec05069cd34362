//! Corrects samples whose times are not sure, once the broker's clock is stepped or set.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::clock::SET_FROM_MS;
use crate::store::retention::fold::fold;
use crate::store::rollup::aggregate::Bucket;
use crate::store::rollup::schema::SAMPLES;
use crate::store::write::cache::WriterCache;
use crate::store::write::stretch::Stretch;
use crate::timeline::{DOUBT_MS, UNSET_STEP_MS};

/// Samples that one commit corrects.
const SAMPLES_PER_COMMIT: i64 = 500;

/// Gives the stretches up of which nobody will know the time: the kernel that counted it has ended. Retention takes them by
/// their arrival, and believes none of their times.
pub(in crate::store) fn give_up_all(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction
        .execute("UPDATE early SET correction = NULL WHERE correction IS NOT NULL", [])
        .map(|_| ())
}

/// Corrects the next few samples. Returns whether there is more to do.
pub(in crate::store) fn step(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
) -> rusqlite::Result<bool> {
    let (correction_ms, is_set) = (cache.correction_ms, cache.is_set);
    // A clock that nobody sets is believed in the end, or one step would move the samples of a year.
    settle(transaction, cache.log_ms.saturating_sub(DOUBT_MS), SET_FROM_MS)?;
    let wrong: Option<Stretch> = transaction
        .prepare_cached(
            "SELECT first, last, correction, shift, rolled, arrived, begun FROM early
             WHERE correction IS NOT NULL AND (abs(correction - ?1) >= ?2 OR (?3 AND correction <> ?1))
             LIMIT 1",
        )?
        .query_row(params![correction_ms, UNSET_STEP_MS, is_set], Stretch::read)
        .optional()?;
    if let Some(wrong) = wrong {
        correct(transaction, cache, wrong)?;
        return Ok(true);
    }
    if is_set {
        settle(transaction, i64::MAX, i64::MIN)?;
    }
    Ok(false)
}

/// Takes the times of samples for sure that came before `arrived_before`, in log time, as far as they are from `at_from` on,
/// Unix ms. Those that were never corrected are then as any other.
fn settle(
    transaction: &Transaction<'_>,
    arrived_before: i64,
    at_from: i64,
) -> rusqlite::Result<()> {
    let settled = "WHERE correction IS NOT NULL AND arrived < ? AND arrived + correction >= ?";
    for change in [
        format!("DELETE FROM early {settled} AND shift = 0 AND rolled"),
        format!("UPDATE early SET correction = NULL {settled}"),
    ] {
        transaction.prepare_cached(&change)?.execute([arrived_before, at_from])?;
    }
    Ok(())
}

/// Corrects the first samples of a stretch, and leaves the rest.
fn correct(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    stretch: Stretch,
) -> rusqlite::Result<()> {
    let until = stretch.last.min(stretch.first.saturating_add(SAMPLES_PER_COMMIT - 1));
    let rows: Vec<(i64, i64, i64, f64)> = transaction
        .prepare_cached(
            "SELECT id, source, at, value FROM sample WHERE id BETWEEN ? AND ? ORDER BY id",
        )?
        .query_map([stretch.first, until], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    transaction.prepare_cached("DELETE FROM early WHERE first = ?")?.execute([stretch.first])?;
    let before_ms = stretch.correction_ms.unwrap_or(cache.correction_ms);
    let by_ms = cache.correction_ms.saturating_sub(before_ms);
    for (id, source, at, value) in rows {
        let horizon = cache.horizons.of(&SAMPLES, source);
        let corrected = at.saturating_add(by_ms);
        // What is in a roll-up that can no longer be computed afresh stays where it is.
        let fixed = stretch.rolled && at < horizon.closed_until;
        if fixed {
            let correction_ms = None;
            Stretch { first: id, last: id, correction_ms, ..stretch }.save(transaction)?;
            continue;
        }
        if stretch.rolled {
            cache.marks.mark(transaction, &SAMPLES, source, at)?;
        }
        let rolled = corrected >= horizon.rows_from;
        if rolled && corrected < horizon.closed_until {
            let row = Bucket::row(corrected, [Some(value)]);
            fold(transaction, &SAMPLES, source, &row, &horizon)?;
        } else if rolled {
            cache.marks.mark(transaction, &SAMPLES, source, corrected)?;
        }
        transaction
            .prepare_cached("UPDATE sample SET at = ? WHERE id = ?")?
            .execute([corrected, id])?;
        // What a clock that is set corrects is settled with it, not by a later commit: the broker may end in between.
        let correction_ms = (!cache.is_set).then_some(cache.correction_ms);
        let shift_ms = stretch.shift_ms.saturating_add(by_ms);
        if correction_ms.is_none() && shift_ms == 0 && rolled {
            continue;
        }
        Stretch { first: id, last: id, correction_ms, shift_ms, rolled, ..stretch }
            .save(transaction)?;
    }
    if until < stretch.last {
        Stretch { first: until + 1, ..stretch }.save(transaction)?;
    }
    Ok(())
}

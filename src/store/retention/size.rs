//! The size of the log: how far the retention horizon must rise for it, and giving free pages back to the disk.

use rusqlite::{Connection, Transaction};
use tracing::warn;

use crate::store::retention::horizon::Horizon;
use crate::store::retention::policy::{self, Oldest, Retention};
use crate::store::rollup::schema::{READINGS, SAMPLES, Tier};

/// Pages that one step of the vacuum moves.
const VACUUM_PAGES: u32 = 8;
/// Free pages that are left for the next rows: one in this many, and at least [`SPARE_PAGES`].
const SPARE_SHARE: i64 = 16;
/// 1 MiB.
const SPARE_PAGES: i64 = 256;

/// Bytes of a row of table `arrival` at least: with values that are whole numbers and small ids.
const ARRIVAL_ROW_BYTES: u64 = 32;

/// After a look in vain for data that can go, there is one whenever the log has grown by one in so many parts of its limit.
const GROWN_SHARE: u64 = 32;

/// Where the log stands against its size limit.
#[derive(Debug, Default)]
pub(in crate::store) struct SizePressure {
    /// The horizon was raised for the size of the log in this round, and may have to rise again.
    shrinking: bool,
    /// The file is larger than its limit.
    over: bool,
    /// Bytes in use when nothing was old enough to be deleted.
    stuck_at: Option<u64>,
    /// The limit is out of reach, and the operator was told.
    warned: bool,
}

impl SizePressure {
    /// Whether the horizon may have to rise again in this round.
    pub const fn is_shrinking(&self) -> bool {
        self.shrinking
    }

    /// Whether the log was larger than its limit when that was last looked at, and data in it can go.
    pub const fn is_too_large(&self) -> bool {
        self.over && self.stuck_at.is_none()
    }

    /// Looks at the size of the log. Returns whether it is so large that the next round must begin at once. `copies` rows of
    /// table `arrival` are in their place already and will be deleted there.
    pub fn calls_for_a_round(
        &mut self,
        connection: &Connection,
        retention: &Retention,
        copies: u64,
    ) -> rusqlite::Result<bool> {
        let used = used_bytes(connection)?;
        self.over = used > retention.max_bytes;
        // What came since has made older data old enough.
        let grown = |at: u64| used > at.saturating_add(retention.max_bytes / GROWN_SHARE);
        if self.stuck_at.is_some_and(grown) {
            self.stuck_at = None;
        }
        Ok(self.stuck_at.is_none() && retention.is_over(without_copies(used, copies), false))
    }

    /// The horizon that `retention` asks for at `now_ms`, Unix ms; `horizon` itself when all may stay. `copies` as in
    /// [`Self::calls_for_a_round`].
    pub fn raised(
        &mut self,
        transaction: &Transaction<'_>,
        horizon: Horizon,
        retention: &Retention,
        now_ms: i64,
        copies: u64,
    ) -> rusqlite::Result<Horizon> {
        // A broker's clock that jumped ahead must not delete data that no reading calls old.
        let newest = newest(transaction, now_ms)?;
        let mut raised = horizon;
        if let Some(newest) = newest {
            raised.raise_rows(retention.rows_from(newest.min(now_ms)));
        }
        let now_ms = newest.map_or(now_ms, |newest| newest.min(now_ms));
        let used = used_bytes(transaction)?;
        let over = retention.is_over(without_copies(used, copies), self.shrinking);
        self.over = used > retention.max_bytes;
        self.shrinking = over;
        self.stuck_at = None;
        if over && raised == horizon {
            raised = policy::make_room(horizon, &oldest(transaction, &horizon)?, now_ms);
            if raised == horizon {
                self.shrinking = false;
                self.stuck_at = Some(used);
                if !std::mem::replace(&mut self.warned, true) {
                    warn!(
                        max_bytes = retention.max_bytes,
                        "the log is larger than HUMIDOR_MAX_DB and nothing in it is old enough to go: it grows on; raise the limit or log less"
                    );
                }
            }
        } else if !over {
            self.warned = false;
        }
        Ok(raised)
    }
}

/// Pages of the file, and those of them that are free.
fn pages(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let one = |sql| connection.prepare_cached(sql)?.query_row([], |row| row.get(0));
    Ok((one("PRAGMA page_count")?, one("PRAGMA freelist_count")?))
}

/// Bytes of the pages that are in use.
pub(in crate::store) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let (pages, free) = pages(connection)?;
    let size: i64 =
        connection.prepare_cached("PRAGMA page_size")?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from((pages - free) * size).unwrap_or(0))
}

/// Without the rows that are there twice. What one of them takes at least is subtracted: data must not go for room that is
/// about to be free, and what is subtracted too little only makes the log a little smaller.
const fn without_copies(used: u64, copies: u64) -> u64 {
    used.saturating_sub(copies.saturating_mul(ARRIVAL_ROW_BYTES))
}

/// Gives a few free pages back. Returns whether there are more to give.
pub(in crate::store) fn vacuum(connection: &Connection) -> rusqlite::Result<bool> {
    let (pages, free) = pages(connection)?;
    let has_more = free > SPARE_PAGES.max(pages / SPARE_SHARE);
    if has_more {
        connection.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    }
    Ok(has_more)
}

/// Time of the newest row whose time is sure, and that is not ahead of `now_ms`, nor was it when it came; Unix ms.
fn newest(connection: &Connection, now_ms: i64) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT max(at) FROM (
                 SELECT (SELECT at FROM reading WHERE sensor = sensor.id AND at <= ?1
                             AND (run, seq) NOT IN (SELECT run, seq FROM ahead)
                         ORDER BY at DESC LIMIT 1) AS at FROM sensor
                 UNION ALL
                 SELECT (SELECT at FROM sample WHERE source = source.id AND at <= ?1
                             AND sample.id > coalesce((SELECT last FROM early WHERE first <= sample.id
                                                       ORDER BY first DESC LIMIT 1), -1)
                         ORDER BY at DESC LIMIT 1) FROM source)",
        )?
        .query_row([now_ms], |row| row.get(0))
}

fn oldest(connection: &Connection, horizon: &Horizon) -> rusqlite::Result<Oldest> {
    let oldest = |readings: &str, samples: &str, from: i64| {
        connection
            .prepare_cached(&format!(
                "SELECT min(at) FROM (
                     SELECT (SELECT min(at) FROM {readings} WHERE sensor = sensor.id AND at >= ?1) AS at
                     FROM sensor
                     UNION ALL
                     SELECT (SELECT min(at) FROM {samples} WHERE source = source.id AND at >= ?1)
                     FROM source)"
            ))?
            .query_row([from], |row| row.get(0))
    };
    let mut found = Oldest {
        rows: oldest(READINGS.table, SAMPLES.table, horizon.rows_from)?,
        ..Oldest::default()
    };
    for tier in Tier::ALL {
        found.rolled[tier as usize] =
            oldest(&READINGS.rolled(tier), &SAMPLES.rolled(tier), horizon.rolled_from(tier))?;
    }
    Ok(found)
}

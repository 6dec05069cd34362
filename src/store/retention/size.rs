//! The size of the log: whose retention horizon must rise for it and how far, and giving free pages back to the disk.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction};
use tracing::{info, warn};

use crate::store::retention::horizon::{Horizon, Horizons};
use crate::store::retention::oldest;
use crate::store::retention::policy::{Retention, Slice};
use crate::store::retention::present::Present;
use crate::store::retention::share::{self, SeriesUse};

/// Pages that one step of the vacuum moves.
const VACUUM_PAGES: u32 = 8;
/// Free pages that are left for the next rows: one in this many, and at least [`SPARE_PAGES`].
const SPARE_SHARE: i64 = 16;
/// 1 MiB.
const SPARE_PAGES: i64 = 256;

/// Bytes of a row of table `arrival` at least: with values that are whole numbers and small ids.
const ARRIVAL_ROW_BYTES: u64 = 32;

/// Of a holder that cannot give, one part in so many waits to be moved when it is to give afterwards.
const WAITING_SHARE: u64 = 4;

/// A log is far too large when it is larger than its limit by one in so many parts of that.
const FAR_SHARE: u64 = 8;

/// After a look in vain for data that can go, there is one whenever the log has grown by one in so many parts of its limit.
const GROWN_SHARE: u64 = 32;

/// Between two log lines about who fills the log.
const TOLD_INTERVAL: Duration = Duration::from_mins(10);

/// How the horizon of the whole log has to rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Demand {
    /// To this one, or not at all.
    Horizon(Horizon),
    /// The log is too large: what each series takes says whose horizon has to rise.
    Room,
}

/// Where room is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Room {
    /// All give: the horizon of the whole log rises.
    OfAll(Horizon),
    /// The horizons of these series rise, by code and series.
    Of(Vec<((i64, i64), Horizon)>),
    /// The roll-ups of these sensors that lie ahead of the clock go: they have nothing else, and no horizon reaches those.
    Ahead(Vec<i64>),
    /// What fills the log is to be moved to its place first.
    AfterMove,
    /// Nothing is old enough to go.
    None,
}

/// Where the log stands against its size limit.
#[derive(Debug, Default)]
pub(in crate::store) struct SizePressure {
    /// The horizon was raised for the size of the log in this round, and may have to rise again.
    shrinking: bool,
    /// Bytes in use, and the limit, when they were last looked at.
    used: u64,
    limit: u64,
    /// Bytes in use when nothing was old enough to be deleted.
    stuck_at: Option<u64>,
    /// The limit is out of reach, and the operator was told.
    warned: bool,
    /// When the operator was last told who fills the log.
    told: Option<Instant>,
}

impl SizePressure {
    /// Whether the horizon may have to rise again in this round.
    pub const fn is_shrinking(&self) -> bool {
        self.shrinking
    }

    /// Whether the log was larger than its limit when that was last looked at, and data in it can go.
    pub const fn is_too_large(&self) -> bool {
        self.used > self.limit && self.stuck_at.is_none()
    }

    /// Whether it was larger by an eighth, too.
    pub const fn is_far_too_large(&self) -> bool {
        self.is_too_large() && self.used - self.limit > self.limit / FAR_SHARE
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
        (self.used, self.limit) = (used, retention.max_bytes);
        // What came since has made older data old enough.
        let grown = |at: u64| used > at.saturating_add(retention.max_bytes / GROWN_SHARE);
        if self.stuck_at.is_some_and(grown) {
            self.stuck_at = None;
        }
        Ok(self.stuck_at.is_none() && retention.is_over(without_copies(used, copies), false))
    }

    /// What `retention` asks for at `now_ms`, Unix ms. `copies` as in [`Self::calls_for_a_round`].
    pub fn demand(
        &mut self,
        transaction: &Transaction<'_>,
        horizon: Horizon,
        retention: &Retention,
        now_ms: i64,
        copies: u64,
    ) -> rusqlite::Result<Demand> {
        // A broker's clock that jumped ahead must not delete data that no reading calls old.
        let newest = oldest::newest(transaction, now_ms)?;
        let mut raised = horizon;
        if let Some(newest) = newest {
            raised.raise_rows(retention.rows_from(newest.min(now_ms)));
        }
        let used = used_bytes(transaction)?;
        let over = retention.is_over(without_copies(used, copies), self.shrinking);
        (self.used, self.limit) = (used, retention.max_bytes);
        self.shrinking = over;
        self.stuck_at = None;
        if !over {
            self.warned = false;
        }
        Ok(if over && raised == horizon { Demand::Room } else { Demand::Horizon(raised) })
    }

    /// Where room is made in a log that is too large, when each series takes what `series` says. `present` and `copies` as
    /// above.
    pub fn make_room(
        &mut self,
        transaction: &Transaction<'_>,
        horizons: &Horizons,
        retention: &Retention,
        series: Vec<SeriesUse>,
        present: Present,
        copies: u64,
    ) -> rusqlite::Result<Room> {
        let now_ms = present.now_ms;
        let now_ms =
            oldest::newest(transaction, now_ms)?.map_or(now_ms, |newest| newest.min(now_ms));
        let used = used_bytes(transaction)?;
        let excess = retention.excess(without_copies(used, copies));
        let holding = series.iter().filter(|of| of.bytes > 0).count();
        let mut left = series;
        loop {
            let givers = share::givers(&left, excess);
            if givers.is_empty() {
                break;
            }
            let correction_ms = present.correction_ms;
            let oldest = oldest::of(transaction, horizons, &givers, correction_ms)?;
            if let Some(slice) = Slice::next(&oldest, now_ms, present.now_ms) {
                let are_all = givers.iter().filter(|of| of.bytes > 0).count() == holding;
                if are_all && !slice.is_young {
                    return Ok(Room::OfAll(slice.raise(horizons.all)));
                }
                self.tell(transaction, &givers, slice.is_young)?;
                let raise = |of: &SeriesUse| {
                    let key = (of.code, of.series);
                    (key, slice.raise(horizons.of_code(of.code, of.series)))
                };
                return Ok(Room::Of(givers.iter().map(raise).collect()));
            }
            let sum = |bytes: fn(&SeriesUse) -> u64| givers.iter().map(bytes).sum::<u64>();
            if sum(|of| of.waiting) > sum(|of| of.bytes) / WAITING_SHARE {
                self.shrinking = false;
                return Ok(Room::AfterMove);
            }
            if !present.in_doubt {
                let ahead = oldest::rolled_ahead(transaction, &givers, present.now_ms)?;
                if !ahead.is_empty() {
                    return Ok(Room::Ahead(ahead));
                }
            }
            // They have nothing that can go: the next ones give.
            left.retain(|of| !givers.contains(of));
        }
        self.shrinking = false;
        self.stuck_at = Some(used);
        if !std::mem::replace(&mut self.warned, true) {
            warn!(
                max_bytes = retention.max_bytes,
                "the log is larger than HUMIDOR_MAX_DB and nothing in it is old enough to go: it grows on; raise the limit or log less"
            );
        }
        Ok(Room::None)
    }

    /// Tells the operator who fills the log, now and then.
    fn tell(
        &mut self,
        transaction: &Transaction<'_>,
        givers: &[SeriesUse],
        last_hour: bool,
    ) -> rusqlite::Result<()> {
        if self.told.is_some_and(|told| told.elapsed() < TOLD_INTERVAL) {
            return Ok(());
        }
        let Some(largest) = givers.iter().max_by_key(|of| of.bytes) else { return Ok(()) };
        self.told = Some(Instant::now());
        let name = oldest::name(transaction, largest)?;
        if last_hour {
            warn!(
                series = name,
                "the log is full and readings of the last hour fill it: their oldest rows go into the roll-ups; raise HUMIDOR_MAX_DB or log less"
            );
        } else {
            info!(series = name, "the log is full: the series that fill it give their oldest data");
        }
        Ok(())
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

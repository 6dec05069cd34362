//! What the writer does while nobody waits for it: roll up, give up what is too old or too much, and hand
//! the room back, in steps of less than a millisecond.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, params};
use tracing::warn;

use crate::store::retention::delete::{self, Cursor};
use crate::store::retention::horizon::Horizon;
use crate::store::retention::policy::{self, Oldest, Retention};
use crate::store::rollup::schema::{MINUTE_MS, QUARTER_MS, READINGS, SAMPLES, Tier};
use crate::store::rollup::{backfill, compute as rollup};
use crate::store::write::restamp;
use crate::store::write::writer::{Durability, Memory, Store};

/// A step ends after the piece of work in which this has passed. An acknowledgement may have to wait for one, and
/// then for the pages that it has written: about a commit's own time on an SSD.
const STEP_TIME: Duration = Duration::from_micros(500);
/// From one round over all dirty quarters to the next, ms.
const ROUND_MS: i64 = QUARTER_MS;
/// A quarter that has ended is left this long for readings that are on their way, ms.
const GRACE_MS: i64 = 2 * MINUTE_MS;
/// Dirty quarters looked at in one step.
const MARKS_PER_STEP: i64 = 64;
/// Pages moved in one step of the vacuum.
const VACUUM_PAGES: u32 = 8;
/// Free pages that are left for what is appended next: one in this many, and at least [`SPARE_PAGES`].
const SPARE_SHARE: i64 = 16;
/// 1 MiB.
const SPARE_PAGES: i64 = 256;
/// How often the progress of a long job is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Where in a round the maintenance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// Dirty quarters after this one, by schema, series and time.
    Roll(i64, i64, i64),
    /// Rows from before there were roll-ups.
    Backfill,
    /// What is too old or too much?
    Retain,
    /// Delete it.
    Delete(Cursor),
    /// Give the room back.
    Vacuum,
    #[default]
    Rest,
}

/// The maintenance's place, in memory alone: a restart begins a new round.
#[derive(Debug, Default)]
pub(in crate::store) struct Maintenance {
    phase: Phase,
    /// When the round began, Unix ms.
    round_at: Option<i64>,
    /// Something was given up for its size in this round, and more may have to go.
    shrinking: bool,
    /// The file is larger than it may be.
    over: bool,
    /// The limit was said to be out of reach.
    complained: bool,
    told: Option<Instant>,
}

impl Maintenance {
    /// A clock that was put back must not end the rounds.
    fn is_due(&self, now_ms: i64) -> bool {
        self.round_at.is_none_or(|at| now_ms < at || now_ms >= at.saturating_add(ROUND_MS))
    }

    /// Whether the progress is to be told again.
    fn tells(&mut self) -> bool {
        let due = self.told.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL);
        if due {
            self.told = Some(Instant::now());
        }
        due
    }
}

impl Store {
    /// What is to be kept from now on. Nothing is deleted before [`Store::maintain`] is called.
    pub const fn retain(&mut self, retention: Retention) {
        self.retention = retention;
    }

    /// Whether the log was larger than its limit when that was last looked at, and something in it can go: then
    /// making room comes before anything else.
    #[must_use]
    pub const fn is_too_large(&self) -> bool {
        self.maintenance.over && !self.maintenance.complained
    }

    /// Does one step of the maintenance, about half a millisecond long; `now_ms` is Unix ms UTC. Returns whether there
    /// is more to do at present.
    ///
    /// A step is one transaction, whole or not at all, but after a power cut the latest steps may be undone:
    /// nothing depends on them, so they do not wait for the disk.
    ///
    /// # Errors
    /// What SQLite said: see [`Store::may_pass`].
    pub fn maintain(&mut self, now_ms: i64) -> rusqlite::Result<bool> {
        self.maintain_with(now_ms, Durability::Normal)
    }

    pub(in crate::store) fn maintain_with(
        &mut self,
        now_ms: i64,
        durability: Durability,
    ) -> rusqlite::Result<bool> {
        self.set_durability(durability)?;
        let outcome = self.step(now_ms);
        if outcome.is_err() {
            self.forget();
            self.maintenance = Maintenance::default();
            self.memory.horizon = Horizon::load(&self.connection)?;
        }
        outcome
    }

    fn step(&mut self, now_ms: i64) -> rusqlite::Result<bool> {
        if self.memory.restamping {
            let transaction = self.connection.transaction()?;
            self.memory.restamping = restamp::some(&transaction, &mut self.memory)?;
            transaction.commit()?;
            return Ok(true);
        }
        // What comes in fast fills the disk long before the next round.
        let full = self.maintenance.phase == Phase::Rest
            && !self.maintenance.complained
            && self.retention.is_over(used_bytes(&self.connection)?, false);
        let maintenance = &mut self.maintenance;
        if (full || maintenance.is_due(now_ms)) && !matches!(maintenance.phase, Phase::Roll(..)) {
            maintenance.round_at = Some(now_ms);
            maintenance.phase = Phase::Roll(i64::MIN, i64::MIN, i64::MIN);
        }
        let started = Instant::now();
        let has_time = move || started.elapsed() < STEP_TIME;
        match maintenance.phase {
            Phase::Rest => return Ok(false),
            Phase::Vacuum => self.vacuum()?,
            Phase::Roll(code, series, at) => {
                self.in_transaction(|maintenance, memory, transaction| {
                    maintenance.phase =
                        roll_dirty(transaction, memory, (code, series, at), now_ms, has_time)?
                            .map_or(Phase::Backfill, |(code, series, at)| {
                                Phase::Roll(code, series, at)
                            });
                    Ok(())
                })?;
            }
            Phase::Backfill => self.in_transaction(|maintenance, _, transaction| {
                if backfill::roll(transaction, || maintenance.tells(), has_time)? {
                    maintenance.phase = Phase::Retain;
                }
                Ok(())
            })?,
            Phase::Retain => {
                let retention = self.retention;
                self.in_transaction(|maintenance, memory, transaction| {
                    retain(transaction, maintenance, memory, retention, now_ms, has_time)
                })?;
            }
            Phase::Delete(mut cursor) => {
                self.in_transaction(|maintenance, memory, transaction| {
                    let done =
                        delete::step(transaction, &mut cursor, &memory.horizon, now_ms, has_time)?;
                    maintenance.phase = match (done, maintenance.shrinking) {
                        (false, _) => Phase::Delete(cursor),
                        (true, true) => Phase::Retain,
                        (true, false) => Phase::Vacuum,
                    };
                    Ok(())
                })?
            }
        }
        Ok(true)
    }

    fn in_transaction(
        &mut self,
        work: impl FnOnce(&mut Maintenance, &mut Memory, &Transaction<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        work(&mut self.maintenance, &mut self.memory, &transaction)?;
        transaction.commit()
    }

    fn vacuum(&mut self) -> rusqlite::Result<()> {
        let (pages, free) = pages(&self.connection)?;
        if free > SPARE_PAGES.max(pages / SPARE_SHARE) {
            self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        } else {
            self.maintenance.phase = Phase::Rest;
        }
        Ok(())
    }
}

/// Pages of the file, and those of them that are free.
fn pages(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let one = |sql| connection.prepare_cached(sql)?.query_row([], |row| row.get(0));
    Ok((one("PRAGMA page_count")?, one("PRAGMA freelist_count")?))
}

fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let (pages, free) = pages(connection)?;
    let size: i64 =
        connection.prepare_cached("PRAGMA page_size")?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from((pages - free) * size).unwrap_or(0))
}

type Mark = (i64, i64, i64);

fn roll_mark(transaction: &Transaction<'_>, (code, series, at): Mark) -> rusqlite::Result<()> {
    if code == READINGS.code {
        rollup::roll(transaction, &READINGS, series, at)
    } else {
        rollup::roll(transaction, &SAMPLES, series, at)
    }
}

fn mark(row: &rusqlite::Row<'_>) -> rusqlite::Result<Mark> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// Rolls up dirty quarters after `after`, but for those that are still being filled. Returns the last one
/// that was looked at, `None` when there are no more. A quarter that is touched again meanwhile waits for
/// the next round, so that a node that sends old readings has each of them rolled up once a round.
fn roll_dirty(
    transaction: &Transaction<'_>,
    memory: &mut Memory,
    after: Mark,
    now_ms: i64,
    has_time: impl Fn() -> bool,
) -> rusqlite::Result<Option<Mark>> {
    let marks: Vec<Mark> = transaction
        .prepare_cached(
            "SELECT family, series, at FROM dirty WHERE (family, series, at) > (?, ?, ?)
             ORDER BY family, series, at LIMIT ?",
        )?
        .query_map(params![after.0, after.1, after.2, MARKS_PER_STEP], mark)?
        .collect::<rusqlite::Result<_>>()?;
    let mut last = None;
    for quarter in marks {
        let filling = quarter.2 <= now_ms && now_ms < quarter.2 + QUARTER_MS + GRACE_MS;
        if !filling {
            roll_mark(transaction, quarter)?;
        }
        last = Some(quarter);
        if !has_time() {
            break;
        }
    }
    memory.marks.forget();
    Ok(last)
}

/// Decides what to give up, and gives it up once all of it is rolled up.
fn retain(
    transaction: &Transaction<'_>,
    maintenance: &mut Maintenance,
    memory: &mut Memory,
    retention: Retention,
    now_ms: i64,
    has_time: impl Fn() -> bool,
) -> rusqlite::Result<()> {
    let unrolled: bool = transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM backlog)")?
        .query_row([], |row| row.get(0))?;
    if unrolled || retention == Retention::EVERYTHING {
        maintenance.phase = Phase::Vacuum;
        return Ok(());
    }
    let wanted = wanted(transaction, maintenance, memory.horizon, retention, now_ms)?;
    if wanted != memory.horizon {
        let dirty: Vec<Mark> = transaction
            .prepare_cached("SELECT family, series, at FROM dirty WHERE at < ? LIMIT ?")?
            .query_map(params![wanted.rows_from, MARKS_PER_STEP], mark)?
            .collect::<rusqlite::Result<_>>()?;
        if !dirty.is_empty() {
            memory.marks.forget();
            for quarter in dirty {
                roll_mark(transaction, quarter)?;
                if !has_time() {
                    break;
                }
            }
            return Ok(());
        }
        wanted.save(transaction)?;
        memory.horizon = wanted;
    }
    maintenance.phase = Phase::Delete(Cursor::default());
    Ok(())
}

fn wanted(
    transaction: &Transaction<'_>,
    maintenance: &mut Maintenance,
    horizon: Horizon,
    retention: Retention,
    now_ms: i64,
) -> rusqlite::Result<Horizon> {
    let mut wanted = horizon;
    // A broker's clock that jumped ahead must not delete what no reading calls old.
    let newest = newest(transaction)?;
    let now_ms = newest.map_or(now_ms, |newest| newest.min(now_ms));
    wanted.raise_rows(retention.rows_from(now_ms));
    let used = used_bytes(transaction)?;
    let over = retention.is_over(used, maintenance.shrinking);
    maintenance.over = used > retention.max_bytes;
    maintenance.shrinking = over;
    if over && wanted == horizon {
        let oldest = oldest(transaction, &horizon)?;
        wanted = policy::make_room(horizon, &oldest, now_ms);
        if wanted == horizon {
            maintenance.shrinking = false;
            if !std::mem::replace(&mut maintenance.complained, true) {
                warn!(
                    max_bytes = retention.max_bytes,
                    "the log is larger than HUMIDOR_MAX_DB and nothing in it is old enough to go: it grows on; raise the limit or log less"
                );
            }
        }
    } else if !over {
        maintenance.complained = false;
    }
    Ok(wanted)
}

fn newest(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT max(at) FROM (
                 SELECT (SELECT max(at) FROM reading WHERE sensor = sensor.id) AS at FROM sensor
                 UNION ALL
                 SELECT (SELECT max(at) FROM sample WHERE source = source.id) FROM source)",
        )?
        .query_row([], |row| row.get(0))
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

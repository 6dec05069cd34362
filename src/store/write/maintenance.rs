//! Maintains the log between two commits: moves what arrived to its place, rolls up, deletes data that is too old or too
//! much, and gives the room back, in steps of less than a millisecond.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction};

use crate::clock::SET_FROM_MS;
use crate::store::retention::ahead::{self, MarkCursor};
use crate::store::retention::delete::{self, Cursor, Limits};
use crate::store::retention::policy::Retention;
use crate::store::retention::size::vacuum;
use crate::store::rollup::backfill;
use crate::store::rollup::dirty::{self, DirtyQuarter};
use crate::store::rollup::mend;
use crate::store::rollup::schema::{QUARTER_MS, SAMPLES};
use crate::store::write::arrival_move::{self, ArrivalMove};
use crate::store::write::cache::WriterCache;
use crate::store::write::forget::{self, Forgetting};
use crate::store::write::retain::Retain;
use crate::store::write::{restamp, sweep};

/// A step ends after the piece of work in which this has passed. An acknowledgement may have to wait for one, and
/// then for the pages that it has written: about a commit's own time on an SSD.
const STEP_TIME: Duration = Duration::from_micros(500);
/// The same while readings arrive faster than they are moved: longer steps write fewer pages.
const BEHIND_STEP_TIME: Duration = Duration::from_millis(2);
/// From one round over all dirty quarters to the next, ms.
const ROUND_MS: i64 = QUARTER_MS;
/// Bytes of a reading in table `arrival`, or of a sample with its part of the index.
const APPENDED_BYTES: u64 = 48;
/// The size of the log is looked at when it may have grown by one in so many parts of its limit.
const GROWN_SHARE: u64 = 64;
/// How often the progress of a long job is logged.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Where in a round the maintenance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// Moves what arrived to its place, where everything else looks for it.
    Move,
    /// Marks readings that are ahead of the clock, from this place on.
    MarkAhead(MarkCursor),
    /// Marks what an earlier version could not roll up.
    Mend,
    /// Rolls up dirty quarters after this one.
    Roll(DirtyQuarter),
    /// Rolls up rows from before there were roll-ups.
    Backfill,
    /// Raises the retention horizon.
    Retain,
    /// Deletes what lies before the horizon.
    Delete(Cursor),
    /// Deletes runs and series of which nothing is kept.
    Sweep(sweep::Cursor),
    /// Gives free pages back to the disk.
    Vacuum,
    /// The round is over.
    #[default]
    Rest,
}

/// The state of the maintenance, in memory alone: a restart begins a new round.
#[derive(Debug, Default)]
pub(in crate::store) struct Maintenance {
    phase: Phase,
    /// Rows that were appended since the last step.
    appended: u64,
    /// When the round began, Unix ms.
    round_at: Option<i64>,
    retain: Retain,
    arrival_move: ArrivalMove,
    /// Whether the last step was one of the move.
    moved: bool,
    /// The node that is being forgotten.
    forgetting: Option<Forgetting>,
    /// When progress was last logged.
    logged: Option<Instant>,
}

impl Maintenance {
    /// Whether the log was larger than its limit when that was last looked at, and data in it can go.
    pub const fn is_too_large(&self) -> bool {
        self.retain.pressure.is_too_large()
    }

    /// Whether it was larger by an eighth, too.
    pub const fn is_far_too_large(&self) -> bool {
        self.retain.pressure.is_far_too_large()
    }

    /// Notes how many readings and samples were appended.
    pub const fn appended(&mut self, rows: u64) {
        self.appended = self.appended.saturating_add(rows);
    }

    /// Whether the log may have grown so much since the last step that its size is to be looked at.
    pub const fn has_grown(&self, retention: &Retention) -> bool {
        self.appended.saturating_mul(APPENDED_BYTES) > retention.max_bytes / GROWN_SHARE
    }

    /// Does one step; `now_ms` is Unix ms. Returns whether there is more to do at present. A step that fails begins
    /// a new round.
    pub fn step(
        &mut self,
        connection: &mut Connection,
        cache: &mut WriterCache,
        retention: &Retention,
        now_ms: i64,
    ) -> rusqlite::Result<bool> {
        self.appended = 0;
        cache.tell_time(now_ms);
        let horizons = cache.horizons.clone();
        let outcome = self.attempt(connection, cache, retention, now_ms);
        if outcome.is_err() {
            *self = Self::default();
            cache.horizons = horizons;
            cache.forget();
        }
        outcome
    }

    /// Moves what arrived for `time`, whatever the phase. Returns whether there is more.
    pub fn move_arrived(
        &mut self,
        connection: &mut Connection,
        cache: &mut WriterCache,
        time: Duration,
    ) -> rusqlite::Result<bool> {
        let outcome = self.move_some(connection, cache, time);
        if outcome.is_err() {
            *self = Self::default();
            cache.forget();
        }
        outcome
    }

    fn move_some(
        &mut self,
        connection: &mut Connection,
        cache: &mut WriterCache,
        time: Duration,
    ) -> rusqlite::Result<bool> {
        let started = Instant::now();
        let transaction = connection.transaction()?;
        let more = self.arrival_move.step(&transaction, cache, || started.elapsed() < time)?;
        transaction.commit()?;
        Ok(more)
    }

    fn attempt(
        &mut self,
        connection: &mut Connection,
        cache: &mut WriterCache,
        retention: &Retention,
        now_ms: i64,
    ) -> rusqlite::Result<bool> {
        if cache.restamping {
            let transaction = connection.transaction()?;
            cache.restamping = restamp::correct_some(&transaction, cache)?;
            transaction.commit()?;
            return Ok(true);
        }
        // A flood of readings fills the disk long before the next round.
        let copies = self.arrival_move.copies(cache.arrivals(connection)?);
        let full = self.retain.pressure.calls_for_a_round(connection, retention, copies)?
            && self.phase == Phase::Rest;
        if (full || self.is_due(now_ms))
            && !matches!(
                self.phase,
                Phase::Move | Phase::MarkAhead(_) | Phase::Mend | Phase::Roll(_)
            )
        {
            self.round_at = Some(now_ms);
            self.phase = Phase::Move;
            self.arrival_move.extend(cache.arrivals(connection)?.last());
        }
        let segment_rows = cache.segment_rows;
        let arrivals = cache.arrivals(connection)?;
        let moves = self.arrival_move.is_running() || arrival_move::is_due(arrivals, segment_rows);
        // A flood has always something to move: every other step is the round's, or it would not roll up and delete.
        let round_waits = !matches!(self.phase, Phase::Move | Phase::Rest);
        let raises = self.retain.needs_standstill();
        self.moved = moves && !raises && !(self.moved && round_waits);
        if !self.moved && self.forget(connection, cache)? {
            return Ok(true);
        }
        match if self.moved { Phase::Move } else { self.phase } {
            Phase::Rest => return Ok(false),
            // Outside of a transaction: a vacuum is one itself.
            Phase::Vacuum => {
                if !vacuum(connection)? {
                    self.phase = Phase::Rest;
                }
            }
            Phase::Move => {
                let behind = arrival_move::is_behind(cache.arrivals(connection)?);
                let time = if behind { BEHIND_STEP_TIME } else { STEP_TIME };
                let more = self.move_some(connection, cache, time)?;
                if !more && self.phase == Phase::Move {
                    self.phase = Phase::MarkAhead(MarkCursor::START);
                }
            }
            phase => {
                let transaction = connection.transaction()?;
                self.phase = self.work(&transaction, cache, phase, retention, now_ms)?;
                transaction.commit()?;
            }
        }
        Ok(true)
    }

    /// Deletes some of the node that is to be forgotten. Returns whether there was one.
    fn forget(
        &mut self,
        connection: &mut Connection,
        cache: &mut WriterCache,
    ) -> rusqlite::Result<bool> {
        if self.forgetting.is_none() && self.phase == Phase::Rest {
            self.forgetting = forget::next(connection, cache)?;
        }
        let Some(forgetting) = &self.forgetting else { return Ok(false) };
        if !forgetting.is_moved(cache, connection)? {
            self.arrival_move.extend(forgetting.until);
            return Ok(true);
        }
        let started = Instant::now();
        let transaction = connection.transaction()?;
        let done = forgetting.step(&transaction, cache, || started.elapsed() < STEP_TIME)?;
        transaction.commit()?;
        if done {
            self.forgetting = None;
            if self.phase == Phase::Rest {
                self.phase = Phase::Vacuum;
            }
        }
        Ok(true)
    }

    /// Works on a phase until [`STEP_TIME`] has passed. Returns the phase to go on with.
    fn work(
        &mut self,
        transaction: &Transaction<'_>,
        cache: &mut WriterCache,
        phase: Phase,
        retention: &Retention,
        now_ms: i64,
    ) -> rusqlite::Result<Phase> {
        let started = Instant::now();
        let has_time = move || started.elapsed() < STEP_TIME;
        Ok(match phase {
            Phase::MarkAhead(mut after) => {
                let log_ms = cache.present(now_ms).log_ms();
                // A clock that is not set calls everything ahead.
                let done = now_ms < SET_FROM_MS
                    || ahead::mark(transaction, &mut after, now_ms, log_ms, has_time)?;
                if done { Phase::Mend } else { Phase::MarkAhead(after) }
            }
            Phase::Mend => {
                let done = {
                    let rows_from = |source| cache.horizons.of(&SAMPLES, source).closed_until;
                    mend::step(transaction, rows_from, has_time)?
                };
                if done { Phase::Roll(DirtyQuarter::FIRST) } else { Phase::Mend }
            }
            Phase::Roll(after) => {
                let last =
                    dirty::roll_after(transaction, &mut cache.marks, after, now_ms, has_time)?;
                last.map_or(Phase::Backfill, Phase::Roll)
            }
            Phase::Backfill => {
                if backfill::roll(transaction, || self.logs_progress(), has_time)? {
                    Phase::Retain
                } else {
                    Phase::Backfill
                }
            }
            Phase::Retain => {
                if *retention == Retention::EVERYTHING || backfill::is_pending(transaction)? {
                    return Ok(Phase::Vacuum);
                }
                let copies = self.arrival_move.copies(cache.arrivals(transaction)?);
                if self.retain.step(transaction, cache, copies, retention, now_ms, has_time)? {
                    Phase::Retain
                } else {
                    Phase::Delete(Cursor::default())
                }
            }
            Phase::Delete(mut cursor) => {
                let present = cache.present(now_ms);
                let (horizons, young) = (&cache.horizons, &mut cache.young_deleted);
                let ahead = &self.retain.ahead;
                let mut limits = Limits { horizons, present, ahead, young };
                let done = delete::step(transaction, &mut cursor, &mut limits, has_time)?;
                if done { Phase::Sweep(sweep::Cursor::START) } else { Phase::Delete(cursor) }
            }
            // Before more data has to go: what is swept makes room, too.
            Phase::Sweep(cursor) => match sweep::step(transaction, cache, cursor, has_time)? {
                Some(cursor) => Phase::Sweep(cursor),
                None if self.retain.pressure.is_shrinking() => Phase::Retain,
                None => Phase::Vacuum,
            },
            Phase::Move | Phase::Vacuum | Phase::Rest => phase,
        })
    }

    /// Whether the next round is due. A clock that was put back must not end the rounds.
    fn is_due(&self, now_ms: i64) -> bool {
        self.round_at.is_none_or(|at| now_ms < at || now_ms >= at.saturating_add(ROUND_MS))
    }

    /// Whether progress is to be logged again.
    fn logs_progress(&mut self) -> bool {
        let due = self.logged.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL);
        if due {
            self.logged = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::ClockState;
    use crate::store::retention::horizon::Horizons;
    use crate::store::retention::size::{SizePressure, used_bytes};
    use crate::store::{Record, Store};
    use crate::wire::Telemetry;

    const ROWS: i64 = 12_000;
    const START_MS: i64 = 1_760_400_000_000;

    #[test]
    fn rows_that_are_moved_and_not_yet_deleted_count_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        let readings: Vec<Record> = (1..=ROWS)
            .map(|seq| Record::Reading {
                node: "press".parse().unwrap(),
                sensor: "hall".parse().unwrap(),
                telemetry: Telemetry {
                    boot: "b".parse().unwrap(),
                    seq: seq.cast_unsigned(),
                    at: START_MS + seq * 1000,
                    clock: ClockState::Synced,
                    mono: seq.cast_unsigned() * 1000,
                    temperature: Some(20.1),
                    humidity: Some(50.1),
                },
            })
            .collect();
        store.append(&readings.iter().collect::<Vec<_>>()).unwrap();

        let connection = &mut store.connection;
        let mut cache = WriterCache::new(Horizons::load(connection).unwrap());
        let mut maintenance = Maintenance::default();
        let mut pressure = SizePressure::default();
        let mut all_twice = false;
        while maintenance.move_arrived(connection, &mut cache, Duration::ZERO).unwrap() {
            let copies = maintenance.arrival_move.copies(cache.arrivals(connection).unwrap());
            if copies % 3_000 == 0 {
                let both: i64 = connection
                    .query_row(
                        "SELECT count(*) FROM arrival CROSS JOIN reading USING (run, seq)",
                        [],
                        |row| row.get(0),
                    )
                    .unwrap();
                assert_eq!(copies, both.cast_unsigned());
            }
            if copies == ROWS.cast_unsigned() {
                all_twice = true;
                // Without the copies it is far below this.
                let max_bytes = used_bytes(connection).unwrap();
                let retention = Retention { keep_raw: None, max_bytes };
                assert!(!pressure.calls_for_a_round(connection, &retention, copies).unwrap());
                assert!(pressure.calls_for_a_round(connection, &retention, 0).unwrap());
            }
        }
        assert!(all_twice);
    }
}

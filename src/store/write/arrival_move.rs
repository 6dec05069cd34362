//! Moves readings from the table of arrivals to their place, in the order of run and number and in small steps.
//!
//! A segment of rows is read into memory and placed run by run, so that a page of table `reading` takes all rows of the
//! segment that belong there and not one. A step is one transaction that also writes how far it came: a cut loses a step
//! or keeps it. Moved rows are deleted from the front, where whole pages become free.

use std::collections::BTreeMap;

use rusqlite::{Transaction, params};

use crate::store::rollup::schema::READINGS;
use crate::store::write::arrival::{Arrivals, Progress, SEGMENT_ROWS};
use crate::store::write::cache::WriterCache;
use crate::store::write::newest::NewestReadings;
use crate::store::write::placement::{ArrivedRow, place};

/// A segment is in the file twice while it is moved: it takes no more than one in so many parts of the file's limit.
const SEGMENT_SHARE: u64 = 16;
/// Bytes of a row of table `arrival`.
const ROW_BYTES: u64 = 48;
/// Rows a run at which a move is worth its pages.
const ROWS_PER_RUN: i64 = 128;
/// Below this many rows a move waits for the next round: a query reads so many in two milliseconds.
const MOVE_ROWS: i64 = 16_384;
/// Rows that wait when they arrive faster than they are moved.
const BEHIND_ROWS: i64 = 262_144;
/// Runs beyond one of each node that have begun and wait, likewise: each takes memory, and a look for the newest reading.
const BEHIND_RUNS: usize = 32_768;
/// Rows that one piece of work reads into the segment, or deletes.
const PIECE_ROWS: i64 = 1_000;
/// Rows that one piece of work places.
const PLACED_ROWS: usize = 16;

/// Rows of a segment in a log of `max_bytes` at most.
pub(in crate::store) fn segment_rows(max_bytes: u64) -> i64 {
    i64::try_from(max_bytes / (SEGMENT_SHARE * ROW_BYTES))
        .map_or(SEGMENT_ROWS, |rows| rows.min(SEGMENT_ROWS))
}

/// Whether so many rows have arrived that they are moved before the next round, in segments of `segment_rows`. A node that
/// begins one run after the other is no reason to wait for more rows: their places are side by side.
pub(in crate::store) fn is_due(arrivals: &Arrivals, segment_rows: i64) -> bool {
    let runs = i64::try_from(arrivals.numbers.runs()).unwrap_or(i64::MAX);
    let worth = runs.saturating_mul(ROWS_PER_RUN).clamp(MOVE_ROWS.min(segment_rows), segment_rows);
    arrivals.unmoved() >= worth
}

/// Whether rows arrive, or nodes begin runs, faster than those are moved.
pub(in crate::store) fn is_behind(arrivals: &Arrivals) -> bool {
    arrivals.unmoved() > BEHIND_ROWS || arrivals.numbers.restarts() > BEHIND_RUNS
}

/// Whether the move falls back although it has half of the time: rows in this table are no roll-ups and cannot be deleted.
pub(in crate::store) fn is_far_behind(arrivals: &Arrivals) -> bool {
    arrivals.unmoved() > 2 * BEHIND_ROWS || arrivals.numbers.restarts() > 2 * BEHIND_RUNS
}

/// Rows that are moved together.
#[derive(Debug)]
struct Segment {
    progress: Progress,
    /// Rows up to this id have been read.
    read: i64,
    /// Rows that are to be placed, by run.
    runs: BTreeMap<i64, Vec<ArrivedRow>>,
    /// The run that is being placed and its rows, the last one first.
    current: Option<(i64, Vec<ArrivedRow>)>,
    /// Rows that were read and are not placed yet.
    waiting: i64,
    /// The newest readings among them, noted before any is placed: a restart in between reads them again.
    newest: NewestReadings,
}

/// A move, in memory; the database knows how far it is.
#[derive(Debug, Default)]
pub(in crate::store) struct ArrivalMove {
    segment: Option<Segment>,
    /// Rows up to this id are to be moved.
    until: Option<i64>,
}

impl ArrivalMove {
    /// Whether a move has begun and not ended.
    pub const fn is_running(&self) -> bool {
        self.until.is_some()
    }

    /// Has the move, also one that is running, go up to this id.
    pub fn extend(&mut self, until: i64) {
        self.until = Some(until);
    }

    /// Rows that are in their place and still in the table of arrivals.
    pub fn copies(&self, arrivals: &Arrivals) -> u64 {
        let placed = self.segment.as_ref().map_or(0, Segment::placed);
        u64::try_from(arrivals.unmoved_from - arrivals.first + placed).unwrap_or(0)
    }

    /// Moves rows that are there now while there is time. Returns whether there are more.
    pub fn step(
        &mut self,
        transaction: &Transaction<'_>,
        cache: &mut WriterCache,
        has_time: impl Fn() -> bool,
    ) -> rusqlite::Result<bool> {
        let last = cache.arrivals(transaction)?.last();
        let until = *self.until.get_or_insert(last);
        let more = loop {
            if !self.piece(transaction, cache, until)? {
                self.until = None;
                break false;
            }
            if !has_time() {
                break true;
            }
        };
        if let Some(segment) = &self.segment {
            segment.progress.save(transaction)?;
        }
        cache.added_readings.save(transaction, &READINGS, &cache.horizons)?;
        Ok(more)
    }

    /// One piece of work. Returns whether there is more.
    fn piece(
        &mut self,
        transaction: &Transaction<'_>,
        cache: &mut WriterCache,
        until: i64,
    ) -> rusqlite::Result<bool> {
        let Some(segment) = &mut self.segment else {
            let arrivals = cache.arrivals(transaction)?;
            // Before the next segment, which takes the room.
            if delete_moved(transaction, arrivals)? {
                return Ok(true);
            }
            if arrivals.unmoved_from <= until {
                self.segment = Some(Segment::begin(transaction, until, cache.segment_rows)?);
                return Ok(true);
            }
            return Ok(false);
        };
        if segment.read < segment.progress.sealed {
            segment.read_more(transaction)?;
            return Ok(true);
        }
        if segment.newest.note_some(transaction, cache.now_ms)? {
            return Ok(true);
        }
        if !segment.place_some(transaction, cache)? {
            let progress = Progress { moved: segment.progress.sealed, ..segment.progress };
            progress.save(transaction)?;
            cache.arrivals(transaction)?.moved(progress.moved);
            self.segment = None;
        }
        Ok(true)
    }
}

impl Segment {
    /// The next segment of so many rows at most, or the one that a restart has interrupted.
    fn begin(transaction: &Transaction<'_>, until: i64, rows: i64) -> rusqlite::Result<Self> {
        let mut progress = Progress::load(transaction)?;
        if progress.sealed <= progress.moved {
            progress.sealed = until.min(progress.moved + rows);
            progress.placed = Progress::NOTHING_PLACED;
        }
        Ok(Self {
            progress,
            read: progress.moved,
            runs: BTreeMap::new(),
            current: None,
            waiting: 0,
            newest: NewestReadings::default(),
        })
    }

    /// Rows of the segment that are in their place.
    const fn placed(&self) -> i64 {
        self.read - self.progress.moved - self.waiting
    }

    fn read_more(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let end = self.progress.sealed.min(self.read + PIECE_ROWS);
        let mut statement = transaction.prepare_cached(
            "SELECT run, seq, sensor, at, clock, mono, temperature, humidity FROM arrival
             WHERE id > ? AND id <= ? AND (run, seq) > (?, ?)",
        )?;
        let (run, seq) = self.progress.placed;
        let mut rows = statement.query(params![self.read, end, run, seq])?;
        while let Some(row) = rows.next()? {
            let (run, seq, sensor) = (row.get(0)?, row.get(1)?, row.get(2)?);
            self.newest.see(sensor, run, seq);
            self.waiting += 1;
            // Room for one: there may be a run for each row.
            let rows = self.runs.entry(run).or_insert_with(|| Vec::with_capacity(1));
            rows.push(ArrivedRow {
                seq,
                sensor,
                at: row.get(3)?,
                clock: row.get(4)?,
                mono: row.get(5)?,
                values: [row.get(6)?, row.get(7)?],
            });
        }
        self.read = end;
        Ok(())
    }

    /// Places the next few rows. Returns whether there were any.
    fn place_some(
        &mut self,
        transaction: &Transaction<'_>,
        cache: &mut WriterCache,
    ) -> rusqlite::Result<bool> {
        if self.current.is_none() {
            let Some((run, mut rows)) = self.runs.pop_first() else { return Ok(false) };
            rows.sort_by_key(|row| std::cmp::Reverse(row.seq));
            self.current = Some((run, rows));
        }
        let Some((run, rows)) = &mut self.current else { return Ok(false) };
        // Asked for each time: the clock may have been set since the last step.
        let synced = synced(transaction, *run)?;
        for row in rows.drain(rows.len().saturating_sub(PLACED_ROWS)..).rev() {
            place(transaction, cache, *run, synced, &row)?;
            self.progress.placed = (*run, row.seq);
            self.waiting -= 1;
        }
        if rows.is_empty() {
            self.current = None;
        }
        Ok(true)
    }
}

/// Offset in ms and first number with a set clock, of a run whose clock is set.
fn synced(transaction: &Transaction<'_>, run: i64) -> rusqlite::Result<Option<(i64, i64)>> {
    transaction
        .prepare_cached("SELECT offset_ms, synced_seq FROM run WHERE id = ?")?
        .query_row([run], |row| Ok(row.get::<_, Option<i64>>(0)?.zip(row.get(1)?)))
}

/// Deletes the next few rows that have been moved. Returns whether there were any.
fn delete_moved(transaction: &Transaction<'_>, arrivals: &mut Arrivals) -> rusqlite::Result<bool> {
    let end = arrivals.unmoved_from.min(arrivals.first + PIECE_ROWS);
    if end <= arrivals.first {
        return Ok(false);
    }
    transaction.prepare_cached("DELETE FROM arrival WHERE id < ?")?.execute([end])?;
    arrivals.first = end;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::ClockState;
    use crate::store::Store;
    use crate::store::write::intern::Run;
    use crate::wire::Telemetry;

    /// Whether a move is due when so many nodes have sent `each` readings in every one of `runs` runs.
    fn is_due_after(nodes: i64, runs: i64, each: u64) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        let transaction = store.connection.transaction().unwrap();
        let mut arrivals = Arrivals::load(&transaction).unwrap();
        for run in 0..nodes * runs {
            let run = Run { id: run, node: run % nodes, is_synced: true };
            for seq in 1..=each {
                let telemetry = Telemetry {
                    boot: "b".parse().unwrap(),
                    seq,
                    at: 0,
                    clock: ClockState::Synced,
                    mono: 0,
                    temperature: Some(20.0),
                    humidity: None,
                };
                assert!(arrivals.append(&transaction, run, 1, &telemetry).unwrap());
            }
        }
        is_due(&arrivals, SEGMENT_ROWS)
    }

    #[test]
    fn a_hall_that_restarts_waits_for_more_rows_and_a_node_that_restarts_all_the_time_does_not() {
        assert!(!is_due_after(900, 1, 20), "18,000 rows that would write 900 pages");
        assert!(is_due_after(1, 16_384, 1), "readings of as many runs");
        assert!(is_due_after(4, 4_096, 1));
        assert!(!is_due_after(1, 16_000, 1), "a few wait for the next round");
    }
}

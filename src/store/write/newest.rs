//! The newest reading of each sensor: the highest number in its newest run, whatever the stamps say. Table `newest` knows it
//! of the readings in their place; the move notes it, once for a sensor and not once a row.

use std::collections::BTreeMap;
use std::iter::from_fn;

use rusqlite::{Connection, OptionalExtension, Transaction};

/// Offsets further ahead of the broker's clock than this, in ms, are not believed.
pub(in crate::store) const OFFSET_AHEAD_MS: i64 = 86_400_000;
/// Runs of a sensor that are noted.
const RUNS_KEPT: usize = 8;
/// Sensors that one piece of work notes.
const SENSORS_PER_PIECE: usize = 8;
/// Runs of one sensor that one piece of work looks at: a board that makes up runs costs the others no more than that at a time.
const RUNS_PER_PIECE: usize = 64;

/// What tells two runs of a node apart in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct RunAge {
    pub id: i64,
    /// When it began, Unix ms by its node's clock; `None` until that was set, or when it cannot be believed.
    pub began: Option<i64>,
}

impl RunAge {
    /// Of run `id` at `now_ms`, Unix ms.
    pub fn load(connection: &Connection, id: i64, now_ms: i64) -> rusqlite::Result<Self> {
        let began: Option<i64> = connection
            .prepare_cached("SELECT offset_ms FROM run WHERE id = ?")?
            .query_row([id], |row| row.get(0))
            .optional()?
            .flatten();
        Ok(Self::new(id, began, now_ms))
    }

    /// Of run `id` that began at `began` by its node's clock, at `now_ms`; both Unix ms.
    pub fn new(id: i64, began: Option<i64>, now_ms: i64) -> Self {
        let latest = now_ms.saturating_add(OFFSET_AHEAD_MS);
        Self { id, began: began.filter(|began| *began <= latest) }
    }

    /// Whether it is newer than `other`: it began later, or where that is not known of both, its first reading came
    /// later.
    pub fn is_newer_than(self, other: Self) -> bool {
        match (self.began, other.began) {
            (Some(mine), Some(theirs)) => (mine, self.id) > (theirs, other.id),
            _ => self.id > other.id,
        }
    }
}

/// Notes the newest readings of a segment of arrivals.
#[derive(Debug, Default)]
pub(in crate::store) struct NewestReadings {
    /// Highest number by sensor and run.
    found: BTreeMap<i64, BTreeMap<i64, i64>>,
}

impl NewestReadings {
    pub fn see(&mut self, sensor: i64, run: i64, seq: i64) {
        let highest = self.found.entry(sensor).or_default().entry(run).or_insert(seq);
        *highest = seq.max(*highest);
    }

    /// Notes the next few; `now_ms` is Unix ms. Returns whether there were any.
    pub fn note_some(
        &mut self,
        transaction: &Transaction<'_>,
        now_ms: i64,
    ) -> rusqlite::Result<bool> {
        let mut any = false;
        for _ in 0..SENSORS_PER_PIECE {
            let Some(mut sensor) = self.found.first_entry() else { break };
            any = true;
            let id = *sensor.key();
            let next: BTreeMap<i64, i64> =
                from_fn(|| sensor.get_mut().pop_first()).take(RUNS_PER_PIECE).collect();
            let has_more = !sensor.get().is_empty();
            if !has_more {
                sensor.remove();
            }
            note(transaction, id, &next, now_ms)?;
            if has_more {
                break;
            }
        }
        Ok(any)
    }
}

/// Notes what was found of a sensor, by run. Which run is the newest may change when a clock is set, so a few are kept: the
/// newest as far as is known, and those that came last.
fn note(
    transaction: &Transaction<'_>,
    sensor: i64,
    found: &BTreeMap<i64, i64>,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let before = noted(transaction, sensor)?;
    let mut runs = before.clone();
    for (run, seq) in found {
        let highest = runs.entry(*run).or_insert(*seq);
        *highest = (*seq).max(*highest);
    }
    let ages = runs.keys().map(|run| RunAge::load(transaction, *run, now_ms));
    let ages = ages.collect::<rusqlite::Result<Vec<_>>>()?;
    let newest = newest_of(ages.into_iter()).map(|newest| newest.id);
    let mut surplus = runs.len().saturating_sub(RUNS_KEPT);
    runs.retain(|run, _| {
        let goes = surplus > 0 && Some(*run) != newest;
        surplus -= usize::from(goes);
        !goes
    });
    for run in before.keys().filter(|run| !runs.contains_key(run)) {
        transaction
            .prepare_cached("DELETE FROM newest WHERE sensor = ? AND run = ?")?
            .execute([sensor, *run])?;
    }
    for (run, seq) in runs.iter().filter(|(run, seq)| before.get(run) != Some(seq)) {
        transaction
            .prepare_cached(
                "INSERT INTO newest (sensor, run, seq) VALUES (?, ?, ?) ON CONFLICT (sensor, run)
                 DO UPDATE SET seq = excluded.seq",
            )?
            .execute([sensor, *run, *seq])?;
    }
    Ok(())
}

/// The highest number of a sensor in each of its newest runs, as far as its readings are in their place.
pub(in crate::store) fn noted(
    connection: &Connection,
    sensor: i64,
) -> rusqlite::Result<BTreeMap<i64, i64>> {
    connection
        .prepare_cached("SELECT run, seq FROM newest WHERE sensor = ?")?
        .query_map([sensor], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// The newest of some runs of one node, in the order of their ids.
pub(in crate::store) fn newest_of(runs: impl Iterator<Item = RunAge>) -> Option<RunAge> {
    runs.reduce(|newest, run| if run.is_newer_than(newest) { run } else { newest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::steps;

    const NOW_MS: i64 = 1_760_000_000_000;

    /// Notes one sensor's readings in `runs` runs, of which the one before the last 20 began last. Returns the runs that are
    /// kept, the pieces, and thousands of steps of SQLite's machine in the largest of them and in all.
    fn note_all(runs: i64) -> (Vec<i64>, usize, u64, u64) {
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE run (id INTEGER PRIMARY KEY, offset_ms INTEGER);
                 CREATE TABLE newest (sensor INTEGER, run INTEGER, seq INTEGER, PRIMARY KEY (sensor, run)) WITHOUT ROWID;",
            )
            .unwrap();
        let mut found = NewestReadings::default();
        for run in 1..=runs {
            let began = NOW_MS - if run == runs - 20 { 0 } else { 1_000_000 - run };
            connection.execute("INSERT INTO run VALUES (?, ?)", [run, began]).unwrap();
            found.see(1, run, 1);
        }
        let steps = steps::count(&mut connection);
        let (mut pieces, mut largest) = (0, 0);
        let transaction = connection.transaction().unwrap();
        loop {
            let before = steps();
            if !found.note_some(&transaction, NOW_MS).unwrap() {
                break;
            }
            pieces += 1;
            largest = largest.max(steps() - before);
        }
        let kept = noted(&transaction, 1).unwrap().into_keys().collect();
        (kept, pieces, largest, steps())
    }

    #[test]
    fn the_newest_run_is_kept_and_those_that_came_last() {
        for runs in [100, 64 * 3 + 1] {
            let expected: Vec<i64> = [runs - 20].into_iter().chain(runs - 6..=runs).collect();
            assert_eq!(note_all(runs).0, expected);
        }
        assert_eq!(note_all(21).0, [1, 15, 16, 17, 18, 19, 20, 21]);
    }

    #[test]
    fn many_runs_of_one_sensor_are_noted_in_pieces_whose_sum_is_theirs() {
        let (_, few, _, of_few) = note_all(2_000);
        let (_, many, largest, of_many) = note_all(8_000);
        assert_eq!((few, many), (32, 125));
        assert!(largest <= 10, "{largest} thousand steps in one piece");
        assert!(of_many <= of_few * 5, "{of_few} and {of_many} thousand steps");
    }
}

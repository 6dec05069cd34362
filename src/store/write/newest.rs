//! The newest reading of each sensor: the highest number in its newest run, whatever the stamps say. Table `newest` knows it
//! of the readings in their place; the move notes it, once for a sensor and not once a row.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Offsets further ahead of the broker's clock than this, in ms, are not believed.
pub(in crate::store) const OFFSET_AHEAD_MS: i64 = 86_400_000;
/// Runs of a sensor that are noted.
const RUNS_KEPT: usize = 8;
/// Sensors that one piece of work notes.
const SENSORS_PER_PIECE: usize = 8;

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
        let latest = now_ms.saturating_add(OFFSET_AHEAD_MS);
        Ok(Self { id, began: began.filter(|began| *began <= latest) })
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
        for _ in 0..SENSORS_PER_PIECE {
            let Some((sensor, runs)) = self.found.pop_first() else { return Ok(false) };
            note(transaction, sensor, &runs, now_ms)?;
        }
        Ok(true)
    }
}

fn note(
    transaction: &Transaction<'_>,
    sensor: i64,
    runs: &BTreeMap<i64, i64>,
    now_ms: i64,
) -> rusqlite::Result<()> {
    for (run, seq) in runs {
        transaction
            .prepare_cached(
                "INSERT INTO newest (sensor, run, seq) VALUES (?, ?, ?) ON CONFLICT (sensor, run)
                 DO UPDATE SET seq = excluded.seq WHERE excluded.seq > newest.seq",
            )?
            .execute(params![sensor, run, seq])?;
    }
    // Which is the newest may change when a clock is set, so a few are kept.
    let mut kept: Vec<i64> = noted(transaction, sensor)?.into_keys().collect();
    while kept.len() > RUNS_KEPT {
        let Some(newest) = newest_of(transaction, kept.iter().copied(), now_ms)? else { break };
        let oldest = kept.iter().position(|run| *run != newest.id).unwrap_or(0);
        transaction
            .prepare_cached("DELETE FROM newest WHERE sensor = ? AND run = ?")?
            .execute([sensor, kept.remove(oldest)])?;
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

/// The newest of some runs of one node.
pub(in crate::store) fn newest_of(
    connection: &Connection,
    runs: impl Iterator<Item = i64>,
    now_ms: i64,
) -> rusqlite::Result<Option<RunAge>> {
    let mut newest: Option<RunAge> = None;
    for run in runs {
        let run = RunAge::load(connection, run, now_ms)?;
        if newest.is_none_or(|newest| run.is_newer_than(newest)) {
            newest = Some(run);
        }
    }
    Ok(newest)
}

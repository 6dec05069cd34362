//! Follows the log: the latest readings, and then each that is committed.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use crate::clock;
use crate::store::read::arrived::{self, ARRIVED};
use crate::store::read::log::{Log, READINGS, Reading, reading};
use crate::store::retention::ahead::AHEAD_MS;
use crate::store::write::newest::{OFFSET_AHEAD_MS, RunAge};

/// Runs of one node that are looked at for its latest readings, at most: so many that came last, and that began last.
const RUNS: i64 = 64;
impl Log {
    /// The latest `count` readings, oldest first: of each node those with the highest numbers of its newest runs, whatever
    /// their times say.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn latest(&self, count: usize) -> rusqlite::Result<Vec<Reading>> {
        let now_ms = clock::unix_ms();
        let mut latest = Vec::new();
        let nodes = self
            .connection
            .prepare_cached("SELECT id FROM node ORDER BY name")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<i64>>>()?;
        let arrived = self.arrived_by_run()?;
        for node in nodes {
            let mut of_node = Vec::new();
            for run in self.newest_runs(node, now_ms)? {
                of_node.extend(self.latest_of_run(run, count, arrived.get(&run))?);
                if of_node.len() >= count {
                    break;
                }
            }
            of_node.truncate(count);
            latest.extend(in_time(of_node, now_ms));
        }
        latest.sort_by_key(|(at, _)| *at);
        let first = latest.len().saturating_sub(count);
        Ok(latest.split_off(first).into_iter().map(|(_, reading)| reading).collect())
    }

    /// Single rows that are still to be moved: number and id, by run.
    fn arrived_by_run(&self) -> rusqlite::Result<HashMap<i64, Vec<(i64, i64)>>> {
        let mut by_run = HashMap::<i64, Vec<(i64, i64)>>::new();
        let mut statement =
            self.connection.prepare_cached("SELECT run, seq, id FROM arrived WHERE is_kept")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            by_run.entry(row.get(0)?).or_default().push((row.get(1)?, row.get(2)?));
        }
        Ok(by_run)
    }

    /// The runs of a node, the newest first.
    fn newest_runs(&self, node: i64, now_ms: i64) -> rusqlite::Result<Vec<i64>> {
        let mut runs = self
            .connection
            .prepare_cached(
                "SELECT id FROM run WHERE id IN (
                     SELECT id FROM run WHERE node = ?1 ORDER BY id DESC LIMIT ?2)
                 OR id IN (SELECT id FROM run WHERE node = ?1 AND offset_ms <= ?3
                           ORDER BY offset_ms DESC LIMIT ?2)
                 OR id IN (SELECT run FROM newest JOIN sensor ON sensor.id = newest.sensor
                           WHERE sensor.node = ?1) ORDER BY id",
            )?
            .query_map([node, RUNS, now_ms.saturating_add(OFFSET_AHEAD_MS)], |row| row.get(0))?
            .map(|id| RunAge::load(&self.connection, id?, now_ms))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        // Each goes behind the last one that it is newer than: ages need not be comparable.
        for at in 1..runs.len() {
            let place = (0..at).rev().find(|other| runs[at].is_newer_than(runs[*other]));
            let run = runs.remove(at);
            runs.insert(place.map_or(0, |place| place + 1), run);
        }
        Ok(runs.into_iter().rev().map(|run| run.id).collect())
    }

    /// The `count` readings of a run with the highest numbers, the highest first, each with its monotonic stamp in ms.
    fn latest_of_run(
        &self,
        run: i64,
        count: usize,
        arrived: Option<&Vec<(i64, i64)>>,
    ) -> rusqlite::Result<Vec<(i64, Reading)>> {
        // No file holds more rows.
        let most = i64::try_from(count).unwrap_or(i64::MAX);
        let mut latest = self
            .connection
            .prepare_cached(&format!(
                "{READINGS} WHERE reading.run = ? ORDER BY reading.seq DESC LIMIT ?"
            ))?
            .query_map(params![run, most], |row| Ok((row.get(9)?, reading(row)?)))?
            .collect::<rusqlite::Result<Vec<(i64, Reading)>>>()?;
        let mut numbers = arrived.cloned().unwrap_or_default();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut statement =
            self.connection.prepare_cached(&format!("{ARRIVED} WHERE reading.id = ?"))?;
        for (_, id) in numbers.into_iter().take(count) {
            latest.push(statement.query_row([id], |row| Ok((row.get(9)?, reading(row)?)))?);
        }
        latest.sort_by_key(|(_, reading)| std::cmp::Reverse(reading.seq));
        latest.truncate(count);
        Ok(latest)
    }
}

/// Puts a node's readings, the newest first, among those of others: in their own order, and at their time as far as it is
/// known. Where it is not, the newest one counts as of now and the others as so much earlier as their board says.
fn in_time(newest_first: Vec<(i64, Reading)>, now_ms: i64) -> Vec<(i64, Reading)> {
    let mut before: Option<(i64, i64, String)> = None;
    let mut placed: Vec<(i64, Reading)> = Vec::with_capacity(newest_first.len());
    for (mono, reading) in newest_first {
        let is_known = reading.clock != "unsynced" && reading.at <= now_ms.saturating_add(AHEAD_MS);
        let latest = match &before {
            Some((at, later, boot)) if *boot == reading.boot => {
                at.saturating_sub(later.saturating_sub(mono).max(0))
            }
            Some((at, ..)) => *at,
            None => now_ms,
        };
        let bound = before.as_ref().map_or(i64::MAX, |(at, ..)| *at);
        let at = if is_known { reading.at.min(bound) } else { latest.min(bound) };
        before = Some((at, mono, reading.boot.clone()));
        placed.push((at, reading));
    }
    placed.reverse();
    placed
}
/// A reading with the id of its run and its number.
type Numbered = ((i64, i64), Reading);

/// Follows a log: each call of [`Tail::read_new`] gives the readings that were committed since the last one.
#[derive(Debug)]
pub struct Tail {
    log: Log,
    data_version: i64,
    /// Highest number seen, by run.
    seen: HashMap<i64, i64>,
    /// The latest row seen of those that are still to be moved.
    seen_id: i64,
}

impl Tail {
    /// The latest `count` readings, oldest first, and the tail that follows exactly them.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn start(log: Log, count: usize) -> rusqlite::Result<(Vec<Reading>, Self)> {
        // Both from one snapshot: a reading committed in between would be shown twice or not at all.
        let snapshot = log.connection.unchecked_transaction()?;
        let latest = log.latest(count)?;
        let mut seen: HashMap<i64, i64> = log
            .connection
            .prepare("SELECT id, coalesce((SELECT max(seq) FROM reading WHERE run = run.id), 0) FROM run")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        // Rows that wait to be moved were seen, and are not new once they are in their place.
        for (run, _, last) in arrived::numbers(&log.connection)? {
            let seen = seen.entry(run).or_insert(0);
            *seen = (*seen).max(last);
        }
        let seen_id = arrived::last_id(&log.connection)?;
        snapshot.finish()?;
        Ok((latest, Self { log, data_version: 0, seen, seen_id }))
    }

    /// The new readings, in the order in which each node took them.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn read_new(&mut self) -> rusqlite::Result<Vec<Reading>> {
        let connection = &self.log.connection;
        // Changes when another connection has committed; costs no I/O when none has.
        let version = connection.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        if version == self.data_version {
            return Ok(Vec::new());
        }
        let snapshot = connection.unchecked_transaction()?;
        let mut new = match arrived::placed_after(connection, self.seen_id)? {
            Some(places) => placed(connection, &places)?,
            None => self.placed_since(connection)?,
        };
        // What has been moved since the last call is above.
        let last_id = arrived::last_id(connection)?;
        let mut statement = connection
            .prepare_cached(&format!("{ARRIVED} WHERE reading.id > ? AND reading.is_kept"))?;
        let rows = statement
            .query_map([self.seen_id], |row| Ok(((row.get(8)?, row.get(3)?), reading(row)?)))?;
        for row in rows {
            new.push(row?);
        }
        drop(statement);
        snapshot.finish()?;
        new.sort_by_key(|(number, _)| *number);
        for ((run, seq), _) in &new {
            let seen = self.seen.entry(*run).or_insert(0);
            *seen = (*seen).max(*seq);
        }
        self.seen_id = last_id;
        self.data_version = version;
        Ok(new.into_iter().map(|(_, reading)| reading).collect())
    }

    /// The readings in their place that are new to each run, for when some were moved and their arrival is deleted: a look
    /// at every run. One is missed when a higher number of its run had been seen.
    fn placed_since(&self, connection: &Connection) -> rusqlite::Result<Vec<Numbered>> {
        let runs = connection
            .prepare_cached("SELECT id FROM run")?
            .query_map([], |row| row.get::<_, i64>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut new = Vec::new();
        let mut statement = connection
            .prepare_cached(&format!("{READINGS} WHERE reading.run = ? AND reading.seq > ?"))?;
        for run in runs {
            let seen = self.seen.get(&run).copied().unwrap_or(0);
            let rows = statement
                .query_map(params![run, seen], |row| Ok(((run, row.get(3)?), reading(row)?)))?;
            for row in rows {
                new.push(row?);
            }
        }
        Ok(new)
    }
}

/// The readings with these numbers of runs.
fn placed(connection: &Connection, places: &[(i64, i64)]) -> rusqlite::Result<Vec<Numbered>> {
    let mut statement = connection
        .prepare_cached(&format!("{READINGS} WHERE reading.run = ? AND reading.seq = ?"))?;
    let mut found = Vec::new();
    for place in places {
        for row in statement.query_map(*place, reading)? {
            found.push((*place, row?));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::reading::ClockState;
    use crate::store::{Record, Store};
    use crate::wire::Telemetry;

    fn append(store: &mut Store, boot: &str, seqs: std::ops::Range<u64>) {
        let reading = |seq| Record::Reading {
            node: "press".parse().unwrap(),
            sensor: "s".parse().unwrap(),
            telemetry: Telemetry {
                boot: boot.parse().unwrap(),
                seq,
                at: 1_760_000_000_000 + seq.cast_signed(),
                clock: ClockState::Synced,
                mono: seq,
                temperature: Some(20.0),
                humidity: None,
            },
        };
        let records: Vec<Record> = seqs.map(reading).collect();
        store.append(&records.iter().collect::<Vec<_>>()).unwrap();
    }

    /// Rows that wait, that are moved, and whose arrival is deleted, in turn: each is given once, whatever the others do.
    #[test]
    fn each_reading_is_followed_once_wherever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("humidor.db");
        let mut store = Store::open(&path).unwrap();
        append(&mut store, "a", 1..10);
        let (latest, mut tail) = Tail::start(Log::open(&path).unwrap(), usize::MAX).unwrap();
        assert_eq!(latest.len(), 9);
        let mut seen = Vec::new();
        for round in 0..60_u64 {
            append(&mut store, "a", 10 + round * 20..30 + round * 20);
            // A late number: the ones after it have been seen.
            append(&mut store, "b", 100 - round..101 - round);
            for _ in 0..round % 5 {
                store.move_arrived(Duration::ZERO).unwrap();
            }
            seen.extend(tail.read_new().unwrap().into_iter().map(|row| (row.boot, row.seq)));
        }
        let mut expected: Vec<_> = (10..1210).map(|seq| ("a".to_owned(), seq)).collect();
        expected.extend((41..101).map(|seq| ("b".to_owned(), seq)));
        seen.sort_unstable();
        assert_eq!(seen, expected);
    }
}

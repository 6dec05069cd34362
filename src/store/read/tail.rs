//! Follows the log: the latest readings, and then each that is committed.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use crate::store::read::arrived::{self, ARRIVED};
use crate::store::read::log::{Log, READINGS, Reading, Selection, reading};

impl Log {
    /// The latest `count` readings, oldest first.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn latest(&self, count: usize) -> rusqlite::Result<Vec<Reading>> {
        // No file holds more rows.
        let most = i64::try_from(count).unwrap_or(i64::MAX);
        let mut latest = Vec::new();
        for sensor in self.sensors(&Selection::default())? {
            let mut statement = self.connection.prepare_cached(&format!(
                "{READINGS} WHERE reading.sensor = ? ORDER BY reading.at DESC LIMIT ?"
            ))?;
            let rows = statement.query_map(params![sensor, most], reading)?;
            latest.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        let mut statement =
            self.connection.prepare_cached(&format!("{ARRIVED} WHERE reading.id = ?"))?;
        for row in arrived::latest(&self.connection, count)?.into_values().flatten() {
            latest.push(statement.query_row([row.id], reading)?);
        }
        latest.sort_by(|a, b| (a.at, &a.node, a.seq).cmp(&(b.at, &b.node, b.seq)));
        Ok(latest.split_off(latest.len().saturating_sub(count)))
    }
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

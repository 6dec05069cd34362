//! Follows other publishers' numbers in the log: the latest ones, and then each that is committed.

use rusqlite::Row;

use crate::store::read::export::Foreign;
use crate::store::read::log::Log;

const SAMPLES: &str = "SELECT source.topic, source.field, sample.at, sample.value
    FROM sample CROSS JOIN source ON source.id = sample.source";

/// Follows a log: each call of [`SampleTail::read_new`] gives the numbers that were committed since the last one.
#[derive(Debug)]
pub struct SampleTail {
    log: Log,
    data_version: i64,
    /// The latest row seen.
    seen: i64,
}

impl SampleTail {
    /// The latest `count` numbers in the order of their arrival, and the tail that follows exactly them.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn start(log: Log, count: usize) -> rusqlite::Result<(Vec<Foreign>, Self)> {
        let snapshot = log.connection.unchecked_transaction()?;
        let seen = last_id(&log)?;
        // No file holds more rows.
        let most = i64::try_from(count).unwrap_or(i64::MAX);
        let mut latest = log
            .connection
            .prepare(&format!("{SAMPLES} ORDER BY sample.id DESC LIMIT ?"))?
            .query_map([most], foreign)?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        snapshot.finish()?;
        latest.reverse();
        Ok((latest, Self { log, data_version: 0, seen }))
    }

    /// The new numbers, in the order of their arrival.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn read_new(&mut self) -> rusqlite::Result<Vec<Foreign>> {
        let connection = &self.log.connection;
        // Changes when another connection has committed; costs no I/O when none has.
        let version = connection.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        if version == self.data_version {
            return Ok(Vec::new());
        }
        let snapshot = connection.unchecked_transaction()?;
        let new = connection
            .prepare_cached(&format!("{SAMPLES} WHERE sample.id > ? ORDER BY sample.id"))?
            .query_map([self.seen], foreign)?
            .collect::<rusqlite::Result<_>>()?;
        // Of those whose last rows are deleted, the next ones take the numbers.
        let seen = last_id(&self.log)?;
        snapshot.finish()?;
        (self.seen, self.data_version) = (seen, version);
        Ok(new)
    }
}

fn last_id(log: &Log) -> rusqlite::Result<i64> {
    log.connection.query_row("SELECT coalesce(max(id), 0) FROM sample", [], |row| row.get(0))
}

fn foreign(row: &Row<'_>) -> rusqlite::Result<Foreign> {
    Ok(Foreign { topic: row.get(0)?, field: row.get(1)?, at: row.get(2)?, value: row.get(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Record, Store};

    #[test]
    fn each_number_is_followed_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("humidor.db");
        let mut store = Store::open(&path).unwrap();
        let mut append = |values: std::ops::Range<i32>| {
            let numbers = values.map(|n| (format!("n{n}"), f64::from(n))).collect::<Vec<_>>();
            let topic = "plant/press".to_owned();
            let at_ms = 1_760_000_000_000;
            store.append(&[&Record::Foreign { topic, at_ms, numbers: numbers.into() }]).unwrap();
        };
        let values = |samples: Vec<Foreign>| samples.iter().map(|it| it.value).collect::<Vec<_>>();
        append(0..4);
        let (latest, mut tail) = SampleTail::start(Log::open(&path).unwrap(), 2).unwrap();
        assert_eq!(values(latest), [2.0, 3.0]);
        assert_eq!(values(tail.read_new().unwrap()), [0.0; 0]);
        append(4..6);
        append(6..7);
        assert_eq!(values(tail.read_new().unwrap()), [4.0, 5.0, 6.0]);
        assert_eq!(values(tail.read_new().unwrap()), [0.0; 0]);
    }
}

//! The table of arrivals: every reading is committed there first, in the order of its arrival.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::reading::ClockState;
use crate::store::file::schema::{CLOCK_SYNCED, CLOCK_UNSYNCED};
use crate::store::write::intern::Run;
use crate::store::write::numbers::ArrivedNumbers;
use crate::wire::Telemetry;

/// Rows of one segment of a move: 10 MB while they are moved. A page of the place that they go to takes as many rows of a run
/// as there are in a segment, so half as many rows would write half as much again to the disk.
pub(in crate::store) const SEGMENT_ROWS: i64 = 131_072;

/// How far the rows have been moved to their place: the row of table `arrival_move`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Progress {
    /// Rows up to this id are in their place.
    pub moved: i64,
    /// Rows up to this id are being moved, in the order of run and number.
    pub sealed: i64,
    /// Of the sealed rows, those up to this run and number are in their place.
    pub placed: (i64, i64),
}

impl Progress {
    /// Before every run and number.
    pub const NOTHING_PLACED: (i64, i64) = (i64::MIN, i64::MIN);

    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached("SELECT moved, sealed, run, seq FROM arrival_move")?.query_row(
            [],
            |row| {
                let placed = (row.get(2)?, row.get(3)?);
                Ok(Self { moved: row.get(0)?, sealed: row.get(1)?, placed })
            },
        )
    }

    pub fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE arrival_move SET moved = ?, sealed = ?, run = ?, seq = ?")?
            .execute(params![self.moved, self.sealed, self.placed.0, self.placed.1])?;
        Ok(())
    }
}

/// What the writer knows of the table.
#[derive(Debug)]
pub(in crate::store) struct Arrivals {
    /// The id of the first row that is still in the table.
    pub first: i64,
    /// The id that the next row gets.
    next: i64,
    /// Rows before this id are in their place.
    pub unmoved_from: i64,
    pub numbers: ArrivedNumbers,
    /// The first id of the newer generation of [`ArrivedNumbers`].
    generation_from: i64,
}

impl Arrivals {
    /// Reads the state of the table. It takes a look at each row that is still to be moved.
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let progress = Progress::load(connection)?;
        let end = |order: &str| -> rusqlite::Result<Option<i64>> {
            connection
                .prepare_cached(&format!("SELECT id FROM arrival ORDER BY id {order} LIMIT 1"))?
                .query_row([], |row| row.get(0))
                .optional()
        };
        let next = end("DESC")?.unwrap_or(0).max(progress.sealed) + 1;
        Ok(Self {
            first: end("ASC")?.unwrap_or(next),
            next,
            unmoved_from: progress.moved + 1,
            numbers: ArrivedNumbers::load(connection, progress.moved)?,
            generation_from: next,
        })
    }

    /// Rows that are still to be moved.
    pub const fn unmoved(&self) -> i64 {
        self.next - self.unmoved_from
    }

    /// The id of the newest row.
    pub const fn last(&self) -> i64 {
        self.next - 1
    }

    /// Notes that the rows up to an id are in their place.
    pub fn moved(&mut self, up_to: i64) {
        self.unmoved_from = up_to + 1;
        if self.unmoved_from >= self.generation_from {
            self.generation_from = self.next;
            self.numbers.begin_generation();
        }
    }

    /// Adds a reading as its node stamped it, unless it is stored already. Returns whether it was new.
    pub fn append(
        &mut self,
        transaction: &Transaction<'_>,
        run: Run,
        sensor: i64,
        telemetry: &Telemetry,
    ) -> rusqlite::Result<bool> {
        // The payload's check bounds both to i64.
        let seq = i64::try_from(telemetry.seq).unwrap_or(i64::MAX);
        let mono = i64::try_from(telemetry.mono).unwrap_or(i64::MAX);
        if !self.numbers.is_new(transaction, run, seq)? {
            return Ok(false);
        }
        let clock = match telemetry.clock {
            ClockState::Synced => CLOCK_SYNCED,
            ClockState::Unsynced => CLOCK_UNSYNCED,
        };
        transaction
            .prepare_cached(
                "INSERT INTO arrival (id, run, seq, sensor, at, clock, mono, temperature, humidity)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                self.next,
                run.id,
                seq,
                sensor,
                telemetry.at,
                clock,
                mono,
                telemetry.temperature,
                telemetry.humidity
            ])?;
        self.next += 1;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    /// Two segments are moved, and the numbers of what is not moved yet are known all the same.
    #[test]
    fn numbers_are_known_until_their_rows_are_in_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        let transaction = store.connection.transaction().unwrap();
        let mut arrivals = Arrivals::load(&transaction).unwrap();
        let telemetry = |seq| Telemetry {
            boot: "b".parse().unwrap(),
            seq,
            at: 0,
            clock: ClockState::Synced,
            mono: 0,
            temperature: Some(20.0),
            humidity: None,
        };
        let is_new = |arrivals: &mut Arrivals, seq| {
            let run = Run { id: 1, node: 1, is_synced: true };
            arrivals.append(&transaction, run, 1, &telemetry(seq)).unwrap()
        };
        assert!((1..=10).all(|seq| is_new(&mut arrivals, seq)));
        for moved in [3, 5, 7] {
            arrivals.moved(moved);
            let unmoved = (moved.cast_unsigned() + 1)..=10;
            assert!(unmoved.clone().all(|seq| !is_new(&mut arrivals, seq)), "after {moved}");
            assert_eq!(arrivals.unmoved(), 10 - moved);
        }
    }
}

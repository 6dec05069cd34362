//! Keeps readings that still wait for their clock when the retention horizon passes the time that they have: they are
//! taken out of the roll-ups of that time and await their own. A board without a clock begins in 1970.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::store::file::schema::{CLOCK_AWAITING, CLOCK_UNSYNCED};
use crate::store::retention::horizon::Horizons;
use crate::store::rollup::dirty::DirtyMarks;
use crate::store::rollup::schema::READINGS;

/// Rows that one piece of work looks at.
const ROWS: usize = 50;

/// Time, run and number of a row.
type Place = (i64, i64, i64);

/// A pass over the rows that the horizon is about to pass.
#[derive(Debug)]
pub(in crate::store) struct Parking {
    /// The horizon now, Unix ms.
    from: i64,
    /// The horizon that is to be, Unix ms.
    until: i64,
    /// The sensor that is next, or any after it.
    sensor: i64,
    /// The last sensor that the pass is over.
    last: i64,
    /// The last row of that sensor that was looked at.
    after: Option<Place>,
}

impl Parking {
    pub const fn new(from: i64, until: i64) -> Self {
        Self { from, until, sensor: i64::MIN, last: i64::MAX, after: None }
    }

    /// A pass over one sensor.
    pub const fn of_sensor(sensor: i64, from: i64, until: i64) -> Self {
        Self { from, until, sensor, last: sensor, after: None }
    }

    /// Goes on while there is time. Returns whether there is more.
    pub fn step(
        &mut self,
        transaction: &Transaction<'_>,
        marks: &mut DirtyMarks,
        horizons: &Horizons,
        has_time: impl Fn() -> bool,
    ) -> rusqlite::Result<bool> {
        loop {
            if !self.piece(transaction, marks, horizons)? {
                return Ok(false);
            }
            if !has_time() {
                return Ok(true);
            }
        }
    }

    fn piece(
        &mut self,
        transaction: &Transaction<'_>,
        marks: &mut DirtyMarks,
        horizons: &Horizons,
    ) -> rusqlite::Result<bool> {
        let sensor: Option<i64> = transaction
            .prepare_cached(
                "SELECT id FROM sensor WHERE id >= ? AND id <= ? AND EXISTS (
                     SELECT 1 FROM run INDEXED BY run_without_clock
                     WHERE run.node = sensor.node AND synced_seq IS NULL)
                 ORDER BY id LIMIT 1",
            )?
            .query_row([self.sensor, self.last], |row| row.get(0))
            .optional()?;
        let Some(sensor) = sensor else { return Ok(false) };
        if sensor != self.sensor {
            (self.sensor, self.after) = (sensor, None);
        }
        let (at, run, seq) = self.after.unwrap_or((self.from, i64::MIN, i64::MIN));
        let rows: Vec<(Place, bool)> = transaction
            .prepare_cached(
                "SELECT reading.at, reading.run, reading.seq, reading.clock = ? AND run.synced_seq IS NULL
                 FROM reading INDEXED BY reading_by_time CROSS JOIN run ON run.id = reading.run
                 WHERE reading.sensor = ? AND (reading.at, reading.run, reading.seq) > (?, ?, ?)
                     AND reading.at < ?
                 ORDER BY reading.at, reading.run, reading.seq LIMIT ?",
            )?
            .query_map(
                params![CLOCK_UNSYNCED, sensor, at, run, seq, self.until, ROWS],
                |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?)),
            )?
            .collect::<rusqlite::Result<_>>()?;
        for ((at, run, seq), waits) in &rows {
            if !waits {
                continue;
            }
            transaction
                .prepare_cached("UPDATE reading SET clock = ? WHERE run = ? AND seq = ?")?
                .execute(params![CLOCK_AWAITING, run, seq])?;
            transaction
                .prepare_cached("INSERT INTO parked (run) VALUES (?) ON CONFLICT DO NOTHING")?
                .execute([run])?;
            // What is closed already has them in no roll-up.
            if *at >= horizons.of(&READINGS, sensor).closed_until {
                marks.mark(transaction, &READINGS, sensor, *at)?;
            }
        }
        self.after = rows.last().map(|(place, _)| *place);
        if rows.len() < ROWS {
            self.after = None;
            let Some(next) = sensor.checked_add(1) else { return Ok(false) };
            self.sensor = next;
        }
        Ok(true)
    }
}

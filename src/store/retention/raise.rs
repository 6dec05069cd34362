//! Raises the horizons of single series, each once its rows before it are rolled up.

use rusqlite::Transaction;

use crate::store::retention::horizon::{Horizon, Horizons};
use crate::store::retention::park::Parking;
use crate::store::rollup::dirty::{self, DirtyMarks};
use crate::store::rollup::schema::READINGS;

/// Series whose horizons are to be raised. Nothing may be moved to its place meanwhile: a flood would mark new quarters as
/// fast as they are rolled up.
#[derive(Debug)]
pub(in crate::store) struct Raising {
    /// Code and series, and the horizon that is to be; the next one last.
    left: Vec<((i64, i64), Horizon)>,
    /// The pass over readings of the next one that wait for their clock.
    parking: Option<Parking>,
}

impl Raising {
    pub const fn new(left: Vec<((i64, i64), Horizon)>) -> Self {
        Self { left, parking: None }
    }

    /// Goes on while there is time. Returns whether there is more.
    pub fn step(
        &mut self,
        transaction: &Transaction<'_>,
        marks: &mut DirtyMarks,
        horizons: &mut Horizons,
        has_time: impl Fn() -> bool,
    ) -> rusqlite::Result<bool> {
        while let Some(((code, series), raised)) = self.left.last().copied() {
            if code == READINGS.code {
                let from = horizons.of_code(code, series).closed_until;
                let parking = self
                    .parking
                    .get_or_insert_with(|| Parking::of_sensor(series, from, raised.closed_until));
                if parking.step(transaction, marks, horizons, &has_time)? {
                    return Ok(true);
                }
            }
            // Samples may come between two steps: the horizon is raised in the one that finds nothing left to roll up.
            if dirty::roll_series(
                transaction,
                marks,
                (code, series),
                raised.closed_until,
                &has_time,
            )? {
                return Ok(true);
            }
            horizons.save_own(transaction, (code, series), raised)?;
            self.left.pop();
            self.parking = None;
            if !has_time() {
                break;
            }
        }
        Ok(!self.left.is_empty())
    }
}

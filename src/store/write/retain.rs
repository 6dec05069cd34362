//! Raises the retention horizon, by age and by the size of the log, once all rows before the new one are rolled up.

use rusqlite::Transaction;

use crate::store::retention::horizon::Horizon;
use crate::store::retention::park::Parking;
use crate::store::retention::policy::Retention;
use crate::store::retention::present::Present;
use crate::store::retention::raise::Raising;
use crate::store::retention::size::{Demand, Room, SizePressure};
use crate::store::retention::usage::Measurement;
use crate::store::rollup::dirty;
use crate::store::write::broker_clock::STEP_DOUBT_MS;
use crate::store::write::cache::WriterCache;

/// What is begun before the horizon is raised.
#[derive(Debug)]
enum Begun {
    /// The horizon that is to be, and the pass before it over readings that wait for their clock. What arrives meanwhile
    /// does not move it on, or a flood would keep it from ever being.
    OfAll(Horizon, Parking),
    /// What each series takes is measured.
    Measuring(Box<Measurement>),
    /// Horizons of single series.
    Of(Raising),
}

/// The state of the phase that raises the horizon, in memory alone.
#[derive(Debug, Default)]
pub(in crate::store) struct Retain {
    pub pressure: SizePressure,
    begun: Option<Begun>,
    /// Sensors whose roll-ups ahead of the clock are to be deleted.
    pub ahead: Vec<i64>,
}

impl Retain {
    /// Whether nothing may be moved to its place at present: see [`Raising`].
    pub const fn needs_standstill(&self) -> bool {
        matches!(self.begun, Some(Begun::Of(_)))
    }

    /// Goes on while there is time. `copies` as in [`SizePressure::calls_for_a_round`]; `now_ms` is Unix ms. Returns whether
    /// there is more, before what lies before the horizon is deleted.
    pub fn step(
        &mut self,
        transaction: &Transaction<'_>,
        cache: &mut WriterCache,
        copies: u64,
        retention: &Retention,
        now_ms: i64,
        has_time: impl Fn() -> bool,
    ) -> rusqlite::Result<bool> {
        let stepped = cache.stepped_log_ms;
        let in_doubt = stepped
            .is_some_and(|at| cache.present(now_ms).log_ms() < at.saturating_add(STEP_DOUBT_MS));
        let retention = if in_doubt { retention.by_size() } else { *retention };
        let retaining = if let Some(begun) = self.begun.take() {
            begun
        } else {
            let all = cache.horizons.all;
            self.ahead.clear();
            match self.pressure.demand(transaction, all, &retention, now_ms, copies)? {
                Demand::Horizon(raised) => raise_all(all, raised),
                Demand::Room => {
                    let unmoved_from = cache.arrivals(transaction)?.unmoved_from;
                    Begun::Measuring(Box::new(Measurement::new(unmoved_from)))
                }
            }
        };
        match retaining {
            Begun::Measuring(mut measurement) => {
                let measured = measurement.step(transaction, &cache.horizons, has_time)?;
                self.begun = Some(Begun::Measuring(measurement));
                let Some(series) = measured else { return Ok(true) };
                let horizons = &cache.horizons;
                let present = Present { in_doubt, ..cache.present(now_ms) };
                let room = self.pressure.make_room(
                    transaction,
                    horizons,
                    &retention,
                    series,
                    present,
                    copies,
                )?;
                self.begun = match room {
                    Room::OfAll(raised) => Some(raise_all(cache.horizons.all, raised)),
                    Room::Of(series) => Some(Begun::Of(Raising::new(series))),
                    Room::Ahead(sensors) => {
                        self.ahead = sensors;
                        None
                    }
                    Room::AfterMove | Room::None => None,
                };
                return Ok(self.begun.is_some());
            }
            Begun::Of(mut raising) => {
                if raising.step(transaction, &mut cache.marks, &mut cache.horizons, has_time)? {
                    self.begun = Some(Begun::Of(raising));
                    return Ok(true);
                }
            }
            Begun::OfAll(raised, mut parking) => {
                if raised != cache.horizons.all {
                    cache.parking_until = raised.rows_from;
                    let (marks, horizons) = (&mut cache.marks, &cache.horizons);
                    if parking.step(transaction, marks, horizons, &has_time)?
                        || dirty::roll_before(transaction, marks, raised.rows_from, has_time)?
                    {
                        self.begun = Some(Begun::OfAll(raised, parking));
                        return Ok(true);
                    }
                    cache.horizons.save_all(transaction, raised)?;
                }
            }
        }
        Ok(false)
    }
}

/// Begins to raise the horizon of the whole log.
const fn raise_all(all: Horizon, raised: Horizon) -> Begun {
    Begun::OfAll(raised, Parking::new(all.rows_from, raised.rows_from))
}

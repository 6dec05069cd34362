//! What simulated boards would have sent over a long time: rooms with days and weeks, and boards that lose
//! power, sensors that fall silent and outboxes that run over now and then.

use fastrand::Rng;

use super::world;
use crate::reading::{ClockState, Id, Measurement};
use crate::wire::Telemetry;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// How much cooler a room is when nobody works in it, in tenths of a degree Celsius.
const WEEKEND_DC: i16 = 15;
/// Days from one trouble of a kind to the next, on average.
const POWER_CUT_DAYS: u32 = 45;
const SILENCE_DAYS: u32 = 20;
const OVERFLOW_DAYS: u32 = 120;
/// How long each lasts, in ms.
const POWER_CUT_MS: std::ops::Range<i64> = 5 * MINUTE_MS..8 * HOUR_MS;
const SILENCE_MS: std::ops::Range<i64> = MINUTE_MS..40 * MINUTE_MS;
/// Until a clock is set after a start, in ms.
const UNSYNCED_MS: std::ops::Range<i64> = 20_000..4 * MINUTE_MS;
/// Readings given up by an outbox that ran over.
const OVERFLOW_READINGS: std::ops::Range<u64> = 10..2_000;

/// A board with one sensor, and where it is in its life.
#[derive(Debug)]
pub struct Board {
    node: Id,
    sensor: Id,
    room: u64,
    rng: Rng,
    boot: Id,
    /// When the run began, Unix ms.
    began_ms: i64,
    /// From when on its clock is set, Unix ms.
    synced_ms: i64,
    seq: u64,
    /// Of the next reading, Unix ms.
    next_ms: i64,
    /// No reading before this, Unix ms: no power, or no answer from the sensor.
    silent_until_ms: i64,
    off: bool,
}

impl Board {
    /// Board number `number`, started at `start_ms` (Unix ms).
    ///
    /// # Panics
    /// Never: its names are ids.
    #[must_use]
    pub fn new(number: usize, start_ms: i64) -> Self {
        const ROOMS: [&str; 5] = ["press", "store", "roof", "oven", "hall"];
        let room = ROOMS[number % ROOMS.len()];
        let mut rng = Rng::with_seed(number as u64 + 1);
        let mut board = Self {
            node: format!("{room}-{:02}", number + 1).parse().expect("letters, digits and a dash"),
            sensor: if number.is_multiple_of(2) { "air" } else { "wall" }.parse().expect("letters"),
            room: rng.u64(..),
            rng,
            boot: "sim-0".parse().expect("letters, a digit and a dash"),
            began_ms: start_ms,
            synced_ms: start_ms,
            seq: 0,
            next_ms: start_ms,
            silent_until_ms: start_ms,
            off: false,
        };
        board.start(start_ms);
        board
    }

    fn start(&mut self, at_ms: i64) {
        self.boot = format!("sim-{:08x}", self.rng.u32(..)).parse().expect("hexadecimal digits");
        self.began_ms = at_ms;
        self.synced_ms = at_ms + self.rng.i64(UNSYNCED_MS);
        self.seq = 0;
    }

    /// The node's id.
    #[must_use]
    pub const fn node(&self) -> &Id {
        &self.node
    }

    /// The id of its sensor.
    #[must_use]
    pub const fn sensor(&self) -> &Id {
        &self.sensor
    }

    /// The readings that the board sends until `to_ms` (Unix ms), one every `interval_ms` but for its troubles.
    pub fn play(&mut self, to_ms: i64, interval_ms: i64) -> impl Iterator<Item = Telemetry> {
        std::iter::from_fn(move || self.next_reading(to_ms, interval_ms))
    }

    fn next_reading(&mut self, to_ms: i64, interval_ms: i64) -> Option<Telemetry> {
        // Once a day on average is once in as many readings.
        let readings_a_day = u32::try_from(DAY_MS / interval_ms).unwrap_or(u32::MAX).max(1);
        while self.next_ms < to_ms {
            let at_ms = self.next_ms;
            self.next_ms += interval_ms;
            if at_ms < self.silent_until_ms {
                continue;
            }
            if std::mem::take(&mut self.off) {
                self.start(at_ms);
            }
            self.seq += 1;
            let reading = self.reading(at_ms);
            let chance = |rng: &mut Rng, days| rng.u32(0..readings_a_day.saturating_mul(days)) == 0;
            if chance(&mut self.rng, POWER_CUT_DAYS) {
                self.silent_until_ms = at_ms + self.rng.i64(POWER_CUT_MS);
                self.off = true;
            } else if chance(&mut self.rng, SILENCE_DAYS) {
                self.silent_until_ms = at_ms + self.rng.i64(SILENCE_MS);
            } else if chance(&mut self.rng, OVERFLOW_DAYS) {
                let lost = self.rng.u64(OVERFLOW_READINGS);
                self.seq += lost;
                self.next_ms += interval_ms.saturating_mul(lost.cast_signed());
            }
            return Some(reading);
        }
        None
    }

    fn reading(&self, at_ms: i64) -> Telemetry {
        let mono = at_ms - self.began_ms;
        // Without a battery a clock begins in 1970.
        let (at, clock) = if at_ms < self.synced_ms {
            (mono, ClockState::Unsynced)
        } else {
            (at_ms, ClockState::Synced)
        };
        let measured = in_use(world::measurement(self.room, at_ms), at_ms);
        Telemetry {
            boot: self.boot.clone(),
            seq: self.seq,
            at,
            clock,
            mono: mono.unsigned_abs(),
            temperature: Some(measured.temperature()),
            humidity: Some(measured.humidity()),
        }
    }
}

/// Cooler at the weekend. The first day of 1970 was a Thursday.
fn in_use(measured: Measurement, at_ms: i64) -> Measurement {
    let weekday = (at_ms.div_euclid(DAY_MS) + 3).rem_euclid(7);
    let cooler = if weekday >= 5 { WEEKEND_DC } else { 0 };
    Measurement { temperature_dc: measured.temperature_dc - cooler, ..measured }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: i64 = 20_370 * DAY_MS;

    fn play(days: i64) -> Vec<Telemetry> {
        Board::new(3, START_MS).play(START_MS + days * DAY_MS, 60_000).collect()
    }

    #[test]
    fn a_year_has_its_troubles_and_each_number_once() {
        let year = play(365);
        let runs: std::collections::BTreeSet<_> = year.iter().map(|t| t.boot.clone()).collect();
        assert!((3..30).contains(&runs.len()), "{} power cuts", runs.len() - 1);
        let keys: std::collections::BTreeSet<_> = year.iter().map(|t| (&t.boot, t.seq)).collect();
        assert_eq!(keys.len(), year.len());
        assert!(year.iter().any(|t| t.clock == ClockState::Unsynced && t.at < DAY_MS));
        assert!(year.windows(2).any(|w| w[0].boot == w[1].boot && w[1].seq > w[0].seq + 1));
        assert!(year.len() > 365 * 1440 * 95 / 100, "{}", year.len());
    }

    #[test]
    fn the_same_board_lives_the_same_life() {
        assert_eq!(play(20), play(20));
    }

    #[test]
    fn a_weekend_is_cooler() {
        // 9 October 2025, a Thursday; two days later it is Saturday.
        let room = Measurement { temperature_dc: 215, humidity_dp: 480 };
        assert_eq!(in_use(room, START_MS).temperature_dc, 215);
        assert_eq!(in_use(room, START_MS + 2 * DAY_MS).temperature_dc, 200);
    }
}

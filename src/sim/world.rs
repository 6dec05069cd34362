//! A room's temperature and humidity over the day, for sensors that do not exist.

use std::f64::consts::TAU;
use std::hash::{DefaultHasher, Hash, Hasher};

use fastrand::Rng;

use crate::reading::{Id, Measurement};

/// The daily wave in ms.
const DAY_MS: i64 = 86_400_000;
/// The slower wave, the weather: 5.3 days in ms, so that no two days are alike.
const WEATHER_MS: i64 = 457_920_000;
/// The noise changes this often, in ms.
const NOISE_MS: i64 = 2_000;

/// Mean temperature in °C; rooms differ from it by up to [`ROOM_SPREAD`].
const TEMPERATURE_C: f64 = 21.5;
/// Mean relative humidity in %; rooms differ from it by up to three times [`ROOM_SPREAD`].
const HUMIDITY_PERCENT: f64 = 48.0;
/// How much rooms differ, in °C.
const ROOM_SPREAD: f64 = 2.0;

/// The room of a simulated sensor: one of its own, the same at every start.
#[must_use]
pub fn room(node: &Id, sensor: &Id) -> u64 {
    let mut hasher = DefaultHasher::new();
    (node, sensor).hash(&mut hasher);
    hasher.finish()
}

/// The measurement of a sensor in the room `seed` at `at_ms` (Unix time in ms, any value).
///
/// The result is between 16 and 27 °C and between 25 and 71 %, so it is plausible for both models.
#[must_use]
pub fn measurement(seed: u64, at_ms: i64) -> Measurement {
    let mut room = Rng::with_seed(seed);
    let spread = 2.0 * room.f64() - 1.0;
    let phase = room.f64();
    let day = wave(at_ms, DAY_MS, phase);
    let weather = wave(at_ms, WEATHER_MS, room.f64());
    let mut noise = Rng::with_seed(seed ^ at_ms.div_euclid(NOISE_MS).cast_unsigned());
    let mut small = || 0.1 * (2.0 * noise.f64() - 1.0);

    let temperature = TEMPERATURE_C + spread * ROOM_SPREAD + 1.8 * day + 1.2 * weather + small();
    // Warmer air of the same water content is relatively drier, so humidity runs against the day.
    let humidity =
        HUMIDITY_PERCENT - 3.0 * spread * ROOM_SPREAD - 6.0 * day + 8.0 * weather + 3.0 * small();
    Measurement { temperature_dc: tenths(temperature), humidity_dp: tenths(humidity) }
}

/// A sine of the given period, −1 to 1, `phase` periods ahead.
fn wave(at_ms: i64, period_ms: i64, phase: f64) -> f64 {
    // Both are far below 2^53, where an f64 stops to be exact.
    #[expect(clippy::cast_precision_loss)]
    let turn = at_ms.rem_euclid(period_ms) as f64 / period_ms as f64;
    ((turn + phase) * TAU).sin()
}

fn tenths(value: f64) -> i16 {
    // The waves above sum up to far less than an i16 holds.
    #[expect(clippy::cast_possible_truncation)]
    let tenths = (value * 10.0).round() as i16;
    tenths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::Model;

    #[test]
    fn the_room_is_the_same_whenever_it_is_asked() {
        assert_eq!(measurement(7, 1_234_567), measurement(7, 1_234_567));
        assert_ne!(measurement(7, 0), measurement(8, 0));
        assert_ne!(measurement(7, 0), measurement(7, DAY_MS / 2));
    }

    #[test]
    fn every_room_is_plausible_for_both_models_at_any_time() {
        let mut rng = Rng::with_seed(1);
        for at_ms in [i64::MIN, -1, 0, i64::MAX] {
            assert!(measurement(u64::MAX, at_ms).temperature() > 16.0);
        }
        for _ in 0..20_000 {
            let room = measurement(rng.u64(..), rng.i64(-DAY_MS * 40_000..DAY_MS * 40_000));
            assert!(Model::ALL.iter().all(|model| model.is_plausible(room)), "{room:?}");
            assert!((160..=270).contains(&room.temperature_dc), "{room:?}");
            assert!((250..=710).contains(&room.humidity_dp), "{room:?}");
        }
    }

    #[test]
    fn the_room_changes_slowly() {
        for second in 0..20_000 {
            let (now, next) =
                (measurement(3, second * 1_000), measurement(3, second * 1_000 + 2_000));
            assert!(now.temperature_dc.abs_diff(next.temperature_dc) <= 3);
            assert!(now.humidity_dp.abs_diff(next.humidity_dp) <= 7);
        }
    }
}

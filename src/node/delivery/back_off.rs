//! The wait before a reconnect: longer after each failure, and different on each board, so that a hall of boards does not
//! come back at the same instant.

use std::time::Duration;

/// The range of the first wait.
const FIRST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));
/// The range of the longest ones.
const LONGEST: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(30));

/// The waits of one board.
#[derive(Debug)]
pub struct BackOff {
    failures: u32,
    random: fastrand::Rng,
}

impl BackOff {
    /// With its own order of waits.
    #[must_use]
    pub fn new() -> Self {
        // The board's generator: one seeded from the time would be the same on boards that start at once in 1970.
        let mut seed = [0; 8];
        let random = match getrandom::fill(&mut seed) {
            Ok(()) => fastrand::Rng::with_seed(u64::from_ne_bytes(seed)),
            Err(_) => fastrand::Rng::new(),
        };
        Self { failures: 0, random }
    }

    /// The next wait: anywhere in a range that doubles.
    pub fn next_wait(&mut self) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures);
        self.failures += 1;
        let shortest = FIRST.0.saturating_mul(factor).min(LONGEST.0);
        let longest = FIRST.1.saturating_mul(factor).min(LONGEST.1);
        shortest + longest.saturating_sub(shortest).mul_f64(self.random.f64())
    }

    /// A wait of up to `longest` that counts as none: of a connection that the node itself ended.
    pub fn at_once(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.random.f64())
    }

    /// The connection has proved itself: the next wait is a short one.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_minute_and_begin_anew_after_a_reset() {
        let mut waits = BackOff::new();
        for factor in [1, 2, 4, 8, 16, 30, 30, 30] {
            let wait = waits.next_wait();
            let shortest = (FIRST.0 * factor).min(LONGEST.0);
            assert!(wait >= shortest && wait <= (FIRST.1 * factor).min(LONGEST.1), "{wait:?}");
        }
        (0..100).for_each(|_| assert!(waits.next_wait() <= LONGEST.1));
        waits.reset();
        assert!(waits.next_wait() <= FIRST.1);
    }

    #[test]
    fn three_hundred_boards_spread_over_each_range() {
        let mut boards: Vec<BackOff> = (0..300).map(|_| BackOff::new()).collect();
        for _ in 0..8 {
            let mut waits: Vec<Duration> = boards.iter_mut().map(BackOff::next_wait).collect();
            waits.sort_unstable();
            let range = waits.last().unwrap().saturating_sub(waits[0]);
            assert!(range > waits[0] * 2, "from {:?}, {range:?} long", waits[0]);
            // No tenth of the range has more than a quarter of the boards: 0.7 in 10^15 for a fair generator.
            for tenth in 0..10 {
                let from = waits[0] + range * tenth / 10;
                let inside =
                    waits.iter().filter(|wait| **wait >= from && **wait < from + range / 10);
                assert!(inside.count() < 75);
            }
        }
    }
}

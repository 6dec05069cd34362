//! How long a check of a password takes on this machine: the time of refusals follows it. Pure: the time is passed in.
//!
//! It is measured with a hash of nobody's password alone, so that it tells nothing of the users that there are.

use std::time::{Duration, Instant};

/// A long time of a check counts half after so long, for as often as it takes to be what others take.
const HALF_LIFE: Duration = Duration::from_mins(10);
/// While logins are refused, a check is measured so often: a machine that becomes busy is not known to be for so long.
const MEASURE_INTERVAL: Duration = Duration::from_secs(10);

/// What was measured, for each unit of a hash's cost (`users::cost`).
#[derive(Debug, Default)]
pub struct CheckTime {
    /// The longest of late, ns, and when that was.
    longest: Option<(u64, Instant)>,
    /// The shortest ever, ns: what a check takes of a machine that does nothing else.
    shortest: u64,
    /// When the latest one began.
    began: Option<Instant>,
}

impl CheckTime {
    /// Notes what a check took.
    pub fn note(&mut self, unit_ns: u64, now: Instant) {
        let unit_ns = unit_ns.max(1);
        if unit_ns >= self.unit_ns(now) {
            self.longest = Some((unit_ns, now));
        }
        self.shortest = if self.shortest == 0 { unit_ns } else { self.shortest.min(unit_ns) };
    }

    /// Whether none was measured yet.
    pub const fn is_unknown(&self) -> bool {
        self.longest.is_none()
    }

    /// Whether it is time to measure one, which then begins.
    pub fn begin(&mut self, now: Instant) -> bool {
        let due = |began| now.saturating_duration_since(began) >= MEASURE_INTERVAL;
        let begins = self.began.is_none_or(due);
        if begins {
            self.began = Some(now);
        }
        begins
    }

    /// The time of a check with so costly a hash; zero where none was measured.
    pub fn of(&self, cost: u64, now: Instant) -> Duration {
        Duration::from_nanos(self.unit_ns(now).saturating_mul(cost))
    }

    fn unit_ns(&self, now: Instant) -> u64 {
        let Some((longest, at)) = self.longest else { return 0 };
        let half_lives = now.saturating_duration_since(at).as_secs() / HALF_LIFE.as_secs();
        let halved = u32::try_from(half_lives).ok().and_then(|n| longest.checked_shr(n));
        halved.unwrap_or_default().max(self.shortest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_time_of_a_busy_machine_halves_down_to_that_of_an_idle_one() {
        let start = Instant::now();
        let after = |n: u32| start + n * HALF_LIFE;
        let mut time = CheckTime::default();
        assert!(time.is_unknown() && time.of(1, start).is_zero());
        time.note(40, start);
        time.note(400, start);
        let units = |time: &CheckTime, n| time.of(1, after(n)).as_nanos();
        assert_eq!([0, 1, 2, 3, 4, 100].map(|n| units(&time, n)), [400, 200, 100, 50, 40, 40]);
        // Shorter ones meanwhile keep nothing up, and a longer one counts at once.
        time.note(190, after(1));
        time.note(60, after(1));
        assert_eq!([1, 2, 3].map(|n| units(&time, n)), [200, 100, 50]);
        time.note(300, after(2));
        assert_eq!([2, 3, 4].map(|n| units(&time, n)), [300, 150, 75]);
    }

    #[test]
    fn a_check_is_measured_so_often_and_no_oftener() {
        let start = Instant::now();
        let mut time = CheckTime::default();
        let begun = (0..=20).filter(|n| time.begin(start + MEASURE_INTERVAL / 10 * *n));
        assert_eq!(begun.collect::<Vec<_>>(), [0, 10, 20]);
    }
}

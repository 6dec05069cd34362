//! A range of time and the step of its points, checked so that a query's cost is bounded.

use crate::store::rollup::schema::{HOUR_MS, MINUTE_MS, QUARTER_MS};

/// Most points of one answer; a screen has about as many columns.
pub const POINTS_MAX: i64 = 2_000;
/// Points aimed at when the query gives no step.
const POINTS_WANTED: i64 = 720;
/// Latest time that can be asked for: the end of the year 9999 in Unix ms, as on the wire.
const TIME_MAX_MS: i64 = 253_402_300_799_999;
const SECOND_MS: i64 = 1_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Steps that read well on an axis.
const ROUND_STEPS_MS: [i64; 22] = [
    SECOND_MS,
    2 * SECOND_MS,
    5 * SECOND_MS,
    10 * SECOND_MS,
    15 * SECOND_MS,
    30 * SECOND_MS,
    MINUTE_MS,
    2 * MINUTE_MS,
    5 * MINUTE_MS,
    10 * MINUTE_MS,
    QUARTER_MS,
    2 * QUARTER_MS,
    HOUR_MS,
    2 * HOUR_MS,
    3 * HOUR_MS,
    6 * HOUR_MS,
    12 * HOUR_MS,
    DAY_MS,
    2 * DAY_MS,
    7 * DAY_MS,
    14 * DAY_MS,
    28 * DAY_MS,
];

/// Why a range is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Nothing lies between the two.
    #[error("the range is empty: from {from_ms} must be before to {to_ms}")]
    Empty {
        /// Unix ms.
        from_ms: i64,
        /// Unix ms.
        to_ms: i64,
    },
    /// Before 1970 or after 9999.
    #[error("{at_ms} is not between 0 and {TIME_MAX_MS}, Unix ms")]
    Time {
        /// Unix ms.
        at_ms: i64,
    },
    /// The step is zero or too small for the range.
    #[error(
        "a step of {step_ms} ms gives more than {POINTS_MAX} points; from {least_ms} ms on it fits"
    )]
    Points {
        /// The step asked for, ms.
        step_ms: u64,
        /// The least that fits, ms.
        least_ms: i64,
    },
}

/// A range of time and the step in which to go through it, in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub(in crate::store) from: i64,
    pub(in crate::store) to: i64,
    pub(in crate::store) step: i64,
}

impl Range {
    /// From `from_ms` (inclusive) to `to_ms` (exclusive), both Unix ms from 0 to the end of 9999. Without
    /// `step_ms` a step is chosen that gives some hundred points. A given step must give at most
    /// [`POINTS_MAX`]; it is rounded up to whole minutes, from 15 minutes on to quarters of an hour, from
    /// 4 hours on to hours: the spans of the roll-ups.
    ///
    /// # Errors
    /// [`RangeError`].
    pub fn new(from_ms: i64, to_ms: i64, step_ms: Option<u64>) -> Result<Self, RangeError> {
        for at_ms in [from_ms, to_ms] {
            if !(0..=TIME_MAX_MS).contains(&at_ms) {
                return Err(RangeError::Time { at_ms });
            }
        }
        if from_ms >= to_ms {
            return Err(RangeError::Empty { from_ms, to_ms });
        }
        let length = to_ms - from_ms;
        let step = match step_ms {
            None => round_step(length),
            Some(step_ms) => {
                let least_ms = divide_up(length, POINTS_MAX);
                let step = i64::try_from(step_ms).unwrap_or(i64::MAX).min(TIME_MAX_MS);
                if step < least_ms {
                    return Err(RangeError::Points { step_ms, least_ms });
                }
                whole_spans(step)
            }
        };
        Ok(Self { from: from_ms, to: to_ms, step })
    }

    /// Steps in the range, at most [`POINTS_MAX`].
    pub(in crate::store) const fn steps(&self) -> i64 {
        divide_up(self.to - self.from, self.step)
    }
}

fn round_step(length: i64) -> i64 {
    let least = divide_up(length, POINTS_WANTED);
    let longest = ROUND_STEPS_MS[ROUND_STEPS_MS.len() - 1];
    ROUND_STEPS_MS
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(divide_up(least, longest) * longest)
}

/// `step` rounded up to whole spans of the coarsest tier that suits it.
const fn whole_spans(step: i64) -> i64 {
    let span = match step {
        ..MINUTE_MS => 1,
        MINUTE_MS..QUARTER_MS => MINUTE_MS,
        QUARTER_MS..14_400_000 => QUARTER_MS,
        _ => HOUR_MS,
    };
    divide_up(step, span) * span
}

/// The quotient, rounded up.
pub(in crate::store) const fn divide_up(dividend: i64, divisor: i64) -> i64 {
    (dividend + divisor - 1) / divisor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_cannot_be_drawn_is_refused_by_cause() {
        assert_eq!(Range::new(5, 5, None), Err(RangeError::Empty { from_ms: 5, to_ms: 5 }));
        assert_eq!(Range::new(-1, 5, None), Err(RangeError::Time { at_ms: -1 }));
        assert_eq!(Range::new(0, i64::MAX, None), Err(RangeError::Time { at_ms: i64::MAX }));
        for step_ms in [0, 4_999] {
            assert_eq!(
                Range::new(0, 10_000_000, Some(step_ms)),
                Err(RangeError::Points { step_ms, least_ms: 5_000 })
            );
        }
        assert!(Range::new(0, 10_000_000, Some(5_000)).is_ok());
        assert!(Range::new(0, TIME_MAX_MS, Some(u64::MAX)).is_ok());
    }

    #[test]
    fn a_step_is_made_of_rolled_up_spans() {
        for (asked, step) in [
            (1, 1),
            (59_999, 59_999),
            (60_001, 120_000),
            (900_000, 900_000),
            (900_001, 1_800_000),
            (14_400_001, 18_000_000),
        ] {
            assert_eq!(whole_spans(asked), step);
        }
        for step in ROUND_STEPS_MS {
            assert_eq!(whole_spans(step), step);
        }
    }

    #[test]
    fn a_chosen_step_gives_some_hundred_points() {
        for length in [1_000, HOUR_MS, DAY_MS, 31 * DAY_MS, 365 * DAY_MS, TIME_MAX_MS] {
            let range = Range::new(0, length, None).unwrap();
            assert!(range.steps() <= POINTS_WANTED, "{length}: {range:?}");
            assert!(
                length < 10 * DAY_MS || range.steps() >= POINTS_WANTED / 3,
                "{length}: {range:?}"
            );
        }
    }
}

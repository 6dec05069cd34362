//! The retention policy, as functions of ages and sizes.
//!
//! By age only single rows are deleted; roll-ups stay. By size the finest data is deleted first, and of it the oldest.
//! But a week of rows, a month of minutes and a year of quarters stay as long as older data of a coarser tier can be
//! deleted instead.

use std::time::Duration;

use crate::store::retention::horizon::Horizon;
use crate::store::rollup::aggregate::start_of;
use crate::store::rollup::schema::{HOUR_MS, Tier};

const DAY_MS: i64 = 24 * HOUR_MS;
/// Above this share of the limit data is deleted, so that the file stays below the limit.
const HIGH_WATER: (u64, u64) = (31, 32);
/// The deletion goes on down to this share of the limit, so that it runs now and then and not with every commit.
const LOW_WATER: (u64, u64) = (15, 16);
/// One in this many parts of a tier's time is deleted in one go.
const SLICE: i64 = 64;

/// What the log may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Age up to which single rows are kept; `None`: as long as there is room.
    pub keep_raw: Option<Duration>,
    /// Largest size of the database file in bytes, without its write-ahead log.
    pub max_bytes: u64,
}

impl Retention {
    /// No limit.
    pub const EVERYTHING: Self = Self { keep_raw: None, max_bytes: u64::MAX };

    /// The same without a limit of age.
    pub(in crate::store) const fn by_size(self) -> Self {
        Self { keep_raw: None, ..self }
    }

    /// Whether data must be deleted when `used` bytes are in use. Once it must, `until_low` lets the deletion go on.
    pub(in crate::store) const fn is_over(&self, used: u64, until_low: bool) -> bool {
        let (part, whole) = if until_low { LOW_WATER } else { HIGH_WATER };
        used > self.max_bytes / whole * part
    }

    /// From when on single rows are kept by their age, at `now_ms`; both Unix ms.
    pub(in crate::store) fn rows_from(&self, now_ms: i64) -> i64 {
        let Some(keep) = self.keep_raw else { return i64::MIN };
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        start_of(now_ms.saturating_sub(keep_ms), HOUR_MS)
    }
}

/// Oldest time in the single rows and in each tier, as far as they are kept; Unix ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store) struct Oldest {
    pub rows: Option<i64>,
    pub rolled: [Option<i64>; 3],
}

/// The order of deletion: `None` is the single rows. Data younger than the age, in ms, is not deleted at this rung.
const LADDER: [(Option<Tier>, i64); 7] = [
    (None, 7 * DAY_MS),
    (Some(Tier::Minute), 30 * DAY_MS),
    (Some(Tier::Quarter), 365 * DAY_MS),
    (None, HOUR_MS),
    (Some(Tier::Minute), HOUR_MS),
    (Some(Tier::Quarter), HOUR_MS),
    (Some(Tier::Hour), HOUR_MS),
];

/// The horizon raised by one slice, so that there is more room; unchanged when nothing is old enough.
pub(in crate::store) fn make_room(horizon: Horizon, oldest: &Oldest, now_ms: i64) -> Horizon {
    for (tier, min_age_ms) in LADDER {
        let Some(oldest) = tier.map_or(oldest.rows, |tier| oldest.rolled[tier as usize]) else {
            continue;
        };
        let latest = start_of(now_ms.saturating_sub(min_age_ms), HOUR_MS);
        let slice = now_ms.saturating_sub(oldest) / SLICE;
        let until = start_of(oldest.saturating_add(slice.max(HOUR_MS)), HOUR_MS).min(latest);
        if until <= oldest {
            continue;
        }
        let mut raised = horizon;
        match tier {
            None => raised.raise_rows(until),
            Some(tier) => raised.raise(tier, until),
        }
        if raised != horizon {
            return raised;
        }
    }
    horizon
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 20_000 * DAY_MS;

    fn horizon() -> Horizon {
        Horizon::from_hours(i64::MIN, [i64::MIN; 3])
    }

    #[test]
    fn the_finest_goes_first_but_a_week_of_rows_stands() {
        let ago = |days: i64| Some(NOW_MS - days * DAY_MS);
        let oldest = Oldest { rows: ago(64), rolled: [ago(640), ago(640), ago(640)] };
        let raised = make_room(horizon(), &oldest, NOW_MS);
        assert_eq!(raised, Horizon::from_hours(NOW_MS - 63 * DAY_MS, [i64::MIN; 3]));

        let oldest = Oldest { rows: ago(7), ..oldest };
        let raised = make_room(horizon(), &oldest, NOW_MS);
        assert_eq!(raised.rolled_from(Tier::Minute), NOW_MS - 630 * DAY_MS);
        assert_eq!(raised.rolled_from(Tier::Quarter), i64::MIN);

        let oldest = Oldest { rolled: [ago(30), ago(640), ago(640)], ..oldest };
        assert_eq!(make_room(horizon(), &oldest, NOW_MS).rolled_from(Tier::Hour), i64::MIN);
        let oldest = Oldest { rolled: [ago(30), ago(365), ago(6400)], ..oldest };
        let raised = make_room(horizon(), &oldest, NOW_MS);
        assert!(
            raised.rows_from > NOW_MS - 7 * DAY_MS && raised.rolled_from(Tier::Hour) == i64::MIN
        );
    }

    #[test]
    fn in_the_end_the_oldest_hours_go_and_the_last_hour_never() {
        let ago = |hours: i64| Some(NOW_MS - hours * HOUR_MS);
        let oldest = Oldest { rows: ago(1), rolled: [ago(1), ago(1), ago(6400)] };
        let raised = make_room(horizon(), &oldest, NOW_MS);
        assert_eq!(raised.rolled_from(Tier::Hour), NOW_MS - 6300 * HOUR_MS);
        let oldest = Oldest { rows: ago(1), rolled: [ago(1); 3] };
        assert_eq!(make_room(horizon(), &oldest, NOW_MS), horizon());
    }

    #[test]
    fn age_counts_in_whole_hours() {
        let keep = |keep_raw| Retention { keep_raw, ..Retention::EVERYTHING };
        let day = keep(Some(Duration::from_hours(24)));
        assert_eq!(day.rows_from(NOW_MS + HOUR_MS - 1), NOW_MS - DAY_MS);
        assert_eq!(keep(None).rows_from(NOW_MS), i64::MIN);
        assert!(day.rows_from(0) < 0, "a broker whose clock is not set gives nothing up");
    }
}

//! The retention policy, as functions of ages and sizes.
//!
//! By age only single rows are deleted; roll-ups stay. By size the finest data is deleted first, and of it the oldest.
//! But a week of rows, a month of minutes and a year of quarters stay as long as older data of a coarser tier can be
//! deleted instead.

use std::time::Duration;

use crate::store::retention::horizon::Horizon;
use crate::store::rollup::aggregate::start_of;
use crate::store::rollup::schema::{HOUR_MS, MINUTE_MS, QUARTER_MS, Tier};

const DAY_MS: i64 = 24 * HOUR_MS;
/// Above this share of the limit data is deleted, so that the file stays below the limit.
const HIGH_WATER: (u64, u64) = (31, 32);
/// The deletion goes on down to this share of the limit, so that it runs now and then and not with every commit.
const LOW_WATER: (u64, u64) = (15, 16);
/// One in this many parts of a tier's time is deleted in one go.
const SLICE: i64 = 64;
/// One in this many parts of the last hour's rows, and at least a second, in ms.
const YOUNG_SLICE: i64 = 16;
const YOUNG_SLICE_MIN_MS: i64 = 1_000;

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

    /// Bytes that a pool of MQTT may take of the log: one part in `share` of its largest size, at most `bound`.
    #[must_use]
    pub fn pool(&self, share: u64, bound: usize) -> usize {
        usize::try_from(self.max_bytes / share).map_or(bound, |part| part.min(bound))
    }

    /// The same without a limit of age.
    pub(in crate::store) const fn by_size(self) -> Self {
        Self { keep_raw: None, ..self }
    }

    /// Whether data must be deleted when `used` bytes are in use. Once it must, `until_low` lets the deletion go on.
    pub(in crate::store) const fn is_over(&self, used: u64, until_low: bool) -> bool {
        let (part, whole) = if until_low { LOW_WATER } else { HIGH_WATER };
        used > self.max_bytes / whole * part
    }

    /// How much of `used` bytes is to go.
    pub(in crate::store) const fn excess(&self, used: u64) -> u64 {
        let (part, whole) = LOW_WATER;
        used.saturating_sub(self.max_bytes / whole * part)
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
    /// When the first of the rows came that go by their arrival: readings ahead of the clock or without one.
    pub arrived: Option<i64>,
}

impl Oldest {
    /// Takes what is older in `other`.
    pub fn take(&mut self, other: &Self) {
        let older = |mine: &mut Option<i64>, theirs: Option<i64>| {
            *mine = [*mine, theirs].into_iter().flatten().min();
        };
        older(&mut self.rows, other.rows);
        older(&mut self.arrived, other.arrived);
        for (mine, theirs) in self.rolled.iter_mut().zip(other.rolled) {
            older(mine, theirs);
        }
    }
}

/// The order of deletion: `None` is the single rows. Data younger than the age, in ms, is not deleted at this rung.
const LADDER: [(Option<Tier>, i64); 9] = [
    (None, 7 * DAY_MS),
    (Some(Tier::Minute), 30 * DAY_MS),
    (Some(Tier::Quarter), 365 * DAY_MS),
    (None, HOUR_MS),
    // All roll-ups are worth more than a whole hour of rows.
    (None, 5 * MINUTE_MS),
    (Some(Tier::Minute), HOUR_MS),
    (Some(Tier::Quarter), HOUR_MS),
    (Some(Tier::Hour), HOUR_MS),
    (None, 0),
];

/// Data that is deleted in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Slice {
    /// `None`: single rows.
    tier: Option<Tier>,
    /// Unix ms, exclusive.
    until: i64,
    /// Whether it ends within the last hour, and not at a whole one.
    pub is_young: bool,
}

impl Slice {
    /// The next slice of data whose oldest times are `oldest`, at `now_ms` by the readings and `clock_ms` by the broker's
    /// clock; `None` when nothing can go.
    pub fn next(oldest: &Oldest, now_ms: i64, clock_ms: i64) -> Option<Self> {
        for (tier, min_age_ms) in LADDER {
            if min_age_ms < HOUR_MS {
                let young = |oldest: Option<i64>, now_ms| Self::young(oldest?, min_age_ms, now_ms);
                let slice = young(oldest.rows, now_ms).or_else(|| young(oldest.arrived, clock_ms));
                if slice.is_some() {
                    return slice;
                }
                continue;
            }
            let Some(oldest) = tier.map_or(oldest.rows, |tier| oldest.rolled[tier as usize]) else {
                continue;
            };
            let latest = start_of(now_ms.saturating_sub(min_age_ms), HOUR_MS);
            let slice = now_ms.saturating_sub(oldest) / SLICE;
            let until = start_of(oldest.saturating_add(slice.max(HOUR_MS)), HOUR_MS).min(latest);
            if until > oldest {
                return Some(Self { tier, until, is_young: false });
            }
        }
        None
    }

    /// The next slice of single rows that are older than `min_age_ms`.
    fn young(oldest: i64, min_age_ms: i64, now_ms: i64) -> Option<Self> {
        let latest = now_ms.saturating_sub(min_age_ms);
        let slice = latest.saturating_sub(oldest) / YOUNG_SLICE;
        let until = oldest.saturating_add(slice.max(YOUNG_SLICE_MIN_MS));
        (oldest <= latest).then_some(Self { tier: None, until, is_young: true })
    }

    /// The horizon raised by the slice.
    pub fn raise(self, mut horizon: Horizon) -> Horizon {
        match self.tier {
            None => {
                horizon.raise_rows(self.until);
                horizon.close(start_of(self.until.saturating_add(QUARTER_MS - 1), QUARTER_MS));
            }
            Some(tier) => horizon.raise(tier, self.until),
        }
        horizon
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 20_000 * DAY_MS;

    fn make_room(horizon: Horizon, oldest: &Oldest, now_ms: i64) -> Horizon {
        Slice::next(oldest, now_ms, now_ms).map_or(horizon, |slice| slice.raise(horizon))
    }

    fn horizon() -> Horizon {
        Horizon::from_hours(i64::MIN, [i64::MIN; 3])
    }

    #[test]
    fn the_finest_goes_first_but_a_week_of_rows_stands() {
        let ago = |days: i64| Some(NOW_MS - days * DAY_MS);
        let oldest =
            Oldest { rows: ago(64), rolled: [ago(640), ago(640), ago(640)], arrived: None };
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
    fn in_the_end_the_oldest_hours_go_but_rows_of_the_last_hour_before_them() {
        let ago = |hours: i64| Some(NOW_MS - hours * HOUR_MS);
        let all = Oldest { rows: ago(1), rolled: [ago(1), ago(1), ago(6400)], arrived: None };
        let raised = make_room(horizon(), &all, NOW_MS);
        assert_eq!(raised.rows_from, NOW_MS - HOUR_MS + 55 * MINUTE_MS / 16);
        assert_eq!(raised.closed_until, NOW_MS - 45 * MINUTE_MS);
        let young = |ago: i64| Oldest { rows: Some(NOW_MS - ago), ..all };
        let raised = make_room(horizon(), &young(4 * MINUTE_MS), NOW_MS);
        assert_eq!(raised.rolled_from(Tier::Hour), NOW_MS - 6300 * HOUR_MS);
        let only = |rows, arrived| Oldest { rows, arrived, ..Oldest::default() };
        let raised = make_room(horizon(), &only(Some(NOW_MS - 160_000), None), NOW_MS);
        assert_eq!((raised.rows_from, raised.closed_until), (NOW_MS - 150_000, NOW_MS));
        let raised = make_room(horizon(), &only(Some(NOW_MS), None), NOW_MS);
        assert_eq!((raised.rows_from, raised.closed_until), (NOW_MS + 1000, NOW_MS + QUARTER_MS));
        let ahead = Some(NOW_MS + 1);
        assert_eq!(make_room(horizon(), &only(ahead, None), NOW_MS), horizon());
        let raised = make_room(horizon(), &only(ahead, Some(NOW_MS - 160_000)), NOW_MS);
        assert_eq!(raised.rows_from, NOW_MS - 150_000);
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

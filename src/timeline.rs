//! Log time: milliseconds that no step of the clock touches, over restarts of the broker too. What expires is counted in it,
//! and it says by how much the times of samples must be corrected once the clock is set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use rustix::time::{ClockId, clock_gettime};

use crate::clock::{ClockTrust, SET_FROM_MS, Stamper, unix_ms};
use crate::reading::ClockState;

/// The kernel's name for the time since its start.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A smaller difference between the clock and log time is no step, in ms: the two are not read at once, and daemons slew
/// what is less.
const STEP_MS: i64 = 250;

/// While the clock is not set, smaller steps are those of a daemon that keeps it right, ms.
pub(crate) const UNSET_STEP_MS: i64 = 60_000;
/// After this a time that can be is taken for right, ms.
pub(crate) const DOUBT_MS: i64 = 7 * 86_400_000;

/// Log time as the log keeps it, all in ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The start of the kernel.
    pub boot: String,
    /// Log time at that start.
    pub base_ms: i64,
    /// Unix time minus log time.
    pub correction_ms: i64,
    /// Log time when this was written: it never goes back behind it.
    pub latest_ms: i64,
    /// Whether the clock was set then.
    pub is_set: bool,
}

impl Saved {
    /// Whether it counts on from `earlier`: what was not sure then can still be corrected.
    #[must_use]
    pub fn continues(&self, earlier: &Self) -> bool {
        self.boot == earlier.boot && self.base_ms == earlier.base_ms
    }
}

/// The broker's clock, as the log is told it before a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerClock {
    /// How log time goes on, and whether the kernel says that a time source disciplines the clock, and its time can be.
    pub timeline: Saved,
}

impl BrokerClock {
    /// Now, Unix ms by the clock.
    #[must_use]
    pub const fn now_ms(&self) -> i64 {
        self.timeline.latest_ms.saturating_add(self.timeline.correction_ms)
    }

    /// What turns `arrived_ms`, log time of something that came while the clock was not set, into Unix time, ms: it was
    /// `correction_ms` so far. And whether no later step changes it.
    #[must_use]
    pub fn correction_of(&self, arrived_ms: i64, correction_ms: i64) -> (i64, bool) {
        let Saved { correction_ms: now_ms, latest_ms, is_set, .. } = self.timeline;
        let believed = arrived_ms < latest_ms.saturating_sub(DOUBT_MS)
            && arrived_ms.saturating_add(correction_ms) >= SET_FROM_MS;
        if believed {
            return (correction_ms, true);
        }
        let stepped = correction_ms.abs_diff(now_ms) >= UNSET_STEP_MS.unsigned_abs();
        (if is_set || stepped { now_ms } else { correction_ms }, is_set)
    }
}

/// Log time of one log. A clone shares it.
#[derive(Debug, Clone)]
pub struct Timeline(Arc<Line>);

#[derive(Debug)]
struct Line {
    boot: String,
    base_ms: i64,
    correction_ms: AtomicI64,
    stamper: Stamper,
}

impl Default for Timeline {
    fn default() -> Self {
        Self::resume(None)
    }
}

impl Timeline {
    /// Goes on from what a log has saved; `None`: it begins with the clock's time.
    #[must_use]
    pub fn resume(saved: Option<&Saved>) -> Self {
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let (base_ms, correction_ms) = resumed(saved, &boot, uptime_ms(), unix_ms());
        let correction_ms = AtomicI64::new(correction_ms);
        let stamper = Stamper::start(ClockTrust::Kernel);
        Self(Arc::new(Line { boot, base_ms, correction_ms, stamper }))
    }

    /// Now, in log time.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.0.base_ms.saturating_add(uptime_ms())
    }

    /// The clock now. Each call notices the steps since the last one.
    #[must_use]
    pub fn clock(&self) -> BrokerClock {
        let (stamp, latest_ms) = (self.0.stamper.now(), self.now_ms());
        let found = stamp.at_ms.saturating_sub(latest_ms);
        let known = self.0.correction_ms.load(Relaxed);
        let correction_ms =
            if found.abs_diff(known) > STEP_MS.unsigned_abs() { found } else { known };
        self.0.correction_ms.store(correction_ms, Relaxed);
        let (boot, base_ms) = (self.0.boot.clone(), self.0.base_ms);
        let is_set = stamp.clock == ClockState::Synced && stamp.at_ms >= SET_FROM_MS;
        BrokerClock { timeline: Saved { boot, base_ms, correction_ms, latest_ms, is_set } }
    }
}

/// Time since the kernel's start, in which it slept too, ms.
fn uptime_ms() -> i64 {
    let up = clock_gettime(ClockId::Boottime);
    // Neither differs from i64 where `time_t` is 32 bits wide.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let ms = (up.tv_sec as i64).saturating_mul(1000) + up.tv_nsec as i64 / 1_000_000;
    ms
}

/// Log time at the kernel's start, and Unix time minus log time.
fn resumed(saved: Option<&Saved>, boot: &str, uptime_ms: i64, now_ms: i64) -> (i64, i64) {
    let Some(saved) = saved else { return (now_ms.saturating_sub(uptime_ms), 0) };
    // The kernel has counted on since.
    let counted = saved.base_ms.saturating_add(uptime_ms);
    if !boot.is_empty() && saved.boot == boot && counted >= saved.latest_ms {
        return (saved.base_ms, saved.correction_ms);
    }
    // The time without power is what the clock says, if it was set before and goes on from there: else it is not known.
    let clock_ms = if saved.is_set { now_ms.saturating_sub(saved.correction_ms) } else { i64::MIN };
    let log_ms = clock_ms.max(saved.latest_ms);
    (log_ms.saturating_sub(uptime_ms), now_ms.saturating_sub(log_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const NOW_MS: i64 = 20_400 * DAY_MS;

    fn saved(boot: &str, log_ms: i64, uptime_ms: i64, correction_ms: i64) -> Saved {
        let base_ms = log_ms - uptime_ms;
        Saved { boot: boot.to_owned(), base_ms, correction_ms, latest_ms: log_ms, is_set: true }
    }

    /// Log time and Unix time after a resumption.
    fn after(saved: Option<&Saved>, boot: &str, uptime_ms: i64, now_ms: i64) -> (i64, i64) {
        let (base, correction) = resumed(saved, boot, uptime_ms, now_ms);
        (base + uptime_ms, base + uptime_ms + correction)
    }

    #[test]
    fn log_time_goes_on_over_restarts_whatever_the_clock_says() {
        assert_eq!(after(None, "k", 7, NOW_MS), (NOW_MS, NOW_MS));
        // The broker alone was restarted: the clock was stepped meanwhile, and log time goes on.
        let before = saved("k", NOW_MS, 1_000, 0);
        for now_ms in [0, NOW_MS + 60, NOW_MS + 365 * DAY_MS] {
            assert_eq!(after(Some(&before), "k", 1_060, now_ms).0, NOW_MS + 60);
        }
        // The power went for a day, with a clock that goes on without it; and with one that does not.
        assert_eq!(
            after(Some(&before), "l", 5, NOW_MS + DAY_MS),
            (NOW_MS + DAY_MS, NOW_MS + DAY_MS)
        );
        assert_eq!(after(Some(&before), "l", 5, 9), (NOW_MS, 9));
        // The clock was set by a step: log time does not know of it, then or later.
        let stepped = saved("k", 40_000, 40_000, NOW_MS);
        assert_eq!(after(Some(&stepped), "l", 5, NOW_MS + DAY_MS), (DAY_MS, NOW_MS + DAY_MS));
        assert_eq!(after(Some(&stepped), "l", 5, 11), (40_000, 11));
        // It was not set before the power went: what it says now is no time that passed.
        let unset = Saved { is_set: false, ..saved("k", NOW_MS, 1_000, 9 - NOW_MS) };
        assert_eq!(after(Some(&unset), "l", 5, NOW_MS + DAY_MS), (NOW_MS, NOW_MS + DAY_MS));
        // A container that counts its own uptime, or one whose kernel has no name.
        assert_eq!(after(Some(&before), "k", 5, NOW_MS).0, NOW_MS);
        assert_eq!(after(Some(&saved("", NOW_MS, 9, 0)), "", 99, NOW_MS + 1).0, NOW_MS + 1);
    }

    #[test]
    fn the_clock_is_log_time_plus_its_correction() {
        let timeline = Timeline::default();
        let clock = timeline.clock();
        assert!(clock.now_ms().abs_diff(unix_ms()) < 60_000);
        assert!(timeline.now_ms() >= clock.timeline.latest_ms);
        let again = Timeline::resume(Some(&clock.timeline));
        assert!(again.now_ms() >= clock.timeline.latest_ms);
    }
}

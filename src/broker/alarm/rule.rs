//! One alarm as a pure state machine: its inputs are readings, what boards say of themselves, and time; its outputs are raising and clearing.
//!
//! Every rule answers the same three questions: since when is it bad, for how long may it be, and what makes it good
//! again. A reading counts when it arrives. Of the readings that a board delivers late, only the last one shows the
//! present, so a delay also prevents an alarm for an old peak.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::broker::alarm::config::{AlarmConfig, AlarmRule, Quantity, Side};
use crate::broker::alarm::versions::Versions;
use crate::reading::{ClockState, Id};
use crate::store::Gap;
use crate::upstream::UpstreamStatus;
use crate::wire::{Health, Telemetry};

/// Most characters of a board's own words in an alarm.
const WHY_MAX_CHARS: usize = 200;
/// What waits for the upstream database waits for less than this while all is well: a session is begun within it.
const BEHIND: Duration = Duration::from_secs(10);

/// A reading that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The node.
    pub node: &'a Id,
    /// The sensor.
    pub sensor: &'a Id,
    /// Its values, number and time.
    pub telemetry: &'a Telemetry,
}

/// The present, by the monotonic clock and by the wall clock.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic.
    pub instant: Instant,
    /// Unix ms UTC.
    pub unix_ms: i64,
}

/// An alarm was raised or cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Raised, or cleared.
    pub raised: bool,
    /// Why, for people.
    pub detail: String,
}

/// The verdict of a rule on a reading.
enum Verdict {
    Bad(String),
    /// Neither raises nor clears: inside the hysteresis.
    Between,
    Good(String),
}

/// An alarm and its state.
#[derive(Debug)]
pub struct Alarm {
    config: AlarmConfig,
    raised: bool,
    /// Since when it is bad without being raised, and why.
    bad: Option<(Instant, String)>,
    /// When it is good again by itself.
    good_at: Option<Instant>,
    /// The latest number of the node's last two runs.
    runs: [Option<(Id, u64)>; 2],
    /// Holes that are to be looked for upstream before they count; `None` where there is no upstream database.
    holes: Option<Vec<Gap>>,
}

impl Alarm {
    /// An alarm at the broker's start; `raised` as it was when the broker stopped.
    #[must_use]
    pub fn new(config: AlarmConfig, raised: bool, start: Instant) -> Self {
        let mut alarm =
            Self { config, raised, bad: None, good_at: None, runs: [None, None], holes: None };
        alarm.lost_track(start);
        alarm
    }

    /// The same alarm where there is an upstream database: a hole is one when that has it, too ([`Alarm::missing`]).
    #[must_use]
    pub fn over_halls(self) -> Self {
        Self { holes: Some(Vec::new()), ..self }
    }

    /// Holes that were seen since the last call, to be looked for upstream.
    pub fn holes(&mut self) -> Vec<Gap> {
        self.holes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// As configured.
    #[must_use]
    pub const fn config(&self) -> &AlarmConfig {
        &self.config
    }

    /// Whether it is raised.
    #[must_use]
    pub const fn is_raised(&self) -> bool {
        self.raised
    }

    /// Readings may have been missed: silence and gaps count from now.
    pub fn lost_track(&mut self, now: Instant) {
        match self.config.rule {
            AlarmRule::Silent { .. } => self.wait(now),
            AlarmRule::Gap { quiet, .. } => {
                self.runs = [None, None];
                self.good_at = self.raised.then(|| now + quiet);
            }
            AlarmRule::Disk { quiet } => self.good_at = self.raised.then(|| now + quiet),
            AlarmRule::Threshold { .. }
            | AlarmRule::Clock { .. }
            | AlarmRule::Fault { .. }
            | AlarmRule::Version { .. }
            | AlarmRule::Upstream { .. } => {}
        }
    }

    /// Applies a reading. Time passes first, so that a change that was due before the reading is not lost.
    pub fn see(&mut self, seen: Seen<'_>, now: Now) -> Vec<Change> {
        let mut changes: Vec<Change> = self.pass(now.instant).into_iter().collect();
        let Some(verdict) = self.judge(seen, now) else { return changes };
        changes.extend(self.apply(verdict, now.instant));
        if let AlarmRule::Silent { .. } = self.config.rule {
            self.wait(now.instant);
        }
        changes
    }

    /// Applies what a board says of itself; `None` when its health was deleted or has expired. Time passes first, as for a reading.
    pub fn hear(&mut self, node: &Id, health: Option<&Health>, now: Instant) -> Vec<Change> {
        let AlarmRule::Fault { output, .. } = &self.config.rule else { return Vec::new() };
        if *node != self.config.node {
            return Vec::new();
        }
        let verdict = match health.map(|health| health.output_faults.get(output.as_str())) {
            Some(Some(why)) => {
                let why: String = why.chars().take(WHY_MAX_CHARS).collect();
                Verdict::Bad(format!("{output}: {why}"))
            }
            Some(None) => Verdict::Good(format!("{output} follows again")),
            None => Verdict::Good("the board's health was deleted or has expired".to_owned()),
        };
        self.settle(verdict, now)
    }

    /// Applies what the boards run.
    pub fn compare(&mut self, versions: &Versions, now: Instant) -> Vec<Change> {
        let AlarmRule::Version { .. } = self.config.rule else { return Vec::new() };
        let verdict = match versions.differing(self.config.only_node()) {
            Some(which) => Verdict::Bad(which),
            None => Verdict::Good("no board differs from most".to_owned()),
        };
        self.settle(verdict, now)
    }

    /// Applies the state of the forwarder.
    pub fn look_upstream(&mut self, status: &UpstreamStatus, now: Instant) -> Vec<Change> {
        let AlarmRule::Upstream { .. } = self.config.rule else { return Vec::new() };
        let lag = format!(
            "PostgreSQL lacks {} entries, the oldest for {} s",
            status.lag,
            status.lag_time.as_secs()
        );
        let verdict = match &status.error {
            Some(error) => {
                let error: String = error.chars().take(WHY_MAX_CHARS).collect();
                Verdict::Bad(format!("{lag}: {error}"))
            }
            None if status.filling => {
                Verdict::Bad("stored readings are being sent again".to_owned())
            }
            None if status.lag > 0 && status.lag_time > BEHIND => Verdict::Bad(lag),
            None if status.server.is_none() => Verdict::Between,
            None => Verdict::Good("PostgreSQL has the whole log".to_owned()),
        };
        self.settle(verdict, now)
    }

    /// Applies a hole that the upstream database has, too.
    pub fn missing(&mut self, hole: &Gap, now: Instant) -> Vec<Change> {
        let AlarmRule::Gap { quiet, .. } = self.config.rule else { return Vec::new() };
        let verdict = self.gap(hole, quiet, now);
        self.settle(verdict, now)
    }

    fn gap(&mut self, hole: &Gap, quiet: Duration, now: Instant) -> Verdict {
        if self.raised {
            self.good_at = Some(now + quiet);
        }
        let (next, count) = (hole.to.saturating_add(1), hole.to.abs_diff(hole.from) + 1);
        Verdict::Bad(format!("{count} missing before #{next} of run {}", hole.boot))
    }

    /// Time passes first, so that a change that was due before is not lost.
    fn settle(&mut self, verdict: Verdict, now: Instant) -> Vec<Change> {
        let mut changes: Vec<Change> = self.pass(now).into_iter().collect();
        changes.extend(self.apply(verdict, now));
        changes
    }

    fn apply(&mut self, verdict: Verdict, now: Instant) -> Option<Change> {
        match verdict {
            Verdict::Bad(why) => {
                if !self.raised {
                    let since = self.bad.take().map_or(now, |(since, _)| since);
                    self.bad = Some((since, why));
                }
                self.pass(now)
            }
            Verdict::Between => {
                self.bad = self.bad.take().filter(|_| self.raised);
                None
            }
            Verdict::Good(why) => {
                self.bad = None;
                let was_raised = std::mem::replace(&mut self.raised, false);
                was_raised.then_some(Change { raised: false, detail: why })
            }
        }
    }

    /// Applies a failure of the broker's disk.
    pub fn disk_failed(&mut self, why: &str, now: Instant) -> Option<Change> {
        let AlarmRule::Disk { quiet } = self.config.rule else { return None };
        if self.raised {
            self.good_at = Some(now + quiet);
            return None;
        }
        self.bad = Some((now, format!("the disk failed: {why}")));
        self.pass(now)
    }

    /// Applies the passing of time.
    pub fn pass(&mut self, now: Instant) -> Option<Change> {
        if self.good_at.take_if(|at| *at <= now).is_some() && self.raised {
            self.raised = false;
            let detail = match self.config.rule {
                AlarmRule::Disk { .. } => "the disk has not failed again",
                _ => "no further gap",
            };
            return Some(Change { raised: false, detail: detail.to_owned() });
        }
        if self.raised {
            return None;
        }
        let delay = self.delay();
        let (_, detail) = self.bad.take_if(|(since, _)| *since + delay <= now)?;
        self.raised = true;
        if let AlarmRule::Gap { quiet, .. } | AlarmRule::Disk { quiet } = self.config.rule {
            self.good_at = Some(now + quiet);
        }
        Some(Change { raised: true, detail })
    }

    /// When [`Alarm::pass`] is due next, if no reading arrives before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let bad =
            self.bad.as_ref().filter(|_| !self.raised).map(|(since, _)| *since + self.delay());
        bad.into_iter().chain(self.good_at).min()
    }

    const fn delay(&self) -> Duration {
        match self.config.rule {
            AlarmRule::Threshold { delay, .. }
            | AlarmRule::Clock { delay, .. }
            | AlarmRule::Fault { delay, .. }
            | AlarmRule::Version { delay }
            | AlarmRule::Upstream { delay } => delay,
            AlarmRule::Silent { limit, .. } => limit,
            AlarmRule::Gap { .. } | AlarmRule::Disk { .. } => Duration::ZERO,
        }
    }

    /// Silence begins.
    fn wait(&mut self, now: Instant) {
        if !self.raised {
            self.bad = Some((now, format!("no reading for {:?}", self.delay())));
        }
    }

    /// The verdict on a reading; `None` when the rule is not about it.
    fn judge(&mut self, seen: Seen<'_>, now: Now) -> Option<Verdict> {
        if *seen.node != self.config.node {
            return None;
        }
        match &self.config.rule {
            AlarmRule::Threshold { sensor, .. } | AlarmRule::Silent { sensor, .. }
                if sensor != seen.sensor =>
            {
                None
            }
            AlarmRule::Threshold { sensor, quantity, side, limit, hysteresis, .. } => {
                let value = match quantity {
                    Quantity::Temperature => seen.telemetry.temperature?,
                    Quantity::Humidity => seen.telemetry.humidity?,
                };
                let unit = quantity.unit();
                let detail =
                    format!("{sensor}: {quantity} {value:.1} {unit}, limit {side}{limit} {unit}");
                let (bad, good) = match side {
                    Side::Above => (value > *limit, value <= limit - hysteresis),
                    Side::Below => (value < *limit, value >= limit + hysteresis),
                };
                Some(match (bad, good) {
                    (true, _) => Verdict::Bad(detail),
                    (false, true) => Verdict::Good(detail),
                    (false, false) => Verdict::Between,
                })
            }
            // No reading tells anything about it.
            AlarmRule::Disk { .. }
            | AlarmRule::Fault { .. }
            | AlarmRule::Version { .. }
            | AlarmRule::Upstream { .. } => None,
            AlarmRule::Silent { .. } => Some(Verdict::Good("readings arrive again".to_owned())),
            AlarmRule::Gap { quiet, .. } => {
                let quiet = *quiet;
                let missing = self.count(&seen.telemetry.boot, seen.telemetry.seq)?;
                let hole = Gap {
                    node: self.config.node.to_string(),
                    boot: seen.telemetry.boot.to_string(),
                    from: i64::try_from(*missing.start()).ok()?,
                    to: i64::try_from(*missing.end()).ok()?,
                };
                if let Some(holes) = &mut self.holes {
                    holes.push(hole);
                    return None;
                }
                Some(self.gap(&hole, quiet, now.instant))
            }
            AlarmRule::Clock { ahead, .. } => {
                let lead = seen.telemetry.at.saturating_sub(now.unix_ms);
                let ahead = i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX);
                Some(if seen.telemetry.clock == ClockState::Unsynced {
                    Verdict::Bad("the clock is not set".to_owned())
                } else if lead > ahead {
                    Verdict::Bad(format!("the clock is {} s ahead", lead / 1000))
                } else {
                    Verdict::Good("the clock is set".to_owned())
                })
            }
        }
    }

    /// The numbers that are missing before this one; `None` when none are, or it cannot be known.
    fn count(&mut self, boot: &Id, seq: u64) -> Option<RangeInclusive<u64>> {
        if let Some((_, last)) = self.runs.iter_mut().flatten().find(|(known, _)| known == boot) {
            let next = last.saturating_add(1);
            *last = seq.max(*last);
            return (next < seq).then(|| next..=seq - 1);
        }
        // A new run counts from 1. The first run that is seen may have begun long ago.
        let first = self.runs[0].is_none();
        self.runs.rotate_right(1);
        self.runs[0] = Some((boot.clone(), seq));
        (!first && seq > 1).then(|| 1..=seq - 1)
    }
}

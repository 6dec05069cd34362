//! The schedule of the log's maintenance on the writer thread: mostly while no commit waits, and with a small share of
//! the time while one always does.

use std::time::{Duration, Instant};

use tracing::warn;

use super::series_quota::SeriesQuota;
use crate::broker::counters::Counters;
use crate::store::{Store, is_disk_error};
use crate::timeline::Timeline;

/// Interval between two checks for work.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// After commits of this length there is one at once: in five seconds a flood fills a small log from half to its limit.
const LOOK_AFTER_COMMITS: Duration = Duration::from_millis(200);
/// Pause after a step that failed: on a full disk the publishers' commits come first.
const FAILED_INTERVAL: Duration = Duration::from_secs(30);
/// Longest pause between two steps of one job.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Longest time of pressing steps between two commits: that of a commit.
const PRESSING_MAX: Duration = Duration::from_millis(50);
/// The same while the log is over its limit. The publishers wait meanwhile, and are told nothing: a client waits longer
/// before it gives a connection up.
const OVER_LIMIT_MAX: Duration = Duration::from_secs(1);
/// The same while it is over its limit by an eighth: on a slow machine more comes in a second than can go. A node waits 30 s
/// for an acknowledgement.
const FAR_OVER_LIMIT_MAX: Duration = Duration::from_secs(10);
/// Without a commit for this long the broker is idle.
const IDLE_AFTER: Duration = Duration::from_millis(50);

/// The load of the writer thread by commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    /// No commit for [`IDLE_AFTER`].
    Idle,
    /// A commit within [`IDLE_AFTER`]; at present none waits.
    Light,
    /// A commit waits.
    Full,
}

impl Demand {
    /// Pause after a step, in lengths of that step. Idle, half of an SD card's time stays free for other work. Else one
    /// acknowledgement in ten waits for a step, and where a commit always waits, one in twenty.
    const fn pause(self) -> u32 {
        match self {
            Self::Idle => 1,
            Self::Light => 9,
            Self::Full => 19,
        }
    }
}

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// There is more to do.
    More,
    /// There is more to do, and it cannot wait: a log over its limit would fill the disk, which stops all publishers.
    Pressing,
    /// Nothing to do at present.
    Done,
    /// The step failed.
    Failed,
}

/// Schedules maintenance by the cost of its steps on this machine.
#[derive(Debug)]
pub(in crate::broker) struct Schedule {
    committed: Instant,
    /// How long the commits since the latest step took.
    busy: Duration,
    /// When the latest step ended, and how long it took.
    ended: Instant,
    took: Duration,
    outcome: Outcome,
    complained: bool,
    /// Gives series back that the maintenance has deleted.
    quota: SeriesQuota,
}

impl Schedule {
    pub fn start(now: Instant, quota: SeriesQuota) -> Self {
        let took = Duration::ZERO;
        let busy = Duration::ZERO;
        let outcome = Outcome::More;
        Self { committed: now, busy, ended: now, took, outcome, complained: false, quota }
    }

    /// Notes a commit and what came with it, which took so long.
    pub fn committed(&mut self, now: Instant, took: Duration) {
        self.committed = now;
        self.busy += took;
    }

    /// Longest wait for the queue before a step is due.
    pub fn wait(&self, now: Instant) -> Duration {
        let idle = self.due(Demand::Idle).max(self.committed + IDLE_AFTER);
        idle.min(self.due(Demand::Light)).saturating_duration_since(now)
    }

    /// Does one step when it is time for it; `waiting`: there is something to commit.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn step(
        &mut self,
        store: &mut Store,
        timeline: &Timeline,
        waiting: bool,
        counters: &Counters,
    ) -> rusqlite::Result<()> {
        let started = Instant::now();
        let grown = store.has_grown() && self.outcome != Outcome::Failed;
        if !grown && !self.is_due(started, waiting) {
            return Ok(());
        }
        let clock = timeline.clock();
        let now_ms = clock.now_ms();
        store.tell_time(clock);
        // There is one call between two commits, however long they are.
        let share = self.busy.min(PRESSING_MAX) * store.pressure();
        loop {
            let outcome = self.attempt(store, now_ms, counters)?;
            let now = Instant::now();
            let share = if store.is_far_too_large() {
                FAR_OVER_LIMIT_MAX
            } else if store.is_too_large() {
                OVER_LIMIT_MAX
            } else {
                share
            };
            if outcome != Outcome::Pressing || now >= started + share {
                self.stepped(started, now, outcome);
                // The more it presses, the shorter the pause.
                self.took /= store.pressure().max(1);
                if store.is_too_large() {
                    self.took = Duration::ZERO;
                }
                return Ok(());
            }
        }
    }

    fn attempt(
        &mut self,
        store: &mut Store,
        now_ms: i64,
        counters: &Counters,
    ) -> rusqlite::Result<Outcome> {
        counters.set_working(true);
        let maintained = store.maintain(now_ms);
        self.quota.remove(&store.take_deleted_series());
        counters.add_young_deleted(store.take_young_deleted());
        Ok(match maintained {
            Ok(true) if store.pressure() > 0 => Outcome::Pressing,
            Ok(true) => Outcome::More,
            Ok(false) => {
                self.complained = false;
                Outcome::Done
            }
            Err(cause) if Store::may_pass(&cause) => {
                if is_disk_error(&cause) {
                    counters.disk_failed(cause.to_string());
                }
                if !std::mem::replace(&mut self.complained, true) {
                    warn!(%cause, "log maintenance failed; the broker tries again every 30 s");
                }
                Outcome::Failed
            }
            Err(cause) => return Err(cause),
        })
    }

    fn is_due(&self, now: Instant, waiting: bool) -> bool {
        let demand = if waiting {
            Demand::Full
        } else if now < self.committed + IDLE_AFTER {
            Demand::Light
        } else {
            Demand::Idle
        };
        now >= self.due(demand)
    }

    fn due(&self, demand: Demand) -> Instant {
        let pause = |demand: Demand| (self.took * demand.pause()).min(PAUSE_MAX);
        self.ended
            + match self.outcome {
                Outcome::More => pause(demand),
                Outcome::Pressing => pause(Demand::Idle),
                Outcome::Done if self.busy >= LOOK_AFTER_COMMITS => Duration::ZERO,
                Outcome::Done => LOOK_INTERVAL,
                Outcome::Failed => FAILED_INTERVAL,
            }
    }

    fn stepped(&mut self, started: Instant, ended: Instant, outcome: Outcome) {
        (self.ended, self.took, self.outcome) = (ended, ended - started, outcome);
        self.busy = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::reading::ClockState;
    use crate::store::{Record, Retention};
    use crate::wire::Telemetry;

    const STEP: Duration = Duration::from_micros(500);

    /// Share of ten seconds, in thousandths, that steps take beside commits of `commit` length, from the end of one
    /// to the beginning of the next `gap`.
    fn share(commit: Duration, gap: Duration, outcome: Outcome) -> u128 {
        let start = Instant::now();
        let (mut now, mut schedule, mut maintenance) =
            (start, Schedule::start(start, SeriesQuota::new(&[], 1)), Duration::ZERO);
        while now < start + Duration::from_secs(10) {
            now += commit;
            schedule.committed(now, commit);
            let next = now + gap;
            // Right after a commit, and then when the queue has been waited for in vain.
            loop {
                if schedule.is_due(now, gap.is_zero()) {
                    schedule.stepped(now, now + STEP, outcome);
                    maintenance += STEP;
                    now += STEP;
                }
                if now + schedule.wait(now) >= next {
                    break;
                }
                now += schedule.wait(now);
            }
            now = now.max(next);
        }
        maintenance.as_micros() * 1000 / (now - start).as_micros()
    }

    #[test]
    fn maintenance_has_its_share_of_a_busy_writers_time_and_no_more() {
        let (ms, gap) = (Duration::from_millis(1), Duration::from_millis(4));
        let full = share(ms, Duration::ZERO, Outcome::More);
        assert!((40..=50).contains(&full), "{full}");
        let light = share(ms, gap, Outcome::More);
        assert!((60..=100).contains(&light), "{light}");
        let idle = share(ms, Duration::from_secs(1), Outcome::More);
        assert!((400..=510).contains(&idle), "{idle}");
    }

    #[test]
    fn a_log_that_is_too_large_comes_first() {
        let pressing = share(Duration::from_micros(500), Duration::ZERO, Outcome::Pressing);
        assert!((450..=510).contains(&pressing), "{pressing}");
        let done = share(Duration::from_millis(1), Duration::ZERO, Outcome::Done);
        assert!(done < 5, "{done}");
    }

    #[test]
    fn what_is_to_be_appended_waits_while_the_log_is_over_its_limit() {
        const MAX_BYTES: u64 = 2 * 1024 * 1024;
        const MINUTES: i64 = 60_000;
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        store.retain(Retention { keep_raw: None, max_bytes: MAX_BYTES });
        let start_ms = clock::unix_ms() - 60 * 86_400_000;
        let readings: Vec<Record> = (1..=MINUTES)
            .map(|minute| Record::Reading {
                node: "press".parse().unwrap(),
                sensor: "hall".parse().unwrap(),
                telemetry: Telemetry {
                    boot: "b".parse().unwrap(),
                    seq: minute.cast_unsigned(),
                    at: start_ms + minute * 60_000,
                    clock: ClockState::Synced,
                    mono: 0,
                    temperature: Some(20.1),
                    humidity: Some(50.1),
                },
            })
            .collect();
        store.append(&readings.iter().collect::<Vec<_>>()).unwrap();

        assert!(store.used_bytes().unwrap() > MAX_BYTES);
        let (timeline, counters) = (Timeline::default(), Counters::default());
        let now = Instant::now();
        let mut schedule = Schedule::start(now, SeriesQuota::new(&[], 1));
        // The commits between these took no time: that is not what the maintenance gets its share of.
        for _ in 0..30 {
            schedule.committed(now, Duration::ZERO);
            schedule.took = Duration::ZERO;
            schedule.step(&mut store, &timeline, true, &counters).unwrap();
        }
        let used = store.used_bytes().unwrap();
        assert!(used <= MAX_BYTES, "{used} bytes in use");
        assert!(!store.is_too_large());
    }

    /// Of one board, as fast as it is acknowledged.
    #[test]
    fn an_endless_flood_stays_within_the_limit() {
        const MAX_BYTES: u64 = 4 * 1024 * 1024;
        const COMMIT: u64 = 2_500;
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        store.retain(Retention { keep_raw: None, max_bytes: MAX_BYTES });
        let (timeline, counters) = (Timeline::default(), Counters::default());
        let mut schedule = Schedule::start(Instant::now(), SeriesQuota::new(&[], 1));
        let mut largest = 0;
        for commit in 0..60 {
            let readings: Vec<Record> = (1..=COMMIT)
                .map(|n| Record::Reading {
                    node: "press".parse().unwrap(),
                    sensor: "hall".parse().unwrap(),
                    telemetry: Telemetry {
                        boot: "b".parse().unwrap(),
                        seq: commit * COMMIT + n,
                        at: clock::unix_ms(),
                        clock: ClockState::Synced,
                        mono: 0,
                        temperature: Some(20.1),
                        humidity: Some(50.1),
                    },
                })
                .collect();
            let started = Instant::now();
            store.append(&readings.iter().collect::<Vec<_>>()).unwrap();
            let now = Instant::now();
            schedule.committed(now, now - started);
            largest = store.used_bytes().unwrap().max(largest);
            schedule.step(&mut store, &timeline, true, &counters).unwrap();
        }
        // What a step may delete is bounded by time, so how far a flood passes the limit depends on the machine. Of what was
        // appended the log would have more than twice the limit.
        assert!(largest <= MAX_BYTES * 3 / 2, "{largest} bytes");
        assert!(counters.young_deleted() > 0);
    }

    #[test]
    fn a_log_that_fills_between_two_looks_is_looked_at_for_it() {
        let start = Instant::now();
        let mut schedule = Schedule::start(start, SeriesQuota::new(&[], 1));
        schedule.stepped(start, start, Outcome::Done);
        assert!(!schedule.is_due(start, true));
        schedule.committed(start, LOOK_AFTER_COMMITS);
        assert!(schedule.is_due(start, true));
    }
}

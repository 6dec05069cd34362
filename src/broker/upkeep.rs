//! When the writer thread looks after the log: while nobody waits for it, and now and then while somebody
//! always does.

use std::time::{Duration, Instant};

use tracing::warn;

use crate::clock;
use crate::store::Store;

/// From one look for something to do to the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// After a step that failed: a full disk is the publishers' business first.
const FAILED_INTERVAL: Duration = Duration::from_secs(30);
/// Longest pause between two steps of one job.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Pause after a step while the queue is empty, in lengths of that step: half of an SD card's time stays
/// free for others.
const QUIET_PAUSE: u32 = 1;
/// The same while commits follow one another: a fifth of the writer's time at most.
const BUSY_PAUSE: u32 = 4;

/// Paces the upkeep by what its steps cost on this machine.
pub(super) struct Pace {
    quiet_at: Instant,
    busy_at: Instant,
    complained: bool,
}

impl Pace {
    pub fn start() -> Self {
        let now = Instant::now();
        Self { quiet_at: now, busy_at: now, complained: false }
    }

    /// How long the queue may be waited for before there is something else to do.
    pub fn wait(&self) -> Duration {
        self.quiet_at.saturating_duration_since(Instant::now())
    }

    /// Does one step when it is time for it; `busy`: publishers were just acknowledged, more may wait.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn step(&mut self, store: &mut Store, busy: bool) -> rusqlite::Result<()> {
        let started = Instant::now();
        if started < if busy { self.busy_at } else { self.quiet_at } {
            return Ok(());
        }
        let outcome = store.maintain(clock::unix_ms());
        let (ended, took) = (Instant::now(), started.elapsed());
        let pause = |lengths: u32| ended + (took * lengths).min(PAUSE_MAX);
        match outcome {
            Ok(true) => (self.quiet_at, self.busy_at) = (pause(QUIET_PAUSE), pause(BUSY_PAUSE)),
            Ok(false) => {
                self.quiet_at = ended + LOOK_INTERVAL;
                self.busy_at = self.quiet_at;
                self.complained = false;
            }
            Err(cause) if Store::may_pass(&cause) => {
                self.quiet_at = ended + FAILED_INTERVAL;
                self.busy_at = self.quiet_at;
                if !std::mem::replace(&mut self.complained, true) {
                    warn!(%cause, "the log cannot be looked after; tried again every 30 s");
                }
            }
            Err(cause) => return Err(cause),
        }
        Ok(())
    }
}

//! Reads the sensors, one after the other, on a thread of its own: a read is timed in microseconds and must not
//! share its thread with anything that waits.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::plausibility::{Plausibility, Verdict};
use crate::dht::{self, Model};
use crate::gpio::Line;
use crate::reading::{Id, Measurement};

/// Time from power-up to the first read (DHT22 datasheet §7: "within one second to pass the unstable status").
pub const SETTLE: Duration = Duration::from_secs(1);
/// Longest time from the release of the line to the end of a frame. A frame of forty ones takes 5.1 ms.
pub const LISTEN: Duration = Duration::from_millis(12);
/// Failed reads after which the sampler waits for the sensor's next interval.
const TRIES: u32 = 5;

/// Counts of reads without a reading, by sensor and cause.
#[derive(Debug, Clone, Default)]
pub struct Failures(Arc<Mutex<BTreeMap<String, BTreeMap<String, u64>>>>);

impl Failures {
    fn count(&self, sensor: &Id, cause: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(sensor.to_string()).or_default().entry(cause.to_owned()).or_default() += 1;
    }

    /// A copy of the counts.
    pub fn snapshot(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A sensor with its line.
pub struct Sensor {
    /// Its id.
    pub name: Id,
    /// Its model.
    pub model: Model,
    /// The line that it is on.
    pub line: Box<dyn Line>,
}

/// One sensor's place in the schedule.
#[derive(Debug)]
struct Schedule {
    interval: Duration,
    /// Time from a failed read to the next one.
    retry: Duration,
    /// When the present reading was due; the next one is due an interval later, however many tries it took.
    due: Instant,
    /// When to read next: `due`, or a retry.
    next: Instant,
    /// Failed reads since the last reading.
    tries: u32,
}

impl Schedule {
    const fn new(first: Instant, interval: Duration, retry: Duration) -> Self {
        Self { interval, retry, due: first, next: first, tries: 0 }
    }

    /// A read failed. Returns whether it was the last try of this interval.
    const fn failed(&mut self) -> bool {
        self.tries += 1;
        self.tries >= TRIES
    }

    /// Reads again soon.
    fn retry(&mut self, now: Instant) {
        self.next = now + self.retry;
    }

    /// Waits for the next interval. After a long read or a suspended machine the schedule starts anew: catching up
    /// would read faster than the sensor allows.
    fn finish(&mut self, now: Instant) {
        self.tries = 0;
        let scheduled = self.due + self.interval;
        self.due = if scheduled > now { scheduled } else { now + self.interval };
        self.next = self.due;
    }
}

struct Task {
    sensor: Sensor,
    plausibility: Plausibility,
    schedule: Schedule,
    /// Whether the last reading failed in all its tries.
    silent: bool,
}

/// Reads sensors until `stop` is closed. `accept` takes each reading.
pub fn run(
    sensors: Vec<Sensor>,
    interval: Duration,
    failures: &Failures,
    stop: &Receiver<()>,
    mut accept: impl FnMut(&Id, Measurement),
) {
    let started = Instant::now();
    let mut tasks: Vec<Task> = sensors
        .into_iter()
        .map(|sensor| Task {
            plausibility: Plausibility::new(sensor.model, interval),
            schedule: Schedule::new(started + SETTLE, interval, sensor.model.min_interval()),
            sensor,
            silent: false,
        })
        .collect();
    while let Some(task) = tasks.iter_mut().min_by_key(|task| task.schedule.next) {
        let wait = task.schedule.next.saturating_duration_since(Instant::now());
        match stop.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        let outcome = read(&mut task.sensor)
            .map(|measurement| task.plausibility.check(measurement, started.elapsed()));
        let name = &task.sensor.name;
        let finished = match outcome {
            Ok(Verdict::Accept(measurement)) => {
                if std::mem::take(&mut task.silent) {
                    warn!(sensor = %name, "sensor answers again");
                }
                accept(name, measurement);
                true
            }
            Ok(Verdict::Hold(hold)) => {
                debug!(sensor = %name, reason = hold.name(), "measurement held back; reading again");
                failures.count(name, hold.name());
                false
            }
            Err(cause) => {
                debug!(sensor = %name, %cause, "read failed");
                failures.count(name, cause.name());
                let exhausted = task.schedule.failed();
                if exhausted && !std::mem::replace(&mut task.silent, true) {
                    warn!(sensor = %name, %cause, "no reading after {TRIES} tries; trying again every interval");
                }
                exhausted
            }
        };
        if finished {
            task.schedule.finish(Instant::now());
        } else {
            task.schedule.retry(Instant::now());
        }
    }
}

/// The reason why a read gave no measurement.
#[derive(Debug, thiserror::Error)]
enum NoReading {
    #[error(transparent)]
    Fault(#[from] dht::Fault),
    #[error("weak frame: {0}")]
    Weak(dht::Weakness),
    #[error(transparent)]
    Line(#[from] crate::gpio::LineError),
}

impl NoReading {
    fn name(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.name(),
            Self::Weak(_) => "weak",
            Self::Line(_) => "line",
        }
    }
}

fn read(sensor: &mut Sensor) -> Result<Measurement, NoReading> {
    let edges = sensor.line.exchange(sensor.model.start_signal(), LISTEN)?;
    let decoded = dht::decode(&edges, sensor.model)?;
    match decoded.weak {
        None => Ok(decoded.measurement),
        Some(weakness) => Err(NoReading::Weak(weakness)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const RETRY: Duration = Duration::from_secs(2);

    #[test]
    fn a_reading_is_due_an_interval_after_the_one_before_however_many_tries_it_took() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, INTERVAL, RETRY);
        for try_number in 1..TRIES {
            assert!(!schedule.failed());
            schedule.retry(start + RETRY * (try_number - 1));
            assert_eq!(schedule.next, start + RETRY * try_number);
        }
        assert!(schedule.failed(), "the last try of the interval");
        schedule.finish(start + RETRY * (TRIES - 1));
        assert_eq!((schedule.next, schedule.tries), (start + INTERVAL, 0));
    }

    #[test]
    fn an_interval_that_was_missed_is_not_made_up_for() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, INTERVAL, RETRY);
        let late = start + INTERVAL * 7;
        schedule.finish(late);
        assert_eq!(schedule.next, late + INTERVAL);
    }
}

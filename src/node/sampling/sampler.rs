//! Reads the sensors, one after the other, on a thread of its own: a read is timed in microseconds
//! and must not share its thread with anything that waits.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::plausibility::{Judge, Verdict};
use crate::dht::{self, Model};
use crate::gpio::Line;
use crate::reading::{Id, Measurement};

/// From power-up to the first read (DHT22 datasheet §7: "within one second to pass the unstable status").
pub const SETTLE: Duration = Duration::from_secs(1);
/// From the release of the line to the end of a frame: a frame of forty ones takes 5.1 ms; a sensor
/// that has not finished after this will not.
pub const LISTEN: Duration = Duration::from_millis(12);
/// Reads of one sensor for one reading before it is given up until the next interval.
const TRIES: u32 = 5;

/// Reads that gave nothing, by sensor and cause.
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
    /// What it is.
    pub model: Model,
    /// Where it is.
    pub line: Box<dyn Line>,
}

struct Task {
    sensor: Sensor,
    judge: Judge,
    /// When the present reading was due; the next one is an interval later, however many tries it took.
    due: Instant,
    next: Instant,
    tries: u32,
    silent: bool,
}

/// Samples until `stop` is closed. `keep` takes each reading.
pub fn run(
    sensors: Vec<Sensor>,
    interval: Duration,
    failures: &Failures,
    stop: &Receiver<()>,
    mut keep: impl FnMut(&Id, Measurement),
) {
    let started = Instant::now();
    let first = started + SETTLE;
    let mut tasks: Vec<Task> = sensors
        .into_iter()
        .map(|sensor| Task {
            judge: Judge::new(sensor.model, interval),
            sensor,
            due: first,
            next: first,
            tries: 0,
            silent: false,
        })
        .collect();
    while let Some(task) = tasks.iter_mut().min_by_key(|task| task.next) {
        let wait = task.next.saturating_duration_since(Instant::now());
        match stop.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        let outcome = read(&mut task.sensor)
            .map(|measurement| task.judge.consider(measurement, started.elapsed()));
        let name = &task.sensor.name;
        let done = match outcome {
            Ok(Verdict::Publish(measurement)) => {
                if std::mem::take(&mut task.silent) {
                    warn!(sensor = %name, "the sensor answers again");
                }
                keep(name, measurement);
                true
            }
            Ok(Verdict::Hold(hold)) => {
                debug!(sensor = %name, reason = hold.name(), "held back, reading again");
                failures.count(name, hold.name());
                false
            }
            Err(cause) => {
                debug!(sensor = %name, %cause, "no reading");
                failures.count(name, cause.name());
                task.tries += 1;
                let given_up = task.tries >= TRIES;
                if given_up && !std::mem::replace(&mut task.silent, true) {
                    warn!(sensor = %name, %cause, "no reading after {TRIES} tries; still trying every interval");
                }
                given_up
            }
        };
        let now = Instant::now();
        task.next = if done {
            task.tries = 0;
            // After a long read or a suspended machine the beat starts anew; it never catches up by
            // reading faster than the sensor allows.
            let beat = task.due + interval;
            task.due = if beat > now { beat } else { now + interval };
            task.due
        } else {
            now + task.sensor.model.min_interval()
        };
    }
}

/// Why a read gave no measurement.
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

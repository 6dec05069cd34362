//! Reads the sensors, one after the other, on a thread of its own: a read is timed in microseconds and must not
//! share its thread with anything that waits.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::plausibility::{Plausibility, Verdict};
use super::reads::Reads;
use crate::dht::{self, Model};
use crate::gpio::Line;
use crate::reading::{Id, Measurement};
use crate::throttled_log::ThrottledLog;

/// Time from power-up to the first read (DHT22 datasheet §7: "within one second to pass the unstable status").
pub const SETTLE: Duration = Duration::from_secs(1);
/// Longest time from the release of the line to the end of a frame. A frame of forty ones takes 5.1 ms.
pub const LISTEN: Duration = Duration::from_millis(12);
/// Reads without a reading after which the sampler waits for the sensor's next interval.
const TRIES: u32 = 5;

/// Time between two lines that a sensor gives no readings.
const SILENCE_LINE_INTERVAL: Duration = Duration::from_mins(1);

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
    /// Reads without a reading in this interval.
    tries: u32,
}

impl Schedule {
    const fn new(first: Instant, interval: Duration, retry: Duration) -> Self {
        Self { interval, retry, due: first, next: first, tries: 0 }
    }

    /// A read gave no reading. Returns whether it was the last try of this interval.
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
    silence: Silence,
}

/// Says that a sensor gives no readings, and that it does again: at most one of each in an interval, whatever a loose contact
/// does, and finally how it is.
#[derive(Debug)]
struct Silence {
    line: ThrottledLog,
    /// The last line was that there are no readings.
    said: bool,
}

impl Silence {
    const fn new() -> Self {
        Self { line: ThrottledLog::new(SILENCE_LINE_INTERVAL), said: false }
    }

    /// All tries of an interval gave no reading. Returns whether to say so, with the number of lines left out.
    fn begins(&mut self, now: Instant) -> Option<u64> {
        if self.said {
            return None;
        }
        let due = self.line.due(now);
        self.said = due.is_some();
        due
    }

    /// A reading came. Returns whether to say so.
    const fn ends(&mut self) -> bool {
        std::mem::replace(&mut self.said, false)
    }
}

/// Reads sensors until `stop` is closed. `accept` takes each reading.
pub fn run(
    sensors: Vec<Sensor>,
    interval: Duration,
    reads: &Reads,
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
            silence: Silence::new(),
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
                if task.silence.ends() {
                    warn!(sensor = %name, "sensor answers again");
                }
                reads.good(name, Instant::now());
                accept(name, measurement);
                true
            }
            Ok(Verdict::Hold(hold)) => {
                debug!(sensor = %name, reason = hold.name(), "measurement held back; reading again");
                reads.held(name, hold.name());
                let exhausted = task.schedule.failed();
                if exhausted && let Some(left_out) = task.silence.begins(Instant::now()) {
                    warn!(sensor = %name, left_out, "no reading after {TRIES} tries: no two measurements in a row agree; look at the sensor's supply and its cable. Trying again every interval");
                }
                exhausted
            }
            Err(cause) => {
                debug!(sensor = %name, %cause, "read failed");
                reads.failed(name, cause.name(), Instant::now());
                let exhausted = task.schedule.failed();
                if exhausted && let Some(left_out) = task.silence.begins(Instant::now()) {
                    warn!(sensor = %name, %cause, left_out, "no reading after {TRIES} tries; trying again every interval");
                }
                exhausted
            }
        };
        if finished {
            reads.gave_up(name, Instant::now());
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
    use std::sync::{Arc, Mutex};

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

    #[test]
    fn a_flaky_sensor_is_a_pair_of_lines_a_minute_and_a_silent_one_is_said_in_the_end() {
        let (mut silence, start) = (Silence::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!((silence.begins(at(0)), silence.begins(at(1))), (Some(0), None));
        assert!(silence.ends() && !silence.ends());
        for second in 2..32 {
            assert_eq!(silence.begins(at(second)), None);
            assert!(!silence.ends());
        }
        // It stays silent: said once, as soon as the minute is over.
        assert_eq!((silence.begins(at(59)), silence.begins(at(60))), (None, Some(31)));
        assert_eq!(silence.begins(at(200)), None);
        assert!(silence.ends());
    }

    /// A line whose sensor measures something else at each read.
    struct Jumping {
        reads: Arc<Mutex<Vec<Instant>>>,
    }

    impl Line for Jumping {
        fn exchange(
            &mut self,
            _: Duration,
            _: Duration,
        ) -> Result<Vec<dht::Edge>, crate::gpio::LineError> {
            let mut reads = self.reads.lock().unwrap();
            reads.push(Instant::now());
            let temperature_dc = if reads.len().is_multiple_of(2) { 100 } else { 400 };
            let measurement = Measurement { temperature_dc, humidity_dp: 500 };
            let bytes = dht::frame::encode(measurement, Model::Dht11).unwrap();
            Ok(dht::train::nominal(bytes))
        }
    }

    #[test]
    fn a_sensor_whose_values_jump_for_ever_is_read_so_many_times_an_interval() {
        let reads = Arc::<Mutex<Vec<Instant>>>::default();
        let line = Box::new(Jumping { reads: Arc::clone(&reads) });
        let sensor = Sensor { name: "hall".parse().unwrap(), model: Model::Dht11, line };
        let (counts, interval) = (Reads::default(), Duration::from_secs(7));
        let (stop, stopped) = std::sync::mpsc::channel();
        let counted = counts.clone();
        let sampling = std::thread::spawn(move || {
            run(vec![sensor], interval, &counted, &stopped, |_, found| panic!("{found:?}"));
        });
        let deadline = Instant::now() + Duration::from_mins(1);
        while reads.lock().unwrap().len() <= TRIES as usize {
            assert!(Instant::now() < deadline, "it is read in the next interval too");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(stop);
        sampling.join().unwrap();
        let (reads, tries) = (reads.lock().unwrap(), TRIES as usize);
        let pause = reads[tries] - reads[tries - 1];
        assert!(pause > Model::Dht11.min_interval() * 2, "{pause:?} to the next interval");
        let failures = counts.failures();
        assert!(failures["hall"]["unconfirmed"] >= u64::from(TRIES), "{failures:?}");
        let hour = counts.last_hour(Instant::now())["hall"];
        assert_eq!(
            (hour.good, hour.failed),
            (0, u64::from(TRIES)),
            "what was held back and given up"
        );
    }
}

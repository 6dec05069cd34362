//! A simulated sensor on a simulated line, with the faults that real ones have.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use super::{faults, world};
use crate::dht::{Edge, FRAME_BITS, Level, Model, frame, train};
use crate::gpio::{Line, LineError};
use crate::reading::Measurement;

/// A source of the time: Unix time in ms, or any other count of them.
pub type NowMs = Box<dyn Fn() -> i64 + Send>;

/// The behaviour of a simulated sensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Behaviour {
    /// Answers every correct start signal.
    Healthy,
    /// There is no sensor: the pull-up takes the line high and nothing follows.
    Absent,
    /// The line is shorted to ground.
    StuckLow,
    /// Each exchange goes wrong with this probability (0 to 1), in one of four ways: a lost edge, a flipped bit, no
    /// answer, a line that stays low.
    Faulty(f64),
}

/// A line with a simulated sensor on it. An exchange returns at once.
pub struct SimLine {
    model: Model,
    seed: u64,
    jitter_us: u32,
    behaviour: Behaviour,
    now_ms: NowMs,
    rng: Rng,
    /// Time of the last measurement, which a DHT22 sends at the next exchange.
    measured_ms: i64,
}

impl SimLine {
    /// A sensor of this model in the room `seed`, which also seeds the faults. Every width is off
    /// by up to `jitter_us` µs; up to 10 the decoder does not notice. Power-up is now.
    #[must_use]
    pub fn new(
        model: Model,
        seed: u64,
        jitter_us: u32,
        behaviour: Behaviour,
        now_ms: NowMs,
    ) -> Self {
        Self {
            model,
            seed,
            jitter_us,
            behaviour,
            measured_ms: now_ms(),
            now_ms,
            rng: Rng::with_seed(seed),
        }
    }

    /// Changes the behaviour from the next exchange on.
    pub const fn set_behaviour(&mut self, behaviour: Behaviour) {
        self.behaviour = behaviour;
    }

    /// Measures, and returns the measurement to send: a DHT22's is one exchange old.
    fn measure(&mut self) -> Measurement {
        let now_ms = (self.now_ms)();
        let sent_ms = if self.model.returns_previous() { self.measured_ms } else { now_ms };
        self.measured_ms = now_ms;
        world::measurement(self.seed, sent_ms)
    }

    fn answer(&mut self) -> Vec<Edge> {
        let measurement = self.measure();
        let Some(bytes) = frame::encode(measurement, self.model) else {
            return no_answer();
        };
        let fault = match self.behaviour {
            Behaviour::Absent => return no_answer(),
            Behaviour::StuckLow => return Vec::new(),
            Behaviour::Healthy => None,
            Behaviour::Faulty(rate) => (self.rng.f64() < rate).then(|| self.rng.u8(0..4)),
        };
        match fault {
            None => self.send(bytes),
            Some(0) => {
                let edges = self.send(bytes);
                // Without the release's edge a frame is still whole; any other loss is a fault.
                let index = self.rng.usize(1..edges.len());
                faults::lose_edge(edges, index)
            }
            Some(1) => {
                let bit = self.rng.usize(..FRAME_BITS);
                self.send(faults::flip_bit(bytes, bit))
            }
            Some(2) => no_answer(),
            Some(_) => Vec::new(),
        }
    }

    fn send(&mut self, bytes: [u8; 5]) -> Vec<Edge> {
        faults::jitter(&train::nominal(bytes), self.jitter_us, &mut self.rng)
    }
}

/// The release and nothing after it.
fn no_answer() -> Vec<Edge> {
    vec![Edge { at_ns: 0, level: Level::High, gap_ns: 0 }]
}

/// The shortest start signal the sensor notices: 18 ms for the DHT11, 1 ms for the DHT22
/// (datasheets).
const fn shortest_start(model: Model) -> Duration {
    match model {
        Model::Dht11 => Duration::from_millis(18),
        Model::Dht22 => Duration::from_millis(1),
    }
}

impl Line for SimLine {
    fn exchange(&mut self, start: Duration, listen: Duration) -> Result<Vec<Edge>, LineError> {
        let mut edges = match self.behaviour {
            Behaviour::StuckLow => Vec::new(),
            _ if start < shortest_start(self.model) => no_answer(),
            _ => self.answer(),
        };
        edges.retain(|edge| Duration::from_nanos(edge.at_ns) <= listen);
        Ok(edges)
    }
}

impl fmt::Debug for SimLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLine")
            .field("model", &self.model)
            .field("seed", &self.seed)
            .field("jitter_us", &self.jitter_us)
            .field("behaviour", &self.behaviour)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::dht::{Decoded, Fault, decode};

    const LISTEN: Duration = Duration::from_millis(10);

    /// A line and its clock.
    fn line(model: Model, behaviour: Behaviour) -> (SimLine, Arc<AtomicI64>) {
        let clock = Arc::new(AtomicI64::new(0));
        let now = Arc::clone(&clock);
        let now_ms = Box::new(move || now.load(Ordering::Relaxed));
        (SimLine::new(model, 7, 10, behaviour, now_ms), clock)
    }

    fn ask(line: &mut SimLine) -> Result<Decoded, Fault> {
        let model = line.model;
        decode(&line.exchange(model.start_signal(), LISTEN).unwrap(), model)
    }

    #[test]
    fn a_healthy_dht11_sends_the_present_measurement() {
        let (mut line, clock) = line(Model::Dht11, Behaviour::Healthy);
        for hour in 0..48 {
            let now_ms = hour * 3_600_000;
            clock.store(now_ms, Ordering::Relaxed);
            let decoded = ask(&mut line).unwrap();
            assert_eq!(decoded.measurement, world::measurement(7, now_ms));
            assert_eq!(decoded.weak, None);
        }
    }

    #[test]
    fn a_dht22_sends_the_measurement_of_the_exchange_before() {
        let (mut line, clock) = line(Model::Dht22, Behaviour::Healthy);
        let mut before_ms = 0;
        for hour in 1..48 {
            let now_ms = hour * 3_600_000;
            clock.store(now_ms, Ordering::Relaxed);
            assert_eq!(ask(&mut line).unwrap().measurement, world::measurement(7, before_ms));
            before_ms = now_ms;
        }
    }

    #[test]
    fn a_start_signal_that_is_too_short_is_not_noticed() {
        for model in Model::ALL {
            let (mut line, _) = line(model, Behaviour::Healthy);
            let short = shortest_start(model).checked_sub(Duration::from_micros(1)).unwrap();
            let edges = line.exchange(short, LISTEN).unwrap();
            assert_eq!(decode(&edges, model), Err(Fault::NoResponse));
            assert!(ask(&mut line).is_ok());
        }
    }

    #[test]
    fn a_scenario_can_change_on_the_way() {
        let (mut line, _) = line(Model::Dht22, Behaviour::Absent);
        assert_eq!(ask(&mut line), Err(Fault::NoResponse));
        line.set_behaviour(Behaviour::StuckLow);
        assert_eq!(ask(&mut line), Err(Fault::StuckLow));
        line.set_behaviour(Behaviour::Healthy);
        assert!(ask(&mut line).is_ok());
    }

    #[test]
    fn a_faulty_sensor_fails_at_its_rate_and_in_each_of_its_ways() {
        for (rate, expected) in [(0.0, 0..=0), (0.25, 200..=300), (1.0, 1_000..=1_000)] {
            let (mut line, _) = line(Model::Dht22, Behaviour::Faulty(rate));
            let faults: Vec<_> = (0..1_000).filter_map(|_| ask(&mut line).err()).collect();
            assert!(expected.contains(&faults.len()), "{} at {rate}", faults.len());
            let names: BTreeSet<_> = faults.iter().map(|fault| fault.name()).collect();
            let all = ["checksum", "no-response", "sequence", "stuck-low"];
            assert!(rate == 0.0 || all.iter().all(|name| names.contains(name)), "{names:?}");
        }
    }

    #[test]
    fn a_short_recording_has_a_part_of_the_frame() {
        let (mut line, _) = line(Model::Dht11, Behaviour::Healthy);
        let edges = line.exchange(Model::Dht11.start_signal(), Duration::from_millis(1)).unwrap();
        assert_eq!(decode(&edges, Model::Dht11).map_err(Fault::name), Err("short"));
    }
}

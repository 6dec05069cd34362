//! Acknowledgements and deliveries a second with full windows, beside other brokers on the same machine in the same run:
//! `cargo bench --bench throughput`; some loads: `cargo bench --bench throughput -- 900x4`.
//!
//! Prints one line of JSON a load and broker: the median of the rounds with the least and the most, the ratio of humidor's
//! median to this broker's, and the CPU seconds of the generator, the broker and all others. humidor acknowledges what is
//! committed, no other broker keeps anything; so there is a line, too, for 4 KiB appends with fdatasync in the folder of the
//! log. Exits with 1 when a reading that was acknowledged is not in the log.
//!
//! `LOAD_SECONDS` (2) and `LOAD_ROUNDS` (5) change how long it looks; `LOAD_FOLDER` is where the log is. The brokers are
//! those of [`peers::Broker::all`].

mod load;
mod measure;
mod peers;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use load::{Load, Throughput, closed_loop};
use measure::cpu::CpuTimes;
use measure::process::resident_mb;
use measure::spread::Spread;
use measure::{float, round, seconds};
use peers::Broker;
use serde_json::{Value, json};

const LOADS: &[Load] = &[
    load("20x20", 20, 20, 0, 0),
    load("900x4", 900, 4, 0, 0),
    load("20x20-with-subscriber-qos0", 20, 20, 1, 0),
    load("20x20-with-subscriber-qos1", 20, 20, 1, 1),
    load("fan-out-1-to-100-qos0", 1, 20, 100, 0),
    load("fan-in-100-to-1-qos1", 100, 4, 1, 1),
];

const fn load(name: &'static str, boards: usize, window: u64, subscribers: usize, qos: u8) -> Load {
    Load { name, boards, window, subscribers, qos, age: Duration::ZERO }
}

/// The rounds of one broker.
struct Rounds {
    broker: Broker,
    of: Vec<Throughput>,
    resident_mb: f64,
}

impl Rounds {
    fn acks_per_s(&self) -> Spread {
        self.spread(|round| float(round.acknowledged) / round.lasted.as_secs_f64())
    }

    fn deliveries_per_s(&self) -> Spread {
        self.spread(|round| float(round.delivered) / round.lasted.as_secs_f64())
    }

    /// Acknowledgements in a second of the broker's CPU time: on a busy machine the steadier figure.
    fn acks_per_cpu_s(&self) -> f64 {
        let acknowledged: u64 = self.of.iter().map(|round| round.acknowledged).sum();
        float(acknowledged) / self.cpu().broker.as_secs_f64()
    }

    fn spread(&self, figure: impl Fn(&Throughput) -> f64) -> Spread {
        Spread::of(self.of.iter().map(figure).collect())
    }

    fn cpu(&self) -> CpuTimes {
        self.of.iter().fold(CpuTimes::default(), |sum, round| sum.plus(round.cpu))
    }
}

fn main() {
    peers::serve_if_asked();
    for load in LOADS.iter().filter(|load| measure::wanted(load.name)) {
        let rounds = measure_load(*load);
        for other in &rounds {
            println!("{}", figure(*load, other, &rounds[0]));
        }
    }
}

/// All brokers in turn, so that what else the machine does meets each of them.
fn measure_load(load: Load) -> Vec<Rounds> {
    let data = measure::folder();
    let lasting = measure::lasting(2);
    let mut all: Vec<_> = Broker::all()
        .into_iter()
        .map(|broker| Rounds { broker, of: Vec::new(), resident_mb: 0.0 })
        .collect();
    measure::disk::print("throughput", load.name, "before", data.path());
    let mut kept = 0;
    for _ in 0..measure::rounds(5) {
        for rounds in &mut all {
            let running = rounds.broker.start(data.path());
            let throughput = closed_loop(running.target, load, lasting);
            rounds.resident_mb = resident_mb(running.target.pid);
            rounds.of.push(throughput);
            drop(running);
            if rounds.broker.is_humidor() {
                kept += throughput.acknowledged_in_all;
                measure::kept::check(data.path(), kept);
            }
        }
    }
    all
}

fn figure(load: Load, rounds: &Rounds, humidor: &Rounds) -> Value {
    let (acks, cpu) = (rounds.acks_per_s(), rounds.cpu());
    let ratio = |own: Spread, other: Spread| round(own.median / other.median, 2);
    let mut figure = json!({
        "bench": "throughput", "load": load.name, "broker": rounds.broker.name,
        "acks_per_s": acks.median.round(), "min": acks.min.round(), "max": acks.max.round(),
        "humidor_ratio": ratio(humidor.acks_per_s(), acks),
        "of_s": seconds(rounds.of.iter().map(|round| round.lasted).sum()),
        "load_cpu_s": seconds(cpu.load), "broker_cpu_s": seconds(cpu.broker), "others_cpu_s": seconds(cpu.others()),
        "acks_per_broker_cpu_s": rounds.acks_per_cpu_s().round(),
        "resident_mb": round(rounds.resident_mb, 1),
    });
    if load.subscribers > 0 {
        let delivered = rounds.deliveries_per_s();
        let complete = rounds.spread(|round| round.complete.unwrap_or(1.0));
        figure["deliveries_per_s"] = delivered.median.round().into();
        figure["deliveries_min"] = delivered.min.round().into();
        figure["deliveries_max"] = delivered.max.round().into();
        figure["humidor_deliveries_ratio"] = ratio(humidor.deliveries_per_s(), delivered).into();
        figure["least_complete"] = round(complete.min, 4).into();
    }
    figure
}

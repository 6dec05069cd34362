//! Publish → PUBACK at a steady rate beside other brokers, and what the disk itself takes, in the same run:
//! `cargo bench --bench latency`; some: `cargo bench --bench latency -- 1000`.
//!
//! The arrival times are fixed in advance (open loop): a latency counts from when its reading was due, so a pause of the
//! broker is charged for all that was due meanwhile. Prints one line of JSON a rate and broker, with the generator's own
//! delay beside, and one for 4 KiB appends with fdatasync in the folder of the log before and after. One part is measured
//! while the log is maintained: 900 boards have just delivered a backlog of half an hour ago, so there are roll-ups to
//! compute, besides what the writer itself does after a burst. What retention costs is in the bench of that name. Exits with 1 when a reading that was acknowledged
//! is not in the log.
//!
//! `LOAD_SECONDS` (4) and `LOAD_ROUNDS` (3) change how long it looks; `LOAD_FOLDER` is where the log is.

mod load;
mod measure;
mod peers;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use load::{Latencies, Load, Rate, closed_loop, open_loop};
use measure::cpu::CpuTimes;
use measure::seconds;
use measure::spread::{Spread, ms};
use peers::Broker;
use serde_json::{Value, json};

/// Name, readings a second.
const RATES: [(&str, u32); 2] = [("1000/s", 1000), ("20000/s", 20_000)];
const MAINTAINED: &str = "1000/s-during-maintenance";
const BOARDS: usize = 20;
/// What the log gets before it is measured while it is maintained.
const BACKLOG: Load = Load {
    name: "backlog",
    boards: 900,
    window: 4,
    subscribers: 0,
    qos: 0,
    age: Duration::from_mins(30),
};

fn main() {
    peers::serve_if_asked();
    for (name, per_second) in RATES {
        if measure::wanted(name) {
            measure_rate(name, per_second, &Broker::all(), Duration::ZERO);
        }
    }
    if measure::wanted(MAINTAINED) {
        measure_rate(MAINTAINED, RATES[0].1, &[Broker::humidor()], measure::lasting(4));
    }
}

/// All brokers in turn, each with a log that has taken the backlog for that long.
fn measure_rate(name: &str, per_second: u32, brokers: &[Broker], backlog: Duration) {
    let mut all: Vec<Vec<Latencies>> = brokers.iter().map(|_| Vec::new()).collect();
    let data = measure::folder();
    measure::disk::print("latency", name, "before", data.path());
    let rate = Rate { boards: BOARDS, per_second };
    let mut kept = 0;
    for _ in 0..measure::rounds(3) {
        for (broker, rounds) in brokers.iter().zip(&mut all) {
            let running = broker.start(data.path());
            if !backlog.is_zero() {
                kept += closed_loop(running.target, BACKLOG, backlog).acknowledged_in_all;
            }
            let latencies = open_loop(running.target, rate, measure::lasting(4));
            drop(running);
            if broker.is_humidor() {
                kept += latencies.acknowledged_in_all;
                measure::kept::check(data.path(), kept);
            }
            rounds.push(latencies);
        }
    }
    measure::disk::print("latency", name, "after", data.path());
    for (broker, rounds) in brokers.iter().zip(all) {
        println!("{}", figure(name, &broker.name, rounds));
    }
}

fn figure(name: &str, broker: &str, rounds: Vec<Latencies>) -> Value {
    let cpu = rounds.iter().fold(CpuTimes::default(), |sum, round| sum.plus(round.cpu));
    let (mut times, mut written, mut p99) = (Vec::new(), Vec::new(), Vec::new());
    for mut round in rounds {
        round.acknowledged.sort();
        p99.push(ms(&round.acknowledged, 0.99));
        times.append(&mut round.acknowledged);
        written.append(&mut round.written);
    }
    times.sort();
    written.sort();
    let p99 = Spread::of(p99);
    json!({
        "bench": "latency", "load": name, "broker": broker, "readings": times.len(),
        "p50_ms": ms(&times, 0.5), "p90_ms": ms(&times, 0.9), "p99_ms": ms(&times, 0.99), "max_ms": ms(&times, 1.0),
        "p99_least_ms": p99.min, "p99_most_ms": p99.max, "written_p99_ms": ms(&written, 0.99),
        "load_cpu_s": seconds(cpu.load), "broker_cpu_s": seconds(cpu.broker), "others_cpu_s": seconds(cpu.others()),
    })
}

//! Arrival times fixed in advance: a broker that pauses is charged for what was due meanwhile.

use std::time::{Duration, Instant};

use humidor::clock;

use super::Target;
use super::frame::Run;
use super::publisher::Publisher;
use super::readiness::Readiness;
use crate::measure::cpu::CpuTimes;
use crate::support::PATIENCE;

/// Before it counts: names are interned, files are in the page cache.
const WARM_UP: Duration = Duration::from_secs(1);

/// Readings at regular times.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// They publish in turn.
    pub boards: usize,
    /// Readings a second, all boards together.
    pub per_second: u32,
}

/// From when a reading was due.
pub struct Latencies {
    /// Until its acknowledgement was read.
    pub acknowledged: Vec<Duration>,
    /// Until it was written: the generator's own delay, which `acknowledged` has in it.
    pub written: Vec<Duration>,
    /// Readings acknowledged, the warm-up included.
    pub acknowledged_in_all: u64,
    /// Of all of it.
    pub cpu: CpuTimes,
}

/// Publishes for `lasting` after a warm-up, and waits for all acknowledgements.
///
/// # Panics
/// When the broker stops acknowledging.
pub fn open_loop(target: Target, rate: Rate, lasting: Duration) -> Latencies {
    let run = Run::next();
    let mut readiness = Readiness::new();
    let mut boards: Vec<_> =
        (0..rate.boards).map(|board| Publisher::connect(target, run, board)).collect();
    for (index, board) in boards.iter().enumerate() {
        readiness.add(&board.socket, index);
    }
    let before = CpuTimes::now(target.pid);
    let total = arrivals(rate, WARM_UP + lasting);
    let warm = arrivals(rate, WARM_UP);
    let start = Instant::now();
    let due = |number: u64| {
        let ns = number * 1_000_000_000 / u64::from(rate.per_second);
        start + Duration::from_nanos(ns)
    };
    let mut latencies = Latencies {
        acknowledged: Vec::new(),
        written: Vec::new(),
        acknowledged_in_all: 0,
        cpu: CpuTimes::default(),
    };
    let turns = rate.boards as u64;
    let (mut next, mut progress) = (0, start);
    while latencies.acknowledged_in_all < total {
        let mut now = Instant::now();
        while next < total && due(next) <= now {
            let board = usize::try_from(next % turns).expect("an index");
            boards[board].publish(1, clock::unix_ms());
            now = Instant::now();
            if next >= warm {
                latencies.written.push(now - due(next));
            }
            (next, progress) = (next + 1, now);
        }
        assert!(now < progress + PATIENCE, "the broker acknowledges nothing more");
        let until = if next < total { due(next) } else { now + WARM_UP };
        for index in readiness.wait(until.saturating_duration_since(now)) {
            let board = &mut boards[index];
            board.socket.write();
            let before = board.acknowledged;
            let taken = board.take_acknowledgements();
            let read = Instant::now();
            for nth in before..before + taken {
                let number = nth * turns + index as u64;
                if number >= warm {
                    latencies.acknowledged.push(read - due(number));
                }
                progress = read;
            }
            latencies.acknowledged_in_all += taken;
        }
    }
    latencies.cpu = CpuTimes::now(target.pid).since(before);
    latencies
}

/// Readings that are due within a time.
fn arrivals(rate: Rate, lasting: Duration) -> u64 {
    let ms = u64::try_from(lasting.as_millis()).expect("fits");
    u64::from(rate.per_second) * ms / 1000
}

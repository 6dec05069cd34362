//! Bytes that humidor writes to the disk for a stored reading: `cargo bench --bench wear`; some: `-- 900x4`.
//!
//! Prints one line of JSON a load, from `write_bytes` of `/proc/PID/io` (see [`measure::process::written_bytes`]): while
//! it publishes, until the broker has written nothing more for a while, so with what maintenance does later, and until
//! it has ended, so with the last checkpoint. Roll-ups are not in it: they are computed when their quarter of an hour is
//! over. Exits with 1 when a reading that was acknowledged is not in the log.
//!
//! `WEAR_SECONDS` (60) is how long the slow loads publish, `LOAD_SECONDS` (5) the full ones; `LOAD_FOLDER` is where the
//! log is.

mod load;
mod measure;
mod peers;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use load::{Load, Rate, Target, closed_loop, open_loop};
use measure::process::{has_ended, written_bytes};
use measure::{float, round};
use peers::Running;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::wait_until;

/// One board a reading a second each.
const SLOW: [(&str, Rate); 2] =
    [("1/s", Rate { boards: 1, per_second: 1 }), ("20/s", Rate { boards: 20, per_second: 20 })];
const FULL: [Load; 2] = [
    Load { name: "20x20", boards: 20, window: 20, subscribers: 0, qos: 0, age: Duration::ZERO },
    Load { name: "900x4", boards: 900, window: 4, subscribers: 0, qos: 0, age: Duration::ZERO },
];
/// A broker that has written nothing for so long has no maintenance to do: it looks for some every 5 s.
const SETTLED_AFTER: Duration = Duration::from_secs(11);
/// Longest that is waited for it.
const SETTLED_AT_LAST: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(200);

fn main() {
    // The slow ones at once: the machine is idle meanwhile.
    std::thread::scope(|scope| {
        for (name, rate) in SLOW.into_iter().filter(|(name, _)| measure::wanted(name)) {
            scope.spawn(move || {
                let lasting = Duration::from_secs(measure::setting("WEAR_SECONDS", 60).max(1));
                measure_wear(name, |target| open_loop(target, rate, lasting).acknowledged_in_all);
            });
        }
    });
    for load in FULL.into_iter().filter(|load| measure::wanted(load.name)) {
        let lasting = measure::lasting(5);
        measure_wear(load.name, |target| closed_loop(target, load, lasting).acknowledged_in_all);
    }
}

/// `publish` returns the number of readings acknowledged.
fn measure_wear(name: &str, publish: impl Fn(Target) -> u64) {
    let data = measure::folder();
    let running = Running::humidor(data.path(), &[]);
    let pid = running.target.pid;
    let written = || written_bytes(pid).expect("the broker is there");
    let begun = written();
    let readings = publish(running.target);
    let published = written();
    settle(written);
    let settled = written();
    let terminated = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(terminated, Signal::TERM).expect("it can be told to end");
    // Its figures last until its exit code has been asked for.
    wait_until("the broker ends", || has_ended(pid));
    let ended = written();
    drop(running);
    measure::kept::check(data.path(), readings);
    assert!(published > begun, "nothing was written: is {} on a disk?", data.path().display());
    let per_reading = |until| round(float(until - begun) / float(readings), 0);
    println!(
        "{}",
        json!({
            "bench": "wear", "load": name, "readings": readings, "bytes_per_reading": per_reading(published),
            "with_maintenance": per_reading(settled), "with_last_checkpoint": per_reading(ended),
        })
    );
}

/// Waits until the broker has written nothing for a while.
fn settle(written: impl Fn() -> u64) {
    let start = Instant::now();
    let (mut last, mut since) = (written(), start);
    while since.elapsed() < SETTLED_AFTER && start.elapsed() < SETTLED_AT_LAST {
        std::thread::sleep(LOOK);
        let now = written();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

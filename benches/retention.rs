//! What a publisher notices of retention: publish → PUBACK at a steady 1,000 messages a second, while old rows are
//! deleted and while nothing is: `cargo bench --bench retention`.
//!
//! Prints one line of JSON a figure. Two brokers, one after the other in each round so that the machine is the same
//! for both, have the same log (`humidor sim`, 10 boards, `RETENTION_DAYS` (60) days); one keeps everything, the other
//! a day. `RETENTION_SECONDS` (10) and `RETENTION_ROUNDS` (3) change how long it looks. Exits with 1 when fewer rows
//! went than came, as then it has not kept up or not deleted at all; or when an acknowledged reading is not in the log of
//! the one that keeps everything.

mod load;
mod measure;
mod peers;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use humidor::store::LOG_FILE;
use load::{Rate, open_loop};
use measure::spread::ms;
use measure::{round, setting};
use peers::Running;
use serde_json::json;
use support::{humidor, stored, wait_until};

const RATE: Rate = Rate { boards: 20, per_second: 1000 };

fn main() {
    let lasting = Duration::from_secs(setting("RETENTION_SECONDS", 10));
    let folder = measure::folder();
    let (kept, deleted) = (folder.path().join("kept"), folder.path().join("deleted"));
    let days = setting("RETENTION_DAYS", 60).to_string();
    let filled = humidor()
        .args(["sim", "--nodes", "10", "--days", &days, "--data"])
        .arg(&kept)
        .status()
        .expect("the binary runs");
    assert!(filled.success());
    std::fs::create_dir(&deleted).expect("a folder can be made");
    std::fs::copy(kept.join(LOG_FILE), deleted.join(LOG_FILE)).expect("a log can be copied");

    let (mut without, mut with, mut gone) = (Vec::new(), Vec::new(), 0);
    for _ in 0..setting("RETENTION_ROUNDS", 3).max(1) {
        without.extend(measure_with(&kept, "forever", lasting).0);
        let (times, fewer) = measure_with(&deleted, "1d", lasting);
        with.extend(times);
        gone += fewer;
    }
    let sent = with.len();
    for (name, times) in [("without", &mut without), ("while_deleting", &mut with)] {
        times.sort();
        println!(
            "{}",
            json!({
                "bench": "retention", "puback": name, "per_s": RATE.per_second, "messages": times.len(),
                "p50_ms": ms(times, 0.5), "p90_ms": ms(times, 0.9), "p99_ms": ms(times, 0.99), "max_ms": ms(times, 1.0),
            })
        );
    }
    println!(
        "{}",
        json!({
            "bench": "retention", "p99_ratio": round(ms(&with, 0.99) / ms(&without, 0.99), 2),
            "p50_ratio": round(ms(&with, 0.5) / ms(&without, 0.5), 2), "rows_deleted": gone, "rows_added": sent,
        })
    );
    if gone < i64::try_from(sent).expect("fits") {
        eprintln!("{gone} rows went and {sent} came");
        std::process::exit(1);
    }
}

/// Latencies with a broker on the log in `data`, and how many rows went meanwhile.
fn measure_with(data: &Path, keep: &str, lasting: Duration) -> (Vec<Duration>, i64) {
    let running = Running::humidor(data, &["--keep-raw", keep]);
    if keep != "forever" {
        let begun = stored(data);
        wait_until("rows go", || stored(data) < begun);
    }
    let before = stored(data);
    let latencies = open_loop(running.target, RATE, lasting);
    let came = i64::try_from(latencies.acknowledged_in_all).expect("fits");
    let gone = before + came - stored(data);
    drop(running);
    if keep == "forever" {
        measure::kept::check(data, u64::try_from(before + came).expect("a count"));
    }
    (latencies.acknowledged, gone)
}

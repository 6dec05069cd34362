//! What a publisher notices of retention: publish → PUBACK at a steady 1,000 messages a second, while old rows are
//! deleted and while nothing is: `cargo bench --bench retention`.
//!
//! Prints one line of JSON a figure. Two brokers, one after the other in each round so that the machine is the same
//! for both, have the same log (`humidor sim`, 10 boards, `RETENTION_DAYS` (60) days); one keeps everything, the other
//! a day. `RETENTION_SECONDS` (10) and `RETENTION_ROUNDS` (3) change how long it looks. Exits with 1 when fewer rows
//! went than came: then it has not kept up, or not deleted at all.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use humidor::store::LOG_FILE;
use load::{STEADY_PER_SECOND, latencies, ms, round};
use serde_json::json;
use support::{broker, humidor, stored, wait_until};

/// Before it counts: names are interned, files are in the page cache.
const WARM_UP: Duration = Duration::from_secs(1);

fn main() {
    let lasting = Duration::from_secs(setting("RETENTION_SECONDS", 10));
    let folder = tempfile::tempdir().expect("a folder for the logs");
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
    for round in 0..setting("RETENTION_ROUNDS", 3).max(1) {
        without.extend(measure(&kept, "forever", round, lasting).0);
        let (times, fewer) = measure(&deleted, "1d", round, lasting);
        with.extend(times);
        gone += fewer;
    }
    let sent = with.len();
    for (name, times) in [("without", &mut without), ("while_deleting", &mut with)] {
        times.sort();
        println!(
            "{}",
            json!({
                "bench": "retention", "puback": name, "per_s": STEADY_PER_SECOND, "messages": times.len(),
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
fn measure(data: &Path, keep: &str, round: u64, lasting: Duration) -> (Vec<Duration>, i64) {
    let (process, address) = broker(data, "127.0.0.1:0", &["--keep-raw", keep]);
    let deletes = keep != "forever";
    let begun = stored(data);
    if deletes {
        wait_until("rows go", || stored(data) < begun);
    }
    latencies(address, &format!("w{keep}{round}"), WARM_UP);
    let before = stored(data);
    let times = latencies(address, &format!("l{keep}{round}"), lasting);
    let came = i64::try_from(times.len()).expect("fits");
    let gone = before + came - stored(data);
    assert_eq!(process.terminate(), Some(0));
    (times, gone)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

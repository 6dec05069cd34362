//! What the disk itself takes to keep something: the floor of every acknowledgement.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::spread::ms;

const BLOCK_BYTES: usize = 4096;
const SYNCS: u64 = 1000;

/// Prints how long appends of 4 KiB with fdatasync(2) take in `folder`, and when it was asked.
pub fn print(bench: &str, load: &str, when: &str, folder: &Path) {
    let times = syncs(folder, SYNCS);
    println!(
        "{}",
        json!({
            "bench": bench, "load": load, "disk": when, "syncs": times.len(),
            "p50_ms": ms(&times, 0.5), "p90_ms": ms(&times, 0.9), "p99_ms": ms(&times, 0.99), "max_ms": ms(&times, 1.0),
        })
    );
}

/// Times, sorted.
fn syncs(folder: &Path, count: u64) -> Vec<Duration> {
    let path = folder.join("syncs");
    let mut file = File::create(&path).expect("a file can be made");
    let mut times: Vec<_> = (0..count)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&[1; BLOCK_BYTES]).expect("there is room");
            file.sync_data().expect("it can be synced");
            start.elapsed()
        })
        .collect();
    std::fs::remove_file(path).expect("it can be removed");
    times.sort();
    times
}

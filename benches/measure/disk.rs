//! What the disk itself takes to keep something: the floor of every acknowledgement.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const BLOCK_BYTES: usize = 4096;

/// Times of so many appends of 4 KiB, each with fdatasync(2), to a file in `folder`; sorted.
pub fn syncs(folder: &Path, count: u64) -> Vec<Duration> {
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

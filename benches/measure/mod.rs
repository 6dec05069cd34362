//! What the benches measure beside the load, and how they print it.

#![allow(dead_code)] // every bench uses its part

pub mod cpu;
pub mod disk;
pub mod kept;
pub mod process;
pub mod spread;

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

/// A whole number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Seconds of one measurement: `LOAD_SECONDS`.
pub fn lasting(default: u64) -> Duration {
    Duration::from_secs(setting("LOAD_SECONDS", default).max(1))
}

/// Turns of each broker: `LOAD_ROUNDS`.
pub fn rounds(default: u64) -> u64 {
    setting("LOAD_ROUNDS", default).max(1)
}

/// Whether the command line asks for this part: it names none, or one that `name` contains.
pub fn wanted(name: &str) -> bool {
    let mut parts = std::env::args().skip(1).filter(|part| !part.starts_with('-')).peekable();
    parts.peek().is_none() || parts.any(|part| name.contains(&part))
}

/// A folder for a log, on the disk that `LOAD_FOLDER` names, else on that of the build: the system's folder for temporary
/// files may be in memory.
pub fn folder() -> TempDir {
    let parent = std::env::var_os("LOAD_FOLDER")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    tempfile::tempdir_in(&parent)
        .unwrap_or_else(|error| panic!("no folder for a log in {}: {error}", parent.display()))
}

/// Seconds to two decimal digits.
pub fn seconds(time: Duration) -> f64 {
    round(time.as_secs_f64(), 2)
}

/// To so many decimal digits.
pub fn round(value: f64, digits: i32) -> f64 {
    (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits)
}

/// A count as a number that can be divided.
#[allow(clippy::cast_precision_loss)] // below 2^53
pub const fn float(count: u64) -> f64 {
    count as f64
}

//! The promise, after every run: an acknowledged reading is in the log.

use std::path::Path;

use serde_json::json;

use crate::support::stored;

/// Prints how many readings are in the log of `data`, whose broker has ended. When it has fewer than `acknowledged`, ends
/// the bench with 1.
pub fn check(data: &Path, acknowledged: u64) {
    let rows = stored(data);
    if u64::try_from(rows).is_ok_and(|rows| rows >= acknowledged) {
        return;
    }
    println!("{}", json!({ "bench": "kept", "acknowledged": acknowledged, "rows": rows }));
    eprintln!("{rows} readings are in the log, and {acknowledged} were acknowledged");
    std::process::exit(1);
}

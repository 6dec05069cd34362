//! A count of the steps of SQLite's machine, for tests of what a query costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rusqlite::Connection;

/// Steps that count as one.
const THOUSAND: std::ffi::c_int = 1_000;

/// Thousands of steps of `connection` from now on.
pub(in crate::store) fn count(connection: &mut Connection) -> impl Fn() -> u64 + use<> {
    let steps = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&steps);
    let on_progress = move || {
        counted.fetch_add(1, Relaxed);
        false
    };
    connection.progress_handler(THOUSAND, Some(on_progress)).expect("an open connection");
    move || steps.load(Relaxed)
}

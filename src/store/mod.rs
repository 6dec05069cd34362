//! The log on disk. Nothing else knows its SQL.
//!
//! One writer ([`Store`]) appends batches; any number of readers ([`Log`]) query while it does.
//! The view `readings` is an interface for other programs too: see `docs/PROTOCOL.md`.

mod append;
mod file;
mod query;
mod schema;

pub use append::{Appended, EXAMPLE_MAX_BYTES, Record, Store};
pub use file::{Database, Lock, OpenError, is_damage, open_checked};
pub use query::{Foreign, Gap, Log, Reading, Selection, Stats, Tail};

/// File name of the log inside the data folder.
pub const LOG_FILE: &str = "humidor.db";

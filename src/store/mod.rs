//! The log on disk. Nothing else knows its SQL.
//!
//! One writer ([`Store`]) appends batches; any number of readers ([`Log`]) query while it does.
//! The view `readings` is an interface for other programs too: see `docs/PROTOCOL.md`.

mod file;
mod mqtt;
mod read;
mod retention;
mod rollup;
mod write;

pub use file::damage::is_damage;
pub use file::error::OpenError;
pub use file::lock::Lock;
pub use file::migrate::Database;
pub use file::open::open_checked;
pub use mqtt::change::Change;
pub use mqtt::queue::Target;
pub use mqtt::queue_reader::{Queued, Waiting};
pub use mqtt::sessions::{Options, Stored};
pub use read::export::{Foreign, PAGE_ROWS, Pages};
pub use read::gaps::Gap;
pub use read::log::{Log, Reading, Selection};
pub use read::overview::{Overview, SensorOverview};
pub use read::range::{POINTS_MAX, Range, RangeError};
pub use read::series::{Point, Series, SeriesQuery};
pub use read::stats::{QuickStats, Stats};
pub use read::tail::Tail;
pub use retention::policy::Retention;
pub use rollup::aggregate::Band;
pub use write::alarm_log::AlarmRow;
pub use write::record::{Appended, EXAMPLE_MAX_BYTES, Record};
pub use write::writer::Store;

/// File name of the log inside the data folder.
pub const LOG_FILE: &str = "humidor.db";

//! The log on disk. Nothing else knows its SQL.
//!
//! One writer ([`Store`]) appends batches; any number of readers ([`Log`]) query while it does.
//! The view `readings` is an interface for other programs too: see `docs/PROTOCOL.md`.

mod alarms;
mod append;
mod backlog;
mod draw;
mod export;
mod family;
mod file;
mod fill;
mod kept;
mod names;
mod overview;
mod pace;
mod page;
mod prune;
mod pruned;
mod query;
mod queued;
mod record;
mod restamp;
mod retained;
mod retention;
mod rollup;
mod rollup_schema;
mod schema;
mod series;
mod sessions;
mod tally;
mod upkeep;
mod vitals;

pub use alarms::AlarmRow;
pub use append::Store;
pub use file::{Database, Lock, OpenError, is_damage, open_checked};
pub use overview::{Overview, SensorOverview, SourceOverview};
pub use page::{PAGE_ROWS, Pages};
pub use query::{Foreign, Gap, Log, Reading, Selection, Stats, Tail};
pub use queued::{Queued, Target, Waiting};
pub use record::{Appended, EXAMPLE_MAX_BYTES, Record};
pub use retention::Retention;
pub use series::{
    POINTS_MAX, Point, Range, RangeError, SamplePoint, SampleQuery, Series, SeriesQuery,
};
pub use sessions::{Change, Options, Stored};
pub use tally::Band;
pub use vitals::Vitals;

/// File name of the log inside the data folder.
pub const LOG_FILE: &str = "humidor.db";

//! The log on disk: the only room that knows its SQL.
//!
//! One writer ([`Store`]) appends batches; any number of readers ([`Log`]) query while it does. The rooms, in the order
//! of the flow; each imports only rooms above it:
//!
//! - `file` opens the database: it locks, checks and migrates the file, or moves a damaged one aside.
//! - `rollup` computes each series by minute, quarter of an hour and hour.
//! - `retention` decides which data stays, and deletes the rest.
//! - `mqtt` keeps sessions, the messages that wait for them, retained messages, and wills.
//! - `forward` queues operations for the upstream database.
//! - `write` commits records and changes in one transaction, and maintains the log between two commits.
//! - `read` answers queries: tail, export, gaps, statistics, overview and the series of a chart.
//!
//! The view `readings` is an interface for other programs too: see `docs/PROTOCOL.md`. Tables, columns and views keep the
//! names of their release; the code says retention horizon for `kept`, deleted ranges for `pruned`, awaiting clock for
//! `parked`, backfill for `backlog`, and series schema for `family`.

mod file;

mod rollup;

mod retention;

mod mqtt;

mod forward;

mod write;

mod read;

pub use file::check::{Check, Stop, suspect};
pub use file::damage::is_damage;
pub use file::error::OpenError;
pub use file::lock::Lock;
pub use file::migrate::Database;
pub use file::open::open_checked;
pub use file::write_ahead_log::{WriteAheadLog, is_disk_error, is_lock};
pub use forward::identity::{LogIdentity, forward_again};
pub use forward::operation::{
    ForwardedAlarm, ForwardedReading, ForwardedRun, ForwardedSample, Operation,
};
pub use forward::progress::ForwardProgress;
pub use forward::reader::{ForwardPage, ForwardReader, StoredPage, StoredPlace};
pub use mqtt::change::Change;
pub use mqtt::forgotten::ForgetRequest;
pub use mqtt::queue::Target;
pub use mqtt::queue_reader::{PAGE_MAX_BYTES, Queued, Waiting};
pub use mqtt::sessions::{Options, Stored, user_of};
pub use mqtt::wills::{STORED_WILL_MAX_BYTES, StoredWill};
pub use read::ahead::Ahead;
pub use read::export::{Foreign, PAGE_ROWS, Pages};
pub use read::gaps::Gap;
pub use read::log::{Log, Reading, Selection};
pub use read::overview::{Overview, SensorOverview};
pub use read::range::{POINTS_MAX, Range, RangeError};
pub use read::sample_tail::SampleTail;
pub use read::series::{Point, Series, SeriesQuery};
pub use read::sources::{Sample, SampleSeries, Source};
pub use read::stats::{QuickStats, Stats};
pub use read::tail::Tail;
pub use retention::policy::Retention;
pub use rollup::aggregate::Band;
pub use write::alarm_log::AlarmRow;
pub use write::record::{Appended, EXAMPLE_MAX_BYTES, Record, SeriesName};
pub use write::series::StoredSeries;
pub use write::writer::Store;

/// File name of the log inside the data folder.
pub const LOG_FILE: &str = "humidor.db";

//! Records to append, and the outcome of a committed batch.

use std::sync::Arc;

use crate::reading::Id;
use crate::wire::{Numbers, Telemetry};

/// Bytes kept of a refused payload.
pub const EXAMPLE_MAX_BYTES: usize = 256;

/// The name of a series: a sensor of one of our nodes, or a field of a foreign topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SeriesName {
    /// A sensor.
    Sensor {
        /// Its node.
        node: Id,
        /// Its name.
        sensor: Id,
    },
    /// A field.
    Source {
        /// The topic.
        topic: String,
        /// JSON member, empty for a plain number.
        field: String,
    },
}

/// A record to append.
#[derive(Debug, Clone)]
pub enum Record {
    /// A reading of one of our nodes.
    Reading {
        /// The node, from the topic.
        node: Id,
        /// The sensor, from the topic.
        sensor: Id,
        /// The payload.
        telemetry: Telemetry,
    },
    /// Numbers from a logged filter.
    Foreign {
        /// The topic they came on.
        topic: String,
        /// Arrival in log time, ms: Unix ms UTC where [`Store::tell_time`](crate::store::Store::tell_time) says nothing else.
        at_ms: i64,
        /// Field and value, and what gave none.
        numbers: Numbers,
    },
    /// A message that should have been a reading or held a number, and was neither.
    Refused {
        /// The topic it came on.
        topic: String,
        /// Arrival in log time, ms.
        at_ms: i64,
        /// Short name of the cause.
        cause: &'static str,
        /// The payload; its first [`EXAMPLE_MAX_BYTES`] are kept.
        payload: Vec<u8>,
    },
    /// The record before it began this series.
    Begun {
        /// The series.
        series: SeriesName,
        /// The user whose client began it, empty for a client without a login.
        owner: Arc<str>,
    },
    /// An alarm was raised or cleared.
    Alarm {
        /// Its name.
        name: Id,
        /// When, in log time: [`crate::timeline`].
        at_ms: i64,
        /// Raised, or cleared.
        raised: bool,
        /// Why, for people.
        detail: String,
    },
}

/// The outcome of a committed batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Appended {
    /// Readings that were new.
    pub readings: u64,
    /// Readings that were there already.
    pub repeats: u64,
    /// Numbers from foreign messages.
    pub samples: u64,
    /// Members of foreign messages that are no numbers: texts, booleans and nulls.
    pub texts: u64,
    /// Numbers of foreign messages that were not kept, such as `NaN` ([`Numbers::left_out`]).
    pub left_out: u64,
    /// Messages refused.
    pub refused: u64,
    /// Messages that waited for a session and were dropped: they had to make room, or all packet ids had overtaken
    /// them.
    pub dropped: u64,
    /// The same by session: its number, and the messages that it lost. Sessions that lost none are not in it.
    pub dropped_by_session: Vec<(i64, u64)>,
}

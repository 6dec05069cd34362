//! The border to the pins: what a sensor line can do, and what it reports back.
//!
//! Everything above this module works on [`Edge`]s, so that a simulated board and a real one run
//! the same decoder, sampler and session.

mod pin;

use std::time::Duration;

pub use pin::{Pin, PinError};

/// What the line changed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Below the input's threshold: somebody pulls the line to ground.
    Low,
    /// Released, held up by the pull-up resistor.
    High,
}

impl Level {
    /// The other level.
    #[must_use]
    pub const fn inverse(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

/// One change of a line's level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// When the change was seen, in nanoseconds of a monotonic clock with any origin.
    pub at_ns: u64,
    /// The level after the change.
    pub level: Level,
    /// The longest time, in nanoseconds, during which nobody looked at the line since the previous
    /// edge. Zero for edges stamped by hardware. A polling reader that was scheduled away leaves a
    /// gap here, in which a pulse may have come and gone.
    pub gap_ns: u32,
}

/// Why a line could not be used at all. A sensor that answers badly is not an error of the line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The kernel or the device refused.
    #[error("{line}: {source}")]
    Io {
        /// The line as the user wrote it.
        line: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A line with a DHT sensor on it.
pub trait Line: Send {
    /// Sends the start signal (the line held low for `start`, then released) and records every
    /// edge from the release on, for at most `listen`.
    ///
    /// A sensor that does not answer gives an empty or short list, not an error.
    ///
    /// # Errors
    /// When the line itself cannot be driven or read.
    fn exchange(&mut self, start: Duration, listen: Duration) -> Result<Vec<Edge>, LineError>;
}

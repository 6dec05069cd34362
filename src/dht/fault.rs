//! Why an exchange gave no measurement, or one to doubt: named, so that it can be counted.

use std::fmt;

use super::Level;

/// Why an exchange gave no measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The line was never seen high.
    #[error(
        "no response from the sensor, whose line stayed low after the release: look for a missing pull-up resistor (4.7 to 10 kΩ) or a short to ground"
    )]
    StuckLow,
    /// The line rose at the release and nothing followed.
    #[error("no response from the sensor: check its power, its data wire and the configured model")]
    NoResponse,
    /// Fewer pulses than a frame has.
    #[error(
        "{pulses} pulses are too few for a frame: an edge was missed or the sensor stopped; read again"
    )]
    Short {
        /// Pulses in the whole list.
        pulses: usize,
    },
    /// More pulses than a frame has.
    #[error("{pulses} pulses are too many for a frame: look for noise on the wire and read again")]
    Long {
        /// Pulses in the whole list.
        pulses: usize,
    },
    /// Two edges to the same level, or one earlier than its predecessor.
    #[error(
        "edge {index} does not follow from the one before it (same level, or back in time): an edge was lost; read again"
    )]
    Sequence {
        /// The edge's place in the list, from 0.
        index: usize,
    },
    /// A pulse has a width that its place in the frame does not allow.
    #[error("pulse {index} is {} for {us} µs, which its place in the frame does not allow; read again", word(*level))]
    Pulse {
        /// The pulse's place in the list, from 0: the one between the first two edges.
        index: usize,
        /// The level during the pulse.
        level: Level,
        /// Its width in whole µs.
        us: u64,
    },
    /// The line was not polled for so long that a pulse may be missing.
    #[error("the line was not polled for {us} µs: the system is too busy; read again")]
    Gap {
        /// The gap in whole µs.
        us: u64,
    },
    /// The checksum is not the sum of the four bytes before it.
    #[error("the checksum of {bytes:02x?} does not match; read again, check the wire if it stays")]
    Checksum {
        /// The frame as received.
        bytes: [u8; 5],
    },
    /// Five zero bytes, which pass the checksum and mean nothing.
    #[error("the frame is all zero: check the sensor's power")]
    AllZero,
    /// The checksum is right and the value is not one the model can send.
    #[error("{bytes:02x?} is outside of what the model can measure: check the configured model")]
    Implausible {
        /// The frame as received.
        bytes: [u8; 5],
    },
}

impl Fault {
    /// All names that [`Self::name`] can return, for counters that start at zero.
    pub const NAMES: [&'static str; 10] = [
        "stuck-low",
        "no-response",
        "short",
        "long",
        "sequence",
        "pulse",
        "gap",
        "checksum",
        "all-zero",
        "implausible",
    ];

    /// The stable name to count by: part of the interface, never reworded.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StuckLow => "stuck-low",
            Self::NoResponse => "no-response",
            Self::Short { .. } => "short",
            Self::Long { .. } => "long",
            Self::Sequence { .. } => "sequence",
            Self::Pulse { .. } => "pulse",
            Self::Gap { .. } => "gap",
            Self::Checksum { .. } => "checksum",
            Self::AllZero => "all-zero",
            Self::Implausible { .. } => "implausible",
        }
    }
}

/// Why a frame that passed every check should still be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// The high of a bit is close to the threshold between 0 and 1.
    AmbiguousHigh {
        /// The bit's place in the frame, 0 to 39.
        bit: usize,
        /// Width of the high in whole µs.
        us: u64,
    },
    /// The high of a bit and its period from falling to falling edge say different things.
    PeriodDisagrees {
        /// The bit's place in the frame, 0 to 39.
        bit: usize,
        /// The period in whole µs.
        us: u64,
    },
    /// The line was not polled for a while inside the frame.
    PollGap {
        /// The gap in whole µs.
        us: u64,
    },
}

impl Weakness {
    /// The stable name to count by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AmbiguousHigh { .. } => "ambiguous-high",
            Self::PeriodDisagrees { .. } => "period-disagrees",
            Self::PollGap { .. } => "poll-gap",
        }
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AmbiguousHigh { bit, us } => {
                write!(f, "bit {bit} is high for {us} µs, between a 0 and a 1")
            }
            Self::PeriodDisagrees { bit, us } => {
                write!(f, "bit {bit} lasts {us} µs, which disagrees with its high")
            }
            Self::PollGap { us } => write!(f, "the line was not polled for {us} µs"),
        }
    }
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Low => "low",
        Level::High => "high",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_counted_under_its_own_name() {
        let bytes = [0; 5];
        let faults = [
            Fault::StuckLow,
            Fault::NoResponse,
            Fault::Short { pulses: 1 },
            Fault::Long { pulses: 99 },
            Fault::Sequence { index: 1 },
            Fault::Pulse { index: 1, level: Level::Low, us: 7 },
            Fault::Gap { us: 50 },
            Fault::Checksum { bytes },
            Fault::AllZero,
            Fault::Implausible { bytes },
        ];
        assert_eq!(faults.map(Fault::name), Fault::NAMES);
    }

    #[test]
    fn a_pulse_is_described_by_level_and_width() {
        let fault = Fault::Pulse { index: 3, level: Level::High, us: 120 };
        assert!(fault.to_string().starts_with("pulse 3 is high for 120 µs"));
    }
}

//! The decoder's input: a line's changes, each with its level, its time and its uncertainty.

/// The level of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Below the input's threshold: a device pulls the line to ground.
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
    /// The longest time, in nanoseconds, between two polls of the line since the previous edge. Zero for edges
    /// stamped by hardware. A polling reader that was scheduled away leaves a gap here, in which a pulse may have come
    /// and gone.
    pub gap_ns: u32,
}

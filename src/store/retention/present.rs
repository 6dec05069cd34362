//! The present, by the broker's clock and in log time.

/// The present.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Present {
    /// Unix ms by the broker's clock.
    pub now_ms: i64,
    /// Unix ms minus log time.
    pub correction_ms: i64,
    /// Whether the clock was set a short while ago: what lies ahead of it may be right.
    pub in_doubt: bool,
}

impl Present {
    /// Now in log time, ms.
    pub const fn log_ms(self) -> i64 {
        self.now_ms.saturating_sub(self.correction_ms)
    }
}

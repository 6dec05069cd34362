//! The present, by the broker's clock and in log time.

/// The present.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Present {
    /// Unix ms by the broker's clock.
    pub now_ms: i64,
    /// Unix ms minus log time.
    pub correction_ms: i64,
}

impl Present {
    /// Now in log time, ms.
    pub const fn log_ms(self) -> i64 {
        self.now_ms.saturating_sub(self.correction_ms)
    }
}

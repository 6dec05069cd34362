//! Log lines that a stranger can cause, at most one in a while.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A log line that comes at most once in a while, with how often it was left out.
#[derive(Debug)]
pub struct ThrottledLog {
    every: Duration,
    last: Mutex<Option<(Instant, u64)>>,
}

impl ThrottledLog {
    /// A line at most once in `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new(None) }
    }

    /// Whether the line is due, and then how many were left out since the one before.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &mut *last {
            Some((at, left_out)) if now.saturating_duration_since(*at) < self.every => {
                *left_out += 1;
                None
            }
            last => Some(last.replace((now, 0)).map_or(0, |(_, left_out)| left_out)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_the_lines_left_out_before_it() {
        let (start, line) = (Instant::now(), ThrottledLog::new(Duration::from_secs(10)));
        assert_eq!(line.due(start), Some(0));
        assert_eq!((line.due(start), line.due(start)), (None, None));
        assert_eq!(line.due(start + Duration::from_secs(10)), Some(2));
    }
}

//! Throttled log lines: any client can cause them, so each comes at most once in an interval.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A log line that comes at most once in an interval, with the number of lines left out.
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

    /// The number of lines left out since the last one, when the line is due; else `None`.
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

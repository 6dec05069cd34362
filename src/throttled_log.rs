//! Throttled log lines: any client can cause them, so each comes at most once in an interval. Where they tell a state, the last
//! one left out is made up for, so that the log ends with the present state.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hash};
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

    /// When a line that was left out is to be made up for; `None` where the last one came.
    pub fn overdue_at(&self) -> Option<Instant> {
        let last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.filter(|(_, left_out)| *left_out > 0).map(|(at, _)| at + self.every)
    }

    /// As [`Self::due`], for a line on the present state that makes up for those left out. `None` also where none was.
    pub fn overdue(&self, now: Instant) -> Option<u64> {
        self.overdue_at().filter(|at| *at <= now)?;
        // One of those left out comes now.
        self.due(now).map(|left_out| left_out.saturating_sub(1))
    }
}

/// Keys whose lines are throttled apart from each other.
const KEYS: usize = 64;

/// A log line that comes at most once in an interval for each key. Lines of further keys count together.
#[derive(Debug)]
pub struct ThrottledLogs {
    every: Duration,
    hasher: RandomState,
    /// When the line of a key last came, and how many were left out since.
    last: Mutex<HashMap<u64, (Instant, u64)>>,
    others: ThrottledLog,
}

impl ThrottledLogs {
    /// A line at most once in `every` for each key.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        let (hasher, last) = (RandomState::new(), Mutex::default());
        Self { every, hasher, last, others: ThrottledLog::new(every) }
    }

    /// As [`ThrottledLog::due`], for the line of `key`.
    pub fn due(&self, key: impl Hash, now: Instant) -> Option<u64> {
        let key = self.hasher.hash_one(key);
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.len() >= KEYS && !last.contains_key(&key) {
            last.retain(|_, (at, _)| now.saturating_duration_since(*at) < self.every);
            if last.len() >= KEYS {
                return self.others.due(now);
            }
        }
        match last.entry(key) {
            Entry::Occupied(mut line) => {
                let (at, left_out) = line.get_mut();
                if now.saturating_duration_since(*at) < self.every {
                    *left_out += 1;
                    return None;
                }
                *at = now;
                Some(std::mem::take(left_out))
            }
            Entry::Vacant(line) => {
                line.insert((now, 0));
                Some(0)
            }
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

    #[test]
    fn a_line_that_was_left_out_is_made_up_for_once() {
        let (start, line) = (Instant::now(), ThrottledLog::new(Duration::from_secs(10)));
        let later = start + Duration::from_secs(10);
        assert_eq!((line.overdue_at(), line.overdue(start)), (None, None));
        line.due(start);
        assert_eq!(line.overdue(later), None, "the last one came");
        (0..3).for_each(|_| assert_eq!(line.due(start), None));
        assert_eq!((line.overdue_at(), line.overdue(start)), (Some(later), None));
        assert_eq!((line.overdue(later), line.overdue(later)), (Some(2), None));
    }

    #[test]
    fn the_lines_of_one_key_do_not_hide_those_of_another_and_keys_are_bounded() {
        let (start, lines) = (Instant::now(), ThrottledLogs::new(Duration::from_secs(10)));
        assert_eq!((lines.due("a", start), lines.due("a", start)), (Some(0), None));
        assert_eq!(lines.due("b", start), Some(0));
        let came = (0..1000).filter(|n| lines.due(n, start).is_some()).count();
        assert_eq!(came, KEYS - 2 + 1);
        assert_eq!(lines.due("a", start + Duration::from_secs(10)), Some(1));
        assert_eq!(lines.due("new", start + Duration::from_secs(11)), Some(0));
    }
}

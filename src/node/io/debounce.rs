//! Debounce: when a change of an input counts. Pure; time is an argument.

use std::time::{Duration, Instant};

use crate::wire::Switch;

/// Tells a change from a bouncing contact.
#[derive(Debug)]
pub struct Debounce {
    settle: Duration,
    state: Switch,
    /// Since when the line has been in the other state without a change.
    candidate: Option<Instant>,
}

impl Debounce {
    /// `state` is that of the line at present; another counts once it has lasted for `settle`.
    pub const fn new(settle: Duration, state: Switch) -> Self {
        Self { settle, state, candidate: None }
    }

    /// The state that counts.
    pub const fn state(&self) -> Switch {
        self.state
    }

    /// Takes a state of the line; `edge` says that the line changed since the last call. Returns the new state once
    /// it has lasted.
    pub fn observe(&mut self, seen: Switch, edge: bool, now: Instant) -> Option<Switch> {
        if seen == self.state {
            self.candidate = None;
            return None;
        }
        let since = match self.candidate {
            Some(since) if !edge => since,
            _ => *self.candidate.insert(now),
        };
        if now.duration_since(since) < self.settle {
            return None;
        }
        self.candidate = None;
        self.state = seen;
        Some(seen)
    }

    /// When the other state will have lasted long enough.
    pub fn deadline(&self) -> Option<Instant> {
        self.candidate.map(|since| since + self.settle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_millis(50);

    #[test]
    fn a_bouncing_contact_is_one_change_after_it_has_settled() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut debounce = Debounce::new(SETTLE, Switch::Off);
        let bounce = [(0, Switch::On), (3, Switch::Off), (5, Switch::On), (9, Switch::On)];
        for (ms, seen) in bounce {
            assert_eq!(debounce.observe(seen, true, at(ms)), None, "{ms} ms");
        }
        // The last edge restarted the wait, though the level was the same before and after.
        assert_eq!(debounce.deadline(), Some(at(59)));
        assert_eq!(debounce.observe(Switch::On, false, at(58)), None);
        assert_eq!(debounce.observe(Switch::On, false, at(59)), Some(Switch::On));
        assert_eq!(debounce.observe(Switch::On, false, at(60)), None);
    }

    #[test]
    fn a_pulse_shorter_than_the_debounce_is_no_change() {
        let start = Instant::now();
        let mut debounce = Debounce::new(SETTLE, Switch::Off);
        assert_eq!(debounce.observe(Switch::On, true, start), None);
        assert_eq!(debounce.observe(Switch::Off, true, start + SETTLE / 2), None);
        assert_eq!(debounce.deadline(), None);
        assert_eq!(debounce.observe(Switch::Off, false, start + SETTLE * 2), None);
    }

    #[test]
    fn without_a_debounce_every_level_counts() {
        let mut debounce = Debounce::new(Duration::ZERO, Switch::Off);
        assert_eq!(debounce.observe(Switch::On, true, Instant::now()), Some(Switch::On));
        assert_eq!(debounce.observe(Switch::Off, true, Instant::now()), Some(Switch::Off));
    }
}

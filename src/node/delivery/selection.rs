//! Which of its brokers a node connects to next.
//!
//! A node stays where it is while that broker acknowledges. It goes on to the next of its order when a connection cannot be
//! made, and back to its preferred broker, the first of the order, when that has admitted it again after a while: so
//! a broker that restarts sends nobody away for long, and one that comes and goes does not pull its nodes along.

use std::time::Duration;

use crate::node::address::BrokerAddress;

/// So many accepted connections in a row without proof, and the next broker's turn has come: one that accepts a connection
/// and acknowledges nothing is of no use.
const UNPROVED_MAX: u32 = 2;
/// Longest time between two looks at the preferred broker.
const RETURN_AFTER_MAX: Duration = Duration::from_hours(1);

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not made: nobody answers, or the broker refused this node.
    NotMade,
    /// It ended before it had proved itself.
    Unproved,
    /// It had proved itself.
    Proved,
    /// The broker closed it without a word before it had proved itself, as it does when another board has the same id. To
    /// give way would leave each of the two a broker of its own, and nobody would notice.
    Closed,
    /// Likewise, so often that there is another board.
    Twin,
}

/// The brokers of a node, and the one whose turn it is.
#[derive(Debug)]
pub struct Selection {
    /// At least one.
    order: Vec<BrokerAddress>,
    current: usize,
    /// Connections to the current one in a row without proof.
    unproved: u32,
    /// Brokers that failed since the last wait.
    failed: usize,
    /// First time between two looks at the preferred broker.
    return_after: Duration,
    /// Likewise, now.
    returning: Duration,
}

impl Selection {
    /// Of at least one broker, the preferred one first.
    pub const fn new(order: Vec<BrokerAddress>, return_after: Duration) -> Self {
        Self { order, current: 0, unproved: 0, failed: 0, return_after, returning: return_after }
    }

    /// The broker whose turn it is.
    pub fn current(&self) -> &BrokerAddress {
        &self.order[self.current]
    }

    /// Whether there are others.
    pub fn is_choice(&self) -> bool {
        self.order.len() > 1
    }

    /// The preferred broker and the time after which to look whether it is back; `None` at the preferred one.
    pub fn preferred(&self) -> Option<(&BrokerAddress, Duration)> {
        (self.current != 0).then(|| (&self.order[0], self.returning))
    }

    /// The preferred broker is back: its turn.
    pub const fn go_back(&mut self) {
        (self.current, self.unproved, self.failed) = (0, 0, 0);
        // Until a connection to it has proved itself.
        self.returning = match self.returning.checked_mul(2) {
            Some(longer) if longer.as_secs() < RETURN_AFTER_MAX.as_secs() => longer,
            _ => RETURN_AFTER_MAX,
        };
    }

    /// A connection to the current broker has ended. Returns whether another one has its turn that has not failed since
    /// the last wait, so that there is no need for a long one.
    pub fn ended(&mut self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Proved => {
                (self.unproved, self.failed) = (0, 0);
                if self.current == 0 {
                    self.returning = self.return_after;
                }
                return false;
            }
            Outcome::Closed | Outcome::Twin => return false,
            Outcome::Unproved => {
                self.unproved += 1;
                if self.unproved < UNPROVED_MAX {
                    return false;
                }
            }
            Outcome::NotMade => {}
        }
        self.unproved = 0;
        self.current = (self.current + 1) % self.order.len();
        self.failed = (self.failed + 1) % self.order.len();
        self.failed != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES_5: Duration = Duration::from_mins(5);

    fn selection(hosts: &str) -> Selection {
        let order = hosts.chars().map(|host| BrokerAddress::new(host.to_string(), 1883)).collect();
        Selection::new(order, MINUTES_5)
    }

    /// The hosts after each outcome, a capital one after a long wait.
    fn turns(selection: &mut Selection, outcomes: &[Outcome]) -> String {
        let turn = |outcome: &Outcome| {
            let soon = selection.ended(*outcome);
            let host = selection.current().host.clone();
            if soon { host } else { host.to_ascii_uppercase() }
        };
        outcomes.iter().map(turn).collect()
    }

    #[test]
    fn brokers_that_are_away_are_tried_in_turn_with_one_long_wait_a_round() {
        use Outcome::{Closed, NotMade, Proved, Twin, Unproved};
        assert_eq!(turns(&mut selection("abc"), &[NotMade; 7]), "bcAbcAb");
        assert_eq!(turns(&mut selection("a"), &[NotMade; 3]), "AAA");
        // One that restarts is tried once more; one that accepts and serves nothing, too.
        let restarts = [Proved, Proved, NotMade, Proved, NotMade];
        assert_eq!(turns(&mut selection("ab"), &restarts), "AAbBa");
        let useless = [Unproved, Unproved, Unproved, Proved, Unproved, Unproved];
        assert_eq!(turns(&mut selection("ab"), &useless), "AbBBBa");
        assert_eq!(turns(&mut selection("ab"), &[Closed, Closed, Twin, Twin]), "AAAA");
    }

    #[test]
    fn a_preferred_broker_that_fails_again_is_looked_at_ever_more_rarely() {
        use Outcome::{NotMade, Proved};
        let mut selection = selection("ab");
        assert_eq!(selection.preferred(), None);
        let mut looks = Vec::new();
        for _ in 0..6 {
            selection.ended(NotMade);
            looks.push(selection.preferred().unwrap().1.as_secs() / 60);
            selection.go_back();
        }
        assert_eq!(looks, [5, 10, 20, 40, 60, 60]);
        selection.ended(Proved);
        selection.ended(NotMade);
        assert_eq!(selection.preferred().unwrap().1, MINUTES_5);
    }
}

//! What the connections of a session have in common: how each ended, the wait before the next, and which lines of the log are due.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::back_off::BackOff;
use super::selection::Outcome;
use super::subscriptions::EndedBy;
use crate::throttled_log::ThrottledLog;

/// Time between two warnings that there is no connection, and between two lines that there is one.
const LINE_INTERVAL: Duration = Duration::from_mins(1);
/// Longest wait before a connection that the node itself ended is replaced.
const REPLACED_WITHIN: Duration = Duration::from_millis(500);
/// Longest wait before the next of several brokers is tried: a whole hall may lose its broker at one instant.
const NEXT_BROKER_WITHIN: Duration = Duration::from_secs(2);
/// So many acknowledged readings prove a connection too, however short: the outbox drains.
const PROVED_BY_READINGS: u64 = 32;
/// So many connections in a row that the broker closed, within this time, look like two boards of one id.
const CLOSED_CONNECTIONS: usize = 3;
const CLOSED_WITHIN: Duration = Duration::from_mins(10);

/// The end of a connection that broke, or was never made.
pub struct Lost {
    /// Why, for the log.
    pub reason: String,
    /// How long it stood after the broker had accepted it; `None` where it never did.
    pub stood: Option<Duration>,
    /// Readings acknowledged on it.
    pub acknowledged: u64,
    /// Who ended it.
    pub ended_by: EndedBy,
    /// Whether the broker did so without a word.
    pub closed: bool,
    /// Topic of messages that kept everything else from arriving.
    pub held_up_by: Option<String>,
    /// Whether it refused this node.
    pub rejected: bool,
}

impl Lost {
    /// The connection was never made.
    pub const fn before(reason: String) -> Self {
        Self {
            reason,
            stood: None,
            acknowledged: 0,
            ended_by: EndedBy::Broker,
            closed: false,
            held_up_by: None,
            rejected: false,
        }
    }
}

/// What connections have in common, for the log and the next wait.
pub struct History {
    /// A connection that stood this long has proved itself, if something was acknowledged on it.
    pub proved_after: Duration,
    waits: BackOff,
    /// That there is no connection.
    pub lost_line: ThrottledLog,
    /// That there is one.
    pub connected_line: ThrottledLog,
    /// That two boards have one id.
    pub twin_line: ThrottledLog,
    /// That a subscription is left out.
    pub held_up_line: ThrottledLog,
    /// That another broker is tried.
    pub next_line: ThrottledLog,
    /// When the broker closed connections that it had accepted, one after the other.
    closed: VecDeque<Instant>,
}

impl History {
    /// Before the first connection.
    pub fn new(proved_after: Duration) -> Self {
        Self {
            proved_after,
            waits: BackOff::new(),
            lost_line: ThrottledLog::new(LINE_INTERVAL),
            connected_line: ThrottledLog::new(LINE_INTERVAL),
            twin_line: ThrottledLog::new(CLOSED_WITHIN),
            held_up_line: ThrottledLog::new(CLOSED_WITHIN),
            next_line: ThrottledLog::new(LINE_INTERVAL),
            closed: VecDeque::new(),
        }
    }

    /// Notes the end of a connection. [`Outcome::Twin`] when the pattern is that of two boards with one id: each connects, and
    /// the broker closes the other one's connection (MQTT 3.1.1, 3.1.4).
    pub fn lost(&mut self, lost: &Lost, waiting: u64, now: Instant) -> Outcome {
        let twin = self.looks_like_two(lost, now);
        let stood = lost.stood.is_some_and(|stood| stood >= self.proved_after);
        // Where no reading waits, none can be acknowledged: a board of outputs, say.
        let served = lost.acknowledged > 0 || waiting == 0;
        // Of two boards with one id each ends the other's connection: what one proves is no reason to come back soon.
        if twin {
            Outcome::Twin
        } else if (stood && served) || lost.acknowledged >= PROVED_BY_READINGS {
            self.waits.reset();
            Outcome::Proved
        } else if lost.stood.is_some() && lost.closed {
            Outcome::Closed
        } else if lost.stood.is_some() {
            Outcome::Unproved
        } else {
            Outcome::NotMade
        }
    }

    fn looks_like_two(&mut self, lost: &Lost, now: Instant) -> bool {
        // A broker that is away in between is one that restarts.
        if !lost.closed || lost.stood.is_none() {
            self.closed.clear();
            return false;
        }
        self.closed.push_back(now);
        self.closed.retain(|at| *at + CLOSED_WITHIN > now);
        self.closed.len() >= CLOSED_CONNECTIONS
    }

    /// The wait before the next connection. A connection that stood and that the node itself ended, to send something again,
    /// is replaced at once: the broker is there, and commands would not arrive meanwhile. Its own time bounds the pace.
    /// Another broker that has not failed yet is tried soon.
    pub fn next_wait(&mut self, lost: &Lost, other_broker: bool) -> Duration {
        if other_broker {
            return self.waits.at_once(NEXT_BROKER_WITHIN);
        }
        if lost.ended_by == EndedBy::Node
            && lost.stood.is_some_and(|stood| stood >= self.proved_after)
        {
            return self.waits.at_once(REPLACED_WITHIN);
        }
        self.waits.next_wait()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(stood: Option<u64>, acknowledged: u64, closed: bool) -> Lost {
        let stood = stood.map(Duration::from_secs);
        Lost {
            reason: String::new(),
            stood,
            acknowledged,
            ended_by: EndedBy::Broker,
            closed,
            held_up_by: None,
            rejected: false,
        }
    }

    #[test]
    fn two_boards_with_one_id_come_back_ever_more_slowly() {
        let (mut history, start) = (History::new(Duration::from_secs(10)), Instant::now());
        let mut twin = false;
        for n in 0..9 {
            let outcome =
                history.lost(&lost(Some(20), 50, true), 0, start + Duration::from_secs(n));
            twin = outcome == Outcome::Twin;
            history.waits.next_wait();
        }
        assert!(twin && history.waits.next_wait() >= Duration::from_secs(8));
    }

    #[test]
    fn only_a_connection_that_proved_itself_makes_the_next_wait_short() {
        let short = |lost: &Lost| {
            let mut history = History::new(Duration::from_secs(10));
            for _ in 0..9 {
                history.waits.next_wait();
            }
            history.lost(lost, 1, Instant::now());
            history.waits.next_wait() <= Duration::from_secs(2)
        };
        for (stood, acknowledged, proved) in [
            (None, 0, false),
            (Some(1), 1, false),
            (Some(60), 0, false),
            (Some(10), 1, true),
            (Some(1), PROVED_BY_READINGS, true),
        ] {
            assert_eq!(short(&lost(stood, acknowledged, true)), proved, "{stood:?} {acknowledged}");
        }
        let mut history = History::new(Duration::from_secs(10));
        for _ in 0..9 {
            history.waits.next_wait();
        }
        history.lost(&lost(Some(60), 0, true), 0, Instant::now());
        assert!(history.waits.next_wait() <= Duration::from_secs(2), "no reading waited");
    }

    #[test]
    fn closed_connections_in_a_row_look_like_two_boards_and_a_restarting_broker_does_not() {
        let (mut history, start) = (History::new(Duration::from_secs(10)), Instant::now());
        let closed = lost(Some(3), 1, true);
        let mut twin = |lost: &Lost, now| history.lost(lost, 1, now) == Outcome::Twin;
        assert!(!twin(&closed, start) && !twin(&closed, start));
        assert!(twin(&closed, start) && twin(&closed, start));
        assert!(!twin(&lost(None, 0, false), start));
        assert!(!twin(&closed, start) && !twin(&closed, start));
        assert!(!twin(&closed, start + CLOSED_WITHIN), "too long ago");
    }
}

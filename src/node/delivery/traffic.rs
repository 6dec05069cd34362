//! What passes the connection, as far as it decides whether the broker is there: publishes without their acknowledgement,
//! pings without their answer, and messages that keep both from arriving.
//!
//! A broker sends in one order. While a large message of a stranger is on a slow line, every answer waits behind it. The
//! connection is not dead then, and nothing was left unacknowledged.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Messages flow while no pause is longer than this.
const PAUSE: Duration = Duration::from_secs(5);
/// Most pings whose answer is awaited; those beyond are not noted.
const PINGS: usize = 64;

/// The traffic of one connection, shared by the two directions and the publisher. Time is an argument.
#[derive(Debug, Default)]
pub struct Traffic(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Packet ids of publishes that were sent and not acknowledged.
    sent: HashSet<u16>,
    /// When each ping without an answer was sent.
    pings: VecDeque<Instant>,
    /// Whether rumqttc waits for an answer to its last ping.
    awaited: bool,
    /// Answers that rumqttc got and the broker did not send.
    lent: u64,
    /// When the last ping that the broker has answered was sent.
    answered: Option<Instant>,
    /// Since when messages flow, and the last byte of one.
    flow: Option<(Instant, Instant)>,
    /// Topic of the last message.
    topic: Vec<u8>,
}

/// Messages stand in the way of the broker's answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldUp {
    /// For how long.
    pub time: Duration,
    /// Topic of the last message.
    pub topic: String,
}

impl Traffic {
    /// A publish with this packet id is sent.
    pub fn publish(&self, packet_id: u16) {
        self.lock().sent.insert(packet_id);
    }

    /// The broker acknowledges a packet id; returns whether it is expected.
    pub fn acknowledge(&self, packet_id: u16) -> bool {
        self.lock().sent.remove(&packet_id)
    }

    /// A ping is sent.
    pub fn ping(&self, now: Instant) {
        let mut state = self.lock();
        state.awaited = true;
        if state.pings.len() < PINGS {
            state.pings.push_back(now);
        }
    }

    /// The broker answers a ping.
    pub fn pong(&self) {
        let mut state = self.lock();
        state.awaited = false;
        state.answered = state.pings.pop_front().or(state.answered);
    }

    /// Bytes have come, whatever they are. Returns whether rumqttc is to get an answer to its ping for that: it would end
    /// the connection without one.
    pub fn lend_pong(&self) -> bool {
        let mut state = self.lock();
        let awaited = std::mem::take(&mut state.awaited);
        state.lent += u64::from(awaited);
        awaited
    }

    /// Whether the answer that rumqttc has is a lent one. Each counts once.
    pub fn take_lent_pong(&self) -> bool {
        let mut state = self.lock();
        let lent = state.lent > 0;
        state.lent = state.lent.saturating_sub(1);
        lent
    }

    /// A message has come, on this topic, or the beginning of one.
    pub fn message(&self, topic: &[u8], now: Instant) {
        let mut state = self.lock();
        state.topic.clear();
        state.topic.extend_from_slice(topic);
        let begin = state.flow.filter(|(_, last)| *last + PAUSE > now).map_or(now, |flow| flow.0);
        state.flow = Some((begin, now));
    }

    /// More of a message has come.
    pub fn more(&self, now: Instant) {
        if let Some((_, last)) = &mut self.lock().flow {
            *last = now;
        }
    }

    /// Whether messages keep the answer to what was sent at `sent` from arriving. They do not once the broker has answered
    /// a ping that was sent later.
    pub fn held_up(&self, sent: Instant, now: Instant) -> Option<HeldUp> {
        let state = self.lock();
        let (begin, last) = state.flow?;
        if last + PAUSE <= now || state.answered.is_some_and(|ping| ping >= sent) {
            return None;
        }
        let time = now.saturating_duration_since(begin.max(sent));
        Some(HeldUp { time, topic: String::from_utf8_lossy(&state.topic).into_owned() })
    }

    /// Whether messages flow.
    pub fn is_flowing(&self, now: Instant) -> bool {
        self.lock().flow.is_some_and(|(_, last)| last + PAUSE > now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_answers_up_until_it_has_come_or_a_later_ping_is_answered() {
        let (traffic, start) = (Traffic::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(traffic.held_up(start, at(40)), None);
        traffic.message(b"a/b", at(2));
        (3..=40).for_each(|second| traffic.more(at(second)));
        let held_up = HeldUp { time: Duration::from_secs(38), topic: "a/b".to_owned() };
        assert_eq!(traffic.held_up(start, at(40)), Some(held_up));
        assert_eq!(traffic.held_up(start, at(46)), None, "it has come");
        traffic.message(b"c", at(60));
        assert_eq!(traffic.held_up(start, at(61)).unwrap().time, Duration::from_secs(1));
        // Answers come between messages: what was sent before the ping is left out, what was sent after it may come.
        traffic.ping(at(61));
        traffic.pong();
        assert_eq!(traffic.held_up(start, at(62)), None);
        assert!(traffic.held_up(at(62), at(63)).is_some());
    }

    #[test]
    fn an_answer_is_lent_once_for_each_ping() {
        let (traffic, now) = (Traffic::default(), Instant::now());
        assert!(!traffic.lend_pong() && !traffic.take_lent_pong());
        traffic.ping(now);
        assert!(traffic.lend_pong() && !traffic.lend_pong());
        traffic.pong();
        assert!(traffic.take_lent_pong() && !traffic.take_lent_pong());
        traffic.ping(now);
        traffic.pong();
        assert!(!traffic.lend_pong());
        (0..1_000).for_each(|_| traffic.ping(now));
        assert_eq!(traffic.lock().pings.len(), PINGS);
    }
}

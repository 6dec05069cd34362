//! What the node subscribes to: one filter at a time, so that it is known which one a broker refuses or answers by ending
//! the connection. A filter that keeps ending connections is left out: readings come first.

use std::time::Duration;

use rumqttc::QoS;
use tokio::time::Instant;

/// Connections that a subscription may end in a row before it is left out.
const ENDINGS_MAX: u32 = 3;
/// A subscription without an answer for this long gives way to the next.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that ends this soon after the answer ended because of the subscription: its retained messages come then.
const SETTLED_AFTER: Duration = Duration::from_millis(500);
/// A filter that was left out is tried again after this long: the first time, and later.
const LEFT_OUT_FOR: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(10));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not asked for on this connection.
    Idle,
    /// Asked for; with its packet id once it is sent.
    Asked {
        packet_id: Option<u16>,
        at: Instant,
    },
    Granted {
        at: Instant,
    },
    Refused,
}

#[derive(Debug)]
struct Subscription {
    filter: String,
    qos: QoS,
    state: State,
    /// Connections in a row that ended because of it.
    endings: u32,
    left_out_until: Option<Instant>,
    /// A refusal was said, and nothing was granted since.
    refusal_said: bool,
}

/// The answer to a subscription, for the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Granted, or refused as before.
    AsBefore,
    /// Refused for the first time.
    Refused(String),
}

/// The subscriptions of a node, over any number of connections. Time is an argument.
#[derive(Debug)]
pub struct Subscriptions {
    /// In the order of asking.
    list: Vec<Subscription>,
}

impl Subscriptions {
    /// Of these filters, in this order.
    pub fn new(filters: impl IntoIterator<Item = (String, QoS)>) -> Self {
        let list = filters.into_iter().map(|(filter, qos)| Subscription {
            filter,
            qos,
            state: State::Idle,
            endings: 0,
            left_out_until: None,
            refusal_said: false,
        });
        Self { list: list.collect() }
    }

    /// The next filter to ask for, which counts as asked for from now on; `None` while an answer is awaited or nothing is
    /// left.
    pub fn next(&mut self, now: Instant) -> Option<(String, QoS)> {
        let awaited = |one: &Subscription| matches!(one.state, State::Asked { at, .. } if now < at + ANSWER_TIMEOUT);
        if self.list.iter().any(awaited) {
            return None;
        }
        let due = |one: &&mut Subscription| {
            one.state == State::Idle && one.left_out_until.is_none_or(|until| until <= now)
        };
        let next = self.list.iter_mut().find(due)?;
        next.left_out_until = None;
        next.state = State::Asked { packet_id: None, at: now };
        Some((next.filter.clone(), next.qos))
    }

    /// The SUBSCRIBE was sent with this packet id.
    pub fn sent(&mut self, id: u16) {
        for one in &mut self.list {
            if let State::Asked { packet_id: packet_id @ None, .. } = &mut one.state {
                *packet_id = Some(id);
            }
        }
    }

    /// The broker has answered.
    pub fn answered(&mut self, id: u16, granted: bool, now: Instant) -> Answer {
        let asked = |one: &&mut Subscription| matches!(one.state, State::Asked { packet_id, .. } if packet_id == Some(id));
        let Some(one) = self.list.iter_mut().find(asked) else { return Answer::AsBefore };
        if granted {
            one.state = State::Granted { at: now };
            one.refusal_said = false;
            return Answer::AsBefore;
        }
        (one.state, one.endings) = (State::Refused, 0);
        if std::mem::replace(&mut one.refusal_said, true) {
            return Answer::AsBefore;
        }
        Answer::Refused(one.filter.clone())
    }

    /// The connection goes on: the subscriptions that were granted some time ago do no harm.
    pub fn settle(&mut self, now: Instant) {
        for one in &mut self.list {
            if matches!(one.state, State::Granted { at } if at + SETTLED_AFTER <= now) {
                one.endings = 0;
            }
        }
    }

    /// The connection has ended; `by_broker` is whether the broker ended it. Returns the filter that is left out for the first
    /// time, if there is one. `stood` is whether the connection lasted: where it did not and the filter was left out already,
    /// the cause is another one.
    pub fn ended(&mut self, by_broker: bool, stood: bool, now: Instant) -> Option<String> {
        self.settle(now);
        let mut left_out = None;
        for one in &mut self.list {
            let suspect = match one.state {
                State::Asked { .. } => true,
                State::Granted { at } => now < at + SETTLED_AFTER,
                State::Idle | State::Refused => false,
            };
            if suspect && by_broker {
                one.endings += 1;
                if one.endings == ENDINGS_MAX {
                    one.left_out_until = Some(now + LEFT_OUT_FOR.0);
                    left_out = Some(one.filter.clone());
                } else if one.endings > ENDINGS_MAX {
                    one.left_out_until = Some(now + LEFT_OUT_FOR.1);
                }
            } else if one.left_out_until.is_some() && by_broker && !stood {
                (one.left_out_until, one.endings) = (None, 0);
            }
            one.state = State::Idle;
        }
        left_out
    }

    /// Whether this filter was asked for on this connection, or is left out.
    pub fn is_dealt_with(&self, filter: &str) -> bool {
        let waits = |one: &&Subscription| one.state == State::Idle && one.left_out_until.is_none();
        !self.list.iter().filter(waits).any(|one| one.filter == filter)
    }

    /// Whether the broker delivers messages of this filter on this connection.
    pub fn is_granted(&self, filter: &str) -> bool {
        let mut granted = self.list.iter().filter(|one| matches!(one.state, State::Granted { .. }));
        granted.any(|one| one.filter == filter)
    }

    /// Whether the broker may deliver messages of this filter: it may send them before its answer (MQTT 3.1.1, 3.8.4).
    pub fn is_expected(&self, filter: &str) -> bool {
        let asked =
            |one: &&Subscription| matches!(one.state, State::Asked { .. } | State::Granted { .. });
        self.list.iter().filter(asked).any(|one| one.filter == filter)
    }

    /// The filters that the broker refuses or does not answer, and those left out.
    pub fn missing(&self, now: Instant) -> Vec<String> {
        let missing = self.list.iter().filter(|one| match one.state {
            State::Refused => true,
            State::Asked { at, .. } => at + ANSWER_TIMEOUT <= now,
            State::Idle => one.left_out_until.is_some(),
            State::Granted { .. } => false,
        });
        missing.map(|one| one.filter.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> Subscriptions {
        Subscriptions::new([
            ("set".to_owned(), QoS::AtLeastOnce),
            ("birth".to_owned(), QoS::AtMostOnce),
        ])
    }

    fn ask(subscriptions: &mut Subscriptions, id: u16, now: Instant) -> Option<String> {
        let (filter, _) = subscriptions.next(now)?;
        subscriptions.sent(id);
        Some(filter)
    }

    #[test]
    fn one_filter_is_asked_for_at_a_time_and_a_refusal_is_said_once() {
        let (mut all, now) = (both(), Instant::now());
        for connection in 0..3 {
            assert_eq!(ask(&mut all, 1, now).as_deref(), Some("set"));
            assert_eq!(all.next(now), None);
            assert!(all.is_expected("set") && !all.is_granted("set"));
            let answer = all.answered(1, false, now);
            assert_eq!(answer == Answer::Refused("set".to_owned()), connection == 0);
            assert!(!all.is_expected("set") && !all.is_dealt_with("birth"));
            assert_eq!(ask(&mut all, 2, now).as_deref(), Some("birth"));
            assert_eq!(all.answered(7, true, now), Answer::AsBefore);
            assert!(!all.is_granted("birth"), "another packet id");
            assert!(all.is_dealt_with("birth"));
            all.answered(2, true, now);
            assert_eq!((all.next(now), all.missing(now)), (None, vec!["set".to_owned()]));
            all.settle(now + SETTLED_AFTER);
            assert_eq!(all.ended(true, true, now + SETTLED_AFTER), None);
        }
        // Without an answer the other one is asked for all the same.
        ask(&mut all, 1, now);
        let later = now + ANSWER_TIMEOUT;
        assert_eq!(ask(&mut all, 2, later).as_deref(), Some("birth"));
        assert_eq!(all.missing(later), ["set"]);
    }

    #[test]
    fn a_filter_that_ends_connections_is_left_out_and_tried_again_later() {
        let (mut all, start) = (both(), Instant::now());
        let mut end = |answered: bool, now| {
            ask(&mut all, 1, now);
            if answered {
                all.answered(1, true, now);
            }
            all.ended(true, false, now)
        };
        assert_eq!((end(false, start), end(true, start)), (None, None));
        assert_eq!(end(false, start).as_deref(), Some("set"));
        assert_eq!(ask(&mut all, 1, start).as_deref(), Some("birth"));
        all.answered(1, true, start);
        let later = start + LEFT_OUT_FOR.0;
        all.settle(later);
        assert_eq!(all.missing(start), ["set"]);
        assert_eq!(ask(&mut all, 2, later).as_deref(), Some("set"), "tried again");
        assert_eq!(
            (all.ended(true, true, later), all.missing(later)),
            (None, vec!["set".to_owned()])
        );
        assert_eq!(ask(&mut all, 2, later + LEFT_OUT_FOR.0).as_deref(), Some("birth"));
        all.answered(2, true, later);
        // Where connections end without it too, it was not the cause.
        assert_eq!(all.ended(true, false, later + LEFT_OUT_FOR.0), None);
        // A connection that the node itself ended proves nothing.
        for _ in 0..=ENDINGS_MAX {
            ask(&mut all, 1, later);
            assert_eq!(all.ended(false, false, later), None);
        }
        assert_eq!(ask(&mut all, 1, later).as_deref(), Some("set"));
    }
}

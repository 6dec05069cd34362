//! What the node subscribes to: one filter at a time, so that it is known which one a broker refuses or answers by ending
//! the connection. A filter that keeps ending connections, or whose messages keep all answers from arriving, is left out:
//! readings come first. One that is refused or not answered is asked for again.

use std::time::Duration;

use rumqttc::QoS;
use tokio::time::Instant;

use crate::mqtt::Filter;

/// Connections that a subscription may end in a row before it is left out.
const ENDINGS_MAX: u32 = 3;
/// A subscription without an answer for this long gives way to the next.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers that may still come for a filter that was asked for again.
const ASKS_AWAITED: usize = 8;
/// A connection that ends this soon after the answer ended because of the subscription: its retained messages come then.
const SETTLED_AFTER: Duration = Duration::from_millis(500);
/// A filter that was left out is tried again after this long: the first time, and at most. It doubles in between.
const LEFT_OUT_FOR: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(10));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not asked for on this connection.
    Idle,
    /// Asked for.
    Asked {
        at: Instant,
    },
    Granted {
        at: Instant,
    },
    Refused {
        at: Instant,
    },
}

/// What a filter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Without it outputs cannot be switched.
    Commands,
    /// Without it Home Assistant may miss the node until the node connects anew.
    Birth,
}

/// What ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// The broker or the network.
    Broker,
    /// A ping without an answer: the broker hangs, or the line or one of both machines is too slow.
    Silence,
    /// The node itself.
    Node,
}

/// A filter whose messages do not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The filter.
    pub filter: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Whether the node leaves it out, since the broker ends connections at it; else the broker refuses or does not answer.
    pub left_out: bool,
}

#[derive(Debug)]
struct Subscription {
    filter: String,
    qos: QoS,
    purpose: Purpose,
    state: State,
    /// Packet ids of the SUBSCRIBEs on this connection, the latest ones; `None` until it is sent.
    packet_ids: Vec<Option<u16>>,
    /// Refusals and missing answers in a row.
    failures: u32,
    /// Connections in a row that ended because of it.
    endings: u32,
    left_out_until: Option<Instant>,
    /// A refusal or a missing answer was said, and nothing was granted since.
    said: bool,
}

impl Subscription {
    /// It has ended one more connection. Returns whether it is left out for the first time.
    fn ends_connection(&mut self, now: Instant) -> bool {
        self.endings = self.endings.saturating_add(1);
        if let Some(more) = self.endings.checked_sub(ENDINGS_MAX) {
            let wait = LEFT_OUT_FOR.0.saturating_mul(2_u32.saturating_pow(more));
            self.left_out_until = Some(now + wait.min(LEFT_OUT_FOR.1));
        }
        self.endings == ENDINGS_MAX
    }

    /// When an answer is missing or a refusal is old enough to ask once more.
    fn again_at(&self, again: (Duration, Duration)) -> Option<Instant> {
        let wait =
            |failures: u32| again.0.saturating_mul(2_u32.saturating_pow(failures)).min(again.1);
        match self.state {
            State::Asked { at } => Some(at + ANSWER_TIMEOUT + wait(self.failures)),
            State::Refused { at } => Some(at + wait(self.failures.saturating_sub(1))),
            State::Idle | State::Granted { .. } => None,
        }
    }
}

/// The answer to a subscription, for the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Granted, or refused as before.
    AsBefore,
    /// Refused for the first time.
    Refused(String),
    /// Granted after it was said that it is not.
    GrantedNow(String),
}

/// The subscriptions of a node, over any number of connections. Time is an argument.
#[derive(Debug)]
pub struct Subscriptions {
    /// In the order of asking.
    list: Vec<Subscription>,
    /// Time after which a refused or unanswered one is asked for again: the first time, and at most.
    again: (Duration, Duration),
}

impl Subscriptions {
    /// Of these filters, in this order. `again` is the time after which a refused or unanswered one is asked for again: the
    /// first time, and at most.
    pub fn new(
        filters: impl IntoIterator<Item = (String, QoS, Purpose)>,
        again: (Duration, Duration),
    ) -> Self {
        let list = filters.into_iter().map(|(filter, qos, purpose)| Subscription {
            filter,
            qos,
            purpose,
            state: State::Idle,
            packet_ids: Vec::new(),
            failures: 0,
            endings: 0,
            left_out_until: None,
            said: false,
        });
        Self { list: list.collect(), again }
    }

    /// The next filter to ask for, which counts as asked for from now on; `None` while an answer is awaited or nothing is
    /// left.
    pub fn next(&mut self, now: Instant) -> Option<(String, QoS)> {
        let awaited = |one: &Subscription| matches!(one.state, State::Asked { at } if now < at + ANSWER_TIMEOUT);
        if self.list.iter().any(awaited) {
            return None;
        }
        let again = self.again;
        let due = |one: &&mut Subscription| match one.again_at(again) {
            Some(at) => at <= now,
            None => one.state == State::Idle && one.left_out_until.is_none_or(|until| until <= now),
        };
        let next = self.list.iter_mut().find(due)?;
        if matches!(next.state, State::Asked { .. }) {
            next.failures = next.failures.saturating_add(1);
        }
        next.left_out_until = None;
        next.state = State::Asked { at: now };
        if next.packet_ids.len() == ASKS_AWAITED {
            next.packet_ids.remove(0);
        }
        next.packet_ids.push(None);
        Some((next.filter.clone(), next.qos))
    }

    /// The SUBSCRIBE was sent with this packet id.
    pub fn sent(&mut self, id: u16) {
        let unsent = self.list.iter_mut().flat_map(|one| &mut one.packet_ids);
        unsent.filter(|sent| sent.is_none()).for_each(|sent| *sent = Some(id));
    }

    /// The broker has answered.
    pub fn answered(&mut self, id: u16, granted: bool, now: Instant) -> Answer {
        let asked = |one: &&mut Subscription| {
            matches!(one.state, State::Asked { .. }) && one.packet_ids.contains(&Some(id))
        };
        let Some(one) = self.list.iter_mut().find(asked) else { return Answer::AsBefore };
        if granted {
            (one.state, one.failures) = (State::Granted { at: now }, 0);
            return if std::mem::take(&mut one.said) {
                Answer::GrantedNow(one.filter.clone())
            } else {
                Answer::AsBefore
            };
        }
        (one.state, one.endings) = (State::Refused { at: now }, 0);
        one.failures = one.failures.saturating_add(1);
        if std::mem::replace(&mut one.said, true) {
            return Answer::AsBefore;
        }
        Answer::Refused(one.filter.clone())
    }

    /// A filter without an answer for too long, each once.
    pub fn take_unanswered(&mut self, now: Instant) -> Option<String> {
        let unanswered = |one: &&mut Subscription| matches!(one.state, State::Asked { at } if at + ANSWER_TIMEOUT <= now && !one.said);
        let one = self.list.iter_mut().find(unanswered)?;
        one.said = true;
        Some(one.filter.clone())
    }

    /// Messages on `topic` keep the broker's answers from arriving. Returns the filter that they come by, which is left out.
    pub fn hold_up(&mut self, topic: &str, now: Instant) -> Option<String> {
        let of_topic = |one: &&mut Subscription| {
            one.filter.parse().is_ok_and(|filter: Filter| filter.matches(topic))
        };
        let one = self.list.iter_mut().find(of_topic)?;
        one.endings = one.endings.max(ENDINGS_MAX - 1);
        one.ends_connection(now);
        one.state = State::Idle;
        Some(one.filter.clone())
    }

    /// The connection goes on: the subscriptions that were granted some time ago do no harm.
    pub fn settle(&mut self, now: Instant) {
        for one in &mut self.list {
            if matches!(one.state, State::Granted { at } if at + SETTLED_AFTER <= now) {
                one.endings = 0;
            }
        }
    }

    /// The connection has ended. Returns the filter that is left out for the first
    /// time, if there is one. `stood` is whether the connection lasted: where it did not and the filter was left out already,
    /// the cause is another one.
    pub fn ended(&mut self, by: EndedBy, stood: bool, now: Instant) -> Option<String> {
        self.settle(now);
        let mut left_out = None;
        for one in &mut self.list {
            let suspect = match one.state {
                State::Asked { at } => by != EndedBy::Node && now < at + ANSWER_TIMEOUT,
                State::Granted { at } => by == EndedBy::Broker && now < at + SETTLED_AFTER,
                State::Idle | State::Refused { .. } => false,
            };
            if suspect {
                if one.ends_connection(now) {
                    left_out = Some(one.filter.clone());
                }
            } else if one.left_out_until.is_some() && by != EndedBy::Node && !stood {
                (one.left_out_until, one.endings) = (None, 0);
            }
            one.state = State::Idle;
            one.packet_ids.clear();
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
    pub fn missing(&self, now: Instant) -> Vec<Missing> {
        let missing = self.list.iter().filter(|one| match one.state {
            State::Refused { .. } => true,
            State::Asked { at } => one.failures > 0 || at + ANSWER_TIMEOUT <= now,
            State::Idle => one.left_out_until.is_some(),
            State::Granted { .. } => false,
        });
        let missing = missing.map(|one| Missing {
            filter: one.filter.clone(),
            purpose: one.purpose,
            left_out: one.left_out_until.is_some(),
        });
        missing.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(5));

    fn both() -> Subscriptions {
        let filters = [
            ("set".to_owned(), QoS::AtLeastOnce, Purpose::Commands),
            ("birth".to_owned(), QoS::AtMostOnce, Purpose::Birth),
        ];
        Subscriptions::new(filters, AGAIN)
    }

    fn missing(all: &Subscriptions, now: Instant) -> Vec<String> {
        all.missing(now).into_iter().map(|one| one.filter).collect()
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
            assert_eq!((all.next(now), missing(&all, now)), (None, vec!["set".to_owned()]));
            all.settle(now + SETTLED_AFTER);
            assert_eq!(all.ended(EndedBy::Broker, true, now + SETTLED_AFTER), None);
        }
        // Without an answer the other one is asked for all the same.
        ask(&mut all, 1, now);
        let later = now + ANSWER_TIMEOUT;
        assert_eq!(ask(&mut all, 2, later).as_deref(), Some("birth"));
        assert_eq!(missing(&all, later), ["set"]);
    }

    #[test]
    fn a_filter_that_ends_connections_is_left_out_and_tried_again_later() {
        let (mut all, start) = (both(), Instant::now());
        let mut end = |answered: bool, now| {
            ask(&mut all, 1, now);
            if answered {
                all.answered(1, true, now);
            }
            all.ended(EndedBy::Broker, false, now)
        };
        assert_eq!((end(false, start), end(true, start)), (None, None));
        assert_eq!(end(false, start).as_deref(), Some("set"));
        assert_eq!(ask(&mut all, 1, start).as_deref(), Some("birth"));
        all.answered(1, true, start);
        let later = start + LEFT_OUT_FOR.0;
        all.settle(later);
        assert_eq!(missing(&all, start), ["set"]);
        assert_eq!(ask(&mut all, 2, later).as_deref(), Some("set"), "tried again");
        assert_eq!(
            (all.ended(EndedBy::Broker, true, later), missing(&all, later)),
            (None, vec!["set".to_owned()])
        );
        assert_eq!(ask(&mut all, 2, later + LEFT_OUT_FOR.0).as_deref(), Some("birth"));
        all.answered(2, true, later);
        // Where connections end without it too, it was not the cause.
        assert_eq!(all.ended(EndedBy::Broker, false, later + LEFT_OUT_FOR.0), None);
        // A connection that the node itself ended proves nothing.
        for _ in 0..=ENDINGS_MAX {
            ask(&mut all, 1, later);
            assert_eq!(all.ended(EndedBy::Node, false, later), None);
        }
        assert_eq!(ask(&mut all, 1, later).as_deref(), Some("set"));
    }

    #[test]
    fn a_refused_or_unanswered_filter_is_asked_for_again_less_and_less() {
        for answers in [true, false] {
            let (mut all, start) = (both(), Instant::now());
            assert_eq!(ask(&mut all, 1, start).as_deref(), Some("set"));
            let mut now = if answers { start } else { start + ANSWER_TIMEOUT };
            if answers {
                all.answered(1, false, start);
            }
            let said = all.take_unanswered(now);
            assert_eq!(said.is_some(), !answers);
            assert_eq!(all.take_unanswered(now), None);
            assert_eq!(ask(&mut all, 2, now).as_deref(), Some("birth"));
            all.answered(2, true, now);
            let mut asks = Vec::new();
            for id in 3..9 {
                let begin = now;
                while ask(&mut all, id, now).is_none() {
                    now += Duration::from_secs(1);
                }
                asks.push((now - begin).as_secs());
                assert_eq!(missing(&all, now), ["set"]);
                if answers {
                    all.answered(id, false, now);
                }
            }
            assert!(asks.is_sorted() && asks[0] >= 30, "{asks:?}");
            assert!((300..=310).contains(asks.last().unwrap()), "{asks:?}");
            // A late answer counts too.
            let answer = all.answered(if answers { 8 } else { 6 }, true, now);
            if !answers {
                assert_eq!(answer, Answer::GrantedNow("set".to_owned()));
                assert_eq!(missing(&all, now), Vec::<String>::new());
            }
        }
    }

    #[test]
    fn a_filter_whose_messages_hold_everything_up_is_left_out_at_once() {
        let (mut all, now) = (both(), Instant::now());
        for wait in [1, 2, 4, 8, 10, 10].map(Duration::from_mins) {
            ask(&mut all, 1, now);
            all.answered(1, true, now);
            assert_eq!(all.hold_up("other", now), None);
            assert_eq!(all.hold_up("set", now).as_deref(), Some("set"));
            assert_eq!(all.ended(EndedBy::Node, true, now), None);
            assert_eq!(all.missing(now).len(), 1);
            assert_eq!(ask(&mut all, 2, now).as_deref(), Some("birth"));
            all.ended(EndedBy::Node, true, now);
            assert_eq!(all.list[0].left_out_until, Some(now + wait));
            all.list[0].left_out_until = Some(now);
        }
    }

    #[test]
    fn a_slow_line_is_not_blamed_on_a_granted_subscription_and_a_hanging_broker_is_on_the_asked_one()
     {
        let now = Instant::now();
        let left_out = |granted: bool| {
            let mut all = both();
            let end = |_| {
                ask(&mut all, 1, now);
                if granted {
                    all.answered(1, true, now);
                }
                all.ended(EndedBy::Silence, false, now)
            };
            (0..ENDINGS_MAX).filter_map(end).count()
        };
        assert_eq!((left_out(true), left_out(false)), (0, 1));
    }
}

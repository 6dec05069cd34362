//! One session: what is subscribed, and what its subscriptions make of a message.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::mqtt::QoS;
use tokio::sync::{Notify, oneshot};

use crate::broker::delivery::inbox::Inbox;
use crate::mqtt::{Filter, Message};
use crate::store::Options;

/// A session: it outlives the connection unless its expiry interval is 0.
#[derive(Debug)]
pub struct Session {
    /// Whose it is.
    pub client_id: Arc<str>,
    /// Its number in the log, if it may outlive a connection.
    pub persistent: Option<i64>,
    /// Told when something new waits for it in the log.
    pub wake: Arc<Notify>,
    state: Mutex<State>,
}

/// What belongs to a session.
#[derive(Debug, Default)]
pub struct State {
    /// What is subscribed, shared subscriptions too.
    pub subscriptions: HashMap<Filter, Options>,
    /// Packet ids of `QoS` 2 messages that were taken but not released yet.
    pub received: HashSet<u16>,
    /// Highest number of a waiting message that was ever sent: it is a duplicate when it is sent again.
    pub sent: i64,
    /// Where shared messages are handed to, while there is a connection that can take them.
    pub inbox: Option<Arc<Inbox>>,
    /// Somebody waits to say the session's will.
    pub will: Option<oneshot::Sender<()>>,
    /// Seconds that it outlives its connection.
    pub expiry_s: u32,
    /// Unix ms UTC; meaningless while connected.
    pub left_at_ms: i64,
}

/// How a message is to be delivered to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub qos: QoS,
    pub retain: bool,
    pub identifiers: Vec<u32>,
}

impl Wanted {
    fn add(this: &mut Option<Self>, options: Options, message: &Message) {
        let qos = lower(options.qos, message.qos);
        let retain = options.retain_as_published && message.retain;
        let wanted = this.get_or_insert(Self { qos, retain, identifiers: Vec::new() });
        if qos > wanted.qos {
            wanted.qos = qos;
        }
        wanted.retain |= retain;
        if options.identifier > 0 {
            wanted.identifiers.push(options.identifier);
        }
    }
}

/// The lower of two ([MQTT-3.8.4-6]).
pub fn lower(one: QoS, other: QoS) -> QoS {
    if one < other { one } else { other }
}

impl Session {
    /// A session of `client_id`.
    pub fn new(client_id: &str, persistent: Option<i64>, state: State) -> Arc<Self> {
        let client_id = Arc::from(client_id);
        Arc::new(Self { client_id, persistent, wake: Arc::default(), state: Mutex::new(state) })
    }

    /// The session's state, for a moment.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its own subscriptions make of `message`: one delivery for all that match ([MQTT-3.3.4-2]).
    pub fn wanted(&self, message: &Message) -> Option<Wanted> {
        let own = *message.publisher == *self.client_id;
        let mut wanted = None;
        for (filter, options) in &self.state().subscriptions {
            let left_out = filter.is_shared() || (own && options.no_local);
            if !left_out && filter.matches(&message.topic) {
                Wanted::add(&mut wanted, *options, message);
            }
        }
        wanted
    }

    /// What its shared subscription to `filter` makes of `message`, and whether it is connected.
    pub fn share(&self, filter: &Filter, message: &Message) -> Option<(Wanted, bool)> {
        let state = self.state();
        let options = state.subscriptions.get(filter)?;
        let mut wanted = None;
        Wanted::add(&mut wanted, *options, message);
        wanted.map(|wanted| (wanted, state.inbox.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_delivery_stands_for_all_subscriptions_that_match() {
        let session = Session::new("a", None, State::default());
        let options = |qos, identifier| Options {
            qos,
            no_local: identifier == 9,
            retain_as_published: identifier == 2,
            identifier,
        };
        let subscribe = |filter: &str, qos, identifier| {
            let filter = filter.parse().unwrap();
            session.state().subscriptions.insert(filter, options(qos, identifier));
        };
        subscribe("a/#", QoS::AtLeastOnce, 1);
        subscribe("a/+", QoS::ExactlyOnce, 2);
        subscribe("a/b", QoS::AtMostOnce, 9);
        subscribe("c", QoS::AtMostOnce, 0);
        subscribe("$share/g/a/b", QoS::AtMostOnce, 4);
        let mut message = Message { qos: QoS::ExactlyOnce, ..Message::own("a/b", "1") };
        message.publisher = Arc::from("a");
        let mut wanted = session.wanted(&message).unwrap();
        wanted.identifiers.sort_unstable();
        assert_eq!(
            (wanted.qos, wanted.retain, wanted.identifiers),
            (QoS::ExactlyOnce, true, vec![1, 2])
        );
        message.qos = QoS::AtLeastOnce;
        assert_eq!(session.wanted(&message).unwrap().qos, QoS::AtLeastOnce);
        message.topic = "d".parse().unwrap();
        assert_eq!(session.wanted(&message), None);
    }
}

//! One session: what is subscribed, which exchanges are open, and what waits in memory for its client.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::outbound_queue::{AllQueues, OutboundQueue};
use crate::mqtt::{Filter, Message, QoS};
use crate::store::Options;

/// A session: it outlives the connection unless its expiry interval is 0.
#[derive(Debug)]
pub struct Session {
    /// Whose it is.
    pub client_id: Arc<str>,
    /// Its number in the log, if it may outlive a connection.
    pub persistent: Option<i64>,
    /// Tells sessions apart in the order of their beginning.
    pub serial: usize,
    /// What waits in memory for its client.
    pub queue: OutboundQueue,
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
    /// A task waits to publish the session's will.
    pub will: Option<oneshot::Sender<()>>,
    /// Seconds that it outlives its connection.
    pub expiry_s: u32,
    /// Unix ms UTC; meaningless while connected.
    pub left_at_ms: i64,
}

/// How a message is to be delivered to a session: one delivery for all of its subscriptions that match
/// ([MQTT-3.3.4-2]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub qos: QoS,
    pub retain: bool,
    pub identifiers: Vec<u32>,
}

impl Wanted {
    /// What one subscription makes of `message`.
    pub fn new(options: Options, message: &Message) -> Self {
        let mut wanted = Self { qos: QoS::AtMostOnce, retain: false, identifiers: Vec::new() };
        wanted.add(options, message);
        wanted
    }

    /// Adds another subscription that matches.
    pub fn add(&mut self, options: Options, message: &Message) {
        // [MQTT-3.8.4-6]
        self.qos = self.qos.max(options.qos.min(message.qos));
        self.retain |= options.retain_as_published && message.retain;
        if options.identifier > 0 {
            self.identifiers.push(options.identifier);
        }
    }
}

impl Session {
    /// A session of `client_id`. Its queue is one of `queues`.
    pub fn new(
        client_id: &str,
        persistent: Option<i64>,
        state: State,
        queues: Arc<AllQueues>,
    ) -> Arc<Self> {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        Arc::new(Self {
            client_id: Arc::from(client_id),
            persistent,
            serial: SERIAL.fetch_add(1, Relaxed),
            queue: OutboundQueue::new(queues),
            state: Mutex::new(state),
        })
    }

    /// The session's state, for a moment.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

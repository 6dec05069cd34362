//! One session: its subscriptions, its open exchanges, and the outbound queue of its client.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::outbound_queue::{AllQueues, OutboundQueue};
use crate::broker::net::shares::Share;
use crate::mqtt::{Filter, Message, QoS};
use crate::store::Options;

/// Bytes that a session or a subscription takes in the log beside its name or filter.
const ROW_BYTES: usize = 64;
/// Bytes that an open `QoS` 2 exchange takes in the log.
pub const EXCHANGE_BYTES: usize = 16;
/// Bytes that a `QoS` 2 delivery of which only PUBCOMP is awaited takes there.
pub const RELEASED_BYTES: usize = 40;

/// Bytes that the session or the subscription of this name or filter takes in the log.
pub const fn row_bytes(name: &str) -> usize {
    ROW_BYTES + name.len()
}

/// A session: it outlives the connection unless its expiry interval is 0.
#[derive(Debug)]
pub struct Session {
    /// Name of the session: the client id, behind the user's name and U+0001 where the client has logged in.
    pub client_id: Arc<str>,
    /// Its number in the log, if it may outlive a connection.
    pub persistent: Option<i64>,
    /// Number within this run of the broker, in the order in which sessions began.
    pub serial: usize,
    /// The outbound queue of its client.
    pub queue: Arc<OutboundQueue>,
    /// How often it has unsubscribed from a filter.
    pub unsubscribes: AtomicUsize,
    state: Mutex<State>,
}

/// The state of a session that changes.
#[derive(Debug, Default)]
pub struct State {
    /// Subscriptions, shared ones too.
    pub subscriptions: HashMap<Filter, Options>,
    /// Packet ids of `QoS` 2 messages that were received but not released yet.
    pub received: HashSet<u16>,
    /// Packet ids of `QoS` 2 deliveries from the log whose PUBREC has come, and not their PUBCOMP.
    pub released: HashSet<u16>,
    /// What its rows in the log are counted with: of itself, its subscriptions, `received` and `released`. `None`: it has none,
    /// or is over.
    pub rows: Option<Share>,
    /// Highest number of a message in the log that was ever sent: sent again, it is a duplicate.
    pub sent: i64,
    /// Set while a task waits to publish the session's will.
    pub will: Option<oneshot::Sender<()>>,
    /// Seconds that it outlives its connection.
    pub expiry_s: u32,
    /// When its connection left, Unix ms UTC; meaningless while connected.
    pub left_at_ms: i64,
}

impl State {
    /// Counts so many bytes more of its rows in the log. Returns whether its user may have them.
    pub fn add_rows(&mut self, bytes: usize) -> bool {
        self.rows.as_mut().is_none_or(|rows| rows.grow(bytes))
    }

    /// Notes the PUBREC of a delivery. Returns whether its user may have the row that stays until PUBCOMP.
    pub fn release(&mut self, packet_id: u16) -> bool {
        if self.released.contains(&packet_id) {
            return true;
        }
        let given = self.add_rows(RELEASED_BYTES);
        if given {
            self.released.insert(packet_id);
        }
        given
    }

    /// A delivery is over, with PUBCOMP or with a PUBREC that refuses it.
    pub fn complete(&mut self, packet_id: u16) {
        if self.released.remove(&packet_id) {
            self.remove_rows(RELEASED_BYTES);
        }
    }

    /// Counts so many bytes less.
    pub fn remove_rows(&mut self, bytes: usize) {
        if let Some(rows) = &mut self.rows {
            rows.shrink(bytes);
        }
    }
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
    /// The delivery of `message` by one subscription.
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
        let client_id: Arc<str> = Arc::from(client_id);
        Arc::new(Self {
            queue: OutboundQueue::new(Arc::clone(&client_id), queues),
            client_id,
            persistent,
            serial: SERIAL.fetch_add(1, Relaxed),
            unsubscribes: AtomicUsize::new(0),
            state: Mutex::new(state),
        })
    }

    /// Whether a subscription of its own matches, where it has unsubscribed since `unsubscribes` was read: no new
    /// message is delivered after an UNSUBACK ([MQTT-3.10.4-2]).
    pub fn still_wants(&self, topic: &str, unsubscribes: usize) -> bool {
        self.unsubscribes.load(Relaxed) == unsubscribes
            || self
                .state()
                .subscriptions
                .keys()
                .any(|filter| !filter.is_shared() && filter.matches(topic))
    }

    /// Locks the session's state; the lock is held briefly.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

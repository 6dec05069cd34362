//! What waits in memory for one client: a bounded queue that whoever publishes fills and the client's connection
//! empties.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::mqtt::{Message, QoS};

/// Deliveries that wait for one client, and their bytes. Beyond either the oldest is dropped.
pub(in crate::broker) const QUEUE_MESSAGES: usize = 10_000;
pub(in crate::broker) const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that wait for all clients together. Beyond it a queue that grows drops its oldest down to [`SHARE_BYTES`].
pub(in crate::broker) const ALL_QUEUES_BYTES: usize = 32 * 1024 * 1024;
/// Bytes that a client may always have waiting, so that a few slow clients do not starve the others.
const SHARE_BYTES: usize = 16 * 1024;
/// Counted for each delivery beside its message's bytes.
const DELIVERY_BYTES: usize = size_of::<Delivery>();
/// Places that an empty queue keeps allocated.
const IDLE_CAPACITY: usize = 32;

/// A message as it is to be delivered to one client. The message itself is shared with its other subscribers.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub message: Arc<Message>,
    /// The lower of the publisher's and the subscription's.
    pub qos: QoS,
    /// The retain flag as it is written.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched (MQTT 5.0 §3.3.2.3.8).
    pub identifiers: Vec<u32>,
}

impl Delivery {
    /// Bytes that it is counted with.
    fn size(&self) -> usize {
        DELIVERY_BYTES + 4 * self.identifiers.len() + self.message.size()
    }
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits; so many older ones were dropped for it.
    Waits { dropped: u64 },
    /// No connection takes deliveries at present.
    Closed,
}

/// A client's outbound queue.
#[derive(Debug)]
pub struct OutboundQueue {
    inner: Mutex<Inner>,
    /// Told when the queue is no longer empty, and when something new waits in the log.
    ready: Notify,
    /// Bytes that wait for all clients.
    total_bytes: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Inner {
    open: bool,
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    /// Something new waits in the log for the session.
    stored: bool,
}

impl OutboundQueue {
    /// A closed queue. `total_bytes` counts the bytes of all queues.
    pub const fn new(total_bytes: Arc<AtomicUsize>) -> Self {
        let inner = Inner { open: false, deliveries: VecDeque::new(), bytes: 0, stored: false };
        Self { inner: Mutex::new(inner), ready: Notify::const_new(), total_bytes }
    }

    /// A connection begins to take deliveries.
    pub fn open(&self) {
        self.lock().open = true;
    }

    /// The connection is gone: nothing waits in memory any more.
    pub fn close(&self) {
        let mut inner = self.lock();
        self.total_bytes.fetch_sub(inner.bytes, Relaxed);
        *inner = Inner::default();
    }

    /// Whether a connection takes deliveries.
    pub fn is_open(&self) -> bool {
        self.lock().open
    }

    /// Adds a delivery and, where there is no room for it, drops the oldest. The latest always waits.
    pub fn push(&self, delivery: Delivery) -> Pushed {
        let size = delivery.size();
        let mut inner = self.lock();
        if !inner.open {
            return Pushed::Closed;
        }
        let was_empty = inner.deliveries.is_empty();
        let mut dropped = 0;
        while self.is_full(&inner, size)
            && let Some(oldest) = inner.deliveries.pop_front()
        {
            self.discount(&mut inner, oldest.size());
            dropped += 1;
        }
        inner.bytes += size;
        self.total_bytes.fetch_add(size, Relaxed);
        inner.deliveries.push_back(delivery);
        drop(inner);
        if was_empty {
            self.ready.notify_one();
        }
        Pushed::Waits { dropped }
    }

    fn is_full(&self, inner: &Inner, size: usize) -> bool {
        let bytes = inner.bytes + size;
        inner.deliveries.len() >= QUEUE_MESSAGES
            || bytes > QUEUE_BYTES
            || (bytes > SHARE_BYTES && self.total_bytes.load(Relaxed) + size > ALL_QUEUES_BYTES)
    }

    fn discount(&self, inner: &mut Inner, size: usize) {
        inner.bytes -= size;
        self.total_bytes.fetch_sub(size, Relaxed);
    }

    /// Takes the oldest delivery off the queue if it is `wanted`.
    pub fn pop_if(&self, wanted: impl FnOnce(&Delivery) -> bool) -> Option<Delivery> {
        let mut inner = self.lock();
        if !inner.deliveries.front().is_some_and(wanted) {
            return None;
        }
        let delivery = inner.deliveries.pop_front()?;
        self.discount(&mut inner, delivery.size());
        if inner.deliveries.is_empty() {
            inner.deliveries.shrink_to(IDLE_CAPACITY);
        }
        Some(delivery)
    }

    /// Notes that something new waits in the log for the session.
    pub fn notify_stored(&self) {
        self.lock().stored = true;
        self.ready.notify_one();
    }

    /// Whether something new waits in the log since the last call.
    pub fn take_stored(&self) -> bool {
        std::mem::take(&mut self.lock().stored)
    }

    /// Resolves when there is something to look for. For one connection; cancelling and calling again loses nothing.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OutboundQueue {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(payload: impl Into<String>) -> Delivery {
        let message = Arc::new(Message::own("t", payload.into()));
        Delivery { message, qos: QoS::AtLeastOnce, retain: false, identifiers: Vec::new() }
    }

    fn queue(total: &Arc<AtomicUsize>) -> OutboundQueue {
        let queue = OutboundQueue::new(Arc::clone(total));
        queue.open();
        queue
    }

    #[test]
    fn the_oldest_makes_room_by_number_and_by_size_and_is_counted() {
        let total = Arc::default();
        let queue = queue(&total);
        let mut dropped = 0;
        for n in 0..QUEUE_MESSAGES + 5 {
            let Pushed::Waits { dropped: gone } = queue.push(delivery(n.to_string())) else {
                panic!("it is open")
            };
            dropped += gone;
        }
        assert_eq!(dropped, 5);
        assert_eq!(queue.pop_if(|_| true).unwrap().message.payload, "5");
        for _ in 0..200 {
            queue.push(delivery("x".repeat(100_000)));
        }
        assert!(queue.lock().bytes <= QUEUE_BYTES);
        queue.push(delivery("x".repeat(2 * QUEUE_BYTES)));
        assert_eq!(queue.lock().deliveries.len(), 1, "the latest always waits");
        assert!(queue.pop_if(|_| false).is_none());
        assert!(queue.pop_if(|_| true).is_some());
        assert_eq!((queue.lock().bytes, total.load(Relaxed)), (0, 0));
    }

    #[test]
    fn a_slow_client_gives_way_before_one_that_keeps_up() {
        let total = Arc::default();
        let (slow, quick) = (queue(&total), queue(&total));
        for _ in 0..20 {
            slow.push(delivery("x".repeat(100_000)));
        }
        total.fetch_add(ALL_QUEUES_BYTES, Relaxed);
        assert_eq!(quick.push(delivery("1")), Pushed::Waits { dropped: 0 });
        assert_eq!(quick.push(delivery("2")), Pushed::Waits { dropped: 0 });
        assert_eq!(slow.push(delivery("3")), Pushed::Waits { dropped: 20 });
        drop((slow, quick));
        assert_eq!(total.load(Relaxed), ALL_QUEUES_BYTES);
    }

    #[tokio::test]
    async fn a_connection_hears_once_of_what_waits_and_nothing_waits_without_one() {
        let total = Arc::default();
        let queue = queue(&total);
        queue.push(delivery("1"));
        queue.push(delivery("2"));
        queue.ready().await;
        assert!(!queue.take_stored());
        queue.notify_stored();
        queue.ready().await;
        assert!(queue.take_stored() && !queue.take_stored());
        queue.close();
        assert_eq!(total.load(Relaxed), 0);
        assert_eq!(queue.push(delivery("3")), Pushed::Closed);
    }
}

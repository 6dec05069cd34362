//! What waits in memory for one client: a bounded queue that publishers fill and the client's connection empties.
//!
//! A publisher that fills a queue faster than the connection gets to empty it is held back for some milliseconds, so
//! that a client which reads all the time loses nothing. Budgets bound how long publishers are held back: a client that
//! reads slowly loses messages, and costs the publishers no more than that.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout_at;

use crate::broker::net::token_bucket::TokenBucket;
use crate::mqtt::{Message, QoS};

/// Deliveries that wait for one client, and their bytes. Beyond either the oldest is dropped.
pub(in crate::broker) const QUEUE_MESSAGES: usize = 10_000;
pub(in crate::broker) const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that wait for all clients together. Beyond it a queue that grows drops its oldest down to [`SHARE_BYTES`].
pub(in crate::broker) const ALL_QUEUES_BYTES: usize = 32 * 1024 * 1024;
/// Bytes that a client may always have waiting, so that a few slow clients do not starve the others.
const SHARE_BYTES: usize = 16 * 1024;
/// How long a publisher is held back at most after one batch of messages. Its next acknowledgement comes that much
/// later.
pub(in crate::broker) const HOLD_MAX: Duration = Duration::from_millis(20);
/// A client that has taken nothing for this long holds nobody back.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// Seconds that one client's queue may hold publishers back at once, and for each second: 5 %.
const HOLD_BUDGET: (f64, f64) = (5.0, 0.05);
/// The same for all queues together: 20 %.
const ALL_HOLDS_BUDGET: (f64, f64) = (20.0, 0.2);
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
    /// It waits; so many older ones were dropped for it. In a queue that is `congested` it may soon be dropped itself.
    Waits { dropped: u64, congested: bool },
    /// No connection takes deliveries at present.
    Closed,
}

/// What all queues share.
#[derive(Debug)]
pub struct AllQueues {
    bytes: AtomicUsize,
    holds: Mutex<TokenBucket>,
}

impl Default for AllQueues {
    fn default() -> Self {
        let (most, per_second) = ALL_HOLDS_BUDGET;
        let holds = TokenBucket::new(most, per_second, Instant::now());
        Self { bytes: AtomicUsize::new(0), holds: Mutex::new(holds) }
    }
}

impl AllQueues {
    /// Bytes that wait for all clients together.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

/// A client's outbound queue.
#[derive(Debug)]
pub struct OutboundQueue {
    inner: Mutex<Inner>,
    /// Told when the queue is no longer empty, and when something new waits in the log.
    ready: Notify,
    /// Told when the queue is no longer congested.
    relieved: Notify,
    all: Arc<AllQueues>,
}

#[derive(Debug)]
struct Inner {
    open: bool,
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    /// Something new waits in the log for the session.
    stored: bool,
    /// When its connection last took a delivery, or found none.
    taken_at: Instant,
    holds: TokenBucket,
}

impl OutboundQueue {
    /// A closed queue, one of `all`.
    pub fn new(all: Arc<AllQueues>) -> Self {
        let (most, per_second) = HOLD_BUDGET;
        let inner = Inner {
            open: false,
            deliveries: VecDeque::new(),
            bytes: 0,
            stored: false,
            taken_at: Instant::now(),
            holds: TokenBucket::new(most, per_second, Instant::now()),
        };
        Self { inner: Mutex::new(inner), ready: Notify::new(), relieved: Notify::new(), all }
    }

    /// A connection begins to take deliveries.
    pub fn open(&self) {
        let mut inner = self.lock();
        inner.open = true;
        inner.taken_at = Instant::now();
    }

    /// The connection is gone: nothing waits in memory any more.
    pub fn close(&self) {
        let mut inner = self.lock();
        self.all.bytes.fetch_sub(inner.bytes, Relaxed);
        inner.open = false;
        inner.deliveries = VecDeque::new();
        inner.bytes = 0;
        inner.stored = false;
        drop(inner);
        self.relieved.notify_waiters();
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
        self.all.bytes.fetch_add(size, Relaxed);
        inner.deliveries.push_back(delivery);
        let congested = self.is_congested(&inner);
        drop(inner);
        if was_empty {
            self.ready.notify_one();
        }
        Pushed::Waits { dropped, congested }
    }

    /// Whether half of what may wait does.
    fn is_congested(&self, inner: &Inner) -> bool {
        inner.deliveries.len() > QUEUE_MESSAGES / 2
            || inner.bytes > QUEUE_BYTES / 2
            || (inner.bytes > SHARE_BYTES && self.all.bytes() > ALL_QUEUES_BYTES / 2)
    }

    fn is_full(&self, inner: &Inner, size: usize) -> bool {
        let bytes = inner.bytes + size;
        inner.deliveries.len() >= QUEUE_MESSAGES
            || bytes > QUEUE_BYTES
            || (bytes > SHARE_BYTES && self.all.bytes() + size > ALL_QUEUES_BYTES)
    }

    fn discount(&self, inner: &mut Inner, size: usize) {
        inner.bytes -= size;
        self.all.bytes.fetch_sub(size, Relaxed);
    }

    /// Takes the oldest delivery off the queue if it is `wanted`.
    pub fn pop_if(&self, wanted: impl FnOnce(&Delivery) -> bool) -> Option<Delivery> {
        let mut inner = self.lock();
        if !inner.deliveries.front().is_some_and(wanted) {
            return None;
        }
        let was_congested = self.is_congested(&inner);
        let delivery = inner.deliveries.pop_front()?;
        self.discount(&mut inner, delivery.size());
        inner.taken_at = Instant::now();
        if inner.deliveries.is_empty() {
            inner.deliveries.shrink_to(IDLE_CAPACITY);
        }
        let relieved = was_congested && !self.is_congested(&inner);
        drop(inner);
        if relieved {
            self.relieved.notify_waiters();
        }
        Some(delivery)
    }

    /// Holds a publisher back while the queue is congested: until `deadline`, within the budgets, and not at all when
    /// the client has taken nothing for [`STALLED_AFTER`].
    pub async fn hold_back(&self, deadline: tokio::time::Instant) {
        let started = Instant::now();
        {
            let inner = self.lock();
            let left = inner.holds.left(started) > 0.0 && self.holds().left(started) > 0.0;
            if !left || started >= inner.taken_at + STALLED_AFTER {
                return;
            }
        }
        let relieved = async {
            loop {
                let relieved = self.relieved.notified();
                if !self.is_congested(&self.lock()) {
                    return;
                }
                relieved.await;
            }
        };
        let _ = timeout_at(deadline, relieved).await;
        let now = Instant::now();
        let seconds = (now - started).as_secs_f64();
        self.lock().holds.overdraw(seconds, now);
        self.holds().overdraw(seconds, now);
    }

    fn holds(&self) -> MutexGuard<'_, TokenBucket> {
        self.all.holds.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn deadline() -> tokio::time::Instant {
        tokio::time::Instant::now() + HOLD_MAX
    }

    fn queue(all: &Arc<AllQueues>) -> OutboundQueue {
        let queue = OutboundQueue::new(Arc::clone(all));
        queue.open();
        queue
    }

    #[test]
    fn the_oldest_makes_room_by_number_and_by_size_and_is_counted() {
        let total = Arc::default();
        let queue = queue(&total);
        let mut dropped = 0;
        for n in 0..QUEUE_MESSAGES + 5 {
            let Pushed::Waits { dropped: gone, .. } = queue.push(delivery(n.to_string())) else {
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
        assert_eq!((queue.lock().bytes, total.bytes()), (0, 0));
    }

    #[test]
    fn a_slow_client_gives_way_before_one_that_keeps_up() {
        let total = Arc::default();
        let (slow, quick) = (queue(&total), queue(&total));
        for _ in 0..20 {
            slow.push(delivery("x".repeat(100_000)));
        }
        total.bytes.fetch_add(ALL_QUEUES_BYTES, Relaxed);
        let waits = |dropped| Pushed::Waits { dropped, congested: false };
        assert_eq!(quick.push(delivery("1")), waits(0));
        assert_eq!(quick.push(delivery("2")), waits(0));
        assert_eq!(slow.push(delivery("3")), waits(20));
        drop((slow, quick));
        assert_eq!(total.bytes(), ALL_QUEUES_BYTES);
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
        assert_eq!(total.bytes(), 0);
        assert_eq!(queue.push(delivery("3")), Pushed::Closed);
    }

    #[tokio::test]
    async fn a_publisher_is_held_back_for_a_client_that_reads_and_not_for_one_that_does_not() {
        let all = Arc::default();
        let queue = Arc::new(queue(&all));
        let full = |queue: &OutboundQueue| {
            while !matches!(queue.push(delivery("1")), Pushed::Waits { congested: true, .. }) {}
        };
        full(&queue);
        let reading = Arc::clone(&queue);
        let reader = tokio::spawn(async move { while reading.pop_if(|_| true).is_some() {} });
        queue.hold_back(deadline()).await;
        assert!(!queue.is_congested(&queue.lock()), "it was relieved, or it would have been full");
        reader.await.unwrap();
        full(&queue);
        let before = queue.lock().holds.left(Instant::now());
        queue.hold_back(deadline()).await;
        let after = queue.lock().holds.left(Instant::now());
        assert!(after < before, "the wait was charged");
        // Nothing was taken for a while: no wait, and none is charged.
        queue.lock().taken_at = Instant::now().checked_sub(STALLED_AFTER).unwrap();
        queue.hold_back(deadline()).await;
        assert!(queue.lock().holds.left(Instant::now()) >= after);
    }

    #[tokio::test]
    async fn what_publishers_are_held_back_for_is_bounded() {
        let all = Arc::default();
        let queue = queue(&all);
        while !matches!(queue.push(delivery("1")), Pushed::Waits { congested: true, .. }) {}
        let now = Instant::now();
        queue.lock().holds.overdraw(HOLD_BUDGET.0 + 1.0, now);
        let before = queue.lock().holds.left(now);
        queue.hold_back(deadline()).await;
        assert!(queue.lock().holds.left(now) >= before, "it did not wait");
    }
}

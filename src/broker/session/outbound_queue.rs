//! What waits in memory for one client: a bounded queue that publishers fill and the client's connection empties.
//!
//! A publisher that fills a queue faster than the connection gets to empty it is held back for some milliseconds, so
//! that a client which reads all the time loses nothing. Budgets bound how long publishers are held back: a client that
//! reads slowly loses messages, and costs the publishers no more than that.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::hold_back::HoldBudget;
use crate::mqtt::{ALLOCATION_BYTES, Message, QoS};
use crate::store::user_of;

/// Deliveries that wait for one client, and their bytes. Beyond either the oldest is dropped.
pub(in crate::broker) const QUEUE_MESSAGES: usize = 10_000;
pub(in crate::broker) const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that wait for all clients together, each message counted once, with what it takes beside its text. Beyond it a queue loses half: of the user for
/// whose clients most bytes wait, one whose client takes nothing, or else the longest.
pub(in crate::broker) const ALL_QUEUES_BYTES: usize = 20 * 1024 * 1024;
/// Bytes below which a queue is neither congested nor loses anything for the others.
const SHARE_BYTES: usize = 16 * 1024;
/// A client that has taken nothing for this long holds nobody back.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// Counted for each delivery beside its message's bytes: a queue that grows doubles its places.
const DELIVERY_BYTES: usize = 2 * size_of::<Delivery>();
/// Counted for each message beside its own bytes, for [`Shared`].
const SHARED_BYTES: usize = size_of::<Shared>() + ALLOCATION_BYTES;
/// Places that an empty queue keeps allocated.
const IDLE_CAPACITY: usize = 32;

/// A message as it is to be delivered to one client. The message itself is shared with its other subscribers.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub message: Arc<Shared>,
    /// The lower of the publisher's and the subscription's.
    pub qos: QoS,
    /// The retain flag as it is written.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched (MQTT 5.0 §3.3.2.3.8).
    pub identifiers: Vec<u32>,
}

impl Delivery {
    /// Bytes that it takes beside its message.
    const fn overhead(&self) -> usize {
        let identifiers = if self.identifiers.is_empty() { 0 } else { ALLOCATION_BYTES };
        DELIVERY_BYTES + identifiers + size_of::<u32>() * self.identifiers.len()
    }

    /// Bytes that it is counted with in its client's queue.
    fn size(&self) -> usize {
        self.overhead() + self.message.memory()
    }
}

/// A message in queues: counted once, for as long as one of them has it.
#[derive(Debug)]
pub struct Shared {
    message: Arc<Message>,
    /// Where it is counted; nowhere for a retained message, which is in memory anyway.
    all: Option<Arc<AllQueues>>,
}

impl Shared {
    /// A message that is in memory anyway.
    pub fn uncounted(message: Arc<Message>) -> Arc<Self> {
        Arc::new(Self { message, all: None })
    }

    /// The message itself.
    pub fn message(&self) -> Arc<Message> {
        Arc::clone(&self.message)
    }
}

impl Deref for Shared {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(all) = &self.all {
            all.bytes.fetch_sub(SHARED_BYTES + self.message.memory(), Relaxed);
        }
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
    holds: Mutex<HoldBudget>,
    /// The open ones, by their address.
    open: Mutex<HashMap<usize, Weak<OutboundQueue>>>,
}

impl Default for AllQueues {
    fn default() -> Self {
        let holds = Mutex::new(HoldBudget::of_all(Instant::now()));
        Self { bytes: AtomicUsize::new(0), holds, open: Mutex::default() }
    }
}

impl AllQueues {
    /// Bytes that wait for all clients together.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// A message that is counted while a queue has it.
    pub fn share(self: &Arc<Self>, message: &Arc<Message>) -> Arc<Shared> {
        self.bytes.fetch_add(SHARED_BYTES + message.memory(), Relaxed);
        Arc::new(Shared { message: Arc::clone(message), all: Some(Arc::clone(self)) })
    }

    /// Makes room when more than [`ALL_QUEUES_BYTES`] wait: of the user for whose clients most bytes wait, the client with
    /// the most waiting loses the older half, of those that have taken nothing for a while, or else of all. Returns whose
    /// messages were dropped, and how many.
    pub fn make_room(&self) -> Option<(Arc<str>, u64)> {
        if self.bytes() <= ALL_QUEUES_BYTES {
            return None;
        }
        let now = Instant::now();
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let queues: Vec<_> = open.values().filter_map(Weak::upgrade).collect();
        // Before any of them is dropped: the last to hold a queue closes it, for which it needs the lock.
        drop(open);
        let weighed: Vec<_> = queues
            .iter()
            .map(|queue| {
                let inner = queue.lock();
                (now >= inner.taken_at + STALLED_AFTER, inner.bytes, queue)
            })
            .filter(|(_, bytes, _)| *bytes > SHARE_BYTES)
            .collect();
        let mut of_user: HashMap<&str, usize> = HashMap::new();
        for (_, bytes, queue) in &weighed {
            *of_user.entry(user_of(&queue.client)).or_default() += bytes;
        }
        let most = of_user.values().max()?;
        let (_, _, longest) = weighed
            .iter()
            .filter(|(_, _, queue)| of_user.get(user_of(&queue.client)) == Some(most))
            .max_by_key(|(stalls, bytes, _)| (*stalls, *bytes))?;
        let dropped = longest.drop_half();
        Some((Arc::clone(&longest.client), dropped))
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
    /// Whose it is.
    client: Arc<str>,
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
    /// Bytes of all deliveries that were taken.
    taken_bytes: u64,
    holds: HoldBudget,
}

impl OutboundQueue {
    /// A closed queue of `client`, one of `all`.
    pub fn new(client: Arc<str>, all: Arc<AllQueues>) -> Arc<Self> {
        let inner = Inner {
            open: false,
            deliveries: VecDeque::new(),
            bytes: 0,
            stored: false,
            taken_at: Instant::now(),
            taken_bytes: 0,
            holds: HoldBudget::of_queue(Instant::now()),
        };
        let inner = Mutex::new(inner);
        Arc::new(Self { inner, ready: Notify::new(), relieved: Notify::new(), all, client })
    }

    /// A connection begins to take deliveries.
    pub fn open(self: &Arc<Self>) {
        {
            let mut inner = self.lock();
            inner.open = true;
            inner.taken_at = Instant::now();
        }
        let mut open = self.all.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(self.address(), Arc::downgrade(self));
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// The connection is gone: nothing waits in memory any more.
    pub fn close(&self) {
        {
            let mut inner = self.lock();
            inner.open = false;
            inner.stored = false;
            while let Some(delivery) = inner.deliveries.pop_front() {
                self.discount(&mut inner, &delivery);
            }
            inner.deliveries.shrink_to(0);
        }
        self.relieved.notify_waiters();
        let address = self.address();
        self.all.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }

    /// Drops the older half. Returns how many that are.
    fn drop_half(&self) -> u64 {
        let mut dropped = 0;
        {
            let mut inner = self.lock();
            let half = inner.bytes / 2;
            while inner.bytes > half
                && let Some(oldest) = inner.deliveries.pop_front()
            {
                self.discount(&mut inner, &oldest);
                dropped += 1;
            }
        }
        self.relieved.notify_waiters();
        dropped
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
        while Self::is_full(&inner, size)
            && let Some(oldest) = inner.deliveries.pop_front()
        {
            self.discount(&mut inner, &oldest);
            dropped += 1;
        }
        inner.bytes += size;
        self.all.bytes.fetch_add(delivery.overhead(), Relaxed);
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

    fn is_full(inner: &Inner, size: usize) -> bool {
        inner.deliveries.len() >= QUEUE_MESSAGES || inner.bytes + size > QUEUE_BYTES
    }

    fn discount(&self, inner: &mut Inner, delivery: &Delivery) {
        inner.bytes -= delivery.size();
        self.all.bytes.fetch_sub(delivery.overhead(), Relaxed);
    }

    /// Takes the oldest delivery off the queue if it is `wanted`.
    pub fn pop_if(&self, wanted: impl FnOnce(&Delivery) -> bool) -> Option<Delivery> {
        let mut inner = self.lock();
        if !inner.deliveries.front().is_some_and(wanted) {
            return None;
        }
        let was_congested = self.is_congested(&inner);
        let delivery = inner.deliveries.pop_front()?;
        self.discount(&mut inner, &delivery);
        inner.taken_at = Instant::now();
        inner.taken_bytes += delivery.size() as u64;
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
        let taken_before = {
            let inner = self.lock();
            let left = inner.holds.left(started) > 0.0 && self.holds().left(started) > 0.0;
            if !left || started >= inner.taken_at + STALLED_AFTER {
                return;
            }
            inner.taken_bytes
        };
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
        let held = now - started;
        let mut inner = self.lock();
        let drained = inner.taken_bytes - taken_before;
        inner.holds.charge(held, drained, now);
        self.holds().charge(held, drained, now);
    }

    fn holds(&self) -> MutexGuard<'_, HoldBudget> {
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
    use super::super::hold_back::HOLD_MAX;
    use super::*;

    fn delivery(payload: impl Into<String>) -> Delivery {
        let message = Shared::uncounted(Arc::new(Message::own("t", payload.into())));
        Delivery { message, qos: QoS::AtLeastOnce, retain: false, identifiers: Vec::new() }
    }

    fn deadline() -> tokio::time::Instant {
        tokio::time::Instant::now() + HOLD_MAX
    }

    fn queue(all: &Arc<AllQueues>) -> Arc<OutboundQueue> {
        let queue = OutboundQueue::new("c".into(), Arc::clone(all));
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
    fn a_client_that_takes_nothing_gives_way_before_one_that_reads() {
        let all = Arc::<AllQueues>::default();
        let (stalled, reading) = (queue(&all), queue(&all));
        let message = Arc::new(Message::own("t", "x".repeat(1_000_000)));
        let push = |queue: &OutboundQueue| {
            let message = all.share(&message);
            let more = Delivery { message, ..delivery("") };
            queue.push(more);
        };
        // The other one has more waiting, and takes it.
        (0..4).for_each(|_| push(&stalled));
        (0..6).for_each(|_| push(&reading));
        assert_eq!(all.make_room(), None);
        all.bytes.fetch_add(ALL_QUEUES_BYTES, Relaxed);
        stalled.lock().taken_at = Instant::now().checked_sub(STALLED_AFTER).unwrap();
        assert_eq!(all.make_room(), Some(("c".into(), 2)));
        assert_eq!((stalled.lock().deliveries.len(), reading.lock().deliveries.len()), (2, 6));
        stalled.close();
        assert_eq!(all.make_room(), Some(("c".into(), 3)), "then the longest");
        drop((stalled, reading));
        assert_eq!(all.bytes(), ALL_QUEUES_BYTES);
        assert!(all.open.lock().unwrap().is_empty());
    }

    #[test]
    fn the_user_for_whom_most_waits_gives_way_before_one_with_a_longer_queue() {
        let all = Arc::<AllQueues>::default();
        let queue = |client: &str| {
            let queue = OutboundQueue::new(client.into(), Arc::clone(&all));
            queue.open();
            queue
        };
        let many: Vec<_> = (0..10).map(|n| queue(&format!("many\u{1}{n}"))).collect();
        let other = queue("other\u{1}c");
        let message = all.share(&Arc::new(Message::own("t", "x".repeat(100_000))));
        let push = |queue: &OutboundQueue| {
            queue.push(Delivery { message: Arc::clone(&message), ..delivery("") });
        };
        for queue in &many {
            push(queue);
        }
        (0..4).for_each(|_| push(&other));
        // Its client reads slowly, those of the other user take all in time.
        other.lock().taken_at = Instant::now().checked_sub(STALLED_AFTER).unwrap();
        all.bytes.fetch_add(ALL_QUEUES_BYTES, Relaxed);
        let (client, dropped) = all.make_room().unwrap();
        assert_eq!((user_of(&client), dropped), ("many", 1));
        assert_eq!(other.lock().deliveries.len(), 4);
    }

    #[test]
    fn a_message_counts_once_however_many_queues_have_it() {
        let all = Arc::<AllQueues>::default();
        let queues: Vec<_> = (0..10).map(|_| queue(&all)).collect();
        let message = all.share(&Arc::new(Message::own("t", "x".repeat(1_000_000))));
        for queue in &queues {
            queue.push(Delivery { message: Arc::clone(&message), ..delivery("") });
        }
        drop(message);
        assert!((1_000_000..1_002_000).contains(&all.bytes()), "{}", all.bytes());
        drop(queues);
        assert_eq!(all.bytes(), 0);
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
        let queue = queue(&all);
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
        queue.lock().holds.charge(Duration::from_secs(2), 0, now);
        let before = queue.lock().holds.left(now);
        queue.hold_back(deadline()).await;
        assert!(queue.lock().holds.left(now) >= before, "it did not wait");
    }
}

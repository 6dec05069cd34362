//! Shared messages between who publishes them and the connection of a member, which takes them as it comes round.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::broker::delivery::outbound::{Parcel, QUEUE_BYTES, QUEUE_MESSAGES};

/// A bounded queue: when there is no room the oldest goes.
#[derive(Debug, Default)]
pub struct Inbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    parcels: VecDeque<Parcel>,
    bytes: usize,
}

impl Inbox {
    /// Adds one message. Returns how many had to make room.
    pub fn put(&self, parcel: Parcel) -> u64 {
        let size = parcel.message.size();
        let mut queue = self.lock();
        let mut gone = 0;
        while (queue.parcels.len() >= QUEUE_MESSAGES || queue.bytes + size > QUEUE_BYTES)
            && let Some(oldest) = queue.parcels.pop_front()
        {
            queue.bytes -= oldest.message.size();
            gone += 1;
        }
        queue.bytes += size;
        queue.parcels.push_back(parcel);
        drop(queue);
        self.filled.notify_one();
        gone
    }

    /// Waits for the oldest. For one connection; cancelling and calling again loses nothing.
    pub async fn take(&self) -> Parcel {
        loop {
            {
                let mut queue = self.lock();
                if let Some(parcel) = queue.parcels.pop_front() {
                    queue.bytes -= parcel.message.size();
                    return parcel;
                }
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::mqtt::QoS;

    use super::*;
    use crate::mqtt::Message;

    fn parcel(payload: String) -> Parcel {
        let message = Arc::new(Message::own("t".to_owned(), payload));
        Parcel { message, qos: QoS::AtLeastOnce, retain: false, identifiers: Vec::new() }
    }

    #[tokio::test]
    async fn the_oldest_makes_room_by_number_and_by_size() {
        let inbox = Inbox::default();
        let gone: u64 = (0..QUEUE_MESSAGES + 5).map(|n| inbox.put(parcel(n.to_string()))).sum();
        assert_eq!(gone, 5);
        assert_eq!(inbox.take().await.message.payload, "5");
        let _: u64 = (0..100).map(|_| inbox.put(parcel("x".repeat(100_000)))).sum();
        assert!(inbox.lock().bytes <= QUEUE_BYTES);
        inbox.put(parcel("x".repeat(2 * QUEUE_BYTES)));
        assert_eq!(inbox.lock().parcels.len(), 1, "one is always kept");
        assert_eq!(inbox.take().await.message.payload.len(), 2 * QUEUE_BYTES);
        assert_eq!(inbox.lock().bytes, 0);
    }
}

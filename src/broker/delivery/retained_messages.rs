//! Retained messages: the latest of each topic, for later subscribers. All of them are in memory. All but the broker's
//! own are also in the log, committed before their publisher's acknowledgement.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use tracing::warn;

use crate::broker::session::subscriptions::Numbers;
use crate::mqtt::{Filter, Message, Topic};

/// Topics that may have a retained message. A hall of 100 nodes has 1,000.
const TOPICS: usize = 20_000;
/// Bytes of all retained messages together.
const BYTES: usize = 8 * 1024 * 1024;

/// A topic's retained message, with its numbers.
#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    numbers: Numbers,
}

#[derive(Debug, Default)]
struct Table {
    topics: HashMap<Topic, Entry>,
    bytes: usize,
}

/// The retained messages of the broker.
#[derive(Debug, Clone, Default)]
pub struct Retained {
    table: Arc<RwLock<Table>>,
    warned: Arc<AtomicBool>,
}

impl Retained {
    /// The retained messages of the broker's previous run.
    pub fn new(stored: Vec<Arc<Message>>) -> Self {
        let retained = Self::default();
        for message in stored {
            // Before every subscription.
            retained.set(message, Numbers::default());
        }
        retained
    }

    /// Whether there is room for `message`. Several publishers may get the same free room at the same moment, so the
    /// messages of one commit can exceed the bound.
    pub fn admits(&self, message: &Message) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let before = table.topics.get(&message.topic);
        let topics = table.topics.len() + usize::from(before.is_none());
        let bytes = table.bytes + message.size() - before.map_or(0, |before| before.message.size());
        let room = message.payload.is_empty() || (topics <= TOPICS && bytes <= BYTES);
        drop(table);
        if !room && !self.warned.swap(true, Relaxed) {
            warn!(
                "no room for further retained messages ({TOPICS} topics, {BYTES} bytes): they are delivered but not retained"
            );
        }
        room
    }

    /// Makes `message` its topic's retained message; an empty one deletes it ([MQTT-3.3.1-10]).
    pub fn set(&self, message: Arc<Message>, numbers: Numbers) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let before = if message.payload.is_empty() {
            table.topics.remove(&message.topic)
        } else {
            table.bytes += message.size();
            table.topics.insert(message.topic.clone(), Entry { message, numbers })
        };
        table.bytes -= before.map_or(0, |before| before.message.size());
    }

    /// Deletes the messages that have expired at `now_ms`.
    pub fn expire(&self, now_ms: i64) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let mut freed = 0;
        table.topics.retain(|_, entry| {
            let expired = entry.message.is_expired(now_ms);
            freed += if expired { entry.message.size() } else { 0 };
            !expired
        });
        table.bytes -= freed;
    }

    /// The retained messages for a new subscription to `filter` at `now_ms`, in the order of their topics. `replayed`
    /// decides by a message's numbers whether this subscription gets it.
    pub fn matching(
        &self,
        filter: &Filter,
        now_ms: i64,
        replayed: impl Fn(Numbers) -> bool,
    ) -> Vec<Arc<Message>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = |entry: &&Entry| !entry.message.is_expired(now_ms) && replayed(entry.numbers);
        if !filter.as_str().contains(['+', '#']) {
            let entry = table.topics.get(filter.as_str()).filter(wanted);
            return entry.map(|entry| Arc::clone(&entry.message)).into_iter().collect();
        }
        let matching = table.topics.values().filter(|entry| filter.matches(&entry.message.topic));
        let mut found: Vec<_> =
            matching.filter(wanted).map(|entry| Arc::clone(&entry.message)).collect();
        drop(table);
        found.sort_unstable_by(|one, other| one.topic.cmp(&other.topic));
        found
    }

    /// Calls `each` with every retained message that has not expired at `now_ms`, and its numbers.
    pub fn each(&self, now_ms: i64, mut each: impl FnMut(&Arc<Message>, Numbers)) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        for kept in table.topics.values().filter(|kept| !kept.message.is_expired(now_ms)) {
            each(&kept.message, kept.numbers);
        }
    }

    /// Whether a retained message has expired at `now_ms`.
    pub fn has_expired(&self, now_ms: i64) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.topics.values().any(|entry| entry.message.is_expired(now_ms))
    }

    /// The number of retained messages.
    pub fn len(&self) -> usize {
        self.table.read().unwrap_or_else(PoisonError::into_inner).topics.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &[u8]) -> Arc<Message> {
        Arc::new(Message::own(topic, payload.to_vec()))
    }

    fn set(retained: &Retained, message: Arc<Message>) {
        retained.set(message, Numbers::default());
    }

    #[test]
    fn the_latest_of_each_topic_is_kept_until_an_empty_one() {
        let retained = Retained::default();
        for (topic, payload) in [("b/1", "x"), ("a/1", "old"), ("a/1", "new"), ("$SYS/a", "y")] {
            set(&retained, message(topic, payload.as_bytes()));
        }
        let found = |filter: &str| -> Vec<String> {
            let found = retained.matching(&filter.parse().unwrap(), 0, |_| true);
            found.iter().map(|message| message.topic.to_string()).collect()
        };
        assert_eq!(found("#"), ["a/1", "b/1"]);
        assert_eq!(found("a/1"), ["a/1"]);
        assert_eq!(found("$SYS/#"), ["$SYS/a"]);
        assert_eq!(retained.matching(&"a/+".parse().unwrap(), 0, |_| true)[0].payload, "new");
        set(&retained, message("a/1", b""));
        assert!(found("a/+").is_empty());
        set(&retained, message("b/1", b""));
        set(&retained, message("$SYS/a", b""));
        assert_eq!(retained.table.read().unwrap().bytes, 0);
    }

    #[test]
    fn an_expired_message_is_not_replayed_and_is_deleted() {
        let retained = Retained::default();
        let expiring = Message { expires_at_ms: Some(10), ..Message::own("a", "1") };
        set(&retained, Arc::new(expiring));
        assert_eq!(retained.matching(&"a".parse().unwrap(), 9, |_| true).len(), 1);
        assert!(retained.matching(&"#".parse().unwrap(), 10, |_| true).is_empty());
        retained.expire(10);
        assert_eq!((retained.len(), retained.table.read().unwrap().bytes), (0, 0));
    }

    #[test]
    fn retained_messages_are_bounded() {
        let retained = Retained::default();
        let big = vec![0; 1024 * 1024];
        for n in 0..20 {
            let message = message(&format!("big/{n}"), &big);
            if retained.admits(&message) {
                set(&retained, message);
            }
        }
        assert_eq!(retained.len(), 7);
        assert!(retained.admits(&message("big/3", &big)), "replacing costs nothing");
        assert!(retained.admits(&message("big/19", b"")), "deleting is always possible");
        for n in 0..TOPICS + 10 {
            let message = message(&format!("t/{n}"), b"1");
            if retained.admits(&message) {
                set(&retained, message);
            }
        }
        assert_eq!(retained.len(), TOPICS);
    }
}

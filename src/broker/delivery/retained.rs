//! Retained messages: the latest of each topic, for who subscribes later. All of them are in memory, and all but
//! the broker's own in the log, where a publisher's acknowledgement finds them committed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use tracing::warn;

use crate::mqtt::{Filter, Message, Topic};
use crate::store::Change;

/// Topics that may have a retained message. A hall of 100 nodes has 1,000.
const TOPICS: usize = 20_000;
/// Bytes of all retained messages together.
const BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, Default)]
struct Table {
    topics: HashMap<Topic, Arc<Message>>,
    bytes: usize,
}

/// The retained messages of the broker.
#[derive(Debug, Clone, Default)]
pub struct Retained {
    table: Arc<RwLock<Table>>,
    warned: Arc<AtomicBool>,
}

impl Retained {
    /// With what was retained when the broker last ended.
    pub fn new(stored: Vec<Arc<Message>>) -> Self {
        let retained = Self::default();
        for message in stored {
            retained.set(message);
        }
        retained
    }

    /// Whether there is room for `message`. Publishers that ask at the same moment may all be told yes, so the
    /// bound can be passed by what they have in one commit.
    pub fn admits(&self, message: &Message) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let before = table.topics.get(&message.topic);
        let topics = table.topics.len() + usize::from(before.is_none());
        let bytes = table.bytes + message.size() - before.map_or(0, |before| before.size());
        let room = message.payload.is_empty() || (topics <= TOPICS && bytes <= BYTES);
        drop(table);
        if !room && !self.warned.swap(true, Relaxed) {
            warn!(
                "no room for further retained messages ({TOPICS} topics, {BYTES} bytes): they are passed on without being retained"
            );
        }
        room
    }

    /// Makes `message` its topic's retained one; an empty one deletes that ([MQTT-3.3.1-10]).
    pub fn set(&self, message: Arc<Message>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let before = if message.payload.is_empty() {
            table.topics.remove(&message.topic)
        } else {
            table.bytes += message.size();
            table.topics.insert(message.topic.clone(), message)
        };
        table.bytes -= before.map_or(0, |before| before.size());
    }

    /// Follows what was committed.
    pub fn follow(&self, changes: &[&Change]) {
        for change in changes {
            match change {
                Change::Retain(message) => self.set(Arc::clone(message)),
                Change::Expire { at_ms } => self.expire(*at_ms),
                _ => {}
            }
        }
    }

    fn expire(&self, now_ms: i64) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let mut freed = 0;
        table.topics.retain(|_, message| {
            let expired = message.is_expired(now_ms);
            freed += if expired { message.size() } else { 0 };
            !expired
        });
        table.bytes -= freed;
    }

    /// What a new subscription to `filter` gets at `now_ms`, by topic.
    pub fn matching(&self, filter: &Filter, now_ms: i64) -> Vec<Arc<Message>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let alive = |message: &&Arc<Message>| !message.is_expired(now_ms);
        if !filter.as_str().contains(['+', '#']) {
            return table.topics.get(filter.as_str()).filter(alive).cloned().into_iter().collect();
        }
        let matching = table.topics.values().filter(|message| filter.matches(&message.topic));
        let mut found: Vec<_> = matching.filter(alive).cloned().collect();
        drop(table);
        found.sort_unstable_by(|one, other| one.topic.cmp(&other.topic));
        found
    }

    /// Whether one of them has expired at `now_ms`.
    pub fn has_expired(&self, now_ms: i64) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.topics.values().any(|message| message.is_expired(now_ms))
    }

    /// How many there are.
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

    #[test]
    fn the_latest_of_each_topic_is_kept_until_an_empty_one() {
        let retained = Retained::default();
        for (topic, payload) in [("b/1", "x"), ("a/1", "old"), ("a/1", "new"), ("$SYS/a", "y")] {
            retained.set(message(topic, payload.as_bytes()));
        }
        let found = |filter: &str| -> Vec<String> {
            let found = retained.matching(&filter.parse().unwrap(), 0);
            found.iter().map(|message| message.topic.to_string()).collect()
        };
        assert_eq!(found("#"), ["a/1", "b/1"]);
        assert_eq!(found("a/1"), ["a/1"]);
        assert_eq!(found("$SYS/#"), ["$SYS/a"]);
        assert_eq!(retained.matching(&"a/+".parse().unwrap(), 0)[0].payload, "new");
        retained.set(message("a/1", b""));
        assert!(found("a/+").is_empty());
        retained.set(message("b/1", b""));
        retained.set(message("$SYS/a", b""));
        assert_eq!(retained.table.read().unwrap().bytes, 0);
    }

    #[test]
    fn what_has_expired_is_not_given_and_goes() {
        let retained = Retained::default();
        let expiring = Message { expires_at_ms: Some(10), ..Message::own("a", "1") };
        retained.set(Arc::new(expiring));
        assert_eq!(retained.matching(&"a".parse().unwrap(), 9).len(), 1);
        assert!(retained.matching(&"#".parse().unwrap(), 10).is_empty());
        retained.follow(&[&Change::Expire { at_ms: 10 }]);
        assert_eq!((retained.len(), retained.table.read().unwrap().bytes), (0, 0));
    }

    #[test]
    fn what_strangers_have_retained_is_bounded() {
        let retained = Retained::default();
        let big = vec![0; 1024 * 1024];
        for n in 0..20 {
            let message = message(&format!("big/{n}"), &big);
            if retained.admits(&message) {
                retained.set(message);
            }
        }
        assert_eq!(retained.len(), 7);
        assert!(retained.admits(&message("big/3", &big)), "replacing costs nothing");
        assert!(retained.admits(&message("big/19", b"")), "deleting is always welcome");
        for n in 0..TOPICS + 10 {
            let message = message(&format!("t/{n}"), b"1");
            if retained.admits(&message) {
                retained.set(message);
            }
        }
        assert_eq!(retained.len(), TOPICS);
    }
}

//! Retained messages: the latest of each topic, for later subscribers. All of them are in memory. All but the broker's
//! own are also in the log, committed before their publisher's acknowledgement.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::broker::net::shares::Shares;
use crate::broker::session::subscriptions::Numbers;
use crate::mqtt::{Filter, Message, Topic};
use crate::store::{Retention, user_of};
use crate::throttled_log::ThrottledLog;
use crate::wire::is_command;

/// Topics that may have a retained message, shared by user. A hall of 100 nodes has 1,000.
pub const RETAINED_TOPICS: usize = 20_000;
/// Bytes of all retained messages together, shared by user.
pub const RETAINED_BYTES: usize = 12 * 1024 * 1024;
/// One part in so many of the log's largest size, where that is less: the series keep the rest.
const RETAINED_SHARE: u64 = 16;
/// The same for commands to outputs, which have room of their own.
pub const RETAINED_COMMANDS: usize = 2_000;
pub const RETAINED_COMMAND_BYTES: usize = 1024 * 1024;
const RETAINED_COMMAND_SHARE: u64 = 64;
/// A retained message takes a multiple of these bytes, so that a value which becomes longer by some characters needs
/// no further room.
const STEP_BYTES: usize = 256;
/// Most messages of one page of a look-up, and most topics that are looked at for it.
const PAGE_MESSAGES: usize = 256;
const PAGE_TOPICS: usize = 4096;
/// Any client can cause this line.
static NO_ROOM_LINE: ThrottledLog = ThrottledLog::new(Duration::from_mins(10));

/// A topic's retained message, with its numbers.
#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    numbers: Numbers,
}

/// Whose room a message takes: its publisher's user; nobody's for the broker's own.
fn holder(publisher: &str) -> Option<Arc<str>> {
    (!publisher.is_empty()).then(|| user_of(publisher).into())
}

/// The room of a message: what it takes in memory, its place in the table included.
fn cost(message: &Message) -> usize {
    (message.memory() + size_of::<(Topic, Entry)>()).next_multiple_of(STEP_BYTES)
}

#[derive(Debug)]
struct Pool {
    topics: Shares,
    bytes: Shares,
}

impl Pool {
    fn new(topics: usize, bytes: usize) -> Self {
        Self { topics: Shares::new(topics), bytes: Shares::new(bytes) }
    }

    fn take(&mut self, holder: &Arc<str>, topics: usize, bytes: usize) {
        self.topics.take(holder, topics);
        self.bytes.take(holder, bytes);
    }

    fn give_back(&mut self, holder: &str, topics: usize, bytes: usize) {
        self.topics.give_back(holder, topics);
        self.bytes.give_back(holder, bytes);
    }
}

#[derive(Debug)]
struct Table {
    topics: BTreeMap<Topic, Entry>,
    /// Of commands to outputs, and of all others.
    commands: Pool,
    others: Pool,
}

impl Default for Table {
    fn default() -> Self {
        Self::new(RETAINED_COMMAND_BYTES, RETAINED_BYTES)
    }
}

impl Table {
    /// An empty table with so many bytes of commands, and of others.
    fn new(commands: usize, others: usize) -> Self {
        Self {
            topics: BTreeMap::new(),
            commands: Pool::new(RETAINED_COMMANDS, commands),
            others: Pool::new(RETAINED_TOPICS, others),
        }
    }

    fn pool(&mut self, topic: &str) -> &mut Pool {
        if is_command(topic) { &mut self.commands } else { &mut self.others }
    }

    fn count(&mut self, message: &Message) {
        if let Some(holder) = holder(&message.publisher) {
            self.pool(&message.topic).take(&holder, 1, cost(message));
        }
    }

    fn discount(&mut self, message: &Message) {
        if let Some(holder) = holder(&message.publisher) {
            self.pool(&message.topic).give_back(&holder, 1, cost(message));
        }
    }
}

/// Room for a message that is to be retained, until it is. Dropping it gives the room back.
#[derive(Debug)]
pub struct Room {
    retained: Retained,
    topic: Topic,
    holder: Arc<str>,
    topics: usize,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut table = self.retained.write();
        table.pool(&self.topic).give_back(&self.holder, self.topics, self.bytes);
    }
}

/// The user has its share of retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

/// The retained messages of the broker.
#[derive(Debug, Clone, Default)]
pub struct Retained {
    table: Arc<RwLock<Table>>,
}

impl Retained {
    /// The retained messages of the broker's previous run. They take a part of what the log may.
    pub fn new(stored: Vec<Arc<Message>>, retention: &Retention) -> Self {
        let commands = retention.pool(RETAINED_COMMAND_SHARE, RETAINED_COMMAND_BYTES);
        let others = retention.pool(RETAINED_SHARE, RETAINED_BYTES);
        let retained = Self { table: Arc::new(RwLock::new(Table::new(commands, others))) };
        for message in stored {
            // Before every subscription.
            retained.set(message, Numbers::default());
        }
        retained
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for `message`, which is to be retained; `None` where it needs none.
    ///
    /// # Errors
    /// When its publisher's user has its share.
    pub fn reserve(&self, message: &Message) -> Result<Option<Room>, NoRoom> {
        let Some(holder) = holder(&message.publisher).filter(|_| !message.payload.is_empty())
        else {
            return Ok(None);
        };
        let mut table = self.write();
        let before = table.topics.get(&message.topic).map(|entry| &entry.message);
        let own = before.filter(|before| {
            !before.publisher.is_empty() && user_of(&before.publisher) == &*holder
        });
        let topics = usize::from(own.is_none());
        let bytes = cost(message).saturating_sub(own.map_or(0, |own| cost(own)));
        let pool = table.pool(&message.topic);
        if !(pool.topics.admits(&holder, topics) && pool.bytes.admits(&holder, bytes)) {
            drop(table);
            if let Some(left_out) = NO_ROOM_LINE.due(Instant::now()) {
                let topic = &message.topic;
                warn!(
                    user = &*holder,
                    ?topic,
                    left_out,
                    "a message is not retained: this user has its share of retained messages; delete some of them, or \
                    publish without the retain flag"
                );
            }
            return Err(NoRoom);
        }
        if topics + bytes == 0 {
            return Ok(None);
        }
        pool.take(&holder, topics, bytes);
        drop(table);
        let (retained, topic) = (self.clone(), message.topic.clone());
        Ok(Some(Room { retained, topic, holder, topics, bytes }))
    }

    /// Makes `message` its topic's retained message; an empty one deletes it ([MQTT-3.3.1-10]).
    pub fn set(&self, message: Arc<Message>, numbers: Numbers) {
        let mut table = self.write();
        let before = if message.payload.is_empty() {
            table.topics.remove(&message.topic)
        } else {
            table.count(&message);
            table.topics.insert(message.topic.clone(), Entry { message, numbers })
        };
        if let Some(before) = before {
            table.discount(&before.message);
        }
    }

    /// Deletes the messages that have expired at `now_ms`.
    pub fn expire(&self, now_ms: i64) {
        let mut table = self.write();
        let expired = table.topics.extract_if(.., |_, entry| entry.message.is_expired(now_ms));
        let expired: Vec<Entry> = expired.map(|(_, entry)| entry).collect();
        for entry in expired {
            table.discount(&entry.message);
        }
    }

    /// A page of the retained messages for a new subscription to `filter` at `now_ms`, in the order of their topics, from
    /// those after `after` on. `replayed` decides by a message's numbers whether this subscription gets it. Returns the
    /// topic after which the next page begins; `None`: there is none.
    pub fn matching(
        &self,
        filter: &Filter,
        after: Option<&Topic>,
        now_ms: i64,
        replayed: impl Fn(Numbers) -> bool,
    ) -> (Vec<Arc<Message>>, Option<Topic>) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = |entry: &&Entry| !entry.message.is_expired(now_ms) && replayed(entry.numbers);
        if !filter.as_str().contains(['+', '#']) {
            let entry = table.topics.get(filter.as_str()).filter(wanted);
            return (entry.map(|entry| Arc::clone(&entry.message)).into_iter().collect(), None);
        }
        let after = after.map_or(Unbounded, |topic| Excluded(topic.as_str()));
        let mut found = Vec::new();
        for (looked, (topic, entry)) in table.topics.range::<str, _>((after, Unbounded)).enumerate()
        {
            if filter.matches(topic) && wanted(&entry) {
                found.push(Arc::clone(&entry.message));
            }
            if found.len() >= PAGE_MESSAGES || looked + 1 >= PAGE_TOPICS {
                return (found, Some(topic.clone()));
            }
        }
        (found, None)
    }

    /// Whether `topic` has a retained message that has not expired at `now_ms`.
    pub fn contains(&self, topic: &str, now_ms: i64) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.topics.get(topic).is_some_and(|entry| !entry.message.is_expired(now_ms))
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
        message_of("c", topic, payload)
    }

    fn message_of(publisher: &str, topic: &str, payload: &[u8]) -> Arc<Message> {
        let publisher = publisher.into();
        Arc::new(Message { publisher, ..Message::own(topic, payload.to_vec()) })
    }

    fn set(retained: &Retained, message: Arc<Message>) {
        retained.set(message, Numbers::default());
    }

    /// Retains it if there is room.
    fn keep(retained: &Retained, message: Arc<Message>) -> bool {
        let room = retained.reserve(&message);
        if room.is_ok() {
            set(retained, message);
        }
        room.is_ok()
    }

    fn used(retained: &Retained) -> [usize; 4] {
        let Table { commands, others, .. } = &*retained.table.read().unwrap();
        [&commands.topics, &commands.bytes, &others.topics, &others.bytes].map(Shares::used)
    }

    fn all(retained: &Retained, filter: &str, now_ms: i64) -> Vec<Arc<Message>> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let filter = filter.parse().unwrap();
            let (page, next) = retained.matching(&filter, after.as_ref(), now_ms, |_| true);
            found.extend(page);
            if next.is_none() {
                return found;
            }
            after = next;
        }
    }

    #[test]
    fn the_latest_of_each_topic_is_kept_until_an_empty_one() {
        let retained = Retained::default();
        for (topic, payload) in [("b/1", "x"), ("a/1", "old"), ("a/1", "new"), ("$SYS/a", "y")] {
            set(&retained, message(topic, payload.as_bytes()));
        }
        let found = |filter: &str| -> Vec<String> {
            all(&retained, filter, 0).iter().map(|message| message.topic.to_string()).collect()
        };
        assert_eq!(found("#"), ["a/1", "b/1"]);
        assert_eq!(found("a/1"), ["a/1"]);
        assert_eq!(found("$SYS/#"), ["$SYS/a"]);
        assert_eq!(all(&retained, "a/+", 0)[0].payload, "new");
        set(&retained, message("a/1", b""));
        assert!(found("a/+").is_empty());
        set(&retained, message("b/1", b""));
        set(&retained, message("$SYS/a", b""));
        assert_eq!(used(&retained), [0; 4]);
    }

    #[test]
    fn an_expired_message_is_not_replayed_and_is_deleted() {
        let retained = Retained::default();
        let expiring = Message { expires_at_ms: Some(10), ..(*message("a", b"1")).clone() };
        set(&retained, Arc::new(expiring));
        assert_eq!(all(&retained, "a", 9).len(), 1);
        assert!(all(&retained, "#", 10).is_empty());
        retained.expire(10);
        assert_eq!((retained.len(), used(&retained)), (0, [0; 4]));
    }

    #[test]
    fn a_look_up_goes_page_by_page_in_the_order_of_the_topics() {
        let retained = Retained::default();
        for n in 0..2 * PAGE_TOPICS {
            let folder = if n % 2 == 0 { "a" } else { "b" };
            set(&retained, message(&format!("{folder}/{n:05}"), b"1"));
        }
        let found = all(&retained, "b/+", 0);
        assert_eq!(found.len(), PAGE_TOPICS);
        assert!(found.is_sorted_by_key(|message| message.topic.clone()));
        let (page, next) = retained.matching(&"#".parse().unwrap(), None, 0, |_| true);
        assert_eq!((page.len(), next.is_some()), (PAGE_MESSAGES, true));
    }

    #[test]
    fn a_user_has_its_share_and_the_next_one_finds_room() {
        let retained = Retained::default();
        let big = vec![0; 1024 * 1024 - 4096];
        let kept = (0..20).filter(|n| keep(&retained, message(&format!("big/{n}"), &big)));
        assert_eq!(kept.count(), 6, "half of the bytes");
        assert!(keep(&retained, message("big/5", &big)), "replacing costs nothing");
        assert!(keep(&retained, message("big/19", b"")), "deleting is always possible");
        let kept = (0..RETAINED_TOPICS)
            .filter(|n| keep(&retained, message_of("a\u{1}c", &format!("t/{n}"), b"1")));
        let a = kept.count();
        assert!((RETAINED_TOPICS / 4..=RETAINED_TOPICS / 2).contains(&a), "{a}");
        assert!(keep(&retained, message_of("b\u{1}c", "b/1", &big)), "the next one finds room");
        assert!(
            !keep(&retained, message_of("a\u{1}d", "t/new", b"1")),
            "all clients of a user are one"
        );
        assert!(
            keep(&retained, message_of("a\u{1}c", "t/1", &[0; 99])),
            "a value may become longer"
        );
        assert!(
            keep(&retained, message_of("a\u{1}c", "humidor/n/output/o/set", b"ON")),
            "a command"
        );
        let of_a = || retained.table.read().unwrap().others.topics.of("a");
        let before = of_a();
        assert!(keep(&retained, message_of("b\u{1}c", "t/2", b"b's now")));
        assert_eq!(of_a(), before - 1);
    }

    #[test]
    fn room_that_is_not_used_is_given_back_and_the_brokers_own_takes_none() {
        let retained = Retained::default();
        let message = message("a", b"1");
        let room = retained.reserve(&message).unwrap();
        assert_eq!(used(&retained), [0, 0, 1, cost(&message)]);
        drop(room);
        set(&retained, Arc::new(Message::own("own", "1")));
        assert_eq!(used(&retained), [0; 4]);
    }
}

//! The writer's count of the messages that wait for sessions, so that a bound costs no query.
//!
//! The counts follow the table through each transaction: [`QueueCounts::committed`] or [`QueueCounts::rolled_back`] ends
//! it. They are read from the table once, at the start.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::Connection;

use crate::store::mqtt::longest_queues::LongestQueues;
use crate::store::mqtt::sessions::user_of;
use crate::store::retention::policy::Retention;

/// Messages that wait for one session. Beyond it the oldest is dropped.
const SESSION_MESSAGES: u64 = 10_000;
/// Bytes that wait for one session: what the messages would take in the log, were they its own. Beyond it the oldest message
/// is dropped.
const SESSION_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes that the messages for all sessions take in the log together; one that waits for several sessions is there once.
/// Beyond it the oldest message of the longest queue is dropped, of the user for whose sessions most bytes wait.
const ALL_SESSIONS_BYTES: usize = 256 * 1024 * 1024;
/// One part in so many of the log's largest size, where that is less: the series keep the rest.
const ALL_SESSIONS_SHARE: u64 = 8;
/// Bytes that a waiting message takes in the log beside its topic, payload, properties and publisher; and what a row takes
/// that points to one. Identifiers of subscriptions come on top of either.
pub(in crate::store) const ROW_BYTES: u64 = 64;
/// The longest queue is looked for anew when the bytes have fallen by one part in so many below their bound.
const RELIEVED_SHARE: u64 = 8;

/// How a message that waits for a session counts.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct WaitingSize {
    /// Bytes of the message and a row.
    pub bytes: u64,
    /// Bytes of the row: all of them, or less where it points to a message that is stored once for several sessions.
    pub in_row: u64,
}

/// The messages that wait for one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct QueueCount {
    /// Number of the latest message. A number that was committed is never given again, even when the table has
    /// forgotten it: the client has seen it, and the connection looks for higher ones only.
    last: i64,
    messages: u64,
    /// Bytes of the messages, wherever they are stored.
    bytes: u64,
    /// Bytes of its rows.
    row_bytes: u64,
    /// Its user, see [`user_of`].
    user: Arc<str>,
}

/// The counts of all sessions.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct QueueCounts {
    sessions: HashMap<i64, QueueCount>,
    /// Bytes that all messages take in the log, and how many they may.
    in_log: u64,
    bound: u64,
    /// The counts before the transaction, of the sessions that it has changed; `None`: the session is new.
    before: HashMap<i64, Option<QueueCount>>,
    in_log_before: u64,
    /// Messages that the transaction has dropped, by session.
    dropped: BTreeMap<i64, u64>,
    /// The queues by their length, since they have had to make room.
    longest: Option<LongestQueues>,
    /// Sessions that were looked at to find the longest queue.
    #[cfg(test)]
    looked_at: usize,
}

impl QueueCounts {
    /// Bytes in the log; messages and bytes, and bytes of the rows, by session.
    #[cfg(test)]
    pub fn sums(&self) -> (u64, BTreeMap<i64, (u64, u64, u64)>) {
        let of = |queue: &QueueCount| (queue.messages, queue.bytes, queue.row_bytes);
        (self.in_log, self.sessions.iter().map(|(session, queue)| (*session, of(queue))).collect())
    }

    /// Counts the messages in the table: reads all of it. The next number of a session is above those that were ever sent to
    /// its client, where the log tells it: a lower one would be marked as a duplicate.
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare(
            "SELECT session.id, max(coalesce(max(number), 0), coalesce(sent, 0)), count(queued.payload) + count(message),
                    coalesce(sum(size), 0), coalesce(sum(iif(message IS NULL, size, ? + length(identifiers))), 0),
                    client_id
             FROM session LEFT JOIN queued ON queued.session = session.id GROUP BY session.id",
        )?;
        let rows = statement.query_map([ROW_BYTES], |row| {
            let client_id: String = row.get(5)?;
            let queue = QueueCount {
                last: row.get(1)?,
                messages: row.get(2)?,
                bytes: row.get(3)?,
                row_bytes: row.get(4)?,
                user: user_of(&client_id).into(),
            };
            Ok((row.get(0)?, queue))
        })?;
        let sessions: HashMap<i64, QueueCount> = rows.collect::<Result<_, _>>()?;
        let once: u64 =
            connection
                .query_row("SELECT coalesce(sum(size), 0) FROM message", [], |row| row.get(0))?;
        let in_log = once + sessions.values().map(|queue| queue.row_bytes).sum::<u64>();
        Ok(Self {
            sessions,
            in_log,
            bound: ALL_SESSIONS_BYTES as u64,
            before: HashMap::new(),
            in_log_before: in_log,
            dropped: BTreeMap::new(),
            longest: None,
            #[cfg(test)]
            looked_at: 0,
        })
    }

    /// Bounds what waits for all sessions by what the log may take. Nothing is dropped before the next message comes.
    pub fn bound(&mut self, retention: &Retention) {
        self.bound = retention.pool(ALL_SESSIONS_SHARE, ALL_SESSIONS_BYTES) as u64;
    }

    /// The transaction is on the disk. Returns the messages that it has dropped, by session.
    pub fn committed(&mut self) -> Vec<(i64, u64)> {
        self.before.clear();
        self.in_log_before = self.in_log;
        if self.in_log <= self.bound - self.bound / RELIEVED_SHARE {
            self.longest = None;
        }
        std::mem::take(&mut self.dropped).into_iter().collect()
    }

    /// The transaction was rolled back: the counts are again as it found them.
    ///
    /// That includes the numbers that it gave. No reader has seen them, and a store that cannot commit for hours would
    /// use up the packet ids with its attempts, so that the next commit would drop waiting messages.
    pub fn rolled_back(&mut self) {
        self.dropped.clear();
        self.in_log = self.in_log_before;
        self.longest = None;
        for (session, before) in self.before.drain() {
            match before {
                Some(before) => self.sessions.insert(session, before),
                None => self.sessions.remove(&session),
            };
        }
    }

    /// Messages that wait for a session.
    pub fn messages(&self, session: i64) -> u64 {
        self.sessions.get(&session).map_or(0, |queue| queue.messages)
    }

    /// Whether there is such a session.
    pub fn contains(&self, session: i64) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Whose oldest message must make room now that `session` has got another one, if any: its own beyond the bounds of
    /// one session, or else that of the longest queue of the user for whom most bytes wait.
    pub fn next_to_drop(&mut self, session: i64) -> Option<i64> {
        let own = self.sessions.get(&session)?;
        if own.messages > 0 && (own.messages > SESSION_MESSAGES || own.bytes > SESSION_BYTES) {
            return Some(session);
        }
        if self.in_log <= self.bound {
            return None;
        }
        // A commit may drop thousands: to look at all sessions for each would stop the writer.
        let longest = self.longest.get_or_insert_with(|| {
            #[cfg(test)]
            {
                self.looked_at += self.sessions.len();
            }
            let mut longest = LongestQueues::default();
            for (session, queue) in self.sessions.iter().filter(|(_, queue)| queue.messages > 0) {
                longest.add(&queue.user, *session, queue.bytes);
            }
            longest
        });
        longest.longest()
    }

    /// A session of `client_id` is there, new or again.
    pub fn begin(&mut self, session: i64, client_id: &str) {
        if !self.sessions.contains_key(&session) {
            self.before.entry(session).or_insert(None);
            let user = user_of(client_id).into();
            self.sessions.insert(session, QueueCount { user, ..QueueCount::default() });
        }
    }

    /// Forgets a session with all that waited for it.
    pub fn end(&mut self, session: i64) {
        self.change(session, |queue| {
            *queue = QueueCount { user: Arc::clone(&queue.user), ..QueueCount::default() };
        });
        self.sessions.remove(&session);
    }

    /// Counts one more message and returns its number; `None` when there is no such session.
    pub fn add(&mut self, session: i64, size: WaitingSize) -> Option<i64> {
        self.change(session, |queue| {
            queue.last += 1;
            queue.messages += 1;
            queue.bytes += size.bytes;
            queue.row_bytes += size.in_row;
        })
    }

    /// Counts one message less.
    pub fn take_out(&mut self, session: i64, size: WaitingSize) {
        self.change(session, |queue| {
            queue.messages = queue.messages.saturating_sub(1);
            queue.bytes = queue.bytes.saturating_sub(size.bytes);
            queue.row_bytes = queue.row_bytes.saturating_sub(size.in_row);
        });
    }

    /// Counts one message less, which its client will never get.
    pub fn drop_one(&mut self, session: i64, size: WaitingSize) {
        self.take_out(session, size);
        *self.dropped.entry(session).or_default() += 1;
    }

    /// Counts the bytes of a message that is stored once.
    pub const fn store(&mut self, bytes: u64) {
        self.in_log = self.in_log.saturating_add(bytes);
    }

    /// Counts the bytes of such a message that is deleted.
    pub const fn free(&mut self, bytes: u64) {
        self.in_log = self.in_log.saturating_sub(bytes);
    }

    /// Changes the count of a session, which the transaction may take back. Returns the number of its latest message.
    fn change(&mut self, session: i64, change: impl FnOnce(&mut QueueCount)) -> Option<i64> {
        let queue = self.sessions.get_mut(&session)?;
        self.before.entry(session).or_insert_with(|| Some(queue.clone()));
        let mut longest = self.longest.as_mut();
        if let Some(longest) = &mut longest {
            longest.remove(&queue.user, session, queue.bytes);
        }
        let row_bytes = queue.row_bytes;
        change(queue);
        self.in_log = self.in_log.saturating_sub(row_bytes).saturating_add(queue.row_bytes);
        if let Some(longest) = longest
            && queue.messages > 0
        {
            longest.add(&queue.user, session, queue.bytes);
        }
        Some(queue.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: WaitingSize = WaitingSize { bytes: 1_000, in_row: 1_000 };

    /// Counts with so many sessions of ten users, of which each gets `each` messages of [`SIZE`], and a bound that these
    /// exceed by one message.
    fn full(sessions: i64, each: usize) -> QueueCounts {
        let connection = Connection::open_in_memory().unwrap();
        for script in crate::store::file::schema::LOG.migrations {
            connection.execute_batch(script).unwrap();
        }
        let mut counts = QueueCounts::load(&connection).unwrap();
        for session in 1..=sessions {
            counts.begin(session, &format!("u{}\u{1}{session}", session % 10));
            for _ in 0..each {
                counts.add(session, SIZE);
            }
        }
        counts.bound = counts.in_log - 1;
        counts.committed();
        counts
    }

    /// Whether a search through all sessions finds none that is longer, of a user for whom more waits.
    fn is_longest(counts: &QueueCounts, session: i64) -> bool {
        let mut of_user: HashMap<&str, u64> = HashMap::new();
        for queue in counts.sessions.values() {
            *of_user.entry(&queue.user).or_default() += queue.bytes;
        }
        let found = &counts.sessions[&session];
        let of_found = counts.sessions.values().filter(|queue| queue.user == found.user);
        of_user.values().max() == of_user.get(&*found.user)
            && of_found.map(|queue| queue.bytes).max() == Some(found.bytes)
    }

    #[test]
    fn the_longest_queue_is_the_one_that_a_search_finds() {
        let mut counts = full(100, 20);
        for n in 0..1_000 {
            let session = counts.next_to_drop(1).unwrap();
            assert!(is_longest(&counts, session), "{session} of {:?}", counts.sessions);
            counts.drop_one(session, SIZE);
            counts.add(n * 7 % 100 + 1, SIZE);
            if n % 50 == 0 {
                counts.end(n % 100 + 1);
                counts.begin(n % 100 + 1, &format!("u{}\u{1}x", n % 7));
                counts.bound = counts.in_log - 1;
            }
        }
    }

    #[test]
    fn to_make_room_for_many_messages_looks_once_at_all_sessions() {
        let mut counts = full(2_000, 5);
        for _ in 0..5_000 {
            let session = counts.next_to_drop(1).unwrap();
            counts.drop_one(session, SIZE);
            counts.add(1, SIZE);
            counts.take_out(1, SIZE);
            counts.bound = counts.in_log - 1;
            counts.committed();
        }
        assert_eq!(counts.looked_at, 2_000);
        // And nothing is kept for it while there is room.
        counts.bound = counts.in_log * 2;
        counts.committed();
        assert_eq!(counts.longest, None);
    }
}

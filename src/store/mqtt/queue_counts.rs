//! The writer's count of the messages that wait for sessions, so that a bound costs no query.
//!
//! The counts follow the table through each transaction: [`QueueCounts::committed`] or [`QueueCounts::rolled_back`] ends
//! it. They are read from the table once, at the start.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;

/// Messages that wait for one session. Beyond it the oldest is dropped.
const SESSION_MESSAGES: u64 = 10_000;
/// Bytes of topics, payloads and properties that wait for one session. Beyond it the oldest message is dropped.
const SESSION_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes that wait for all sessions together. Beyond it the oldest message of the session that gets another is
/// dropped.
const ALL_SESSIONS_BYTES: u64 = 256 * 1024 * 1024;

/// The messages that wait for one session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct QueueCount {
    /// Number of the latest message. A number that was committed is never given again, even when the table has
    /// forgotten it: the client has seen it, and the connection looks for higher ones only.
    last: i64,
    messages: u64,
    bytes: u64,
}

/// The counts of all sessions.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct QueueCounts {
    sessions: HashMap<i64, QueueCount>,
    /// Bytes that wait for all sessions together.
    bytes: u64,
    /// The counts before the transaction, of the sessions that it has changed; `None`: the session is new.
    before: HashMap<i64, Option<QueueCount>>,
    /// Messages that the transaction has dropped, by session.
    dropped: BTreeMap<i64, u64>,
}

impl QueueCounts {
    /// Counts the messages in the table: reads all of it.
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare(
            "SELECT session.id, coalesce(max(number), 0), count(queued.payload), coalesce(sum(size), 0)
             FROM session LEFT JOIN queued ON queued.session = session.id GROUP BY session.id",
        )?;
        let rows = statement.query_map([], |row| {
            let queue = QueueCount { last: row.get(1)?, messages: row.get(2)?, bytes: row.get(3)? };
            Ok((row.get(0)?, queue))
        })?;
        let sessions: HashMap<i64, QueueCount> = rows.collect::<Result<_, _>>()?;
        let bytes = sessions.values().map(|queue| queue.bytes).sum();
        Ok(Self { sessions, bytes, before: HashMap::new(), dropped: BTreeMap::new() })
    }

    /// The transaction is on the disk. Returns the messages that it has dropped, by session.
    pub fn committed(&mut self) -> Vec<(i64, u64)> {
        self.before.clear();
        std::mem::take(&mut self.dropped).into_iter().collect()
    }

    /// The transaction was rolled back: the counts are again as it found them.
    ///
    /// That includes the numbers that it gave. No reader has seen them, and a store that cannot commit for hours would
    /// use up the packet ids with its attempts, so that the next commit would drop waiting messages.
    pub fn rolled_back(&mut self) {
        self.dropped.clear();
        for (session, before) in self.before.drain() {
            let now = match before {
                Some(before) => self.sessions.insert(session, before),
                None => self.sessions.remove(&session),
            };
            let bytes = |queue: Option<QueueCount>| queue.map_or(0, |queue| queue.bytes);
            self.bytes = self.bytes.saturating_sub(bytes(now)).saturating_add(bytes(before));
        }
    }

    /// Whether there is such a session.
    pub fn contains(&self, session: i64) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Whether the oldest message of a session must make room.
    pub fn is_full(&self, session: i64) -> bool {
        self.sessions.get(&session).is_some_and(|queue| {
            let full = queue.messages > SESSION_MESSAGES
                || queue.bytes > SESSION_BYTES
                || self.bytes > ALL_SESSIONS_BYTES;
            full && queue.messages > 0
        })
    }

    /// A session is there, new or again.
    pub fn begin(&mut self, session: i64) {
        self.remember(session);
        self.sessions.entry(session).or_default();
    }

    /// Forgets a session with all that waited for it.
    pub fn end(&mut self, session: i64) {
        self.remember(session);
        if let Some(queue) = self.sessions.remove(&session) {
            self.bytes = self.bytes.saturating_sub(queue.bytes);
        }
    }

    /// Counts one more message and returns its number; `None` when there is no such session.
    pub fn add(&mut self, session: i64, bytes: u64) -> Option<i64> {
        self.remember(session);
        let queue = self.sessions.get_mut(&session)?;
        queue.last += 1;
        queue.messages += 1;
        queue.bytes += bytes;
        self.bytes += bytes;
        Some(queue.last)
    }

    /// Counts one message less.
    pub fn take_out(&mut self, session: i64, bytes: u64) {
        self.remember(session);
        if let Some(queue) = self.sessions.get_mut(&session) {
            queue.messages = queue.messages.saturating_sub(1);
            queue.bytes = queue.bytes.saturating_sub(bytes);
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// Counts one message less, which its client will never get.
    pub fn drop_one(&mut self, session: i64, bytes: u64) {
        self.take_out(session, bytes);
        *self.dropped.entry(session).or_default() += 1;
    }

    /// Remembers the count of a session before the transaction changes it for the first time.
    fn remember(&mut self, session: i64) {
        let count = self.sessions.get(&session).copied();
        self.before.entry(session).or_insert(count);
    }
}

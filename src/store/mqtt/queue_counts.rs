//! The writer's count of the messages that wait for sessions, so that a bound costs no query.
//!
//! The counts follow the table through each transaction: [`QueueCounts::committed`] or [`QueueCounts::rolled_back`] ends
//! it. They are read from the table once, at the start.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::Connection;

use crate::store::mqtt::sessions::user_of;
use crate::store::retention::policy::Retention;

/// Messages that wait for one session. Beyond it the oldest is dropped.
const SESSION_MESSAGES: u64 = 10_000;
/// Bytes that wait for one session: what the messages take in the log. Beyond it the oldest message is dropped.
const SESSION_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes that wait for all sessions together. Beyond it the oldest message of the longest queue is dropped, of the user
/// for whose sessions most bytes wait.
const ALL_SESSIONS_BYTES: usize = 256 * 1024 * 1024;
/// One part in so many of the log's largest size, where that is less: the series keep the rest.
const ALL_SESSIONS_SHARE: u64 = 8;

/// The messages that wait for one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct QueueCount {
    /// Number of the latest message. A number that was committed is never given again, even when the table has
    /// forgotten it: the client has seen it, and the connection looks for higher ones only.
    last: i64,
    messages: u64,
    bytes: u64,
    /// Its user, see [`user_of`].
    user: Arc<str>,
}

/// The counts of all sessions.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct QueueCounts {
    sessions: HashMap<i64, QueueCount>,
    /// Bytes that wait for all sessions together, and how many may.
    bytes: u64,
    bound: u64,
    /// The counts before the transaction, of the sessions that it has changed; `None`: the session is new.
    before: HashMap<i64, Option<QueueCount>>,
    /// Messages that the transaction has dropped, by session.
    dropped: BTreeMap<i64, u64>,
}

impl QueueCounts {
    /// Counts the messages in the table: reads all of it.
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare(
            "SELECT session.id, coalesce(max(number), 0), count(queued.payload), coalesce(sum(size), 0), client_id
             FROM session LEFT JOIN queued ON queued.session = session.id GROUP BY session.id",
        )?;
        let rows = statement.query_map([], |row| {
            let client_id: String = row.get(4)?;
            let queue = QueueCount {
                last: row.get(1)?,
                messages: row.get(2)?,
                bytes: row.get(3)?,
                user: user_of(&client_id).into(),
            };
            Ok((row.get(0)?, queue))
        })?;
        let sessions: HashMap<i64, QueueCount> = rows.collect::<Result<_, _>>()?;
        let bytes = sessions.values().map(|queue| queue.bytes).sum();
        let bound = ALL_SESSIONS_BYTES as u64;
        Ok(Self { sessions, bytes, bound, before: HashMap::new(), dropped: BTreeMap::new() })
    }

    /// Bounds what waits for all sessions by what the log may take. Nothing is dropped before the next message comes.
    pub fn bound(&mut self, retention: &Retention) {
        self.bound = retention.pool(ALL_SESSIONS_SHARE, ALL_SESSIONS_BYTES) as u64;
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
            let bytes_before = before.as_ref().map_or(0, |queue| queue.bytes);
            let now = match before {
                Some(before) => self.sessions.insert(session, before),
                None => self.sessions.remove(&session),
            };
            let bytes_now = now.map_or(0, |queue| queue.bytes);
            self.bytes = self.bytes.saturating_sub(bytes_now).saturating_add(bytes_before);
        }
    }

    /// Whether there is such a session.
    pub fn contains(&self, session: i64) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Whose oldest message must make room now that `session` has got another one, if any: its own beyond the bounds of
    /// one session, or else that of the longest queue of the user for whom most bytes wait.
    pub fn to_drop(&self, session: i64) -> Option<i64> {
        let own = self.sessions.get(&session)?;
        if own.messages > 0 && (own.messages > SESSION_MESSAGES || own.bytes > SESSION_BYTES) {
            return Some(session);
        }
        if self.bytes <= self.bound {
            return None;
        }
        let waiting = || self.sessions.iter().filter(|(_, queue)| queue.messages > 0);
        let mut of_user: HashMap<&str, u64> = HashMap::new();
        for (_, queue) in waiting() {
            *of_user.entry(&queue.user).or_default() += queue.bytes;
        }
        let most = of_user.values().max()?;
        let of_most = waiting().filter(|(_, queue)| of_user.get(&*queue.user) == Some(most));
        of_most.max_by_key(|(_, queue)| queue.bytes).map(|(session, _)| *session)
    }

    /// A session of `client_id` is there, new or again.
    pub fn begin(&mut self, session: i64, client_id: &str) {
        self.remember(session);
        self.sessions.entry(session).or_default().user = user_of(client_id).into();
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
        let sessions = &self.sessions;
        self.before.entry(session).or_insert_with(|| sessions.get(&session).cloned());
    }
}

//! The writer's count of the messages that wait for sessions, so that a bound costs no query.

use std::collections::HashMap;

use rusqlite::Connection;

/// Messages that wait for one session. Beyond it the oldest is dropped.
const SESSION_MESSAGES: u64 = 10_000;
/// Bytes of topics, payloads and properties that wait for one session. Beyond it the oldest message is dropped.
const SESSION_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes that wait for all sessions together. Beyond it the oldest message of the session that gets another is
/// dropped.
const ALL_SESSIONS_BYTES: u64 = 256 * 1024 * 1024;

/// The messages that wait for one session.
#[derive(Debug, Clone, Copy, Default)]
struct QueueCount {
    /// Number of the latest message.
    last: i64,
    messages: u64,
    bytes: u64,
}

/// The counts of all sessions.
#[derive(Debug, Default)]
pub(in crate::store) struct QueueCounts {
    sessions: HashMap<i64, QueueCount>,
    /// Bytes that wait for all sessions together.
    bytes: u64,
}

impl QueueCounts {
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
        Ok(Self { sessions, bytes })
    }

    /// Counts anew what a transaction that was rolled back had counted. Numbers never go back: a client that is
    /// connected has seen them, and looks for higher ones only.
    pub fn recount(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut counted = Self::load(connection)?;
        for (session, queue) in &mut counted.sessions {
            if let Some(before) = self.sessions.get(session) {
                queue.last = queue.last.max(before.last);
            }
        }
        *self = counted;
        Ok(())
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

    /// Counts one more message and returns its number; `None` when there is no such session.
    pub fn add(&mut self, session: i64, bytes: u64) -> Option<i64> {
        let queue = self.sessions.get_mut(&session)?;
        queue.last += 1;
        queue.messages += 1;
        queue.bytes += bytes;
        self.bytes += bytes;
        Some(queue.last)
    }

    /// A session is there, new or again.
    pub fn begin(&mut self, session: i64) {
        self.sessions.entry(session).or_default();
    }

    /// Forgets a session with all that waited for it.
    pub fn end(&mut self, session: i64) {
        if let Some(queue) = self.sessions.remove(&session) {
            self.bytes = self.bytes.saturating_sub(queue.bytes);
        }
    }

    /// Counts one message less.
    pub fn take_out(&mut self, session: i64, bytes: u64) {
        if let Some(queue) = self.sessions.get_mut(&session) {
            queue.messages = queue.messages.saturating_sub(1);
            queue.bytes = queue.bytes.saturating_sub(bytes);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

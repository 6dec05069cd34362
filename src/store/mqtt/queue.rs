//! What waits for persistent sessions: the queue of each, bounded, and reading it beside the writer.
//!
//! A waiting message's number within its session also gives its packet id, so that a message which is sent again
//! after a restart has the id under which the client may know it ([MQTT-4.4.0-1]).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Error::FromSqlConversionFailure;
use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, params};

use crate::mqtt::{Message, QoS, Topic};

/// Messages that wait for one session. Beyond it the oldest goes.
pub const SESSION_MESSAGES: u64 = 10_000;
/// Bytes of topics, payloads and properties that wait for one session. Beyond it the oldest goes.
pub const SESSION_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes that wait for all sessions together. Beyond it the oldest of the session that gets another goes.
pub const ALL_SESSIONS_BYTES: u64 = 256 * 1024 * 1024;
/// Packet ids there are ([MQTT-2.3.1-1]); a message that as many later ones have overtaken goes.
const PACKET_IDS: i64 = 65_535;
/// Waiting messages and their bytes that are taken from the disk at a time.
const PAGE: (usize, usize) = (64, 256 * 1024);

/// Who a message waits for, and how it is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Number of the session.
    pub session: i64,
    /// 1 or 2.
    pub qos: QoS,
    /// The retain flag.
    pub retain: bool,
    /// Identifiers of the subscriptions that match.
    pub identifiers: Vec<u32>,
}

/// What waits for a session.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Counts within the session, upwards, with holes.
    pub number: i64,
    /// As it is to be delivered.
    pub qos: QoS,
    /// As it is to be delivered.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched.
    pub identifiers: Vec<u32>,
    /// The message; `None` when the client has it and PUBREL is to be said.
    pub message: Option<Arc<Message>>,
}

impl Waiting {
    /// The packet id under which it is delivered, every time.
    #[must_use]
    pub fn packet_id(&self) -> u16 {
        u16::try_from(self.number.rem_euclid(PACKET_IDS) + 1).unwrap_or(1)
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(in crate::store) struct Queue {
    last: i64,
    messages: u64,
    bytes: u64,
}

/// The writer's count of what waits, so that a bound costs no query.
#[derive(Debug, Default)]
pub(in crate::store) struct Queues {
    pub(in crate::store) sessions: HashMap<i64, Queue>,
    bytes: u64,
}

impl Queues {
    pub(in crate::store) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare(
            "SELECT session.id, coalesce(max(number), 0), count(queued.payload), coalesce(sum(size), 0)
             FROM session LEFT JOIN queued ON queued.session = session.id GROUP BY session.id",
        )?;
        let rows = statement.query_map([], |row| {
            let queue = Queue { last: row.get(1)?, messages: row.get(2)?, bytes: row.get(3)? };
            Ok((row.get(0)?, queue))
        })?;
        let sessions: HashMap<i64, Queue> = rows.collect::<Result<_, _>>()?;
        let bytes = sessions.values().map(|queue| queue.bytes).sum();
        Ok(Self { sessions, bytes })
    }

    /// Counts anew what a transaction that was rolled back had counted. Numbers never go back: a client that is
    /// connected has seen them, and looks for higher ones only.
    pub(in crate::store) fn recount(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut counted = Self::load(connection)?;
        for (session, queue) in &mut counted.sessions {
            if let Some(before) = self.sessions.get(session) {
                queue.last = queue.last.max(before.last);
            }
        }
        *self = counted;
        Ok(())
    }

    /// A session is there, new or again.
    pub(in crate::store) fn begin(&mut self, session: i64) {
        self.sessions.entry(session).or_default();
    }

    /// Forgets a session with all that waited for it.
    pub(in crate::store) fn end(&mut self, session: i64) {
        if let Some(queue) = self.sessions.remove(&session) {
            self.bytes = self.bytes.saturating_sub(queue.bytes);
        }
    }

    /// Counts messages and bytes that wait no longer.
    pub(in crate::store) fn take_out(&mut self, session: i64, messages: u64, bytes: u64) {
        if let Some(queue) = self.sessions.get_mut(&session) {
            queue.messages = queue.messages.saturating_sub(messages);
            queue.bytes = queue.bytes.saturating_sub(bytes);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Bytes of a waiting message; `None` when it is not there or only its PUBREL is left.
pub(in crate::store) fn size_of(
    transaction: &Transaction<'_>,
    session: i64,
    number: i64,
) -> rusqlite::Result<Option<u64>> {
    transaction
        .prepare_cached(
            "SELECT size FROM queued WHERE session = ? AND number = ? AND payload IS NOT NULL",
        )?
        .query_row(params![session, number], |row| row.get(0))
        .optional()
}

pub(in crate::store) fn enqueue(
    transaction: &Transaction<'_>,
    queues: &mut Queues,
    message: &Message,
    target: &Target,
) -> rusqlite::Result<u64> {
    let session = target.session;
    let Some(queue) = queues.sessions.get_mut(&session) else { return Ok(0) };
    let size = message.size() as u64;
    queue.last += 1;
    queue.messages += 1;
    queue.bytes += size;
    let number = queue.last;
    queues.bytes += size;
    let identifiers: Vec<u8> = target.identifiers.iter().flat_map(|id| id.to_be_bytes()).collect();
    transaction
        .prepare_cached(
            "INSERT INTO queued (session, number, qos, retain, identifiers, topic, payload, properties, publisher, expires_at, size)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            session,
            number,
            target.qos as u8,
            target.retain,
            identifiers,
            message.topic.as_str(),
            &message.payload[..],
            &message.properties[..],
            &*message.publisher,
            message.expires_at_ms,
            size,
        ])?;
    // Its packet id is needed again.
    let mut overtaken = transaction.prepare_cached(
        "DELETE FROM queued WHERE session = ? AND number <= ? RETURNING payload IS NULL, size",
    )?;
    let mut gone = overtaken.query(params![session, number - PACKET_IDS])?;
    while let Some(row) = gone.next()? {
        if !row.get::<_, bool>(0)? {
            queues.take_out(session, 1, row.get(1)?);
        }
    }
    make_room(transaction, queues, session)
}

fn make_room(
    transaction: &Transaction<'_>,
    queues: &mut Queues,
    session: i64,
) -> rusqlite::Result<u64> {
    let mut dropped = 0;
    while let Some(queue) = queues.sessions.get(&session) {
        let full = queue.messages > SESSION_MESSAGES
            || queue.bytes > SESSION_BYTES
            || queues.bytes > ALL_SESSIONS_BYTES;
        if !full || queue.messages == 0 {
            break;
        }
        // What only waits for its PUBCOMP stays: without its PUBREL the client would take the next message with
        // this packet id for the same one.
        let oldest: Option<(i64, u64)> = transaction
            .prepare_cached(
                "SELECT number, size FROM queued WHERE session = ? AND payload IS NOT NULL
                 ORDER BY number LIMIT 1",
            )?
            .query_row([session], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((number, size)) = oldest else { break };
        transaction
            .prepare_cached("DELETE FROM queued WHERE session = ? AND number = ?")?
            .execute(params![session, number])?;
        queues.take_out(session, 1, size);
        dropped += 1;
    }
    Ok(dropped)
}

/// The topic in a column; another program may have written one that is none.
pub(in crate::store) fn topic(row: &Row<'_>, column: usize) -> rusqlite::Result<Topic> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// Reads what waits for sessions, beside the writer.
#[derive(Debug)]
pub struct Queued {
    connection: Connection,
}

impl Queued {
    /// Opens the log at `path`, which exists.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(1))?;
        Ok(Self { connection })
    }

    /// The next page of what waits for `session` after number `after`, oldest first.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn page(&self, session: i64, after: i64) -> rusqlite::Result<Vec<Waiting>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT number, qos, retain, identifiers, topic, payload, properties, publisher, expires_at
             FROM queued WHERE session = ? AND number > ? ORDER BY number",
        )?;
        let mut rows = statement.query(params![session, after])?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        while page.len() < PAGE.0 && bytes < PAGE.1 {
            let Some(row) = rows.next()? else { break };
            let identifiers: Vec<u8> = row.get(3)?;
            let (identifiers, _) = identifiers.as_chunks::<4>();
            let qos = QoS::from_u8(row.get(1)?).unwrap_or_default();
            let retain = row.get(2)?;
            let message = match row.get::<_, Option<Vec<u8>>>(5)? {
                None => None,
                Some(payload) => Some(Arc::new(Message {
                    topic: topic(row, 4)?,
                    payload: Bytes::from(payload),
                    qos,
                    retain,
                    expires_at_ms: row.get(8)?,
                    publisher: Arc::from(row.get::<_, String>(7)?),
                    properties: Bytes::from(row.get::<_, Vec<u8>>(6)?),
                })),
            };
            bytes += message.as_ref().map_or(0, |message| message.size());
            page.push(Waiting {
                number: row.get(0)?,
                qos,
                retain,
                identifiers: identifiers.iter().map(|id| u32::from_be_bytes(*id)).collect(),
                message,
            });
        }
        Ok(page)
    }
}

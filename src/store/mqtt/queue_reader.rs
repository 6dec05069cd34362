//! Reads the messages that wait for a session, page by page, beside the writer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, params};

use crate::mqtt::codec::PACKET_MAX_BYTES;
use crate::mqtt::{Message, QoS};
use crate::reading::Id;
use crate::store::mqtt::columns::{qos, topic};
use crate::store::mqtt::forgotten;
use crate::store::mqtt::packet_ids::packet_id;

/// Messages of one page.
const PAGE_MESSAGES: usize = 64;
/// Bytes of topics, payloads and properties of one page; a message that is larger is a page of its own.
const PAGE_BYTES: usize = 64 * 1024;
/// Most bytes of one page: those of the largest message, whose packet has [`PACKET_MAX_BYTES`].
pub const PAGE_MAX_BYTES: usize = PACKET_MAX_BYTES as usize;
/// How long a statement waits for the writer's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// A message that waits for a session.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Number within the session; later messages have greater ones, with holes.
    pub number: i64,
    /// `QoS` of the delivery.
    pub qos: QoS,
    /// Retain flag of the delivery.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched.
    pub identifiers: Vec<u32>,
    /// The message; `None` when the client has it and only PUBREL is left to send.
    pub message: Option<Arc<Message>>,
}

impl Waiting {
    /// Bytes of topic, payload and properties.
    #[must_use]
    pub fn size(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.size())
    }

    /// The packet id of every delivery of this message.
    #[must_use]
    pub fn packet_id(&self) -> u16 {
        packet_id(self.number)
    }
}

/// Reads the messages that wait for sessions, beside the writer.
#[derive(Debug)]
pub struct Queued {
    connection: Connection,
}

impl Queued {
    /// Opens the log at `path`, which exists.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(Self { connection })
    }

    /// Nodes to be forgotten whose retained messages and sessions are to be cleared.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn to_clear(&self) -> rusqlite::Result<Vec<Id>> {
        forgotten::uncleared(&self.connection)
    }

    /// The next page of the messages that wait for `session` after number `after`, oldest first.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn page(&self, session: i64, after: i64) -> rusqlite::Result<Vec<Waiting>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT number, qos, retain, identifiers, coalesce(message.topic, queued.topic),
                    coalesce(message.payload, queued.payload),
                    coalesce(message.properties, queued.properties),
                    coalesce(message.publisher, queued.publisher),
                    coalesce(message.expires_at, queued.expires_at), queued.size
             FROM queued LEFT JOIN message ON message.id = queued.message
             WHERE session = ? AND number > ? ORDER BY number",
        )?;
        let mut rows = statement.query(params![session, after])?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        while page.len() < PAGE_MESSAGES && bytes < PAGE_BYTES {
            let Some(row) = rows.next()? else { break };
            let size: usize = row.get(9)?;
            if !page.is_empty() && bytes + size > PAGE_BYTES {
                break;
            }
            bytes += size;
            let identifiers: Vec<u8> = row.get(3)?;
            let (identifiers, _) = identifiers.as_chunks::<4>();
            let qos = qos(row, 1)?;
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

//! The queue of each persistent session: messages that wait for its client, bounded.
//!
//! A waiting message's number within its session also gives its packet id, so that a message which is sent again
//! after a restart has the id under which the client may know it ([MQTT-4.4.0-1]).

use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::mqtt::{Message, QoS};
use crate::store::mqtt::message;
use crate::store::mqtt::packet_ids::PACKET_IDS;
use crate::store::mqtt::queue_counts::{QueueCounts, ROW_BYTES, WaitingSize};

/// A session that a message waits for, and how the message is to be delivered.
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

impl Target {
    /// Bytes of the identifiers in a row.
    const fn identifier_bytes(&self) -> usize {
        self.identifiers.len() * size_of::<u32>()
    }
}

/// What a row with a message has of it.
struct Held {
    size: WaitingSize,
    /// The number of a message that is stored once.
    message: Option<i64>,
}

impl Held {
    /// From the columns `size`, `message`, and the length of `identifiers`.
    fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        let bytes = row.get(first)?;
        let message: Option<i64> = row.get(first + 1)?;
        let identifiers: u64 = row.get(first + 2)?;
        let in_row = if message.is_some() { ROW_BYTES + identifiers } else { bytes };
        Ok(Self { size: WaitingSize { bytes, in_row }, message })
    }

    /// Deletes the message that the row pointed to, unless another one does.
    fn release(
        &self,
        transaction: &Transaction<'_>,
        counts: &mut QueueCounts,
    ) -> rusqlite::Result<()> {
        if let Some(number) = self.message {
            counts.free(message::release(transaction, number)?);
        }
        Ok(())
    }
}

/// What a row has of its message; `None` when it is not there or only its PUBREL is left.
fn held(
    transaction: &Transaction<'_>,
    session: i64,
    number: i64,
) -> rusqlite::Result<Option<Held>> {
    transaction
        .prepare_cached(
            "SELECT size, message, length(identifiers) FROM queued
             WHERE session = ? AND number = ? AND (payload IS NOT NULL OR message IS NOT NULL)",
        )?
        .query_row([session, number], |row| Held::read(row, 0))
        .optional()
}

/// Adds a message to the queues of its targets, and drops those that must make room. A target whose session is not there
/// gets nothing. However many they are, a message that is not short is stored once.
pub(in crate::store) fn enqueue(
    transaction: &Transaction<'_>,
    counts: &mut QueueCounts,
    message: &Message,
    targets: &[Target],
) -> rusqlite::Result<()> {
    let once = message::is_stored_once(message, targets.len());
    let message_bytes = message::bytes_of(message) as u64;
    let mut stored = None;
    for target in targets {
        let row_bytes = ROW_BYTES + target.identifier_bytes() as u64;
        let bytes = message_bytes + row_bytes;
        let size = WaitingSize { bytes, in_row: if once { row_bytes } else { bytes } };
        let Some(number) = counts.add(target.session, size) else { continue };
        if once && stored.is_none() {
            let (number, bytes) = message::store(transaction, message)?;
            counts.store(bytes);
            stored = Some(number);
        }
        insert(transaction, target, number, size, message, stored)?;
        drop_overtaken(transaction, counts, target.session, number)?;
    }
    // Not before all rows that point to the message are there: it goes with the last one.
    targets.iter().try_for_each(|target| make_room(transaction, counts, target.session))
}

/// Inserts a row with the message itself, or with the number of a stored one.
fn insert(
    transaction: &Transaction<'_>,
    target: &Target,
    number: i64,
    size: WaitingSize,
    message: &Message,
    stored: Option<i64>,
) -> rusqlite::Result<()> {
    let identifiers: Vec<u8> = target.identifiers.iter().flat_map(|id| id.to_be_bytes()).collect();
    let own = stored.is_none().then_some(message);
    transaction
        .prepare_cached(
            "INSERT INTO queued (session, number, qos, retain, identifiers, topic, payload, properties, publisher, expires_at, size, message)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            target.session,
            number,
            target.qos as u8,
            target.retain,
            identifiers,
            own.map(|own| own.topic.as_str()),
            own.map(|own| &own.payload[..]),
            own.map(|own| &own.properties[..]),
            own.map_or("", |own| &*own.publisher),
            own.and_then(|own| own.expires_at_ms),
            size.bytes,
            stored,
        ])?;
    Ok(())
}

/// PUBREC: of a message, only its PUBREL is left to send.
pub(in crate::store) fn release(
    transaction: &Transaction<'_>,
    counts: &mut QueueCounts,
    session: i64,
    number: i64,
) -> rusqlite::Result<()> {
    let Some(held) = held(transaction, session, number)? else { return Ok(()) };
    counts.take_out(session, held.size);
    transaction
        .prepare_cached(
            "UPDATE queued SET topic = NULL, payload = NULL, properties = NULL, message = NULL, size = 0,
                    identifiers = x'', publisher = '', expires_at = NULL
             WHERE session = ? AND number = ?",
        )?
        .execute([session, number])?;
    held.release(transaction, counts)
}

/// PUBACK or PUBCOMP: nothing of a message is left to send.
pub(in crate::store) fn done(
    transaction: &Transaction<'_>,
    counts: &mut QueueCounts,
    session: i64,
    number: i64,
) -> rusqlite::Result<()> {
    let held = held(transaction, session, number)?;
    delete(transaction, session, number)?;
    let Some(held) = held else { return Ok(()) };
    counts.take_out(session, held.size);
    held.release(transaction, counts)
}

/// Deletes the queue of a session that is over.
pub(in crate::store) fn end(
    transaction: &Transaction<'_>,
    counts: &mut QueueCounts,
    session: i64,
) -> rusqlite::Result<()> {
    counts.end(session);
    let messages: Vec<i64> = transaction
        .prepare_cached(
            "SELECT DISTINCT message FROM queued WHERE session = ? AND message IS NOT NULL",
        )?
        .query_map([session], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    transaction.prepare_cached("DELETE FROM queued WHERE session = ?")?.execute([session])?;
    for message in messages {
        counts.free(message::release(transaction, message)?);
    }
    Ok(())
}

fn delete(transaction: &Transaction<'_>, session: i64, number: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM queued WHERE session = ? AND number = ?")?
        .execute([session, number])?;
    Ok(())
}

/// Drops the messages whose packet ids are needed again, now that there is message `number`.
fn drop_overtaken(
    transaction: &Transaction<'_>,
    counts: &mut QueueCounts,
    session: i64,
    number: i64,
) -> rusqlite::Result<()> {
    if number <= PACKET_IDS {
        return Ok(());
    }
    let mut overtaken = transaction.prepare_cached(
        "DELETE FROM queued WHERE session = ? AND number <= ?
         RETURNING payload IS NULL AND message IS NULL, size, message, length(identifiers)",
    )?;
    let mut gone = overtaken.query(params![session, number - PACKET_IDS])?;
    while let Some(row) = gone.next()? {
        let is_delivered: bool = row.get(0)?;
        if !is_delivered {
            let held = Held::read(row, 1)?;
            counts.drop_one(session, held.size);
            held.release(transaction, counts)?;
        }
    }
    Ok(())
}

/// Drops the oldest messages of a session, and of others where all of them have too many bytes, until they are within
/// their bounds.
fn make_room(
    transaction: &Transaction<'_>,
    counts: &mut QueueCounts,
    session: i64,
) -> rusqlite::Result<()> {
    while let Some(session) = counts.next_to_drop(session) {
        // A message that only waits for its PUBCOMP stays: without its PUBREL the client would take the next message
        // with this packet id for the same one.
        let oldest = transaction
            .prepare_cached(
                "SELECT number, size, message, length(identifiers) FROM queued
                 WHERE session = ? AND (payload IS NOT NULL OR message IS NOT NULL)
                 ORDER BY number LIMIT 1",
            )?
            .query_row([session], |row| Ok((row.get(0)?, Held::read(row, 1)?)))
            .optional()?;
        let Some((number, held)) = oldest else { break };
        delete(transaction, session, number)?;
        counts.drop_one(session, held.size);
        held.release(transaction, counts)?;
    }
    Ok(())
}

//! Messages that wait for several sessions, each stored once.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::mqtt::Message;
use crate::store::mqtt::queue_counts::ROW_BYTES;

/// Bytes of topic, payload, properties and publisher from which a message is stored once. To store a shorter one with each
/// of its sessions takes hardly more room than to point to it, and fewer statements.
const ONCE_FROM_BYTES: usize = 256;

/// Bytes of topic, payload, properties and publisher.
pub(in crate::store) fn bytes_of(message: &Message) -> usize {
    message.size() + message.publisher.len()
}

/// Whether a message for so many sessions is stored once.
pub(in crate::store) fn is_stored_once(message: &Message, sessions: usize) -> bool {
    sessions > 1 && bytes_of(message) >= ONCE_FROM_BYTES
}

/// Stores a message. Returns its number, and the bytes that it takes.
pub(in crate::store) fn store(
    transaction: &Transaction<'_>,
    message: &Message,
) -> rusqlite::Result<(i64, u64)> {
    let size = bytes_of(message) as u64 + ROW_BYTES;
    transaction
        .prepare_cached(
            "INSERT INTO message (size, expires_at, topic, publisher, properties, payload)
             VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            size,
            message.expires_at_ms,
            message.topic.as_str(),
            &*message.publisher,
            &message.properties[..],
            &message.payload[..],
        ])?;
    Ok((transaction.last_insert_rowid(), size))
}

/// Deletes a message unless it waits for another session. Returns the bytes that are free with it.
pub(in crate::store) fn release(
    transaction: &Transaction<'_>,
    number: i64,
) -> rusqlite::Result<u64> {
    let freed: Option<u64> = transaction
        .prepare_cached(
            "DELETE FROM message WHERE id = ?1
             AND NOT EXISTS (SELECT 1 FROM queued WHERE message = ?1) RETURNING size",
        )?
        .query_row([number], |row| row.get(0))
        .optional()?;
    Ok(freed.unwrap_or(0))
}

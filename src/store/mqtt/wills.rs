//! Wills on disk, for clients that are connected, or whose will is delayed, when the broker dies.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, params};

use crate::mqtt::Message;
use crate::store::Store;
use crate::store::mqtt::columns::{qos, topic};

/// Bytes of topic, payload and properties beyond which a will is not stored: two thousand clients may have one.
pub const STORED_WILL_MAX_BYTES: usize = 16 * 1024;

/// A will that survives the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWill {
    /// Number of the will; each connection's has its own.
    pub id: i64,
    /// The message. Its publisher is the name of the client's session.
    pub message: Arc<Message>,
    /// Message expiry interval from its publication, seconds.
    pub expiry_s: Option<u32>,
    /// Delay from the end of the connection, seconds.
    pub delay_s: u32,
    /// Silence after which the client counts as gone, ms.
    pub silence_ms: u32,
    /// When it is due, Unix ms UTC; `None` while the client is connected.
    pub due_at_ms: Option<i64>,
}

/// Stores a will in place of an earlier one of its client.
pub(in crate::store) fn put(connection: &Connection, will: &StoredWill) -> rusqlite::Result<()> {
    let StoredWill { id, message, expiry_s, delay_s, silence_ms, due_at_ms } = will;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO will
             (id, client_id, topic, payload, qos, retain, properties, expiry_s, delay_s, silence_ms, due_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            id,
            &*message.publisher,
            message.topic.as_str(),
            &message.payload[..],
            message.qos as u8,
            message.retain,
            &message.properties[..],
            expiry_s,
            delay_s,
            silence_ms,
            due_at_ms,
        ])?;
    Ok(())
}

/// Sets when a will is due, Unix ms UTC.
pub(in crate::store) fn set_due(
    connection: &Connection,
    id: i64,
    at_ms: i64,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE will SET due_at = ?2 WHERE id = ?1")?;
    statement.execute(params![id, at_ms]).map(|_| ())
}

/// Deletes a will.
pub(in crate::store) fn delete(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM will WHERE id = ?")?.execute([id]).map(|_| ())
}

impl Store {
    /// The wills that the broker's previous run has left, as the last commit left them.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn wills(&self) -> rusqlite::Result<Vec<StoredWill>> {
        let mut statement = self.connection.prepare(
            "SELECT id, client_id, topic, payload, qos, retain, properties, expiry_s, delay_s, silence_ms, due_at
             FROM will ORDER BY id",
        )?;
        let rows = statement.query_map([], |row| {
            let message = Message {
                topic: topic(row, 2)?,
                payload: Bytes::from(row.get::<_, Vec<u8>>(3)?),
                qos: qos(row, 4)?,
                retain: row.get(5)?,
                expires_at_ms: None,
                publisher: Arc::from(row.get::<_, String>(1)?),
                properties: Bytes::from(row.get::<_, Vec<u8>>(6)?),
            };
            Ok(StoredWill {
                id: row.get(0)?,
                message: Arc::new(message),
                expiry_s: row.get(7)?,
                delay_s: row.get(8)?,
                silence_ms: row.get(9)?,
                due_at_ms: row.get(10)?,
            })
        })?;
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, LOG_FILE};

    #[test]
    fn a_client_has_one_will_and_the_end_of_an_earlier_one_does_not_touch_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join(LOG_FILE)).unwrap();
        let will = |id, client: &str| StoredWill {
            id,
            message: Arc::new(Message {
                properties: Bytes::from_static(b"\x02\x01\x01"),
                publisher: Arc::from(client),
                ..Message::own("t", id.to_string())
            }),
            expiry_s: Some(9),
            delay_s: 5,
            silence_ms: 90_000,
            due_at_ms: None,
        };
        let put = |id, client| Change::Will(Box::new(will(id, client)));
        store.commit(&[], &[&put(1, "a"), &put(2, "b"), &put(3, "a")]).unwrap();
        let due = |id, at_ms| Change::WillDue { id, at_ms };
        store.commit(&[], &[&due(1, 1), &Change::WillGone { id: 1 }, &due(2, 70)]).unwrap();
        let delayed = StoredWill { due_at_ms: Some(70), ..will(2, "b") };
        assert_eq!(store.wills().unwrap(), [delayed, will(3, "a")]);
        store.commit(&[], &[&Change::WillGone { id: 3 }, &Change::WillGone { id: 2 }]).unwrap();
        assert_eq!(store.wills().unwrap(), []);
    }
}

//! Retained messages on disk, one row a topic.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, params};

use crate::mqtt::Message;
use crate::store::mqtt::columns::{qos, topic};

/// Stores `message` as its topic's retained message; with an empty payload it deletes that ([MQTT-3.3.1-10]).
pub(in crate::store) fn retain(connection: &Connection, message: &Message) -> rusqlite::Result<()> {
    if message.payload.is_empty() {
        connection
            .prepare_cached("DELETE FROM retained WHERE topic = ?")?
            .execute([message.topic.as_str()])?;
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO retained (topic, qos, payload, properties, publisher, expires_at)
             VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (topic) DO UPDATE
             SET qos = excluded.qos, payload = excluded.payload, properties = excluded.properties,
                 publisher = excluded.publisher, expires_at = excluded.expires_at",
        )?
        .execute(params![
            message.topic.as_str(),
            message.qos as u8,
            &message.payload[..],
            &message.properties[..],
            &*message.publisher,
            message.expires_at_ms,
        ])?;
    Ok(())
}

/// Deletes the retained messages that have expired at `now_ms`, Unix ms.
pub(in crate::store) fn expire(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM retained WHERE expires_at <= ?")?.execute([now_ms])?;
    Ok(())
}

/// All retained messages.
pub(in crate::store) fn load(connection: &Connection) -> rusqlite::Result<Vec<Arc<Message>>> {
    let mut statement = connection
        .prepare("SELECT topic, qos, payload, properties, publisher, expires_at FROM retained")?;
    let rows = statement.query_map([], |row| {
        Ok(Arc::new(Message {
            topic: topic(row, 0)?,
            qos: qos(row, 1)?,
            retain: true,
            payload: Bytes::from(row.get::<_, Vec<u8>>(2)?),
            properties: Bytes::from(row.get::<_, Vec<u8>>(3)?),
            publisher: Arc::from(row.get::<_, String>(4)?),
            expires_at_ms: row.get(5)?,
        }))
    })?;
    rows.collect()
}

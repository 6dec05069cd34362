//! Reads MQTT's types from columns, into which another program may have written anything.

use rusqlite::Error::FromSqlConversionFailure;
use rusqlite::Row;
use rusqlite::types::Type;

use crate::mqtt::{QoS, Topic};

/// The topic in a column; an error when the text is none.
pub(in crate::store) fn topic(row: &Row<'_>, column: usize) -> rusqlite::Result<Topic> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// The `QoS` in a column; 0 when the number is none.
pub(in crate::store) fn qos(row: &Row<'_>, column: usize) -> rusqlite::Result<QoS> {
    Ok(QoS::from_u8(row.get(column)?).unwrap_or_default())
}

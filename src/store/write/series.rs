//! The series of the log with their owners: a user may begin only so many.

use rusqlite::{Connection, Transaction, params};

use crate::store::write::record::SeriesName;

/// A series of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSeries {
    /// Its name.
    pub name: SeriesName,
    /// The user whose client began it; empty for a client without a login, and where that was not noted.
    pub owner: String,
}

/// Every series.
pub(in crate::store) fn load(connection: &Connection) -> rusqlite::Result<Vec<StoredSeries>> {
    let mut found = Vec::new();
    let mut statement = connection.prepare(
        "SELECT node.name, sensor.name, coalesce(sensor.owner, '')
         FROM sensor JOIN node ON node.id = sensor.node",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (node, sensor): (String, String) = (row.get(0)?, row.get(1)?);
        // Another program may have written other names; no reading has them.
        if let (Ok(node), Ok(sensor)) = (node.parse(), sensor.parse()) {
            let name = SeriesName::Sensor { node, sensor };
            found.push(StoredSeries { name, owner: row.get(2)? });
        }
    }
    let mut statement =
        connection.prepare("SELECT topic, field, coalesce(owner, '') FROM source")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name = SeriesName::Source { topic: row.get(0)?, field: row.get(1)? };
        found.push(StoredSeries { name, owner: row.get(2)? });
    }
    Ok(found)
}

/// Notes whose client began a series.
pub(in crate::store) fn set_owner(
    transaction: &Transaction<'_>,
    series: &SeriesName,
    owner: &str,
) -> rusqlite::Result<()> {
    match series {
        SeriesName::Sensor { node, sensor } => transaction
            .prepare_cached(
                "UPDATE sensor SET owner = ? WHERE name = ?
                 AND node = (SELECT id FROM node WHERE name = ?) AND owner IS NULL",
            )?
            .execute(params![owner, sensor.as_str(), node.as_str()])?,
        SeriesName::Source { topic, field } => transaction
            .prepare_cached(
                "UPDATE source SET owner = ? WHERE topic = ? AND field = ? AND owner IS NULL",
            )?
            .execute(params![owner, topic, field])?,
    };
    Ok(())
}

//! Nodes that are to be forgotten: the requests, and how far they are.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::reading::Id;

/// How long a statement waits for the broker's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks for a node to be forgotten.
pub(in crate::store) fn request(connection: &Connection, node: &Id) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO forgotten (node, cleared) VALUES (?, 0) ON CONFLICT DO NOTHING",
        )?
        .execute([node.as_str()])?;
    Ok(())
}

/// Notes that MQTT keeps nothing of a node any more.
pub(in crate::store) fn cleared(connection: &Connection, node: &Id) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE forgotten SET cleared = 1 WHERE node = ?")?
        .execute([node.as_str()])?;
    Ok(())
}

/// Nodes to be forgotten of which MQTT may still keep something.
pub(in crate::store) fn uncleared(connection: &Connection) -> rusqlite::Result<Vec<Id>> {
    let nodes: Vec<String> = connection
        .prepare_cached("SELECT node FROM forgotten WHERE cleared = 0")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(nodes.iter().filter_map(|node| node.parse().ok()).collect())
}

/// Whether a node is still to be forgotten.
pub(in crate::store) fn is_pending(connection: &Connection, node: &Id) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM forgotten WHERE node = ?)")?
        .query_row([node.as_str()], |row| row.get(0))
}

/// A request to the broker that runs on this log to forget a node, from another process.
#[derive(Debug)]
pub struct ForgetRequest {
    connection: Connection,
    node: Id,
}

impl ForgetRequest {
    /// Makes the request. The broker looks for one every few seconds.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn make(path: &Path, node: Id) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        request(&connection, &node)?;
        Ok(Self { connection, node })
    }

    /// Whether the broker has done it.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn is_done(&self) -> rusqlite::Result<bool> {
        Ok(!is_pending(&self.connection, &self.node)?)
    }
}

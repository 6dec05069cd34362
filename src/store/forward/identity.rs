//! A log's name upstream, and requests to send its readings again.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

/// How long a statement waits for the broker's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A log's name upstream, and the latest request to send its readings again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogIdentity {
    /// A UUID as text.
    pub log: String,
    /// The number of the request; 0: none was ever made.
    pub again: i64,
    /// Readings from this time on are requested, Unix ms.
    pub again_from: i64,
}

/// A random UUID (RFC 9562, 5.4).
fn new_log() -> String {
    let mut bits = fastrand::u128(..);
    bits = bits & !(0xf << 76) | (0x4 << 76);
    bits = bits & !(0x3 << 62) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The identity of a log; `None` where it was never forwarded.
pub(in crate::store) fn load(connection: &Connection) -> rusqlite::Result<Option<LogIdentity>> {
    connection
        .query_row("SELECT log, again, again_from FROM upstream", [], |row| {
            Ok(LogIdentity { log: row.get(0)?, again: row.get(1)?, again_from: row.get(2)? })
        })
        .optional()
}

/// Begins or resumes forwarding: readings that were stored without being queued are requested.
pub(in crate::store) fn resume(connection: &Connection) -> rusqlite::Result<()> {
    if load(connection)?.is_none() {
        connection.execute(
            "INSERT INTO upstream (log, again, again_from, paused)
             SELECT ?1, stored, ?2, 0 FROM (
                 SELECT EXISTS (SELECT 1 FROM reading) OR EXISTS (SELECT 1 FROM arrival) AS stored)",
            params![new_log(), i64::MIN],
        )?;
    }
    connection.execute(
        "UPDATE upstream SET again = again + 1, again_from = ?, paused = 0 WHERE paused",
        [i64::MIN],
    )?;
    Ok(())
}

/// Whether readings that are committed now are to be noted as not queued.
pub(in crate::store) fn is_to_be_paused(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .query_row("SELECT EXISTS (SELECT 1 FROM upstream WHERE NOT paused)", [], |row| row.get(0))
}

/// Notes that readings are committed without being queued.
pub(in crate::store) fn pause(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE upstream SET paused = 1", []).map(drop)
}

/// Requests, from another process or none, that all readings from `from_ms` on (Unix ms) are sent again. `renamed`: under a
/// new name, for a log that is a copy of another one. Returns whether the log was ever forwarded.
///
/// # Errors
/// The error of SQLite.
pub fn forward_again(path: &Path, from_ms: i64, renamed: bool) -> rusqlite::Result<bool> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let changed = connection.execute(
        "UPDATE upstream SET again = again + 1, again_from = ?, log = coalesce(?, log)",
        params![from_ms, renamed.then(new_log)],
    )?;
    Ok(changed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_uuids_of_version_4() {
        let name = new_log();
        assert_eq!(name.len(), 36);
        assert_eq!(&name[14..15], "4");
        assert!(matches!(&name[19..20], "8" | "9" | "a" | "b"), "{name}");
        assert_ne!(name, new_log());
    }
}

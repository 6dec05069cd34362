//! The history of alarms.

use rusqlite::types::Value;

use crate::store::read::log::Log;
use crate::store::write::alarm_log::AlarmRow;

impl Log {
    /// The latest `count` changes of the alarms with these names, the newest first.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn alarm_changes(&self, names: &[String], count: usize) -> rusqlite::Result<Vec<AlarmRow>> {
        let places = vec!["?"; names.len()].join(", ");
        let mut statement = self.connection.prepare(&format!(
            "SELECT name, at, raised, detail FROM alarm WHERE name IN ({places}) ORDER BY id DESC LIMIT ?"
        ))?;
        let count = Value::from(i64::try_from(count).unwrap_or(i64::MAX));
        let names = names.iter().map(|name| Value::from(name.clone()));
        let rows =
            statement.query_map(rusqlite::params_from_iter(names.chain([count])), |row| {
                let (name, at, raised, detail) =
                    (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
                Ok(AlarmRow { name, at, raised, detail, correction_ms: None })
            })?;
        rows.collect()
    }
}

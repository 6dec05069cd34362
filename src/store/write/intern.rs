//! Interns names: nodes, sensors, runs and sources get numbers, which are cached so that a row costs no look-up.

use std::collections::HashMap;

use rusqlite::{Transaction, params};

use crate::reading::Id;

/// Names of each kind that are cached. Past it the cache starts anew from the database.
const NAMES_CACHED: usize = 5_000;

/// One run of one node.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Run {
    pub id: i64,
    /// Offset in ms, and the seq from which the node's own stamps are good; `None` while its clock is not set.
    pub synced: Option<(i64, i64)>,
}

/// The numbers of the names that were used lately.
#[derive(Debug, Default)]
pub(in crate::store) struct Interner {
    sensors: HashMap<(Id, Id), i64>,
    runs: HashMap<(Id, Id), Run>,
    sources: HashMap<(String, String), i64>,
}

impl Interner {
    /// Empties the cache when one kind has outgrown its bound.
    pub fn trim(&mut self) {
        if self.sensors.len().max(self.runs.len()).max(self.sources.len()) > NAMES_CACHED {
            *self = Self::default();
        }
    }

    /// Number of a node's sensor.
    pub fn sensor(
        &mut self,
        transaction: &Transaction<'_>,
        node: &Id,
        sensor: &Id,
    ) -> rusqlite::Result<i64> {
        let key = (node.clone(), sensor.clone());
        if let Some(id) = self.sensors.get(&key) {
            return Ok(*id);
        }
        let node = node_id(transaction, node)?;
        transaction
            .prepare_cached("INSERT INTO sensor (node, name) VALUES (?, ?) ON CONFLICT DO NOTHING")?
            .execute(params![node, sensor.as_str()])?;
        let id = transaction
            .prepare_cached("SELECT id FROM sensor WHERE node = ? AND name = ?")?
            .query_row(params![node, sensor.as_str()], |row| row.get(0))?;
        self.sensors.insert(key, id);
        Ok(id)
    }

    /// A node's run.
    pub fn run(
        &mut self,
        transaction: &Transaction<'_>,
        node: &Id,
        boot: &Id,
    ) -> rusqlite::Result<Run> {
        let key = (node.clone(), boot.clone());
        if let Some(run) = self.runs.get(&key) {
            return Ok(*run);
        }
        let node = node_id(transaction, node)?;
        transaction
            .prepare_cached("INSERT INTO run (node, boot) VALUES (?, ?) ON CONFLICT DO NOTHING")?
            .execute(params![node, boot.as_str()])?;
        let run = transaction
            .prepare_cached(
                "SELECT id, offset_ms, synced_seq FROM run WHERE node = ? AND boot = ?",
            )?
            .query_row(params![node, boot.as_str()], |row| {
                let synced = row.get::<_, Option<i64>>(1)?.zip(row.get::<_, Option<i64>>(2)?);
                Ok(Run { id: row.get(0)?, synced })
            })?;
        self.runs.insert(key, run);
        Ok(run)
    }

    /// Notes that the clock of a run is set.
    pub fn set_run(&mut self, node: &Id, boot: &Id, run: Run) {
        self.runs.insert((node.clone(), boot.clone()), run);
    }

    /// Number of a foreign publisher's field.
    pub fn source(
        &mut self,
        transaction: &Transaction<'_>,
        topic: &str,
        field: &str,
    ) -> rusqlite::Result<i64> {
        let key = (topic.to_owned(), field.to_owned());
        if let Some(id) = self.sources.get(&key) {
            return Ok(*id);
        }
        transaction
            .prepare_cached(
                "INSERT INTO source (topic, field) VALUES (?, ?) ON CONFLICT DO NOTHING",
            )?
            .execute([topic, field])?;
        let id = transaction
            .prepare_cached("SELECT id FROM source WHERE topic = ? AND field = ?")?
            .query_row([topic, field], |row| row.get(0))?;
        self.sources.insert(key, id);
        Ok(id)
    }
}

fn node_id(transaction: &Transaction<'_>, node: &Id) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached("INSERT INTO node (name) VALUES (?) ON CONFLICT (name) DO NOTHING")?
        .execute([node.as_str()])?;
    transaction
        .prepare_cached("SELECT id FROM node WHERE name = ?")?
        .query_row([node.as_str()], |row| row.get(0))
}

//! Interns names: nodes, sensors, runs and sources get numbers, which are cached so that a row costs no look-up.

use std::collections::HashMap;

use rusqlite::{Transaction, params};

use crate::reading::Id;

/// Names that are cached. Past it the cache starts anew from the database.
const NAMES_CACHED: usize = 10_000;

/// One run of one node.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Run {
    pub id: i64,
    pub node: i64,
    /// Whether its clock was set once, so that the offset of its times is known.
    pub is_synced: bool,
}

/// The numbers of a node's names.
#[derive(Debug, Default)]
struct Node {
    sensors: HashMap<Id, i64>,
    runs: HashMap<Id, Run>,
}

/// The numbers of the names that were used lately.
#[derive(Debug, Default)]
pub(in crate::store) struct Interner {
    nodes: HashMap<Id, Node>,
    sources: HashMap<(String, String), i64>,
    names: usize,
}

impl Interner {
    /// Whether the cache has outgrown its bound.
    pub const fn is_full(&self) -> bool {
        self.names > NAMES_CACHED
    }

    /// Whether a sensor is in the cache.
    pub fn knows_sensor(&self, node: &Id, sensor: &Id) -> bool {
        self.nodes.get(node).is_some_and(|names| names.sensors.contains_key(sensor))
    }

    /// Whether a foreign publisher's field is in the cache.
    pub fn knows_source(&self, topic: &str, field: &str) -> bool {
        self.sources.contains_key(&(topic.to_owned(), field.to_owned()))
    }

    /// Forgets a run that is deleted.
    pub fn forget_run(&mut self, id: i64) {
        for node in self.nodes.values_mut() {
            node.runs.retain(|_, run| run.id != id);
        }
    }

    /// Number of a node's sensor.
    pub fn sensor(
        &mut self,
        transaction: &Transaction<'_>,
        node: &Id,
        sensor: &Id,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.nodes.get(node).and_then(|names| names.sensors.get(sensor)) {
            return Ok(*id);
        }
        let number = node_id(transaction, node)?;
        transaction
            .prepare_cached("INSERT INTO sensor (node, name) VALUES (?, ?) ON CONFLICT DO NOTHING")?
            .execute(params![number, sensor.as_str()])?;
        let id = transaction
            .prepare_cached("SELECT id FROM sensor WHERE node = ? AND name = ?")?
            .query_row(params![number, sensor.as_str()], |row| row.get(0))?;
        self.nodes.entry(node.clone()).or_default().sensors.insert(sensor.clone(), id);
        self.names += 1;
        Ok(id)
    }

    /// A node's run.
    pub fn run(
        &mut self,
        transaction: &Transaction<'_>,
        node: &Id,
        boot: &Id,
    ) -> rusqlite::Result<Run> {
        if let Some(run) = self.nodes.get(node).and_then(|names| names.runs.get(boot)) {
            return Ok(*run);
        }
        let number = node_id(transaction, node)?;
        transaction
            .prepare_cached("INSERT INTO run (node, boot) VALUES (?, ?) ON CONFLICT DO NOTHING")?
            .execute(params![number, boot.as_str()])?;
        let run = transaction
            .prepare_cached(
                "SELECT id, synced_seq IS NOT NULL FROM run WHERE node = ? AND boot = ?",
            )?
            .query_row(params![number, boot.as_str()], |row| {
                Ok(Run { id: row.get(0)?, node: number, is_synced: row.get(1)? })
            })?;
        self.nodes.entry(node.clone()).or_default().runs.insert(boot.clone(), run);
        self.names += 1;
        Ok(run)
    }

    /// Notes that the clock of a run is set.
    pub fn set_synced(&mut self, node: &Id, boot: &Id) {
        if let Some(run) = self.nodes.get_mut(node).and_then(|names| names.runs.get_mut(boot)) {
            run.is_synced = true;
        }
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
        self.names += 1;
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

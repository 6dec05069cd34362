//! Names become numbers: nodes, sensors, runs and sources, remembered so that a row costs no look-up.

use std::collections::HashMap;

use rusqlite::{Transaction, params};

use crate::reading::Id;

/// Interned names kept in memory, each kind. Past it the cache starts anew from the database.
const NAMES_CACHED: usize = 5_000;

#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Run {
    pub id: i64,
    /// Offset and the seq from which the node's own stamps are good.
    pub synced: Option<(i64, i64)>,
}

#[derive(Debug, Default)]
pub(in crate::store) struct Names {
    sensors: HashMap<(Id, Id), i64>,
    pub runs: HashMap<(Id, Id), Run>,
    sources: HashMap<(String, String), i64>,
}

impl Names {
    pub fn trim(&mut self) {
        if self.sensors.len().max(self.runs.len()).max(self.sources.len()) > NAMES_CACHED {
            *self = Self::default();
        }
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

pub(in crate::store) fn sensor_id(
    transaction: &Transaction<'_>,
    names: &mut Names,
    node: &Id,
    sensor: &Id,
) -> rusqlite::Result<i64> {
    let key = (node.clone(), sensor.clone());
    if let Some(id) = names.sensors.get(&key) {
        return Ok(*id);
    }
    let node = node_id(transaction, node)?;
    transaction
        .prepare_cached("INSERT INTO sensor (node, name) VALUES (?, ?) ON CONFLICT DO NOTHING")?
        .execute(params![node, sensor.as_str()])?;
    let id = transaction
        .prepare_cached("SELECT id FROM sensor WHERE node = ? AND name = ?")?
        .query_row(params![node, sensor.as_str()], |row| row.get(0))?;
    names.sensors.insert(key, id);
    Ok(id)
}

pub(in crate::store) fn run_of(
    transaction: &Transaction<'_>,
    names: &mut Names,
    node: &Id,
    boot: &Id,
) -> rusqlite::Result<Run> {
    let key = (node.clone(), boot.clone());
    if let Some(run) = names.runs.get(&key) {
        return Ok(*run);
    }
    let node = node_id(transaction, node)?;
    transaction
        .prepare_cached("INSERT INTO run (node, boot) VALUES (?, ?) ON CONFLICT DO NOTHING")?
        .execute(params![node, boot.as_str()])?;
    let run = transaction
        .prepare_cached("SELECT id, offset_ms, synced_seq FROM run WHERE node = ? AND boot = ?")?
        .query_row(params![node, boot.as_str()], |row| {
            let synced = row.get::<_, Option<i64>>(1)?.zip(row.get::<_, Option<i64>>(2)?);
            Ok(Run { id: row.get(0)?, synced })
        })?;
    names.runs.insert(key, run);
    Ok(run)
}

pub(in crate::store) fn source_id(
    transaction: &Transaction<'_>,
    names: &mut Names,
    topic: &str,
    field: &str,
) -> rusqlite::Result<i64> {
    let key = (topic.to_owned(), field.to_owned());
    if let Some(id) = names.sources.get(&key) {
        return Ok(*id);
    }
    transaction
        .prepare_cached("INSERT INTO source (topic, field) VALUES (?, ?) ON CONFLICT DO NOTHING")?
        .execute([topic, field])?;
    let id = transaction
        .prepare_cached("SELECT id FROM source WHERE topic = ? AND field = ?")?
        .query_row([topic, field], |row| row.get(0))?;
    names.sources.insert(key, id);
    Ok(id)
}

//! Finds the numbers that a node counted and the log does not have.

use crate::store::read::arrived;
use crate::store::read::log::Log;

/// Numbers that a node counted but that are not in the log: `from..=to` of one run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// Node id.
    pub node: String,
    /// The node's run.
    pub boot: String,
    /// First missing number.
    pub from: i64,
    /// Last missing number.
    pub to: i64,
}

impl Log {
    /// Holes in the numbering of each run, from 1 to its highest number. Empty when nothing that a
    /// node counted is missing, apart from readings that are still on their way. A reading that retention deleted is no hole.
    ///
    /// # Errors
    /// The error of SQLite.
    pub fn gaps(&self) -> rusqlite::Result<Vec<Gap>> {
        // Both halves come in the order of their keys, so that they are merged and nothing is sorted.
        let mut statement = self.connection.prepare(
            "SELECT run, seq, seq FROM reading UNION ALL SELECT run, first, last FROM pruned
             ORDER BY 1, 2",
        )?;
        let snapshot = self.connection.unchecked_transaction()?;
        let mut arrived = arrived::numbers(&self.connection)?.into_iter().peekable();
        let mut placed =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.peekable();
        let (mut holes, mut before) = (Vec::new(), (0, 0));
        loop {
            let arrived_first = match (placed.peek(), arrived.peek()) {
                (Some(Ok(placed)), Some(arrived)) => arrived < placed,
                (None, Some(_)) => true,
                _ => false,
            };
            let next = if arrived_first { arrived.next().map(Ok) } else { placed.next() };
            let Some((run, first, last)) = next.transpose()? else { break };
            let end = if before.0 == run { before.1 } else { 0 };
            // A row that is moved but not yet deleted comes twice, also with the highest number there is.
            if first.saturating_sub(1) > end {
                holes.push((run, end + 1, first - 1));
            }
            before = (run, last.max(end));
        }
        drop(placed);
        snapshot.finish()?;
        let mut name = self.connection.prepare(
            "SELECT node.name, run.boot FROM run JOIN node ON node.id = run.node WHERE run.id = ?",
        )?;
        let mut gaps = holes
            .into_iter()
            .map(|(run, from, to)| {
                name.query_row([run], |row| {
                    Ok(Gap { node: row.get(0)?, boot: row.get(1)?, from, to })
                })
            })
            .collect::<rusqlite::Result<Vec<_>>>()?;
        // Stable: the runs of a node stay in their order.
        gaps.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(gaps)
    }
}

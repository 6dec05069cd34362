//! The state of every board as it was last published: status, health, inputs and outputs, bounded in number.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::reading::Id;
use crate::wire::{BoardTopic, Health, OFFLINE, ONLINE};

/// Boards kept. Messages of further boards are ignored.
const BOARDS_MAX: usize = 1_000;
/// Inputs kept of one board, and outputs likewise. A header has 28 lines.
const LINES_MAX: usize = 64;

/// Whether a board is connected, by its status topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The board published `online`.
    Online,
    /// The board or its will published `offline`.
    Offline,
}

/// The latest messages of one board.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BoardState {
    /// `None` while the board has published no status.
    pub status: Option<Status>,
    /// When the broker received that status, Unix ms UTC; `None` for a status retained from before its start.
    pub status_at: Option<i64>,
    /// Its health message.
    pub health: Option<Health>,
    /// When the broker received that message; `None` as for `status_at`.
    pub health_at: Option<i64>,
    /// Inputs by name; true is on.
    #[serde(serialize_with = "by_name")]
    pub inputs: BTreeMap<Id, bool>,
    /// Outputs by name, as read back from their lines; true is on.
    #[serde(serialize_with = "by_name")]
    pub outputs: BTreeMap<Id, bool>,
}

fn by_name<S: Serializer>(lines: &BTreeMap<Id, bool>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(lines.iter().map(|(name, on)| (name.as_str(), on)))
}

/// All board states by node id.
#[derive(Debug, Default)]
pub struct Boards {
    boards: BTreeMap<Id, BoardState>,
}

impl Boards {
    /// Applies a message that the broker received at `at_ms` (Unix ms UTC; `None` for a retained one). Returns the
    /// board whose state it changed, and its state before. An empty payload deletes the value; a board without values
    /// is removed.
    pub fn apply(
        &mut self,
        topic: &str,
        payload: &[u8],
        at_ms: Option<i64>,
    ) -> Option<(Id, BoardState)> {
        let (node, kind) = BoardTopic::parse(topic)?;
        if !self.boards.contains_key(&node)
            && (payload.is_empty() || self.boards.len() >= BOARDS_MAX)
        {
            return None;
        }
        let board = self.boards.entry(node.clone()).or_default();
        let before = board.clone();
        match kind {
            BoardTopic::Status => {
                let status = match payload {
                    b if b == ONLINE.as_bytes() => Some(Status::Online),
                    b if b == OFFLINE.as_bytes() => Some(Status::Offline),
                    _ => None,
                };
                // A repeated status keeps its time: the page shows how long the board has been offline.
                if status != board.status {
                    board.status = status;
                    board.status_at = at_ms.filter(|_| status.is_some());
                }
            }
            BoardTopic::Health => {
                board.health = Health::parse(payload);
                board.health_at = at_ms.filter(|_| board.health.is_some());
            }
            BoardTopic::Input(name) => set(&mut board.inputs, name, payload),
            BoardTopic::Output(name) => set(&mut board.outputs, name, payload),
        }
        if *board == before {
            return None;
        }
        if *board == BoardState::default() {
            self.boards.remove(&node);
        }
        Some((node, before))
    }

    /// The state of `node`'s board; `None` when it has published nothing.
    pub fn get(&self, node: &Id) -> Option<&BoardState> {
        self.boards.get(node)
    }

    /// All boards by node id.
    pub fn iter(&self) -> impl Iterator<Item = (&Id, &BoardState)> {
        self.boards.iter()
    }
}

fn set(lines: &mut BTreeMap<Id, bool>, name: Id, payload: &[u8]) {
    let on = match payload {
        b"ON" => Some(true),
        b"OFF" => Some(false),
        _ => None,
    };
    match on {
        None => drop(lines.remove(&name)),
        Some(on) if lines.len() < LINES_MAX || lines.contains_key(&name) => {
            lines.insert(name, on);
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Id {
        text.parse().unwrap()
    }

    #[test]
    fn the_latest_message_counts_and_an_empty_one_deletes_it() {
        let mut boards = Boards::default();
        let new = boards.apply("humidor/oven/status", b"online", Some(5));
        assert_eq!(new, Some((id("oven"), BoardState::default())));
        assert_eq!(boards.apply("humidor/oven/status", b"online", Some(6)), None);
        assert_eq!(boards.get(&id("oven")).unwrap().status_at, Some(5));
        let (_, before) = boards.apply("humidor/oven/status", b"offline", Some(7)).unwrap();
        assert_eq!(before.status, Some(Status::Online));
        assert!(boards.apply("humidor/oven/output/fan", b"ON", Some(7)).is_some());
        assert!(boards.apply("humidor/oven/output/fan", b"smoke", Some(8)).is_some());
        let board = boards.get(&id("oven")).unwrap();
        assert_eq!((board.status, board.status_at), (Some(Status::Offline), Some(7)));
        assert!(board.outputs.is_empty());
        assert!(boards.apply("humidor/oven/status", b"", Some(9)).is_some());
        assert_eq!(boards.iter().count(), 0);
    }

    #[test]
    fn foreign_topics_and_messages_beyond_the_bounds_change_nothing() {
        let mut boards = Boards::default();
        for topic in ["humidor/broker/status", "humidor/<b>/status", "plant/press/status"] {
            assert_eq!(boards.apply(topic, b"online", None), None, "{topic}");
        }
        for n in 0..BOARDS_MAX + 5 {
            boards.apply(&format!("humidor/n{n}/status"), b"online", None);
        }
        for n in 0..LINES_MAX + 5 {
            boards.apply(&format!("humidor/n0/input/i{n}"), b"ON", None);
        }
        let huge = format!("\"{}\"", "x".repeat(16 * 1024));
        boards.apply("humidor/n0/health", huge.as_bytes(), None);
        assert_eq!(boards.iter().count(), BOARDS_MAX);
        let board = boards.get(&id("n0")).unwrap();
        assert_eq!((board.inputs.len(), &board.health), (LINES_MAX, &None));
    }
}

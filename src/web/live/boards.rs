//! What the boards last said of themselves: status, health, inputs and outputs, bounded in number.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::reading::Id;
use crate::wire::{BoardTopic, Health, OFFLINE, ONLINE};

/// Boards that are kept; what further ones say is shown by nobody.
const BOARDS_MAX: usize = 1_000;
/// Inputs and outputs of one board that are kept, each. A header has 28 lines.
const LINES_MAX: usize = 64;
/// Largest health message that is looked into, in bytes.
const HEALTH_MAX_BYTES: usize = 16 * 1024;

/// Whether a board is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It said so.
    Online,
    /// It said so, or its will did.
    Offline,
}

/// One board's last words.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Board {
    /// `None` for a node that never told.
    pub status: Option<Status>,
    /// When the broker heard that status, Unix ms UTC; `None` when it was retained from before its start.
    pub status_at: Option<i64>,
    /// Its health message.
    pub health: Option<Health>,
    /// When the broker heard that, as above.
    pub health_at: Option<i64>,
    /// Inputs by name: whether each is on.
    #[serde(serialize_with = "by_name")]
    pub inputs: BTreeMap<Id, bool>,
    /// Outputs by name, as their lines really are.
    #[serde(serialize_with = "by_name")]
    pub outputs: BTreeMap<Id, bool>,
}

fn by_name<S: Serializer>(lines: &BTreeMap<Id, bool>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(lines.iter().map(|(name, on)| (name.as_str(), on)))
}

/// All boards by node id.
#[derive(Debug, Default)]
pub struct Boards {
    boards: BTreeMap<Id, Board>,
}

impl Boards {
    /// Takes what was published on `topic`, heard at `at_ms`. Returns the board that it changed. An empty
    /// payload takes a word back; a board without a word is gone.
    pub fn hear(&mut self, topic: &str, payload: &[u8], at_ms: Option<i64>) -> Option<Id> {
        let (node, word) = BoardTopic::parse(topic)?;
        if !self.boards.contains_key(&node)
            && (payload.is_empty() || self.boards.len() >= BOARDS_MAX)
        {
            return None;
        }
        let board = self.boards.entry(node.clone()).or_default();
        let before = board.clone();
        match word {
            BoardTopic::Status => {
                let status = match payload {
                    b if b == ONLINE.as_bytes() => Some(Status::Online),
                    b if b == OFFLINE.as_bytes() => Some(Status::Offline),
                    _ => None,
                };
                // Said again it is no news: "offline since" stays.
                if status != board.status {
                    board.status = status;
                    board.status_at = at_ms.filter(|_| status.is_some());
                }
            }
            BoardTopic::Health => {
                let small = payload.len() <= HEALTH_MAX_BYTES;
                board.health = serde_json::from_slice(payload).ok().filter(|_| small);
                board.health_at = at_ms.filter(|_| board.health.is_some());
            }
            BoardTopic::Input(name) => set(&mut board.inputs, name, payload),
            BoardTopic::Output(name) => set(&mut board.outputs, name, payload),
        }
        if *board == before {
            return None;
        }
        if *board == Board::default() {
            self.boards.remove(&node);
        }
        Some(node)
    }

    /// What `node` last said; `None` when it said nothing.
    pub fn get(&self, node: &Id) -> Option<&Board> {
        self.boards.get(node)
    }

    /// All boards by node id.
    pub fn iter(&self) -> impl Iterator<Item = (&Id, &Board)> {
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
    fn the_last_word_counts_and_an_empty_one_takes_it_back() {
        let mut boards = Boards::default();
        assert_eq!(boards.hear("humidor/oven/status", b"online", Some(5)), Some(id("oven")));
        assert_eq!(boards.hear("humidor/oven/status", b"online", Some(6)), None);
        assert_eq!(boards.get(&id("oven")).unwrap().status_at, Some(5));
        assert_eq!(boards.hear("humidor/oven/status", b"offline", Some(7)), Some(id("oven")));
        assert!(boards.hear("humidor/oven/output/fan", b"ON", Some(7)).is_some());
        assert!(boards.hear("humidor/oven/output/fan", b"smoke", Some(8)).is_some());
        let board = boards.get(&id("oven")).unwrap();
        assert_eq!((board.status, board.status_at), (Some(Status::Offline), Some(7)));
        assert!(board.outputs.is_empty());
        assert!(boards.hear("humidor/oven/status", b"", Some(9)).is_some());
        assert_eq!(boards.iter().count(), 0);
    }

    #[test]
    fn what_is_no_boards_word_and_what_is_too_much_is_left_alone() {
        let mut boards = Boards::default();
        for topic in ["humidor/broker/status", "humidor/<b>/status", "plant/press/status"] {
            assert_eq!(boards.hear(topic, b"online", None), None, "{topic}");
        }
        for n in 0..BOARDS_MAX + 5 {
            boards.hear(&format!("humidor/n{n}/status"), b"online", None);
        }
        for n in 0..LINES_MAX + 5 {
            boards.hear(&format!("humidor/n0/input/i{n}"), b"ON", None);
        }
        let huge = format!("\"{}\"", "x".repeat(HEALTH_MAX_BYTES));
        boards.hear("humidor/n0/health", huge.as_bytes(), None);
        assert_eq!(boards.iter().count(), BOARDS_MAX);
        let board = boards.get(&id("n0")).unwrap();
        assert_eq!((board.inputs.len(), &board.health), (LINES_MAX, &None));
    }
}

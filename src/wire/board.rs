//! What a board says of itself in retained topics, as one checked name: status, health, inputs, outputs.

use crate::mqtt::Filter;
use crate::reading::Id;

/// Filters that together match every [`BoardTopic`] and little else.
const FILTERS: [&str; 4] =
    ["humidor/+/status", "humidor/+/health", "humidor/+/input/+", "humidor/+/output/+"];

/// Which word of a board a topic holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoardTopic {
    /// `humidor/<node>/status`
    Status,
    /// `humidor/<node>/health`
    Health,
    /// `humidor/<node>/input/<name>`
    Input(Id),
    /// `humidor/<node>/output/<name>`
    Output(Id),
}

impl BoardTopic {
    /// Filters that match all of them.
    ///
    /// # Panics
    /// Never: the filters are constants of this file, and a test reads them.
    #[must_use]
    pub fn filters() -> Vec<Filter> {
        FILTERS.iter().map(|filter| filter.parse().expect("a filter of ours")).collect()
    }

    /// The node and the word; `None` for every other topic, the broker's own status among them.
    #[must_use]
    pub fn parse(topic: &str) -> Option<(Id, Self)> {
        let (node, rest) = topic.strip_prefix("humidor/")?.split_once('/')?;
        let word = match rest.split_once('/') {
            None if rest == "status" => Self::Status,
            None if rest == "health" => Self::Health,
            Some(("input", name)) => Self::Input(name.parse().ok()?),
            Some(("output", name)) => Self::Output(name.parse().ok()?),
            _ => return None,
        };
        let node: Id = node.parse().ok()?;
        (node.as_str() != "broker").then_some((node, word))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NodeTopics, OFFLINE};
    use super::*;

    #[test]
    fn a_boards_own_topics_are_recognised_and_no_others() {
        let (node, fan): (Id, Id) = ("oven".parse().unwrap(), "fan".parse().unwrap());
        let topics = NodeTopics::new(node.clone());
        for (topic, word) in [
            (topics.status(), BoardTopic::Status),
            (topics.health(), BoardTopic::Health),
            (topics.input(&fan), BoardTopic::Input(fan.clone())),
            (topics.output(&fan), BoardTopic::Output(fan.clone())),
        ] {
            assert!(BoardTopic::filters().iter().any(|filter| filter.matches(&topic)), "{topic}");
            assert_eq!(BoardTopic::parse(&topic), Some((node.clone(), word)));
        }
        for other in [
            super::super::BROKER_STATUS,
            OFFLINE,
            "humidor/oven/sensor/top",
            "humidor/oven/output/fan/set",
            "humidor/<b>/status",
            "humidor/oven/input/",
            "humidor/oven",
        ] {
            assert_eq!(BoardTopic::parse(other), None, "{other}");
        }
    }
}

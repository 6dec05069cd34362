//! What the router has been given to remember. rumqttd forgets nothing: each filter ever subscribed has a log,
//! each topic ever passed on an entry. So what may enter is counted here.

use std::collections::HashSet;

use tracing::warn;

use crate::mqtt::Filter;
use crate::mqtt::Trie;

/// Distinct filters that may ever be subscribed. Each costs the router up to 512 KiB of log.
const FILTERS: usize = 500;
/// Distinct topics that may ever be passed on, about 200 bytes each. A hall of 100 nodes has 1,000.
const TOPICS: usize = 20_000;

/// What was let in.
#[derive(Debug, Default)]
pub struct Ledger {
    filters: HashSet<Filter>,
    by_level: Trie<()>,
    topics: HashSet<String>,
    /// Whether some link has `#`, which gets everything.
    everything: bool,
    warned: bool,
}

impl Ledger {
    /// Lets a filter in; whether there was room.
    pub fn subscribe(&mut self, filter: &Filter) -> bool {
        if self.filters.contains(filter) {
            return true;
        }
        let room = self.filters.len() < FILTERS;
        if room {
            self.filters.insert(filter.clone());
            self.by_level.insert(filter, ());
        } else {
            self.warn("subscribers to further topic filters get everything and have it sorted out by their connections");
        }
        room
    }

    /// Lets `#` in, for which there is always room.
    pub const fn subscribe_to_everything(&mut self) {
        self.everything = true;
    }

    /// Whether a message on `topic` is passed on.
    pub fn pass(&mut self, topic: &str) -> bool {
        let mut wanted = self.everything;
        self.by_level.matching(topic, &mut |()| wanted = true);
        if !wanted {
            return false;
        }
        if !self.topics.contains(topic) {
            if self.topics.len() >= TOPICS {
                self.warn("messages on further topics are not passed on until a restart; readings are stored");
                return false;
            }
            self.topics.insert(topic.to_owned());
        }
        true
    }

    fn warn(&mut self, consequence: &'static str) {
        if !std::mem::replace(&mut self.warned, true) {
            let (filters, topics) = (self.filters.len(), self.topics.len());
            warn!(filters, topics, "the router's memory is full: {consequence}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_somebody_wants_is_passed_on() {
        let mut ledger = Ledger::default();
        assert!(!ledger.pass("a/b"));
        ledger.subscribe(&"a/#".parse().unwrap());
        assert!(ledger.pass("a/b") && !ledger.pass("c"));
        ledger.subscribe_to_everything();
        assert!(ledger.pass("c"));
    }

    #[test]
    fn what_strangers_send_is_bounded() {
        let mut ledger = Ledger::default();
        ledger.subscribe(&"#".parse().unwrap());
        for n in 1..FILTERS {
            assert!(ledger.subscribe(&format!("f/{n}").parse().unwrap()));
        }
        assert!(!ledger.subscribe(&"one/more".parse().unwrap()));
        assert!(ledger.subscribe(&"f/7".parse().unwrap()), "known ones stay welcome");
        for n in 0..TOPICS + 10 {
            let _ = ledger.pass(&format!("t/{n}"));
        }
        assert_eq!(ledger.topics.len(), TOPICS);
        assert!(!ledger.pass("t/new"));
    }
}

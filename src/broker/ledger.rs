//! What the router has been given to remember. rumqttd forgets nothing: each filter ever subscribed has a log,
//! each topic ever passed on an entry, each retained message its bytes. So what may enter is counted here.

use std::collections::{HashMap, HashSet};

use tracing::warn;

use super::packet::Message;
use crate::wire::Filter;

/// Distinct filters that may ever be subscribed. Each costs the router up to 512 KiB of log.
const FILTERS: usize = 500;
/// Distinct topics that may ever be passed on, about 200 bytes each. A hall of 100 nodes has 1,000.
const TOPICS: usize = 20_000;
/// Bytes of all retained payloads and their topics together.
const RETAINED_BYTES: usize = 8 * 1024 * 1024;

/// What was let in.
#[derive(Debug, Default)]
pub struct Ledger {
    filters: HashSet<Filter>,
    topics: HashSet<String>,
    retained: HashMap<String, usize>,
    retained_bytes: usize,
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
        } else {
            self.warn("further topic filters are refused until a restart");
        }
        room
    }

    /// Whether a message is passed on, and if so whether it is retained.
    pub fn pass(&mut self, message: &Message) -> Option<bool> {
        let Message { topic, payload, retain } = message;
        // The router would delete what is retained there, which only a retained empty message may.
        if !retain && payload.is_empty() && self.retained.contains_key(topic) {
            return None;
        }
        if !retain && !self.filters.iter().any(|filter| filter.matches(topic)) {
            return None;
        }
        if !self.topics.contains(topic) {
            if self.topics.len() >= TOPICS {
                self.warn("messages on further topics are not passed on until a restart; readings are stored");
                return None;
            }
            self.topics.insert(topic.clone());
        }
        Some(*retain && self.retain(topic, payload.len()))
    }

    fn retain(&mut self, topic: &str, bytes: usize) -> bool {
        let before = self.retained.get(topic).map_or(0, |bytes| topic.len() + bytes);
        if bytes == 0 {
            self.retained.remove(topic);
            self.retained_bytes -= before;
            return true;
        }
        let after = self.retained_bytes - before + topic.len() + bytes;
        if after > RETAINED_BYTES {
            self.warn("further messages are passed on without being retained");
            return false;
        }
        self.retained_bytes = after;
        self.retained.insert(topic.to_owned(), bytes);
        true
    }

    fn warn(&mut self, consequence: &'static str) {
        if !std::mem::replace(&mut self.warned, true) {
            warn!(
                filters = self.filters.len(),
                topics = self.topics.len(),
                retained_bytes = self.retained_bytes,
                "the router's memory is full: {consequence}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &[u8], retain: bool) -> Message {
        Message { topic: topic.to_owned(), payload: payload.to_vec().into(), retain }
    }

    #[test]
    fn only_what_somebody_may_want_is_passed_on() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.pass(&message("a/b", b"1", false)), None);
        assert_eq!(
            ledger.pass(&message("a/b", b"1", true)),
            Some(true),
            "a later subscriber may want it"
        );
        ledger.subscribe(&"a/#".parse().unwrap());
        assert_eq!(ledger.pass(&message("a/b", b"1", false)), Some(false));
        assert_eq!(ledger.pass(&message("c", b"1", false)), None);
    }

    #[test]
    fn only_a_retained_empty_message_deletes_a_retained_one() {
        let mut ledger = Ledger::default();
        ledger.subscribe(&"#".parse().unwrap());
        assert_eq!(ledger.pass(&message("a", b"1", true)), Some(true));
        assert_eq!(ledger.pass(&message("a", b"", false)), None);
        assert_eq!(ledger.pass(&message("a", b"", true)), Some(true));
        assert_eq!(ledger.pass(&message("a", b"", false)), Some(false));
        assert_eq!(ledger.retained_bytes, 0);
    }

    #[test]
    fn what_strangers_send_is_bounded() {
        let mut ledger = Ledger::default();
        for n in 0..FILTERS {
            assert!(ledger.subscribe(&format!("f/{n}").parse().unwrap()));
        }
        assert!(!ledger.subscribe(&"one/more".parse().unwrap()));
        assert!(ledger.subscribe(&"f/7".parse().unwrap()), "known ones stay welcome");
        let big = vec![0; 1024 * 1024];
        let kept = (0..20)
            .filter(|n| ledger.pass(&message(&format!("big/{n}"), &big, true)) == Some(true));
        assert_eq!(kept.count(), 7);
        assert_eq!(
            ledger.pass(&message("big/3", &big, true)),
            Some(true),
            "replacing costs nothing"
        );
        for n in 0..TOPICS + 10 {
            let _ = ledger.pass(&message(&format!("t/{n}"), b"1", true));
        }
        assert_eq!(ledger.topics.len(), TOPICS);
        assert_eq!(ledger.pass(&message("t/new", b"1", true)), None);
    }
}

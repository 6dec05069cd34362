//! Which message is the first of its copies: the router brings one for each filter of a subscriber that matches.

use std::collections::BTreeMap;

use crate::mqtt::Filter;

/// Messages of which a subscriber with overlapping filters still expects copies; of older ones it may get two.
const COPIES: usize = 4096;

/// Messages of which further copies will come, by serial number.
#[derive(Debug, Default)]
pub struct Copies {
    left: BTreeMap<u64, usize>,
}

impl Copies {
    /// Whether no further copies are expected.
    pub fn are_none(&self) -> bool {
        self.left.is_empty()
    }

    /// Whether this is the first copy of the message that comes. `filters` are those that the router knows the
    /// subscriber by.
    pub fn is_first<'a>(
        &mut self,
        topic: &str,
        serial: u64,
        filters: impl Iterator<Item = &'a Filter>,
    ) -> bool {
        if let Some(left) = self.left.get_mut(&serial) {
            *left -= 1;
            if *left == 0 {
                self.left.remove(&serial);
            }
            return false;
        }
        // Two of the client's filters may be one of the router's.
        let mut matching: Vec<&Filter> = filters.filter(|filter| filter.covers(topic)).collect();
        matching.sort_unstable_by_key(|filter| filter.as_str());
        matching.dedup();
        if matching.len() > 1 {
            self.left.insert(serial, matching.len() - 1);
            if self.left.len() > COPIES {
                self.left.pop_first();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_counts_once_also_when_its_filters_have_become_one() {
        let filters: Vec<Filter> =
            ["a/#", "a/+", "b", "a/#"].iter().map(|text| text.parse().unwrap()).collect();
        let mut copies = Copies::default();
        assert!(copies.is_first("a/x", 1, filters.iter()));
        assert!(copies.is_first("a/x", 2, filters.iter()));
        assert!(copies.is_first("b", 3, filters.iter()));
        assert!(!copies.is_first("a/x", 2, filters[..1].iter()));
        assert!(!copies.is_first("a/x", 1, filters[..1].iter()));
        assert!(copies.left.is_empty());
    }
}

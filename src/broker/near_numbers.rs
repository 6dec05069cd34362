//! Texts of other publishers that were meant as numbers: what came, and what would be kept. For whoever set the publisher up.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::wire::NearNumber;

/// Topics and names that are noted, the first ones.
const NOTED_MAX: usize = 100;
/// Longest topic that is noted, in bytes.
const TOPIC_MAX_BYTES: usize = 512;

/// One of them, as it came last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// Its topic.
    pub topic: String,
    /// What came under which name.
    pub number: NearNumber,
    /// How often, since the start.
    pub count: u64,
    /// When last, Unix ms UTC.
    pub at_ms: i64,
}

/// All of them since the start, by topic and name.
#[derive(Debug, Default)]
pub struct NearNumbers(Mutex<BTreeMap<(String, String), NearMiss>>);

impl NearNumbers {
    /// Notes one. Returns whether it is the first of its topic and name, and is noted.
    pub(in crate::broker) fn add(&self, topic: &str, number: NearNumber, at_ms: i64) -> bool {
        if topic.len() > TOPIC_MAX_BYTES {
            return false;
        }
        let mut noted = self.lock();
        let key = (topic.to_owned(), number.field.clone());
        if let Some(known) = noted.get_mut(&key) {
            (known.number, known.at_ms) = (number, at_ms);
            known.count += 1;
            return false;
        }
        let is_noted = noted.len() < NOTED_MAX;
        if is_noted {
            noted.insert(key, NearMiss { topic: topic.to_owned(), number, count: 1, at_ms });
        }
        is_noted
    }

    /// All that are noted.
    #[must_use]
    pub fn all(&self) -> Vec<NearMiss> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), NearMiss>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_and_name_is_noted_once_and_their_number_is_bounded() {
        let (noted, number) = (NearNumbers::default(), |came: &str| NearNumber {
            field: "t".to_owned(),
            came: came.to_owned(),
            meant: "1.5".to_owned(),
        });
        assert!(noted.add("a", number("1,5"), 1));
        assert!(!noted.add("a", number("1,5 C"), 2));
        let all = noted.all();
        assert_eq!((all.len(), all[0].count, all[0].at_ms), (1, 2, 2));
        assert_eq!(all[0].number.came, "1,5 C");
        for n in 0..2 * NOTED_MAX {
            assert_eq!(noted.add(&format!("b{n}"), number("1,5"), 3), n + 1 < NOTED_MAX);
        }
        assert!(!noted.add(&"x".repeat(TOPIC_MAX_BYTES + 1), number("1,5"), 3));
        assert_eq!(noted.all().len(), NOTED_MAX);
    }
}

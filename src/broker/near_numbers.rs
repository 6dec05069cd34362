//! Texts of other publishers that were meant as numbers: what came, and what would be kept. For whoever set the publisher up.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::wire::NearNumber;

/// Topics and names that are noted. A further one takes the place of the one that came least lately.
const NOTED_MAX: usize = 100;
/// How many are told of one by one, in the log, since the start.
const TOLD_MAX: usize = 100;
/// Longest topic that is noted, in bytes.
const TOPIC_MAX_BYTES: usize = 512;

/// One of them, as it came last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// Its topic.
    pub topic: String,
    /// What came under which name.
    pub number: NearNumber,
    /// How often, since it is noted.
    pub count: u64,
    /// When last, Unix ms UTC.
    pub at_ms: i64,
}

/// Those that came last, by topic and name.
#[derive(Debug, Default)]
pub struct NearNumbers(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    misses: BTreeMap<(String, String), NearMiss>,
    told: usize,
}

impl NearNumbers {
    /// Notes one. Returns whether to tell of it: it is the first of its topic and name, and not too many were told of.
    pub(in crate::broker) fn add(&self, topic: &str, number: NearNumber, at_ms: i64) -> bool {
        if topic.len() > TOPIC_MAX_BYTES {
            return false;
        }
        let mut noted = self.lock();
        let Noted { misses, told } = &mut *noted;
        let key = (topic.to_owned(), number.field.clone());
        if let Some(known) = misses.get_mut(&key) {
            (known.number, known.at_ms) = (number, at_ms);
            known.count += 1;
            return false;
        }
        if misses.len() >= NOTED_MAX
            && let Some(oldest) = misses.iter().min_by_key(|(_, miss)| miss.at_ms)
        {
            let oldest = oldest.0.clone();
            misses.remove(&oldest);
        }
        misses.insert(key, NearMiss { topic: topic.to_owned(), number, count: 1, at_ms });
        let is_told = *told < TOLD_MAX;
        *told += usize::from(is_told);
        is_told
    }

    /// All that are noted.
    #[must_use]
    pub fn all(&self) -> Vec<NearMiss> {
        self.lock().misses.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
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
        for n in 1..=2 * NOTED_MAX {
            let at_ms = i64::try_from(n).unwrap() + 2;
            assert_eq!(noted.add(&format!("b{n}"), number("1,5"), at_ms), n < TOLD_MAX);
            // One that still comes stays, however old it is.
            assert!(n == 1 || !noted.add("b1", number("1,5"), at_ms));
            assert!(noted.all().len() <= NOTED_MAX);
        }
        assert!(!noted.add(&"x".repeat(TOPIC_MAX_BYTES + 1), number("1,5"), 3));
        let topics: Vec<String> = noted.all().into_iter().map(|miss| miss.topic).collect();
        assert_eq!(topics.len(), NOTED_MAX);
        let is_noted = |topic: &str| topics.iter().any(|it| it == topic);
        assert!(!is_noted("a") && !is_noted("b2"), "the oldest went");
        assert!(is_noted("b1") && is_noted("b200") && is_noted("b102"), "{topics:?}");
    }
}

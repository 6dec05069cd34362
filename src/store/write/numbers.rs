//! The numbers of readings that arrived lately, by run: with them a new reading is told from a repeat without a look
//! into the database.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::{Connection, params};

use crate::store::retention::deleted_ranges;
use crate::store::write::intern::Run;

/// A set of numbers, kept as ranges: a run that counts without holes is one range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::store) struct Ranges {
    /// First and last of the range with the highest numbers: the only one of most runs, and the one that grows.
    highest: Option<(i64, i64)>,
    /// Last number of each other range by its first. No ranges overlap or touch.
    lower: BTreeMap<i64, i64>,
}

impl Ranges {
    pub fn contains(&self, number: i64) -> bool {
        match self.highest {
            Some((first, last)) if number >= first => number <= last,
            _ => self.lower.range(..=number).next_back().is_some_and(|(_, last)| *last >= number),
        }
    }

    /// Adds `number` and joins the ranges that it touches.
    pub fn add(&mut self, number: i64) {
        let Some((first, last)) = self.highest else {
            self.highest = Some((number, number));
            return;
        };
        if number >= first {
            if number.checked_sub(1).is_some_and(|before| before > last) {
                self.lower.insert(first, last);
                self.highest = Some((number, number));
            } else {
                self.highest = Some((first, last.max(number)));
            }
            return;
        }
        let next = number + 1;
        let end = if next == first { last } else { self.lower.remove(&next).unwrap_or(number) };
        let begin = match self.lower.range_mut(..=number).next_back() {
            Some((_, before)) if *before >= number => return,
            Some((begin, before)) if *before + 1 == number => *begin,
            _ => number,
        };
        if next == first {
            self.lower.remove(&begin);
            self.highest = Some((begin, end));
        } else {
            self.lower.insert(begin, end);
        }
    }

    /// The highest number.
    pub fn last(&self) -> Option<i64> {
        self.highest.map(|(_, last)| last)
    }

    /// First and last of each range, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.lower.iter().map(|(first, last)| (*first, *last)).chain(self.highest)
    }
}

/// What is known of one run.
#[derive(Debug)]
struct RunNumbers {
    /// The highest number that is stored, wherever.
    newest: i64,
    arrived: Ranges,
}

/// The numbers of the rows in table `arrival`, and of some that were moved from it since. They are kept in two
/// generations: one goes as a whole when the rows that it was begun with have been moved.
#[derive(Debug, Default)]
pub(in crate::store) struct ArrivedNumbers {
    older: HashMap<i64, Ranges>,
    newer: HashMap<i64, RunNumbers>,
    /// Nodes of which a run began among the newer ones.
    begun: HashSet<i64>,
    /// Runs that began among the newer, and the older ones, and were not the first of their node to do so.
    newer_restarts: usize,
    older_restarts: usize,
}

impl ArrivedNumbers {
    /// Reads the numbers of all rows after id `moved`.
    pub fn load(connection: &Connection, moved: i64) -> rusqlite::Result<Self> {
        Ok(Self { older: numbers_after(connection, moved)?, ..Self::default() })
    }

    /// Whether the reading is not stored yet; then it is noted as stored. A transaction that fails afterwards must
    /// forget these numbers.
    pub fn is_new(
        &mut self,
        connection: &Connection,
        Run { id: run, node, .. }: Run,
        seq: i64,
    ) -> rusqlite::Result<bool> {
        let older = self.older.get(&run);
        let numbers = match self.newer.entry(run) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(unknown) => {
                let newest = newest_in_place(connection, run)?.max(older.and_then(Ranges::last));
                if newest.is_none() && !self.begun.insert(node) {
                    self.newer_restarts += 1;
                }
                let newest = newest.unwrap_or(i64::MIN);
                unknown.insert(RunNumbers { newest, arrived: Ranges::default() })
            }
        };
        if seq <= numbers.newest
            && (numbers.arrived.contains(seq)
                || older.is_some_and(|older| older.contains(seq))
                || is_in_place(connection, run, seq)?)
        {
            return Ok(false);
        }
        numbers.newest = numbers.newest.max(seq);
        numbers.arrived.add(seq);
        Ok(true)
    }

    /// Whether any reading of a run is stored.
    pub fn is_any_stored(&self, connection: &Connection, run: i64) -> rusqlite::Result<bool> {
        Ok(self.knows(run) || newest_in_place(connection, run)?.is_some())
    }

    /// Begins a new generation and gives the oldest one up, whose rows have all been moved.
    pub fn begin_generation(&mut self) {
        let newer = std::mem::take(&mut self.newer);
        self.older = newer.into_iter().map(|(run, numbers)| (run, numbers.arrived)).collect();
        self.older_restarts = std::mem::take(&mut self.newer_restarts);
        self.begun.clear();
    }

    /// Whether a reading of a run arrived lately; one that is still to be moved always did.
    pub fn knows(&self, run: i64) -> bool {
        self.newer.contains_key(&run) || self.older.contains_key(&run)
    }

    /// Forgets a run that is deleted.
    pub fn forget(&mut self, run: i64) {
        self.newer.remove(&run);
        self.older.remove(&run);
    }

    /// Runs of which a reading arrived lately, of each node not more than one that began lately.
    pub fn runs(&self) -> usize {
        let older = self.older.len().saturating_sub(self.older_restarts);
        older.max(self.newer.len().saturating_sub(self.newer_restarts))
    }

    /// Further runs of nodes that began lately, and of which no reading was moved to its place yet.
    pub const fn restarts(&self) -> usize {
        self.newer_restarts
    }
}

/// The numbers of the rows in table `arrival` after an id, by run.
pub(in crate::store) fn numbers_after(
    connection: &Connection,
    id: i64,
) -> rusqlite::Result<HashMap<i64, Ranges>> {
    let mut statement =
        connection.prepare_cached("SELECT run, seq FROM arrival WHERE id > ? ORDER BY id")?;
    let mut rows = statement.query([id])?;
    let mut found = HashMap::<i64, Ranges>::new();
    while let Some(row) = rows.next()? {
        found.entry(row.get(0)?).or_default().add(row.get(1)?);
    }
    Ok(found)
}

/// The highest number of a run in table `reading` or among those that were deleted from it.
fn newest_in_place(connection: &Connection, run: i64) -> rusqlite::Result<Option<i64>> {
    let newest: Option<i64> = connection
        .prepare_cached("SELECT max(seq) FROM reading WHERE run = ?")?
        .query_row([run], |row| row.get(0))?;
    Ok(newest.max(deleted_ranges::newest(connection, run)?))
}

/// Whether a reading is in table `reading` or was deleted from it.
fn is_in_place(connection: &Connection, run: i64, seq: i64) -> rusqlite::Result<bool> {
    let stored: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM reading WHERE run = ? AND seq = ?)")?
        .query_row(params![run, seq], |row| row.get(0))?;
    Ok(stored || deleted_ranges::contains(connection, run, seq)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_are_a_set(numbers in proptest::collection::vec(prop_oneof![
            0..40_i64, Just(i64::MAX), Just(i64::MAX - 1), Just(i64::MIN)], 0..60)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for number in numbers {
                ranges.add(number);
                model.insert(number);
                for asked in (-1..42).chain([i64::MIN, i64::MAX - 2, i64::MAX - 1, i64::MAX]) {
                    prop_assert_eq!(ranges.contains(asked), model.contains(&asked), "{}", asked);
                }
                prop_assert_eq!(ranges.last(), model.last().copied());
                let all: Vec<_> = ranges.iter().collect();
                prop_assert!(all.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?}", all);
            }
        }
    }
}

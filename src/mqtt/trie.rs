//! A topic trie: values under topic filters, level by level. A look-up costs the levels of the topic and not the number
//! of filters, except for filters with wildcards that match the topic's first levels: each of their nodes is visited.

use std::collections::HashMap;

use super::filter::Filter;

/// Most levels below a node in a list; more go into a map. Most filters branch nowhere, and a map costs
/// several hundred bytes.
const LIST_LEVELS: usize = 8;

/// Values under topic filters. Its memory is in proportion to the bytes of the filters.
#[derive(Debug)]
pub struct Trie<T> {
    root: Node<T>,
    len: usize,
}

#[derive(Debug)]
struct Node<T> {
    here: Vec<T>,
    below: Levels<T>,
}

/// The levels below a node.
#[derive(Debug)]
enum Levels<T> {
    List(Vec<(Box<str>, Node<T>)>),
    // Boxed: a list is what most nodes have, and a map is twice its size.
    #[allow(clippy::box_collection)]
    Map(Box<HashMap<Box<str>, Node<T>>>),
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Node::default(), len: 0 }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { here: Vec::new(), below: Levels::List(Vec::new()) }
    }
}

impl<T> Levels<T> {
    fn is_empty(&self) -> bool {
        match self {
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
        }
    }

    fn get(&self, level: &str) -> Option<&Node<T>> {
        match self {
            Self::List(list) => {
                list.iter().find(|(name, _)| **name == *level).map(|(_, node)| node)
            }
            Self::Map(map) => map.get(level),
        }
    }

    fn get_mut(&mut self, level: &str) -> Option<&mut Node<T>> {
        match self {
            Self::List(list) => {
                list.iter_mut().find(|(name, _)| **name == *level).map(|(_, node)| node)
            }
            Self::Map(map) => map.get_mut(level),
        }
    }

    fn insert(&mut self, level: &str) {
        if let Self::List(list) = self {
            if list.len() < LIST_LEVELS {
                list.reserve_exact(1);
                list.push((level.into(), Node::default()));
                return;
            }
            *self = Self::Map(Box::new(std::mem::take(list).into_iter().collect()));
        }
        if let Self::Map(map) = self {
            map.insert(level.into(), Node::default());
        }
    }

    fn remove(&mut self, level: &str) {
        match self {
            Self::List(list) => list.retain(|(name, _)| **name != *level),
            Self::Map(map) => {
                map.remove(level);
                if map.is_empty() {
                    *self = Self::List(Vec::new());
                }
            }
        }
    }
}

impl<T> Trie<T> {
    /// Whether it has no value.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds `value` under `filter`, without its `$share/<group>/`.
    pub fn insert(&mut self, filter: &Filter, value: T) {
        let mut node = &mut self.root;
        for level in filter.parts().1.split('/') {
            if node.below.get(level).is_none() {
                node.below.insert(level);
            }
            let Some(next) = node.below.get_mut(level) else { return };
            node = next;
        }
        if node.here.is_empty() {
            node.here.reserve_exact(1);
        }
        node.here.push(value);
        self.len += 1;
    }

    /// The values under exactly this filter.
    pub fn get(&self, filter: &Filter) -> &[T] {
        let mut node = &self.root;
        for level in filter.parts().1.split('/') {
            match node.below.get(level) {
                Some(next) => node = next,
                None => return &[],
            }
        }
        &node.here
    }

    /// As [`Trie::get`], mutable.
    pub fn get_mut(&mut self, filter: &Filter) -> &mut [T] {
        let mut node = &mut self.root;
        for level in filter.parts().1.split('/') {
            match node.below.get_mut(level) {
                Some(next) => node = next,
                None => return &mut [],
            }
        }
        &mut node.here
    }

    /// Removes the values under exactly this filter that are `gone`. Returns how many those are.
    pub fn remove(&mut self, filter: &Filter, gone: impl Fn(&T) -> bool) -> usize {
        let levels: Vec<&str> = filter.parts().1.split('/').collect();
        let removed = self.root.remove(&levels, &gone);
        self.len -= removed;
        removed
    }

    /// Calls `take` for each value under a filter that matches `topic` (MQTT 3.1.1 §4.7).
    pub fn matching<'a>(&'a self, topic: &str, take: &mut impl FnMut(&'a T)) {
        if self.is_empty() {
            return;
        }
        // [MQTT-4.7.2-1]: a wildcard does not match a first level that begins with `$`.
        self.root.matching(topic, topic.starts_with('$'), take);
    }
}

impl<T> Node<T> {
    fn remove(&mut self, levels: &[&str], gone: &impl Fn(&T) -> bool) -> usize {
        let Some((level, rest)) = levels.split_first() else {
            let before = self.here.len();
            self.here.retain(|value| !gone(value));
            if self.here.len() < self.here.capacity() / 4 {
                self.here.shrink_to_fit();
            }
            return before - self.here.len();
        };
        let Some(next) = self.below.get_mut(level) else { return 0 };
        let removed = next.remove(rest, gone);
        if next.here.is_empty() && next.below.is_empty() {
            self.below.remove(level);
        }
        removed
    }

    fn matching<'a>(&'a self, topic: &str, literal: bool, take: &mut impl FnMut(&'a T)) {
        #[cfg(test)]
        tests::VISITED.with(|visited| visited.set(visited.get() + 1));
        let (level, rest) = match topic.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (topic, None),
        };
        if !literal && let Some(all) = self.below.get("#") {
            all.here.iter().for_each(&mut *take);
        }
        let wild = if literal { None } else { self.below.get("+") };
        for next in [self.below.get(level), wild].into_iter().flatten() {
            let Some(rest) = rest else {
                next.here.iter().for_each(&mut *take);
                // `sport/#` matches `sport` too.
                if let Some(all) = next.below.get("#") {
                    all.here.iter().for_each(&mut *take);
                }
                continue;
            };
            next.matching(rest, false, take);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    std::thread_local! {
        /// Nodes that look-ups have visited.
        pub(super) static VISITED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    /// The values that match, and the nodes that the look-up visits.
    fn cost(trie: &Trie<usize>, topic: &str) -> (usize, usize) {
        let mut found = 0;
        VISITED.set(0);
        trie.matching(topic, &mut |_| found += 1);
        (found, VISITED.get())
    }

    #[test]
    fn a_look_up_costs_the_matches_and_not_the_filters() {
        let mut trie = Trie::default();
        for n in 0..10_000 {
            trie.insert(&format!("hall/{n}/sensor/+").parse().unwrap(), n);
            trie.insert(&format!("+/{n}/#").parse().unwrap(), n);
        }
        assert_eq!(cost(&trie, "hall/77/sensor/x"), (2, 6));
        assert_eq!(cost(&trie, "other/77/sensor/x"), (1, 3));
        // Those that match only at first are visited too: at most their levels each.
        let mut deep = Trie::default();
        for n in 0..1_000_u32 {
            let branch = |bit: u32| if n >> bit & 1 == 0 { "a/" } else { "+/" };
            let filter = (0..10).map(branch).collect::<String>() + &"a/".repeat(21) + "end";
            deep.insert(&filter.parse().unwrap(), 0);
        }
        let (found, visited) = cost(&deep, &("a/".repeat(32) + "a"));
        assert!(found == 0 && visited <= 1_000 * 32, "{visited}");
    }

    fn levels(of: &'static str) -> impl Strategy<Value = String> {
        proptest::collection::vec(of, 1..4).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn a_trie_finds_the_same_values_as_a_check_of_every_filter(
            filters in proptest::collection::vec(levels("[ab+$]?|[$]S|[c-p]"), 0..24),
            deep in proptest::collection::vec(levels("[ab+]"), 0..4),
            topic in levels("[ab$]?|[$]S"),
            removed in proptest::collection::vec(any::<bool>(), 32),
        ) {
            let deep = deep.into_iter().map(|filter| filter + "/#");
            let filters: Vec<Filter> = filters.into_iter().chain(deep).chain(["#".to_owned()])
                .filter_map(|filter| filter.parse().ok()).collect();
            let mut trie = Trie::default();
            for (n, filter) in filters.iter().enumerate() {
                trie.insert(filter, n);
            }
            for (n, filter) in filters.iter().enumerate().filter(|(n, _)| removed[*n % 32]) {
                trie.remove(filter, |value| *value == n);
            }
            let mut found = Vec::new();
            if !topic.is_empty() {
                trie.matching(&topic, &mut |n| found.push(*n));
                found.sort_unstable();
                let expected: Vec<usize> = filters.iter().enumerate()
                    .filter(|(n, filter)| !removed[*n % 32] && filter.matches(&topic))
                    .map(|(n, _)| n).collect();
                prop_assert_eq!(found, expected);
            }
            for (n, filter) in filters.iter().enumerate() {
                trie.remove(filter, |value| *value == n);
            }
            prop_assert!(trie.is_empty() && trie.root.below.is_empty());
        }
    }
}

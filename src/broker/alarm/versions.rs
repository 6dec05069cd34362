//! Boards whose version or revision differs from that of most. Pure.

use std::collections::BTreeMap;

use crate::reading::Id;
use crate::wire::Health;

/// Boards that are compared, as many as the page shows.
const BOARDS_MAX: usize = 1_000;
/// Longest version, and revision, that are told apart, in bytes: a commit's hash has 64 at most.
const TEXT_MAX_BYTES: usize = 64;
/// Boards that a text names.
const NAMED_MAX: usize = 5;

/// What a board runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Build {
    version: String,
    revision: Option<String>,
}

/// What the boards run, as their health says.
#[derive(Debug, Clone, Default)]
pub struct Versions(BTreeMap<Id, Build>);

impl Build {
    fn new(version: &str, revision: Option<&str>) -> Self {
        let cut = |text: &str| text[..text.floor_char_boundary(TEXT_MAX_BYTES)].to_owned();
        Self { version: cut(version), revision: revision.map(cut) }
    }

    /// The broker's.
    fn own() -> Self {
        Self::new(env!("CARGO_PKG_VERSION"), option_env!("HUMIDOR_REVISION"))
    }

    fn shown(&self) -> String {
        match &self.revision {
            Some(revision) => {
                format!("{} ({})", self.version, revision.chars().take(12).collect::<String>())
            }
            None => self.version.clone(),
        }
    }
}

impl Versions {
    /// Notes a board's health; `None` when it is there no more. Returns whether that changed anything.
    pub fn note(&mut self, node: &Id, health: Option<&Health>) -> bool {
        let Some(health) = health else { return self.0.remove(node).is_some() };
        if self.0.len() >= BOARDS_MAX && !self.0.contains_key(node) {
            return false;
        }
        let build = Build::new(&health.version, health.revision.as_deref());
        self.0.insert(node.clone(), build.clone()) != Some(build)
    }

    /// Whether a board's version is known.
    #[must_use]
    pub fn knows(&self, node: &Id) -> bool {
        self.0.contains_key(node)
    }

    /// What most boards run. Of several that as many run, the broker's own; `None` when it is none of them.
    fn most(&self) -> Option<Build> {
        let mut counts: BTreeMap<&Build, usize> = BTreeMap::new();
        for build in self.0.values() {
            *counts.entry(build).or_default() += 1;
        }
        let most = counts.values().max().copied()?;
        let mut first = counts.into_iter().filter(|(_, count)| *count == most);
        let (found, _) = first.next()?;
        let own = Build::own();
        let is_tied = |other: &Build| *other == own;
        match first.map(|(build, _)| build).collect::<Vec<_>>() {
            others if others.is_empty() || is_tied(found) => Some(found.clone()),
            others => others.into_iter().find(|build| is_tied(build)).cloned(),
        }
    }

    /// Says which boards differ from most, for people: of all, or whether `of` does. `None`: none.
    #[must_use]
    pub fn differing(&self, of: Option<&Id>) -> Option<String> {
        let most = self.most()?;
        let odd = self
            .0
            .iter()
            .filter(|(node, build)| **build != most && of.is_none_or(|only| only == *node));
        let odd: Vec<_> = odd.collect();
        let named: Vec<String> = odd
            .iter()
            .take(NAMED_MAX)
            .map(|(node, build)| format!("{node} runs {}", build.shown()))
            .collect();
        let more = match odd.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(", and {more} more differ"),
        };
        (!odd.is_empty()).then(|| format!("{}{more}; most run {}", named.join(", "), most.shown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(boards: &[(&str, &str)]) -> Versions {
        let mut versions = Versions::default();
        for (node, build) in boards {
            let (version, revision) = build.split_once('+').unwrap_or((build, ""));
            let revision = (!revision.is_empty()).then(|| revision.to_owned());
            let build = Build { version: version.to_owned(), revision };
            versions.0.insert(node.parse().unwrap(), build);
        }
        versions
    }

    fn differing(boards: &[(&str, &str)]) -> Option<String> {
        versions(boards).differing(None)
    }

    #[test]
    fn a_board_differs_by_its_version_or_its_revision() {
        assert_eq!(differing(&[]), None);
        assert_eq!(differing(&[("a", "1.0+x"), ("b", "1.0+x")]), None);
        let odd = differing(&[("a", "1.0+x"), ("b", "1.0+x"), ("c", "0.9+x"), ("d", "1.0+y")]);
        assert_eq!(odd.unwrap(), "c runs 0.9 (x), d runs 1.0 (y); most run 1.0 (x)");
        let odd = differing(&[("a", "1.0+x"), ("b", "1.0+x"), ("c", "1.0")]);
        assert_eq!(odd.unwrap(), "c runs 1.0; most run 1.0 (x)");
    }

    #[test]
    fn where_as_many_run_two_the_brokers_own_is_that_of_most() {
        assert_eq!(differing(&[("a", "7.7+x"), ("b", "8.8+x")]), None);
        let own = Build::own();
        let written = own.revision.map(|it| format!("{}+{it}", own.version)).unwrap_or(own.version);
        for other in ["0.0", "99.0"] {
            let odd = differing(&[("a", other), ("b", &written)]).unwrap();
            assert!(odd.starts_with(&format!("a runs {other}; most run ")), "{odd}");
        }
    }

    #[test]
    fn a_text_names_a_few_boards_and_one_of_a_board_only_that() {
        let mut boards: Vec<(String, &str)> = (0..9).map(|n| (format!("n{n}"), "1")).collect();
        boards.extend((0..7).map(|n| (format!("o{n}"), "2")));
        let boards: Vec<(&str, &str)> =
            boards.iter().map(|(node, it)| (node.as_str(), *it)).collect();
        assert!(differing(&boards).unwrap().ends_with("o4 runs 2, and 2 more differ; most run 1"));
        let of = |node: &str| versions(&boards).differing(Some(&node.parse().unwrap()));
        assert_eq!(of("o6").unwrap(), "o6 runs 2; most run 1");
        assert_eq!(of("n1"), None);
    }

    #[test]
    fn more_boards_than_the_bound_are_not_compared() {
        let health = |version: &str| {
            Health {
            version: version.to_owned(),
            ..Health::parse(
                br#"{"version":"","boot":"b","at":0,"clock":"synced","taken":0,"outbox":0,"dropped":0,"outbox_kind":"disk","failures":{}}"#,
            )
            .unwrap()
        }
        };
        let mut versions = Versions::default();
        for n in 0..BOARDS_MAX + 5 {
            versions.note(&format!("n{n}").parse().unwrap(), Some(&health("1")));
        }
        assert_eq!(versions.0.len(), BOARDS_MAX);
        let first: Id = "n0".parse().unwrap();
        assert!(!versions.note(&first, Some(&health("1"))));
        assert!(versions.note(&first, Some(&health(&"2".repeat(1 << 14)))));
        assert_eq!(versions.0[&first].version.len(), TEXT_MAX_BYTES);
        assert!(versions.note(&first, None) && !versions.note(&first, None));
    }
}

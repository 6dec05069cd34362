//! Imports point one way: between the rooms of the tree, between the files of a room, and to the libraries that only
//! one room may know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms under `src`, from the top: each imports only what stands below it.
const ROOMS: &[&str] = &[
    "main",
    "app",
    "cli",
    "config",
    "web",
    "broker",
    "node",
    "upstream",
    "store",
    "sim",
    "board",
    "gpio",
    "dht",
    "wire",
    "mqtt",
    "tls",
    "accept",
    "health",
    "bounded_file",
    "timeline",
    "clock",
    "reading",
    "shutdown",
    "throttled_log",
    "export_format",
    "visible_text",
    "exit",
];
/// The rooms of the broker, likewise.
const BROKER: &[&str] = &[
    "run",
    "config",
    "open_log",
    "error",
    "listener",
    "connection",
    "alarm",
    "status",
    "forget",
    "context",
    "commit",
    "delivery",
    "session",
    "access",
    "counters",
    "near_numbers",
    "net",
];
/// Libraries, and the folders or files that may know them.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("rumqttd", &["mqtt/codec/"]),
    ("rumqttc", &["node/"]),
    (
        "rusqlite",
        &[
            "store/",
            "node/delivery/",
            "app/",
            "broker/error.rs",
            "broker/commit/",
            "broker/connection/",
            "upstream/fault.rs",
            "upstream/transfer.rs",
            "web/",
        ],
    ),
    ("tokio_postgres", &["upstream/"]),
    ("axum", &["web/", "app/"]),
    ("clap", &["export_format.rs", "cli/", "main.rs", "app/", "config/"]),
];
/// Lines of a file without its tests: longer ones have two reasons to exist.
const FILE_LINES: usize = 400;

/// A file's path below `src` as a module's: `broker/run`, `broker` for `broker/mod.rs`.
type Module = Vec<String>;

struct Source {
    module: Module,
    /// Below `src`.
    file: String,
    /// Without comments and tests.
    code: String,
    whole: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &mut found);
    let sources = found.into_iter().map(|path| {
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let mut module: Module =
            file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        let whole = fs::read_to_string(&path).unwrap();
        let without_tests = whole.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let lines = without_tests.lines().map(|line| line.split("//").next().unwrap());
        let code = lines.collect::<Vec<_>>().join("\n");
        Source { module, file, code, whole }
    });
    sources.collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules that `source` names: by `crate::`, `super::` and `self::`, one by one or in braces.
fn named(source: &Source, modules: &BTreeSet<Module>) -> BTreeSet<Module> {
    let mut named = BTreeSet::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in source.code.match_indices(start) {
            if source.code[..at].ends_with(is_word) || source.code[..at].ends_with("::") {
                continue;
            }
            let mut base = match start {
                "crate::" => Module::new(),
                "super::" if !source.file.ends_with("/mod.rs") => parent(&source.module),
                "super::" => parent(&source.module),
                _ => source.module.clone(),
            };
            let mut rest = &source.code[at + start.len()..];
            while let Some(further) = rest.strip_prefix("super::") {
                base = parent(&base);
                rest = further;
            }
            paths(&base, rest, modules, &mut named);
        }
    }
    named.remove(&source.module);
    named
}

/// Adds the longest modules that the paths at the beginning of `rest` name.
fn paths(base: &Module, rest: &str, modules: &BTreeSet<Module>, named: &mut BTreeSet<Module>) {
    if let Some(group) = rest.strip_prefix('{') {
        let mut depth = 0;
        let mut item = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    paths(base, group[item..at].trim_start(), modules, named);
                    return;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    paths(base, group[item..at].trim_start(), modules, named);
                    item = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut next = base.clone();
    next.push(word.clone());
    if modules.contains(&next) {
        match rest[word.len()..].strip_prefix("::") {
            Some(further) => paths(&next, further, modules, named),
            None => drop(named.insert(next)),
        }
    } else {
        named.insert(base.clone());
    }
}

fn parent(module: &Module) -> Module {
    module[..module.len().saturating_sub(1)].to_vec()
}

/// For each folder (by its module): which of its children import which, and by which file.
fn edges() -> BTreeMap<Module, BTreeMap<(String, String), String>> {
    let sources = sources();
    let modules: BTreeSet<Module> = sources.iter().map(|source| source.module.clone()).collect();
    let mut edges: BTreeMap<Module, BTreeMap<(String, String), String>> = BTreeMap::new();
    for source in &sources {
        for target in named(source, &modules) {
            let common = source.module.iter().zip(&target).take_while(|(a, b)| a == b).count();
            // A room's `mod.rs` composes its files, and they may use what stands there.
            let (Some(from), Some(to)) = (source.module.get(common), target.get(common)) else {
                continue;
            };
            edges
                .entry(source.module[..common].to_vec())
                .or_default()
                .insert((from.clone(), to.clone()), source.file.clone());
        }
    }
    edges
}

/// One circle, if there is any.
fn circle(edges: &BTreeMap<(String, String), String>) -> Option<Vec<String>> {
    fn visit(
        at: &str,
        edges: &BTreeMap<(String, String), String>,
        trail: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = trail.iter().position(|earlier| earlier == at) {
            return Some(trail[start..].to_vec());
        }
        if !done.insert(at.to_owned()) {
            return None;
        }
        trail.push(at.to_owned());
        let next = edges.keys().filter(|(from, _)| from == at);
        let found = next.map(|(_, to)| to).find_map(|to| visit(to, edges, trail, done));
        trail.pop();
        found
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|(from, _)| visit(from, edges, &mut Vec::new(), &mut done))
}

fn assert_downwards(folder: &[&str], order: &[&str]) {
    let folder: Module = folder.iter().map(|name| (*name).to_owned()).collect();
    let edges = edges();
    let place = |room: &String| {
        let place = order.iter().position(|known| known == room);
        place.unwrap_or_else(|| panic!("{room} has no place in the order of {folder:?}"))
    };
    let up: Vec<String> = edges[&folder]
        .iter()
        .filter(|((from, to), _)| place(from) > place(to))
        .map(|((from, to), file)| format!("{from} → {to} in {file}"))
        .collect();
    assert!(up.is_empty(), "imports that point up: {up:#?}");
}

#[test]
fn the_rooms_import_only_what_stands_below_them() {
    assert_downwards(&[], ROOMS);
    assert_downwards(&["broker"], BROKER);
}

#[test]
fn no_files_of_a_room_import_each_other_in_a_circle() {
    let circles: Vec<String> = edges()
        .iter()
        .filter_map(|(folder, edges)| {
            let circle = circle(edges)?;
            let steps = circle.iter().zip(circle.iter().cycle().skip(1));
            let files: Vec<&String> =
                steps.filter_map(|(a, b)| edges.get(&(a.clone(), b.clone()))).collect();
            Some(format!("{}: {} by {files:?}", folder.join("/"), circle.join(" → ")))
        })
        .collect();
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn a_library_is_known_only_to_the_rooms_that_need_it() {
    for source in sources() {
        for (library, rooms) in LIBRARIES {
            let known = source.code.contains(&format!("{library}::"));
            let allowed = rooms.iter().any(|room| source.file.starts_with(room));
            assert!(!known || allowed, "{} knows {library}", source.file);
        }
    }
}

#[test]
fn every_file_says_why_it_exists_and_has_one_reason() {
    for source in sources() {
        assert!(source.whole.starts_with("//! "), "{} does not say why it exists", source.file);
        let lines = source.whole.split("\n#[cfg(test)]\nmod tests").next().unwrap().lines().count();
        assert!(lines <= FILE_LINES, "{} has {lines} lines without its tests", source.file);
    }
}

#[test]
fn the_check_sees_what_it_is_to_see() {
    let modules: BTreeSet<Module> = [vec!["a"], vec!["a", "b"], vec!["c"], vec!["c", "d"]]
        .into_iter()
        .map(|module| module.into_iter().map(str::to_owned).collect())
        .collect();
    let source = Source {
        module: vec!["a".to_owned(), "b".to_owned()],
        file: "a/b.rs".to_owned(),
        code: "use crate::{a::X, c::{d::{self, Y}, Z}};\nuse super::W;".to_owned(),
        whole: String::new(),
    };
    let found: Vec<String> =
        named(&source, &modules).iter().map(|module| module.join("/")).collect();
    assert_eq!(found, ["a", "c", "c/d"]);
    let edge = |from: &str, to: &str| ((from.to_owned(), to.to_owned()), String::new());
    assert_eq!(circle(&[edge("x", "y"), edge("y", "z")].into()), None);
    let closed = [edge("x", "y"), edge("y", "z"), edge("z", "y")].into();
    assert_eq!(circle(&closed).unwrap(), ["y", "z"]);
}

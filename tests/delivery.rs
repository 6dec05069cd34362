//! The files that build, ship and run the image agree with one another and with the program: triples,
//! versions, ports, paths, user, variables, commands. Needs no engine; what needs one is `tests/delivery/run`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use humidor::cli::Invocation;
use humidor::config::SETTINGS;

/// Variables of compose files that are read on the host and never reach the program.
const HOST_VARIABLES: &[&str] = &["HUMIDOR_IMAGE"];

struct Target {
    arch: String,
    triple: String,
    platform: String,
    zig: String,
    qemu: String,
}

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn targets() -> Vec<Target> {
    let table = file("docker/targets");
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let columns: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let [arch, triple, platform, zig, qemu] = <[String; 5]>::try_from(columns)
                .unwrap_or_else(|columns| panic!("docker/targets: five columns, not {columns:?}"));
            Target { arch, triple, platform, zig, qemu }
        })
        .collect()
}

fn set<'a>(items: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    items.into_iter().map(str::to_owned).collect()
}

/// What follows `start` on each line that begins with it, blanks aside.
fn after<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.trim().strip_prefix(start)).map(str::trim)
}

fn only<'a>(what: &str, items: impl Iterator<Item = &'a str>) -> &'a str {
    let items: BTreeSet<&str> = items.collect();
    assert_eq!(items.len(), 1, "one value of `{what}`, not {items:?}");
    items.into_iter().next().expect("there is one")
}

/// The value of `key = "…"` in a TOML file's first table that has it.
fn toml(path: &str, table: &str, key: &str) -> String {
    let parsed: toml::Table = file(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"));
    parsed[table][key].as_str().unwrap_or_else(|| panic!("{path}: {table}.{key}")).to_owned()
}

/// All `HUMIDOR_…` names in a text.
fn variables(text: &str) -> BTreeSet<String> {
    text.match_indices("HUMIDOR_")
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
        .map(|(at, _)| {
            let rest = &text[at..];
            let end =
                rest.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
            rest[..end.unwrap_or(rest.len())].to_owned()
        })
        .filter(|name| name != "HUMIDOR_")
        .collect()
}

fn assert_known(path: &str, names: &BTreeSet<String>) {
    let known: BTreeSet<String> = SETTINGS
        .iter()
        .flat_map(|setting| {
            let variable = setting.variable();
            [setting.secret.then(|| format!("{variable}_FILE")), Some(variable)]
        })
        .flatten()
        .collect();
    for name in names {
        assert!(
            known.contains(name) || HOST_VARIABLES.contains(&name.as_str()),
            "{path} sets {name}, which the program would refuse"
        );
    }
}

#[test]
fn a_target_has_one_name_everywhere() {
    let targets = targets();
    assert_eq!(set(targets.iter().map(|t| t.arch.as_str())), set(["amd64", "arm64", "armv7"]));
    for target in &targets {
        // The Dockerfile finds a binary as $TARGETARCH$TARGETVARIANT.
        let platform = target.platform.strip_prefix("linux/").expect("linux/…");
        assert_eq!(target.arch, platform.replace('/', ""));
        let machine = target.triple.split('-').next().expect("a triple");
        let machine = if machine == "armv7" { "arm" } else { machine };
        assert_eq!(target.qemu, format!("qemu-{machine}-static"));
        assert!(
            target.triple.contains("-linux-musl"),
            "{}: only musl links statically",
            target.triple
        );
        assert_eq!(target.zig.split('-').next(), Some(machine));
        assert_eq!(target.zig.rsplit('-').next(), target.triple.rsplit('-').next());
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/delivery/properties")
            .join(&target.arch);
        assert!(golden.is_file(), "{} says what the binary must be", golden.display());
    }
}

#[test]
fn cross_builds_the_targets_in_the_image_of_the_dockerfile() {
    let parsed: toml::Table = file("Cross.toml").parse().expect("Cross.toml");
    let crossed = parsed["target"].as_table().expect("a table");
    let targets = targets();
    assert_eq!(
        crossed.keys().cloned().collect::<BTreeSet<_>>(),
        set(targets.iter().map(|target| target.triple.as_str()))
    );
    for (triple, target) in crossed {
        assert_eq!(
            target["dockerfile"]["file"].as_str(),
            Some("docker/cross.Dockerfile"),
            "{triple}"
        );
    }
    let (ours, crosss) = (file("docker/Dockerfile"), file("docker/cross.Dockerfile"));
    assert_eq!(
        only("ARG RUST_IMAGE=", after(&ours, "ARG RUST_IMAGE=")),
        only("ARG RUST_IMAGE=", after(&crosss, "ARG RUST_IMAGE="))
    );
}

#[test]
fn no_other_file_spells_a_triple_that_the_table_has_not() {
    let triples: BTreeSet<String> = targets().into_iter().map(|target| target.triple).collect();
    for path in
        ["Justfile", "docker/Dockerfile", "docker/build.sh", "docker/setup.sh", "docs/DELIVERY.md"]
    {
        for word in file(path).split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        {
            // A cross compiler of Debian is named by the GNU triple.
            if word.matches('-').count() >= 3
                && word.contains("-linux-")
                && !word.starts_with("gcc-")
            {
                assert!(triples.contains(word), "{path} has {word}, docker/targets has not");
            }
        }
    }
}

#[test]
fn the_dockerfile_has_the_crates_version_words_and_toolchain() {
    let dockerfile = file("docker/Dockerfile");
    let version = only("ARG HUMIDOR_VERSION=", after(&dockerfile, "ARG HUMIDOR_VERSION="));
    assert_eq!(version, toml("Cargo.toml", "package", "version"));
    let base = only("ARG RUST_IMAGE=", after(&dockerfile, "ARG RUST_IMAGE="));
    let channel = toml("rust-toolchain.toml", "toolchain", "channel");
    assert!(base.starts_with(&format!("rust:{channel}-")), "{base} is not of toolchain {channel}");
    for (label, key) in [("description", "description"), ("licenses", "license"), ("title", "name")]
    {
        let expected =
            format!("org.opencontainers.image.{label}=\"{}\"", toml("Cargo.toml", "package", key));
        assert!(dockerfile.contains(&expected), "the Dockerfile has no {expected}");
    }
}

#[test]
fn the_image_exposes_the_ports_that_the_broker_listens_on() {
    let dockerfile = file("docker/Dockerfile");
    let exposed = set(after(&dockerfile, "EXPOSE ").flat_map(str::split_whitespace));
    let listens: BTreeSet<String> = SETTINGS
        .iter()
        .filter(|setting| setting.key.ends_with("_listen"))
        .filter_map(|setting| setting.default?.rsplit(':').next().map(str::to_owned))
        .collect();
    assert_eq!(exposed, listens);
    let compose = file("docker/compose.yaml");
    for port in &listens {
        let published = |to: &str| compose.contains(&format!("\"{to}{port}:{port}\""));
        assert!(published("") || published("127.0.0.1:"), "compose.yaml publishes no {port}");
    }
}

#[test]
fn user_and_data_folder_are_the_same_in_image_and_compose() {
    let dockerfile = file("docker/Dockerfile");
    let user = only("USER", after(&dockerfile, "USER "));
    let data = only("HUMIDOR_DATA", after(&dockerfile, "ENV HUMIDOR_DATA="));
    assert_eq!(only("VOLUME", after(&dockerfile, "VOLUME ")), data);
    assert!(dockerfile.contains(&format!("--chown={user}")), "{data} belongs to {user}");
    for path in ["docker/compose.yaml", "docker/compose.node.yaml"] {
        let compose = file(path);
        assert_eq!(only("user", after(&compose, "user: ")), format!("\"{user}\""), "{path}");
        let volumes: Vec<&str> = after(&compose, "volumes: [").collect();
        assert!(!volumes.is_empty(), "{path} keeps nothing");
        for volume in volumes {
            assert!(volume.contains(&format!(":{data}\"")), "{path}: {volume} is not {data}");
        }
        for line in ["read_only: true", "cap_drop: [ALL]", "no-new-privileges:true"] {
            assert!(compose.contains(line), "{path} has no {line}");
        }
        assert!(!compose.contains("privileged: true"), "{path}");
    }
}

#[test]
fn every_variable_that_a_container_gets_is_a_setting() {
    for path in
        ["docker/compose.yaml", "docker/compose.node.yaml", "tests/delivery/compose.platforms.yaml"]
    {
        assert_known(path, &variables(&file(path)));
    }
    let docs = file("docs/DELIVERY.md");
    let given: String = docs.lines().filter(|line| line.trim_start().starts_with("-e ")).collect();
    assert!(
        variables(&given).contains("HUMIDOR_BROKER"),
        "docs/DELIVERY.md shows a board's docker run"
    );
    assert_known("docs/DELIVERY.md", &variables(&given));
}

#[test]
fn commands_that_containers_run_exist() {
    let program = Invocation::command();
    let exists = |name: &str| program.find_subcommand(name).is_some();
    let dockerfile = file("docker/Dockerfile");
    assert!(dockerfile.contains("CMD [\"/humidor\", \"health\"]") && exists("health"));
    for path in ["docker/compose.yaml", "docker/compose.node.yaml"] {
        let compose = file(path);
        for command in after(&compose, "command: [") {
            let name = command.split([',', ']']).next().expect("a first word");
            assert!(exists(name), "{path} runs `{name}`");
        }
    }
}

#[test]
fn the_build_context_has_what_the_dockerfiles_copy_and_nothing_else() {
    let dockerfiles = file("docker/Dockerfile") + &file("docker/cross.Dockerfile");
    let copied: BTreeSet<String> = after(&dockerfiles, "COPY ")
        .filter(|line| !line.starts_with("--from"))
        .flat_map(|line| {
            let mut paths: Vec<&str> = line.split_whitespace().collect();
            paths.pop();
            paths
        })
        .map(str::to_owned)
        .collect();
    let ignore = file(".dockerignore");
    assert!(
        ignore.lines().any(|line| line == "*"),
        "an allow-list begins by leaving out everything"
    );
    assert_eq!(set(after(&ignore, "!")), copied);
    // Cargo refuses a manifest that names a file which is not there.
    if file("Cargo.toml").contains("[[bench]]") {
        assert!(copied.contains("benches"), "{copied:?}");
    }
}

#[test]
fn recipes_call_scripts_that_exist() {
    use std::os::unix::fs::PermissionsExt;
    let justfile = file("Justfile");
    let scripts: Vec<&str> = justfile
        .split_whitespace()
        .filter(|word| word.starts_with("docker/") || word.starts_with("tests/"))
        .filter(|word| !word.ends_with(':') && !word.ends_with(')'))
        .collect();
    assert!(scripts.len() >= 8, "{scripts:?}");
    for script in scripts {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let metadata = fs::metadata(&path).unwrap_or_else(|error| panic!("{script}: {error}"));
        assert!(metadata.permissions().mode() & 0o111 != 0, "{script} is not executable");
    }
}

//! The files that build, ship and run the image agree with one another and with the program: triples,
//! versions, ports, paths, user, variables, commands. Needs no engine; what needs one is `tests/delivery/run`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use humidor::cli::Invocation;
use humidor::config::{SETTINGS, Scope};

/// Variables of compose files that are read on the host and never reach the program.
const HOST_VARIABLES: &[&str] = &["HUMIDOR_IMAGE"];

struct Target {
    arch: String,
    triple: String,
    platform: String,
    zig: String,
    qemu: String,
    /// Bytes that a binary may have, and an image of it in a registry.
    binary: u64,
    packed: u64,
    /// Debian's name of the architecture.
    deb: String,
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
            let [arch, triple, platform, zig, qemu, binary, packed, deb] =
                <[String; 8]>::try_from(columns).unwrap_or_else(|columns| {
                    panic!("docker/targets: eight columns, not {columns:?}")
                });
            let bytes = |text: String| text.parse().unwrap_or_else(|_| panic!("{arch}: {text}"));
            let (binary, packed) = (bytes(binary), bytes(packed));
            Target { arch, triple, platform, zig, qemu, binary, packed, deb }
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

/// flake.nix and all of nix/.
fn nix_files() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("nix");
    let mut files: Vec<String> = fs::read_dir(folder)
        .expect("nix/")
        .map(|entry| format!("nix/{}", entry.expect("a file").file_name().display()))
        .collect();
    files.push("flake.nix".to_owned());
    files
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
        // Hard float is what the name says.
        assert_eq!(target.deb == "armhf", target.triple.ends_with("eabihf"), "{}", target.deb);
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
    let mut paths =
        ["Justfile", "docker/Dockerfile", "docker/build.sh", "docker/setup.sh", "docs/DELIVERY.md"]
            .map(str::to_owned)
            .to_vec();
    paths.extend(nix_files());
    for path in &paths {
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
    let health = "CMD [\"/humidor\", \"health\", \"--alive\"]";
    assert!(dockerfile.contains(health) && exists("health"));
    assert!(file("nix/image.nix").contains("\"health\"\n          \"--alive\""));
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

#[test]
fn nix_compiles_what_the_dockerfile_compiles() {
    // The toolchain's part of the context: Nix brings its own.
    let of_the_toolchain = ["rust-toolchain.toml", "docker/setup.sh", "docker/cross-cargo"];
    let ignore = file(".dockerignore");
    let context: BTreeSet<String> =
        set(after(&ignore, "!").filter(|path| !of_the_toolchain.contains(path)));
    let binary = file("nix/binary.nix");
    // With which the binary is checked there.
    let sources: BTreeSet<String> = set(after(&binary, "../")
        .filter(|path| !path.ends_with(';') && !path.starts_with("tests/delivery/properties")));
    assert_eq!(sources, context);
}

#[test]
fn nix_holds_no_version_and_no_hash_of_its_own() {
    let readers = [
        ("nix/targets.nix", "../docker/targets"),
        ("nix/toolchain.nix", "../rust-toolchain.toml"),
        ("nix/tools.nix", "../docker/zig-requirements.txt"),
        ("nix/tools.nix", "../docker/auditable.lock"),
        ("nix/binary.nix", "bash docker/build.sh"),
    ];
    for (path, what) in readers {
        assert!(file(path).contains(what), "{path} reads no {what}");
    }
    let pins = file("docker/zig-requirements.txt");
    let mut versions: BTreeSet<String> =
        set(pins.lines().filter_map(|line| line.split_once("==")?.1.split(' ').next()));
    versions.insert(toml("rust-toolchain.toml", "toolchain", "channel"));
    assert_eq!(versions.len(), 3, "{versions:?}");
    for path in nix_files() {
        for word in file(&path).split(|c: char| !c.is_ascii_alphanumeric()) {
            let is_hash = word.len() >= 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(!is_hash, "{path} has the hash {word}");
        }
        for version in &versions {
            assert!(!file(&path).contains(version), "{path} spells the version {version}");
        }
    }
}

#[test]
fn setup_and_nix_take_one_cargo_auditable() {
    let lock: toml::Table = file("docker/auditable.lock").parse().expect("a lock file");
    let packages = lock["package"].as_array().expect("packages");
    let itself: Vec<_> =
        packages.iter().filter(|p| p["name"].as_str() == Some("cargo-auditable")).collect();
    assert_eq!(itself.len(), 1);
    for package in packages {
        assert!(package.get("checksum").is_some(), "{} has no checksum", package["name"]);
    }
    assert!(file("docker/lib.sh").contains("/auditable.lock"), "lib.sh reads its version");
    assert!(file("docker/setup.sh").contains("cargo-auditable \"$(auditable_version)\""));
}

#[test]
fn the_lock_of_the_flake_answers_its_inputs() {
    let lock: serde_json::Value = serde_json::from_str(&file("flake.lock")).expect("flake.lock");
    let nodes = lock["nodes"].as_object().expect("nodes");
    assert_eq!(set(nodes.keys().map(String::as_str)), set(["nixpkgs", "root", "rust-overlay"]));
    let flake = file("flake.nix");
    for name in ["nixpkgs", "rust-overlay"] {
        let (original, locked) = (&nodes[name]["original"], &nodes[name]["locked"]);
        let part = |key: &str| original[key].as_str().map(|text| format!("/{text}"));
        let url = format!(
            "\"github:{}{}{}\"",
            original["owner"].as_str().expect("an owner"),
            part("repo").expect("a repository"),
            part("ref").unwrap_or_default()
        );
        assert!(flake.contains(&url), "flake.nix has no {url}");
        assert_eq!(locked["rev"].as_str().map(str::len), Some(40), "{name}");
        assert!(locked["narHash"].as_str().is_some_and(|hash| hash.starts_with("sha256-")));
    }
    assert_eq!(nodes["rust-overlay"]["inputs"]["nixpkgs"][0].as_str(), Some("nixpkgs"));
    // 2026-05-27: older importCargoLock is answered 403 by the crate registry.
    let modified = nodes["nixpkgs"]["locked"]["lastModified"].as_i64().expect("a time");
    assert!(modified >= 1_779_840_000, "the locked nixpkgs cannot fetch crates");
}

/// A duration of the Dockerfile, in the nanoseconds of an image's configuration.
fn nanoseconds(text: &str) -> u64 {
    let seconds: u64 = text.strip_suffix('s').and_then(|n| n.parse().ok()).expect("seconds");
    seconds * 1_000_000_000
}

#[test]
fn the_image_by_nix_says_what_the_dockerfile_says() {
    let (image, dockerfile) = (file("nix/image.nix"), file("docker/Dockerfile"));
    let user = only("USER", after(&dockerfile, "USER "));
    let (uid, gid) = user.split_once(':').expect("user and group");
    assert_eq!(uid, gid);
    let mut wanted = vec![
        format!("user = {uid};"),
        format!("Volumes.\"{}\"", only("VOLUME", after(&dockerfile, "VOLUME "))),
        format!("\"HUMIDOR_DATA={}\"", only("ENV", after(&dockerfile, "ENV HUMIDOR_DATA="))),
        format!("StopSignal = \"{}\"", only("STOPSIGNAL", after(&dockerfile, "STOPSIGNAL "))),
    ];
    for port in after(&dockerfile, "EXPOSE ").flat_map(str::split_whitespace) {
        wanted.push(format!("ExposedPorts.\"{port}/tcp\""));
    }
    // ENTRYPOINT ["/humidor"] is Entrypoint = [ "/humidor" ].
    for (instruction, key) in [("ENTRYPOINT [", "Entrypoint"), ("CMD [", "Cmd")] {
        let words = only(instruction, after(&dockerfile, instruction));
        wanted.push(format!("{key} = [ {} ];", words.trim_end_matches(']')));
    }
    let check = only("HEALTHCHECK", after(&dockerfile, "HEALTHCHECK "));
    for (option, key) in [
        ("--interval=", "Interval"),
        ("--timeout=", "Timeout"),
        ("--start-period=", "StartPeriod"),
        ("--start-interval=", "StartInterval"),
    ] {
        let value = check.split_whitespace().find_map(|word| word.strip_prefix(option));
        wanted.push(format!("{key} = {};", nanoseconds(value.expect(option))));
    }
    for label in after(&dockerfile.replace("LABEL ", ""), "org.opencontainers.image.") {
        let name = label.split('=').next().expect("a name");
        wanted.push(format!("\"org.opencontainers.image.{name}\""));
    }
    for text in wanted {
        assert!(image.contains(&text), "nix/image.nix has no {text}");
    }
}

#[test]
fn the_limits_of_size_are_in_the_table_alone() {
    for target in targets() {
        let Target { arch, binary, packed, .. } = target;
        assert!((1_000_000..=7_300_000).contains(&binary), "{arch}: {binary} bytes");
        assert!((1_000_000..=3_900_000).contains(&packed) && packed < binary, "{arch}: {packed}");
        for path in ["nix/checks.nix", "tests/delivery/chain", "docs/DELIVERY.md"] {
            for bytes in [binary, packed] {
                assert!(!file(path).contains(&bytes.to_string()), "{path} spells {bytes}");
            }
        }
    }
    assert!(file("nix/checks.nix").contains("target.maxBinary"));
    let chain = file("tests/delivery/chain");
    assert_eq!(
        chain.matches("done < <(targets)").count(),
        chain.matches("while read -r arch").count()
    );
}

/// What a unit of systemd or the NixOS module forbids its service: key and value, as systemd writes both.
fn restrictions_of_unit(path: &str) -> BTreeSet<String> {
    let text = file(path);
    let service = text.split("[Service]").nth(1).and_then(|rest| rest.split("[Install]").next());
    // Debian's package has a user of its own, a fixed path and a configuration in /etc.
    let own = ["User=", "Group=", "Environment=", "ExecStart="];
    service
        .expect("[Service] before [Install]")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter(|line| !own.iter().any(|key| line.starts_with(key)))
        .map(str::to_owned)
        .collect()
}

/// The same of nix/module.nix, for one role.
fn restrictions_of_module(role: &str) -> BTreeSet<String> {
    let module = file("nix/module.nix");
    let between = |start: &str, end: &str| {
        let rest = module.split_once(start).unwrap_or_else(|| panic!("no {start}")).1;
        rest.split_once(end).unwrap_or_else(|| panic!("no {end} after {start}")).0.to_owned()
    };
    let common = between("    serviceConfig = {\n", "\n    };");
    let own = match role {
        "broker" => "PrivateDevices = true;".to_owned(),
        _ => between("          serviceConfig = {\n", "\n          };"),
    };
    let without_comments = |text: &str| {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        lines.collect::<Vec<_>>().join(" ")
    };
    let mut found = std::collections::BTreeMap::new();
    for assignment in (without_comments(&common) + " " + &without_comments(&own)).split(';') {
        let Some((key, value)) = assignment.split_once(" = ") else { continue };
        let value = value.replace("lib.mkDefault ", "").replace("${role}", role);
        let value = value.trim_matches(|c| "[] ".contains(c)).replace('"', "");
        found.insert(key.trim().to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    for of_nix in ["DynamicUser", "LoadCredential", "ExecStart"] {
        found.remove(of_nix);
    }
    found.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

#[test]
fn debians_units_and_the_nixos_module_forbid_the_same() {
    for role in ["broker", "node"] {
        let unit = restrictions_of_unit(&format!("docker/deb/humidor-{role}.service"));
        assert!(unit.len() > 20, "{unit:?}");
        assert_eq!(unit, restrictions_of_module(role), "{role}");
    }
    let rules = file("docker/deb/udev.rules");
    let rule = rules.lines().find(|line| !line.starts_with('#')).expect("a rule");
    assert!(file("nix/module.nix").contains(rule), "nix/module.nix has no {rule}");
}

/// A configuration of Debian's package: every setting of the role, commented.
fn conffile(role: &str, scopes: &[Scope]) -> String {
    let mut text = format!(
        "# Settings of humidor-{role}.service. A line without # takes effect at `systemctl restart humidor-{role}`.\n\
         # Check first: humidor config --config /etc/humidor/{role}.toml\n\
         # The data are in /var/lib/humidor-{role}. A password belongs in a file that root alone can read. Say\n\
         # `systemctl edit humidor-{role}`, and there:\n\
         #   [Service]\n\
         #   LoadCredential=password:/etc/humidor/password\n\
         #   Environment=HUMIDOR_PASSWORD_FILE=%d/password\n"
    );
    for setting in SETTINGS.iter().filter(|setting| scopes.contains(&setting.scope)) {
        // The unit names both, and passwords are in files.
        if ["config", "data"].contains(&setting.key) || setting.secret {
            continue;
        }
        text.push('\n');
        let mut line = String::from("#");
        for word in setting.help.split_whitespace() {
            if line.len() + word.len() > 110 {
                text.push_str(&line);
                text.push_str("\n#");
                line.clear();
            }
            line.push(' ');
            line.push_str(word);
        }
        let value = setting.default.unwrap_or(setting.form);
        writeln!(text, "{line}\n#{} = \"{value}\"", setting.key).expect("a String takes all");
    }
    text
}

#[test]
fn debians_configurations_show_every_setting() {
    let both = [Scope::All, Scope::Data, Scope::Login, Scope::Roles];
    let broker = [Scope::Broker, Scope::Log, Scope::Users, Scope::Access];
    let node = [Scope::Node, Scope::Lines];
    for (role, own) in [("broker", &broker[..]), ("node", &node[..])] {
        let wanted = conffile(role, &[&both[..], own].concat());
        let path = format!("docker/deb/{role}.toml");
        if std::env::var_os("WRITE_CONFFILES").is_some() {
            let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
            fs::write(place, &wanted).expect("docker/deb");
        }
        assert_eq!(file(&path), wanted, "{path}: WRITE_CONFFILES=1 cargo test --test delivery");
        // Each line is one that the program takes, once its mark is gone.
        let uncommented: Vec<&str> = wanted
            .lines()
            .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')))
            .collect();
        let table: toml::Table = uncommented.join("\n").parse().expect("TOML");
        assert!(table.len() > 10, "{table:?}");
    }
}

#[test]
fn the_nixos_module_sets_what_the_program_knows() {
    let module = file("nix/module.nix");
    assert_known("nix/module.nix", &variables(&module));
    let keys: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    let examples = module.split("settings = settings {").skip(1);
    let mut seen = 0;
    for example in examples {
        let body = example.split('}').next().expect("a body");
        for key in body.lines().filter_map(|line| line.trim().split_once(" = ")).map(|(key, _)| key)
        {
            assert!(keys.contains(key), "nix/module.nix shows a setting {key}");
            seen += 1;
        }
    }
    assert!(seen >= 4);
    for key in ["mqtt_listen", "http_listen"] {
        let setting = SETTINGS.iter().find(|s| s.key == key).expect(key);
        let listens = format!("listens \"{key}\" \"{}\"", setting.default.expect("a default"));
        assert!(module.contains(&listens), "the firewall follows {listens}");
    }
}

#[test]
fn the_docs_name_outputs_that_the_flake_has() {
    let mut names: BTreeSet<String> = set(["default", "humidor", "oci"]);
    for target in targets() {
        names.insert(format!("bin-{}", target.arch));
        names.insert(format!("image-{}", target.arch));
    }
    let mut seen = 0;
    for path in ["README.md", "docs/DELIVERY.md", "docs/VERIFY.md"] {
        let text = file(path);
        let of_build = text.lines().filter(|line| line.contains("nix build"));
        for word in of_build.flat_map(str::split_whitespace) {
            let word = word.trim_matches(|c: char| "`()|,".contains(c));
            if let Some(name) = word.strip_prefix(".#") {
                assert!(names.contains(name), "{path} builds .#{name}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 2, "the docs show how to build by Nix");
}

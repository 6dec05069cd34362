//! How a node is started on this machine: by its unit of systemd, in a container, or by hand.

use std::fs;
use std::path::Path;

/// Folders of units below the root, in the order in which systemd looks for one.
const UNITS: [&str; 4] = [
    "etc/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// The unit of the packages and of `docs/`.
const UNIT: &str = "humidor-node.service";
/// It is there while systemd is the init system: `sd_booted(3)`.
const BOOTED: &str = "run/systemd/system";
/// Files that tell a program that it is in a container, and of which engine.
const CONTAINERS: [(&str, &str); 2] = [(".dockerenv", "docker"), ("run/.containerenv", "podman")];

/// What to do to start a node on the machine whose root folder this is.
pub fn how_to(root: &Path) -> String {
    if let Some((_, engine)) = CONTAINERS.iter().find(|(file, _)| root.join(file).exists()) {
        return format!(
            "start the node: this `{engine} run` again, with `-d --name humidor --restart unless-stopped` in place of `--rm` and `node` in place of `doctor`"
        );
    }
    let unit =
        UNITS.iter().find_map(|folder| fs::read_to_string(root.join(folder).join(UNIT)).ok());
    match unit.filter(|_| root.join(BOOTED).exists()) {
        Some(unit) => {
            let settings = settings_file(&unit).map_or_else(String::new, |file| {
                format!("; its settings are those in {file}, which `humidor doctor --config {file}` checks")
            });
            format!("start the node, as root: systemctl enable --now humidor-node{settings}")
        }
        None => "start the node with these settings: humidor node".to_owned(),
    }
}

/// The settings file in the command of a unit.
fn settings_file(unit: &str) -> Option<&str> {
    let command = unit.lines().find(|line| line.starts_with("ExecStart="))?;
    command.split_once("--config ")?.1.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_started_as_it_was_installed() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let next = || how_to(root.path());
        assert!(next().ends_with("humidor node"), "{}", next());
        put(
            "usr/lib/systemd/system/humidor-node.service",
            include_str!("../../docker/deb/humidor-node.service"),
        );
        assert!(next().ends_with("humidor node"), "nobody would start the unit: {}", next());
        fs::create_dir_all(root.path().join(BOOTED)).unwrap();
        for part in [
            "systemctl enable --now humidor-node;",
            "humidor doctor --config /etc/humidor/node.toml`",
        ] {
            assert!(next().contains(part), "{}", next());
        }
        // The administrator's own goes before it.
        put("etc/systemd/system/humidor-node.service", "[Service]\nExecStart=/opt/humidor node\n");
        assert!(next().ends_with("systemctl enable --now humidor-node"), "{}", next());
        put(".dockerenv", "");
        assert!(next().contains("this `docker run` again"), "{}", next());
    }
}

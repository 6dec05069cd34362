//! The host names under which a browser may ask for this broker's page.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// Endings that the public name system does not have: multicast DNS (RFC 6762), this machine (RFC 6761), home networks
/// (RFC 8375), private use (ICANN's resolution of 2024-07-29), one that ICANN does not delegate since so many routers use it
/// (2018-02-04), and what further routers call their network.
///
/// Not `.fritz.box`, though a router answers for it at home: `.box` is public, and a stranger owned `fritz.box` in 2024.
const LOCAL: [&str; 7] =
    [".local", ".localhost", ".home.arpa", ".internal", ".home", ".lan", ".localdomain"];

/// Host names of this broker. A request's `Host` header has to be one of them, or an IP address.
#[derive(Debug, Clone, Default)]
pub struct HostNames(Arc<[String]>);

impl HostNames {
    /// `localhost`, this machine's own name with and without `.local`, and `more`.
    pub fn new(own: &str, more: &[String]) -> Self {
        let own = own.to_ascii_lowercase();
        let names = [String::from("localhost"), format!("{own}.local"), own];
        let more = more.iter().map(|name| name.to_ascii_lowercase());
        Self(names.into_iter().chain(more).filter(|name| !name.is_empty()).collect())
    }

    /// Whether a `Host` header names this broker. An IP address always does: after DNS rebinding the header holds
    /// the other site's name. So does a name that no site outside can have.
    pub fn contains(&self, host: &str) -> bool {
        let Some(written) = name_of(host) else { return false };
        let name = without_root(written).to_ascii_lowercase();
        // A label before the dot of the root is a name of the public system.
        let is_relative = name.len() == written.len() || name.contains('.');
        name.parse::<IpAddr>().is_ok() || self.0.contains(&name) || is_relative && is_local(&name)
    }

    /// Whether a host is one of these names.
    pub fn lists(&self, host: &str) -> bool {
        let name = name_of(host).map(without_root);
        name.is_some_and(|name| self.0.contains(&name.to_ascii_lowercase()))
    }
}

/// A name without the dot of the root at its end (RFC 1034 §3.1).
fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether only the local network can have given this name: one label, or an ending of [`LOCAL`].
fn is_local(name: &str) -> bool {
    let fits = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let first = LOCAL.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    first.split('.').all(fits) && (first.len() < name.len() || !name.contains('.'))
}

/// The name or the address in a `Host`, without its port; `None` when it is malformed (RFC 9110 §7.2, RFC 3986 §3.2.2).
pub fn name_of(host: &str) -> Option<&str> {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        (address, port)
    } else {
        let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&b);
        (!name.is_empty() && name.bytes().all(fits)).then_some((name, port))?
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    // A port may be left out after its colon.
    let is_port = port.is_empty() || port == ":" || port != digits && digits.parse::<u16>().is_ok();
    (is_port && !digits.starts_with('+')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_host_has_no_name() {
        for (host, name) in [
            ("localhost", "localhost"),
            ("Box-3.local:8080", "Box-3.local"),
            ("box:", "box"),
            ("127.0.0.1:65535", "127.0.0.1"),
            ("[::1]", "::1"),
            ("[fe80::1]:8080", "fe80::1"),
        ] {
            assert_eq!(name_of(host), Some(name), "{host}");
        }
        for host in [
            "",
            ":8080",
            "[::1",
            "::1]",
            "[::1]]",
            "[[::1]]",
            "[::1]8080",
            "[::1]:+80",
            "[]",
            "[localhost]",
            "[127.0.0.1]",
            "::1",
            "box:http",
            "box:65536",
            "box:+80",
            "box:80:80",
            "kim@box",
            "a b",
            "a/b",
            "a,b@c",
            "box\t",
            "🏠.local",
        ] {
            assert_eq!(name_of(host), None, "{host}");
        }
    }

    #[test]
    fn a_host_is_an_address_or_a_known_name() {
        let names = HostNames::new("Box-3", &["plant.example.org".to_owned()]);
        for good in [
            "127.0.0.1:8080",
            "192.168.1.20",
            "[::1]:8080",
            "[fe80::1]",
            "localhost:8080",
            "LOCALHOST",
            "box-3:8080",
            "box-3.local",
            "plant.example.org",
            "raspberrypi.local:8080",
            "hall.orangepi.local",
            "orangepizero3",
            "box.lan",
            "box.home.arpa:8080",
            "raspberrypi.home",
            "raspberrypi.localdomain:8080",
            "localhost.localdomain",
            "box.internal",
            "hall.plant.internal.",
            "raspberrypi.local.:8080",
            "localhost.",
            "plant.example.org.",
        ] {
            assert!(names.contains(good), "{good}");
        }
        for bad in [
            "",
            ":8080",
            "evil.example",
            "raspberrypi.fritz.box:8080",
            "fritz.box",
            "box.home.example",
            "box.arpa",
            "box.nothome",
            ".home",
            "evil.local.domain",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8080",
            "box-3:x",
            ".local",
            "a..local",
            "box.local..",
            "evil.example.",
            "com.",
            ".",
            "evil.example.local.evil.example",
            "<b>.local",
            "kim@localhost",
            "::1",
            "a/b",
            "lan.example",
            "🏠.local",
        ] {
            assert!(!names.contains(bad), "{bad}");
        }
    }
}

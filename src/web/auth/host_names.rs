//! The host names under which a browser may ask for this broker's page.

use std::net::IpAddr;
use std::sync::Arc;

/// Endings that the public name system does not have: multicast DNS (RFC 6762), this machine (RFC 6761), home networks
/// (RFC 8375), private use (ICANN's resolution of 2024-07-29), and what routers call their network.
const LOCAL: [&str; 5] = [".local", ".localhost", ".home.arpa", ".internal", ".lan"];

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
        let name = without_port(host).to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok() || self.0.contains(&name) || is_local(&name)
    }
}

/// Whether only the local network can have given this name: one label, or an ending of [`LOCAL`].
fn is_local(name: &str) -> bool {
    let fits = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let first = LOCAL.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    first.split('.').all(fits) && (first.len() < name.len() || !name.contains('.'))
}

/// A `Host` without its port.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            assert!(names.contains(good), "{good}");
        }
        for bad in [
            "",
            ":8080",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8080",
            "box-3:x",
            ".local",
            "a..local",
            "evil.example.local.evil.example",
            "<b>.local",
            "a/b",
            "lan.example",
            "🏠.local",
        ] {
            assert!(!names.contains(bad), "{bad}");
        }
    }
}

//! Guests: clients without a login, and what `HUMIDOR_HTTP_GUESTS` allows them.

use std::net::{IpAddr, SocketAddr};

use axum::http::Version;
use axum::http::header::{CONNECTION, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA};

use super::host_names::name_of;
use super::same_origin::is_same_origin;
use crate::broker::Role;

/// What a client may do without a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guests {
    /// Nothing.
    None,
    /// A client on this machine reads, and switches outputs where MQTT needs no login either. Others may do nothing.
    #[default]
    Local,
    /// Every client reads. A client on this machine switches outputs as with `Local`.
    Read,
    /// Every client reads and switches outputs.
    Switch,
}

impl Guests {
    /// The setting's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Local => "local",
            Self::Read => "read",
            Self::Switch => "switch",
        }
    }

    /// Whether a guest may have a node forgotten, as an administrator may: on the broker's own machine, where there are no
    /// users.
    pub const fn may_forget(self, local: bool, anonymous: bool) -> bool {
        local && anonymous && !matches!(self, Self::None)
    }

    /// The role whose rights a guest has, behind the rules for all users; `None`: no rights. `local`: the client is on
    /// this machine. `anonymous`: MQTT clients need no login.
    pub const fn role(self, local: bool, anonymous: bool) -> Option<Role> {
        let (read, switch) = match self {
            Self::None => (false, false),
            Self::Local => (local, local && anonymous),
            Self::Read => (true, local && anonymous),
            Self::Switch => (true, true),
        };
        match (read, switch) {
            (_, true) => Some(Role::Operator),
            (true, false) => Some(Role::Reader),
            (false, false) => None,
        }
    }
}

/// Headers of proxies, besides those that begin with `x-forwarded`.
const PROXY_HEADERS: [HeaderName; 8] = [
    FORWARDED,
    VIA,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("cf-connecting-ip"),
    HeaderName::from_static("x-envoy-external-address"),
];

/// Whether the client is on this machine: it comes from loopback and asks for loopback, from no other origin's page and
/// without a trace of a proxy. A proxy on this machine passes requests of others on. It may leave no trace at all
/// (`proxy_pass` with HTTP/1.1 and without headers); docs/OPERATIONS.md says what it has to send.
pub fn is_local(version: Version, headers: &HeaderMap, peer: SocketAddr) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(HOST);
    peer.ip().to_canonical().is_loopback()
        && host.is_some_and(is_loopback)
        && is_same_origin(headers, host)
        && !is_proxied(version, headers)
}

/// Whether a `Host` names this machine's loopback.
fn is_loopback(host: &str) -> bool {
    let is_address = |name: &str| {
        name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    };
    name_of(host).is_some_and(|name| name.eq_ignore_ascii_case("localhost") || is_address(name))
}

fn is_proxied(version: Version, headers: &HeaderMap) -> bool {
    // What nginx sends by itself; no browser does.
    let closes = headers.get(CONNECTION).is_some_and(|value| value == "close");
    headers
        .keys()
        .any(|name| name.as_str().starts_with("x-forwarded") || PROXY_HEADERS.contains(name))
        || version == Version::HTTP_10 && closes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_switches_only_where_that_is_allowed_without_a_login() {
        let (reads, switches) = (Some(Role::Reader), Some(Role::Operator));
        for (guests, local, anonymous, role) in [
            (Guests::None, true, true, None),
            (Guests::Local, true, true, switches),
            (Guests::Local, true, false, reads),
            (Guests::Local, false, true, None),
            (Guests::Read, true, true, switches),
            (Guests::Read, true, false, reads),
            (Guests::Read, false, true, reads),
            (Guests::Switch, false, false, switches),
        ] {
            assert_eq!(guests.role(local, anonymous), role, "{guests:?} {local}");
            let forgets = local && role == switches;
            assert_eq!(guests.may_forget(local, anonymous), forgets, "{guests:?} {local}");
        }
    }

    #[test]
    fn a_client_on_this_machine_asks_for_loopback_and_comes_through_no_proxy() {
        let with = |version: Version, pairs: &[(&'static str, &str)], peer: &str| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            is_local(version, &headers.collect(), peer.parse().unwrap())
        };
        let from = |host: &str, peer| with(Version::HTTP_11, &[("host", host)], peer);
        for host in ["localhost:8080", "LOCALHOST", "127.0.0.1:8080", "[::1]:8080", "127.0.1.1"] {
            assert!(from(host, "127.0.0.1:5"), "{host}");
        }
        for peer in ["[::1]:5", "[::ffff:127.0.0.1]:5"] {
            assert!(from("localhost", peer), "{peer}");
        }
        assert!(!from("localhost", "192.0.2.7:5"));
        for host in
            ["plant.example", "box-3:8080", "192.168.1.20:8080", "", "localhost.plant", "[::1"]
        {
            assert!(!from(host, "127.0.0.1:5"), "{host}");
        }
        let more = |header, value| {
            with(Version::HTTP_11, &[("host", "127.0.0.1:8080"), (header, value)], "127.0.0.1:5")
        };
        for header in [
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-real-ip",
            "via",
            "cf-connecting-ip",
        ] {
            assert!(!more(header, "192.0.2.7"), "{header}");
        }
        assert!(more("origin", "http://127.0.0.1:8080") && more("sec-fetch-site", "none"));
        assert!(more("referer", "http://127.0.0.1:8080/"));
        for (header, value) in [
            ("origin", "http://plant.example"),
            ("referer", "http://plant.example/"),
            ("sec-fetch-site", "cross-site"),
        ] {
            assert!(!more(header, value), "{header}");
        }
        let nginx = [("host", "127.0.0.1:8080"), ("connection", "close")];
        assert!(!with(Version::HTTP_10, &nginx, "127.0.0.1:5"));
        assert!(with(Version::HTTP_11, &nginx, "127.0.0.1:5"));
        assert!(with(Version::HTTP_10, &nginx[..1], "127.0.0.1:5"));
    }
}

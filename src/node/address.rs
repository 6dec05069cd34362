//! The broker's address as a user writes it: `mqtt://[user@]host[:port]`.

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Where the broker is: `mqtt://[user@]host[:1883]`, or `mqtts://[user@]host[:8883]` for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Whether the connection uses TLS.
    pub(super) tls: bool,
    /// The user to log in as.
    pub(super) user: Option<String>,
    /// Name or address, IPv6 without brackets.
    pub(super) host: String,
    /// Port; 1883, or 8883 with TLS, where none is written.
    pub(super) port: u16,
}

/// The text is not a broker's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL with a host.
    #[error(
        "`{shown}` is not a broker's address: write mqtt://[user@]host[:1883] or mqtts://…{near}"
    )]
    Malformed {
        /// The text, without what may be a password.
        shown: String,
        /// What may be meant.
        near: String,
    },
    /// A scheme other than `mqtt` and `mqtts`.
    #[error("`{scheme}://` is not supported: write mqtt:// or mqtts://[user@]host[:port]{near}")]
    Scheme {
        /// The scheme.
        scheme: String,
        /// What may be meant.
        near: String,
    },
    /// A password in the address, where everybody on the machine can read it.
    #[error(
        "the broker's address has a password, which `ps` and logs would show: use HUMIDOR_PASSWORD_FILE"
    )]
    Password,
}

impl BrokerAddress {
    /// An address without a user.
    #[must_use]
    pub const fn new(host: String, port: u16) -> Self {
        Self { tls: false, user: None, host, port }
    }

    /// The same for a user.
    #[must_use]
    pub fn of_user(self, user: &str) -> Self {
        Self { user: Some(user.to_owned()), ..self }
    }

    /// Whether the connection uses TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether this is the other one's host and port.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host) && self.port == other.port
    }
}

impl FromStr for BrokerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let malformed = || AddressError::Malformed { shown: shown(text), near: near(text) };
        let (scheme, rest) = text.split_once("://").ok_or_else(malformed)?;
        let tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            other if other.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                return Err(AddressError::Scheme { scheme: other.to_owned(), near: near(text) });
            }
            _ => return Err(malformed()),
        };
        // The last one: a password may have it, and is then not shown.
        let (user, place) =
            rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        if user.is_some_and(|user| user.contains(':')) {
            return Err(AddressError::Password);
        }
        let user = match user.filter(|user| !user.is_empty()) {
            Some(user) => Some(decoded(user).ok_or_else(malformed)?),
            None => None,
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        let (host, port) = split(place).ok_or_else(malformed)?;
        if let Some(part) = too_large(&host) {
            let near = format!("; {part} in {host} is more than 255");
            return Err(AddressError::Malformed { shown: shown(text), near });
        }
        // The system would take it for another address.
        if host.contains('.')
            && host.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && host.parse::<Ipv4Addr>().is_err()
        {
            let near = format!("; {host} is not an address of four numbers");
            return Err(AddressError::Malformed { shown: shown(text), near });
        }
        let port = match port {
            None => default_port(tls),
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(malformed)?,
        };
        Ok(Self { tls, user, host, port })
    }
}

/// Host and port of an authority (RFC 3986, 3.2.2): a name, an IPv4 address, or an IPv6 address in brackets, with a zone
/// after `%25` (RFC 6874) or `%`.
fn split(place: &str) -> Option<(String, Option<&str>)> {
    let Some(inside) = place.strip_prefix('[') else {
        let (host, port) =
            place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)));
        let fits = |c: char| c.is_alphanumeric() || "-._~".contains(c);
        return (!host.is_empty() && host.chars().all(fits)).then(|| (host.to_owned(), port));
    };
    let (address, after) = inside.split_once(']')?;
    let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
    let (ip, zone) = match address.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone.strip_prefix("25").unwrap_or(zone))),
        None => (address, None),
    };
    ip.parse::<Ipv6Addr>().ok()?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    match zone {
        None => Some((ip.to_owned(), port)),
        Some(zone) if !zone.is_empty() && zone.chars().all(fits) => {
            Some((format!("{ip}%{zone}"), port))
        }
        Some(_) => None,
    }
}

/// The number of an IPv4 address that cannot be one; the look-up of such a name would only fail.
fn too_large(host: &str) -> Option<&str> {
    let parts: Vec<&str> = host.split('.').collect();
    let is_dotted = parts.len() == 4
        && parts
            .iter()
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let part = parts.into_iter().find(|part| part.parse::<u8>().is_err());
    part.filter(|_| is_dotted && host.parse::<Ipv4Addr>().is_err())
}

/// A user's name with its percent-encoded bytes decoded (RFC 3986, 2.1); `None` when that is no text without control
/// characters.
fn decoded(user: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(user.len());
    let mut rest = user.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let [high, low, after @ ..] = after else { return None };
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok().filter(|user| !user.chars().any(char::is_control))
}

/// What an error may show of an address: nothing of what is before its last `@`, which may be a password.
pub(super) fn shown(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, rest)), Some((_, place))) if rest.contains('@') => {
            format!("{scheme}://…@{place}")
        }
        (_, Some((_, place))) => format!("…@{place}"),
        _ => text.to_owned(),
    }
}

/// The address that is meant where the scheme is missing or another program's; empty when there is none.
fn near(text: &str) -> String {
    let lacks_slashes = |(scheme, place): &(&str, &str)| {
        ["mqtt", "mqtts"].contains(&scheme.to_ascii_lowercase().as_str())
            // A host may have this name.
            && place.bytes().any(|byte| !byte.is_ascii_digit())
    };
    let (scheme, place) = text
        .split_once("//")
        .or_else(|| text.split_once(':').filter(lacks_slashes))
        .unwrap_or(("mqtt", text));
    let scheme = match scheme.trim_end_matches(':').to_ascii_lowercase().as_str() {
        "mqtts" | "ssl" | "tls" | "https" | "wss" | "mqtt+ssl" | "mqtt+tls" => "mqtts",
        _ => "mqtt",
    };
    let place = place.trim_start_matches('/');
    let place = place.split_once('/').map_or(place, |(place, _)| place);
    let meant = format!("{scheme}://{place}");
    if place.contains('@') || meant == text || meant.parse::<BrokerAddress>().is_err() {
        return String::new();
    }
    format!("; did you mean `{meant}`?")
}

const fn default_port(tls: bool) -> u16 {
    if tls { 8883 } else { 1883 }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        write!(f, "{scheme}://")?;
        if let Some(user) = &self.user {
            for byte in user.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    f.write_char(char::from(byte))?;
                } else {
                    write!(f, "%{byte:02X}")?;
                }
            }
            f.write_char('@')?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host.replace('%', "%25"), self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_address_is_read_with_its_defaults() {
        let address: BrokerAddress = "mqtt://box@hall-3".parse().unwrap();
        assert_eq!(address.to_string(), "mqtt://box@hall-3:1883");
        let tls: BrokerAddress = "mqtts://hall-3".parse().unwrap();
        assert_eq!(tls.to_string(), "mqtts://hall-3:8883");
        let v6: BrokerAddress = "mqtt://[fd00::7]:2883".parse().unwrap();
        assert_eq!((v6.host.as_str(), v6.port), ("fd00::7", 2883));
        let encoded: BrokerAddress = "mqtt://kim%40plant%3A2@hall".parse().unwrap();
        assert_eq!(encoded.user.as_deref(), Some("kim@plant:2"));
        assert_eq!(encoded.to_string(), "mqtt://kim%40plant%3A2@hall:1883");
        for zone in ["mqtt://[fe80::1%25eth0]", "mqtt://[fe80::1%eth0]"] {
            let zone: BrokerAddress = zone.parse().unwrap();
            assert_eq!(zone.host, "fe80::1%eth0");
            assert_eq!(zone.to_string(), "mqtt://[fe80::1%25eth0]:1883");
        }
        for wrong in [
            "mqtt://kim%4@hall",
            "mqtt://kim%0A@hall",
            "mqtt://[fe80::1%25]",
            "mqtt://[fe80::1",
            "mqtt://h?x",
            "mqtt://h:1883:1",
            "",
            "hall-3",
            "hall-3:1883",
            "http://hall-3",
            "mqtt://",
            "mqtt://a:b@h",
            "mqtt://h:0",
            "mqtt://h:99999",
            "mqtt://h/x",
        ] {
            assert!(wrong.parse::<BrokerAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_error_shows_a_password_and_each_shows_what_is_meant() {
        for text in [
            "mqtt://user:S3cret/pw@host",
            "mqtt://user:S3cret@pw@host/x",
            "user:S3cret@host",
            "http://user:S3cret@host",
            "mqtt:/user:S3cret@host",
        ] {
            let error = text.parse::<BrokerAddress>().unwrap_err().to_string();
            assert!(!error.contains("S3cret"), "{error}");
        }
        for (text, meant) in [
            ("192.168.1.20", "mqtt://192.168.1.20"),
            ("hall:1884", "mqtt://hall:1884"),
            ("tcp://hall:1883", "mqtt://hall:1883"),
            ("http://hall/", "mqtt://hall"),
            ("ssl://hall", "mqtts://hall"),
            ("mqtt//hall", "mqtt://hall"),
            ("mqtt://hall/topic", "mqtt://hall"),
        ] {
            let error = text.parse::<BrokerAddress>().unwrap_err().to_string();
            assert!(error.ends_with(&format!("did you mean `{meant}`?")), "{text}: {error}");
        }
    }
}

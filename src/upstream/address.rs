//! The address of PostgreSQL as a user writes it: `postgres://user@host[,host…][:port]/database`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// PostgreSQL's port.
const DEFAULT_PORT: u16 = 5432;
/// Most hosts of one address.
const HOSTS_MAX: usize = 16;

/// Where the upstream database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamAddress {
    /// The user to log in as.
    pub user: String,
    /// Name or address of each server (IPv6 without brackets), and its port.
    pub hosts: Vec<(String, u16)>,
    /// The database.
    pub database: String,
}

/// The text is not such an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not of the form.
    #[error(
        "`{shown}` is not a PostgreSQL address: write postgres://user@host[,host…][:port]/database"
    )]
    Malformed {
        /// The text, without what may be a password.
        shown: String,
    },
    /// A password in the address, where everybody on the machine can read it.
    #[error(
        "the PostgreSQL address has a password, which `ps` and logs would show: use HUMIDOR_UPSTREAM_PASSWORD_FILE"
    )]
    Password,
    /// Parameters, which libpq takes.
    #[error(
        "a PostgreSQL address takes no parameters (`?{0}`): HUMIDOR_UPSTREAM_CA and HUMIDOR_UPSTREAM_TLS are for TLS"
    )]
    Parameters(String),
}

impl UpstreamAddress {
    /// Whether every server is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.hosts.iter().all(|(host, _)| {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        })
    }
}

impl FromStr for UpstreamAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let malformed = || {
            let shown = text.rsplit_once('@').map_or(text, |(_, place)| place);
            AddressError::Malformed { shown: shown.chars().take(200).collect() }
        };
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .ok_or_else(malformed)?;
        // The last one: a password may have it.
        let (user, place) = rest.rsplit_once('@').ok_or_else(malformed)?;
        if user.contains(':') {
            return Err(AddressError::Password);
        }
        let (hosts, database) = place.split_once('/').ok_or_else(malformed)?;
        if let Some((_, parameters)) = database.split_once('?') {
            return Err(AddressError::Parameters(parameters.to_owned()));
        }
        let is_name = |text: &str| {
            !text.is_empty() && !text.chars().any(|c| c.is_control() || "/%@:?#".contains(c))
        };
        if !is_name(user) || !is_name(database) {
            return Err(malformed());
        }
        let hosts: Option<Vec<_>> = hosts.split(',').map(|host| split(host.trim())).collect();
        let hosts = hosts.filter(|hosts| hosts.len() <= HOSTS_MAX).ok_or_else(malformed)?;
        // A port behind the list is that of all.
        let only_last = hosts.iter().rev().skip(1).all(|(_, port)| port.is_none());
        let of_all = hosts.last().and_then(|(_, port)| *port).filter(|_| only_last);
        let hosts = hosts
            .into_iter()
            .map(|(host, port)| (host, port.or(of_all).unwrap_or(DEFAULT_PORT)))
            .collect();
        Ok(Self { user: user.to_owned(), hosts, database: database.to_owned() })
    }
}

/// A host and its port: a name, an IPv4 address, or an IPv6 address in brackets.
fn split(place: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(inside) => {
            let (host, port) = inside.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let fits = |c: char| c.is_alphanumeric() || "-._:".contains(c);
    if host.is_empty() || !host.chars().all(fits) {
        return None;
    }
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
        None => None,
    };
    Some((host.to_owned(), port))
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", self.user)?;
        for (n, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            if host.contains(':') {
                write!(f, "{comma}[{host}]:{port}")?;
            } else {
                write!(f, "{comma}{host}:{port}")?;
            }
        }
        write!(f, "/{}", self.database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match text.parse::<UpstreamAddress>() {
            Ok(address) => address.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn hosts_have_their_own_port_or_the_one_behind_the_list() {
        for (written, meant) in [
            ("postgres://u@pg/d", "postgres://u@pg:5432/d"),
            ("postgresql://u@a,b,c/d", "postgres://u@a:5432,b:5432,c:5432/d"),
            ("postgres://u@a,b:6432/d", "postgres://u@a:6432,b:6432/d"),
            ("postgres://u@a:1,b,c:3/d", "postgres://u@a:1,b:5432,c:3/d"),
            ("postgres://u@[::1]:7,10.0.0.2/d", "postgres://u@[::1]:7,10.0.0.2:5432/d"),
        ] {
            assert_eq!(shown(written), meant);
        }
    }

    #[test]
    fn a_mistake_is_said_and_a_password_is_not_shown() {
        for wrong in [
            "pg1/humidor",
            "mysql://u@a/d",
            "postgres://a/d",
            "postgres://u@/d",
            "postgres://u@a",
            "postgres://u@a/",
            "postgres://u@a:0/d",
            "postgres://u@a:x/d",
            "postgres://u@a,,b/d",
            "postgres://u@[::1/d",
        ] {
            assert!(shown(wrong).contains("is not a PostgreSQL address"), "{}", shown(wrong));
        }
        for secret in ["postgres://u:hush@a/d", "postgre://u:hush@a/d"] {
            assert!(!shown(secret).contains("hush"), "{}", shown(secret));
        }
        assert!(shown("postgres://u:hush@a/d").contains("HUMIDOR_UPSTREAM_PASSWORD_FILE"));
        assert!(shown("postgres://u@a/d?sslmode=off").contains("HUMIDOR_UPSTREAM_TLS"));
    }

    #[test]
    fn loopback_is_loopback_only_when_all_hosts_are() {
        let is_loopback = |text: &str| text.parse::<UpstreamAddress>().unwrap().is_loopback();
        assert!(is_loopback("postgres://u@localhost,127.0.0.2,[::1]/d"));
        assert!(!is_loopback("postgres://u@localhost,pg2/d"));
    }
}

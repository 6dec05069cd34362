//! The broker's address as a user writes it: `mqtt://[user@]host[:port]`.

use std::fmt;
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
    #[error("`{0}` is not a broker's address: write mqtt://[user@]host[:1883] or mqtts://…")]
    Malformed(String),
    /// A scheme other than `mqtt` and `mqtts`.
    #[error("`{0}://` is not supported: write mqtt:// or mqtts://[user@]host[:port]")]
    Scheme(String),
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

    /// Whether the connection uses TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }
}

impl FromStr for BrokerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        let uri: http::Uri = text.parse().map_err(|_| malformed())?;
        let tls = match uri.scheme_str() {
            Some("mqtt") => false,
            Some("mqtts") => true,
            Some(other) => return Err(AddressError::Scheme(other.to_owned())),
            None => return Err(malformed()),
        };
        let authority = uri.authority().ok_or_else(malformed)?;
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user.to_owned());
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err(AddressError::Password);
        }
        if authority.host().is_empty() || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(malformed());
        }
        // `authority.port()` is also `None` for a port that is no port, so the text decides.
        let after_user = authority.as_str().rsplit('@').next().unwrap_or_default();
        let port = match after_user.strip_prefix(authority.host()) {
            Some("") => default_port(tls),
            Some(rest) => rest
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port > 0)
                .ok_or_else(malformed)?,
            None => return Err(malformed()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { tls, user: user.filter(|user| !user.is_empty()), host, port })
    }
}

const fn default_port(tls: bool) -> u16 {
    if tls { 8883 } else { 1883 }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        if self.host.contains(':') {
            write!(f, "{scheme}://{user}[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{user}{}:{}", self.host, self.port)
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
        for wrong in [
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
}

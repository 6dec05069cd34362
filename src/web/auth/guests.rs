//! Guests: clients without a login, and what `HUMIDOR_HTTP_GUESTS` allows them.

use std::net::SocketAddr;

use axum::http::header::{FORWARDED, HeaderMap, HeaderName};

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

/// Permissions of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestPermissions {
    /// Whether the guest may read the log and the boards.
    pub read: bool,
    /// Whether the guest may switch outputs.
    pub switch: bool,
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

    /// Permissions of a guest. `local`: the client is on this machine. `anonymous`: MQTT clients need no login.
    pub const fn permissions(self, local: bool, anonymous: bool) -> GuestPermissions {
        let (read, switch) = match self {
            Self::None => (false, false),
            Self::Local => (local, local && anonymous),
            Self::Read => (true, local && anonymous),
            Self::Switch => (true, true),
        };
        GuestPermissions { read, switch }
    }
}

/// Whether the client is on this machine. A proxy on this machine passes requests of others on and adds a header
/// that says so.
pub fn is_local(headers: &HeaderMap, peer: SocketAddr) -> bool {
    let proxied = headers.contains_key(FORWARDED)
        || ["x-forwarded-for", "x-real-ip", "via"]
            .iter()
            .any(|name| headers.contains_key(HeaderName::from_static(name)));
    !proxied && peer.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_switches_only_where_that_is_allowed_without_a_login() {
        for (guests, local, anonymous, read, switch) in [
            (Guests::None, true, true, false, false),
            (Guests::Local, true, true, true, true),
            (Guests::Local, true, false, true, false),
            (Guests::Local, false, true, false, false),
            (Guests::Read, true, true, true, true),
            (Guests::Read, true, false, true, false),
            (Guests::Read, false, true, true, false),
            (Guests::Switch, false, false, true, true),
        ] {
            let permissions = guests.permissions(local, anonymous);
            assert_eq!(permissions, GuestPermissions { read, switch }, "{guests:?} {local}");
        }
    }

    #[test]
    fn a_proxied_request_is_not_local() {
        let local = |pairs: &[(&'static str, &str)], peer: &str| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            is_local(&headers.collect(), peer.parse().unwrap())
        };
        assert!(local(&[], "127.0.0.1:5"));
        assert!(local(&[], "[::1]:5"));
        assert!(local(&[], "[::ffff:127.0.0.1]:5"));
        assert!(!local(&[], "192.0.2.7:5"));
        for header in ["forwarded", "x-forwarded-for", "x-real-ip", "via"] {
            assert!(!local(&[(header, "192.0.2.7")], "127.0.0.1:5"), "{header}");
        }
    }
}

//! Limits on clients: connections and rates, and which addresses count as one client.

use std::net::{IpAddr, Ipv6Addr};

/// The limits that an operator sets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Clients at once. Each costs a few kilobytes and a file descriptor.
    pub connections: usize,
    /// Clients at once from one address (IPv6: one /64). All clients behind an address translation, a
    /// container engine's too, count as one address.
    pub connections_per_address: usize,
    /// Clients at once of one user.
    pub connections_per_user: usize,
    /// Levels of a topic filter that a client subscribes to.
    pub filter_levels: usize,
    /// PUBLISH packets a second that are read from one client; 0 is no limit.
    pub messages_per_second: u32,
    /// Bytes a second that are read from one client; 0 is no limit.
    pub bytes_per_second: u32,
    /// Series of the log, sensors and fields of foreign topics, that the clients of one user may begin.
    pub series: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2000,
            connections_per_address: 1500,
            connections_per_user: 1500,
            filter_levels: 32,
            messages_per_second: 0,
            bytes_per_second: 0,
            series: 5000,
        }
    }
}

/// The address that counts as one client: an IPv4 address, or the /64 of an IPv6 address, which one site has.
#[must_use]
pub fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_an_address_or_the_network_of_one_site() {
        let of = |text: &str| origin(text.parse().unwrap());
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.2"), of("192.0.2.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
    }
}

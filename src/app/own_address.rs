//! The address under which other machines reach this one, for lines that a user copies to a board.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

/// Files by which Docker and Podman mark a container.
const CONTAINER_MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// The address that this machine sends from. Connecting a datagram socket sends nothing; the target is
/// from the block that is reserved for documentation (RFC 5737).
///
/// In a container it is `None`: the address there is the engine's, which no board reaches.
pub fn own_address() -> Option<IpAddr> {
    if CONTAINER_MARKS.iter().any(|mark| Path::new(mark).exists()) {
        return None;
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

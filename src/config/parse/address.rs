//! Addresses to listen on, and names of hosts.

use std::net::SocketAddr;

use super::list;

/// An IP address with a port to listen on; `port` is for the example in the message.
///
/// # Errors
/// When it is no such address.
pub fn listen(text: &str, port: u16) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not an IP address with a port, such as 0.0.0.0:{port}"))
}

/// As [`listen`], or `off`.
///
/// # Errors
/// When it is no such address, and not `off`.
pub fn listen_or_off(text: &str, port: u16) -> Result<Option<SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| {
            format!(
                "`{text}` is neither an IP address with a port, such as 0.0.0.0:{port}, nor off"
            )
        }),
    }
}

/// Comma-separated host names without ports.
///
/// # Errors
/// The first that is none.
pub fn host_names(text: &str) -> Result<Vec<String>, String> {
    list(text, |name| {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        if name.chars().all(fits) {
            Ok(name.to_owned())
        } else {
            Err("write a host name without port: plant.example.org".to_owned())
        }
    })
}

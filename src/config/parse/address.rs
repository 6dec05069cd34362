//! Addresses to listen on, and names of hosts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::list;

/// An IP address with a port to listen on; `port` is for the example in the message.
///
/// # Errors
/// When it is no such address.
pub fn listen(text: &str, port: u16) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let near = near(text, port);
        format!("`{text}` is not an IP address with a port, such as 0.0.0.0:{port}{near}")
    })
}

/// The address that is meant where a part is missing; empty when there is none.
fn near(text: &str, port: u16) -> String {
    let host = |host: &str| match host {
        "" | "*" => Some(Ipv4Addr::UNSPECIFIED.into()),
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        host => host.trim_matches(['[', ']']).parse::<IpAddr>().ok(),
    };
    let text = text.trim();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    let meant = match (text.parse(), text.rsplit_once(':')) {
        (Ok(port), _) => Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)),
        (_, Some((before, after))) if host(text).is_none() => {
            host(before).zip(after.parse().ok()).map(SocketAddr::from)
        }
        _ => host(text).map(|ip| SocketAddr::new(ip, port)),
    };
    meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default()
}

/// As [`listen`], or `off`.
///
/// # Errors
/// When it is no such address, and not `off`.
pub fn listen_or_off(text: &str, port: u16) -> Result<Option<SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| {
            let near = match text {
                "no" | "none" | "false" => "; did you mean `off`?".to_owned(),
                _ => near(text, port),
            };
            format!("`{text}` is neither an IP address with a port, such as 0.0.0.0:{port}, nor off{near}")
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
            let meant = name.split_once("://").map_or(name, |(_, rest)| rest);
            let meant = meant.split([':', '/']).next().unwrap_or_default();
            let is_name = !meant.is_empty() && meant.chars().all(fits);
            let near = if is_name { format!("; did you mean `{meant}`?") } else { String::new() };
            Err(format!("write a host name without port: plant.example.org{near}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_part_gets_the_whole_one() {
        for (written, meant) in [
            ("1883", "0.0.0.0:1883"),
            (":1884", "0.0.0.0:1884"),
            ("*:1884", "0.0.0.0:1884"),
            ("localhost:1884", "127.0.0.1:1884"),
            ("localhost", "127.0.0.1:1883"),
            ("192.168.1.20", "192.168.1.20:1883"),
            ("::1", "[::1]:1883"),
            ("mqtt://192.168.1.20:1884/", "192.168.1.20:1884"),
        ] {
            let error = listen(written, 1883).unwrap_err();
            assert!(error.ends_with(&format!("did you mean `{meant}`?")), "{written}: {error}");
        }
        assert!(!listen("hall:1883", 1883).unwrap_err().contains("did you mean"));
    }
}

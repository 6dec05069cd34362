//! What a service manager hears of a role, by the protocol of `sd_notify(3)`: systemd, and Podman for a container. Where none
//! listens, nothing is sent.
//!
//! Not by the crate sd-notify 0.5: it waits for a manager that does not read, and knows no abstract sockets.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

/// Shortest time between two signs of life.
const SHORTEST_BEAT: Duration = Duration::from_millis(10);

/// The role has started. A node is ready before its broker has answered: a network that is away is no reason for a service
/// manager to give up, or to go back to the image before.
pub fn ready() {
    if let Err(error) = tell("READY=1") {
        warn!(%error, "NOTIFY_SOCKET: the service manager cannot be told that this is ready");
    }
}

/// The role ends after a signal.
pub fn stopping() {
    // It has asked for that itself.
    let _ = tell("STOPPING=1");
}

/// Says from time to time that the role is alive, where the service manager waits for it (`WatchdogSec=`).
pub fn keep_alive() {
    let variable = |name| env::var(name).ok();
    let own = std::process::id();
    let Some(limit) =
        watchdog(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), own)
    else {
        return;
    };
    tokio::spawn(async move {
        // Half the limit, as sd_watchdog_enabled(3) recommends.
        let mut beat = tokio::time::interval((limit / 2).max(SHORTEST_BEAT));
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            // The next one may arrive.
            let _ = tell("WATCHDOG=1");
        }
    });
}

/// The time after which a manager takes process `own` for dead, by its variables (`sd_watchdog_enabled(3)`).
fn watchdog(microseconds: Option<&str>, process: Option<&str>, own: u32) -> Option<Duration> {
    if process.is_some_and(|process| process.parse() != Ok(own)) {
        return None;
    }
    microseconds?.parse().ok().filter(|limit| *limit > 0).map(Duration::from_micros)
}

/// Sends one message, or gives up at once: a manager that does not read holds nothing up.
fn tell(state: &str) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let address = match name.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_a_time_above_zero_for_this_process() {
        let limit = Some(Duration::from_millis(500));
        for (time, process, expected) in [
            (Some("500000"), None, limit),
            (Some("500000"), Some("7"), limit),
            (Some("500000"), Some("8"), None),
            (Some("500000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
            (None, Some("7"), None),
        ] {
            assert_eq!(watchdog(time, process, 7), expected, "{time:?} {process:?}");
        }
    }
}

//! What a service manager hears of a role, by the protocol of `sd_notify(3)`: systemd, and Podman for a container. Where none
//! listens, nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// Shortest time between two signs of life.
const SHORTEST_BEAT: Duration = Duration::from_millis(10);

/// The role has started. A node is ready before its broker has answered: a network that is away is no reason for a service
/// manager to give up, or to go back to the image before.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The role ends after a signal.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says from time to time that the role is alive, where the service manager waits for it (`WatchdogSec=`).
pub fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    tokio::spawn(async move {
        // Half the limit, as sd_watchdog_enabled(3) recommends; an interval of nothing cannot be.
        let mut beat = tokio::time::interval((limit / 2).max(SHORTEST_BEAT));
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    });
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "the service manager cannot be told");
    }
}

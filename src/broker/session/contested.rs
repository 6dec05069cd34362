//! Client ids that two clients use: each connects, and the broker ends the other one's connection ([MQTT-3.1.4-2]).

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::throttled_log::ThrottledLogs;

/// So many take-overs within this time are those of two clients. One that restarts takes its own connection over, too.
const TAKE_OVERS: usize = 3;
const WITHIN: Duration = Duration::from_mins(5);
/// Client ids whose take-overs are counted. Those of further ones are not.
const CLIENT_IDS: usize = 256;
/// The line of one client id comes at most this often.
const LINE_INTERVAL: Duration = Duration::from_mins(10);

/// The latest take-overs of each client id.
#[derive(Debug)]
pub struct Contested {
    by_client: Mutex<HashMap<String, VecDeque<(Instant, IpAddr)>>>,
    lines: ThrottledLogs,
}

impl Default for Contested {
    fn default() -> Self {
        Self { by_client: Mutex::default(), lines: ThrottledLogs::new(LINE_INTERVAL) }
    }
}

impl Contested {
    /// Notes that a client at `peer` took `client_id` over; logs it where it looks like two clients.
    pub fn taken_over(&self, client_id: &str, peer: IpAddr) {
        let now = Instant::now();
        let Some(addresses) = self.note(client_id, peer, now) else { return };
        if let Some(left_out) = self.lines.due(client_id, now) {
            warn!(
                client = ?client_id, ?addresses, left_out,
                "two clients use this client id and take each other's connection, or one loses its connection again and again; give each board its own HUMIDOR_NODE"
            );
        }
    }

    /// The addresses of the latest take-overs, when there are enough of them.
    fn note(&self, client_id: &str, peer: IpAddr, now: Instant) -> Option<Vec<IpAddr>> {
        let recent = |at: Instant| now.saturating_duration_since(at) < WITHIN;
        let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        if by_client.len() >= CLIENT_IDS && !by_client.contains_key(client_id) {
            by_client.retain(|_, times| times.back().is_some_and(|(at, _)| recent(*at)));
            if by_client.len() >= CLIENT_IDS {
                return None;
            }
        }
        let times = by_client.entry(client_id.to_owned()).or_default();
        times.push_back((now, peer));
        while times.len() > TAKE_OVERS || times.front().is_some_and(|(at, _)| !recent(*at)) {
            times.pop_front();
        }
        let mut addresses: Vec<IpAddr> = times.iter().map(|(_, peer)| *peer).collect();
        addresses.sort_unstable();
        addresses.dedup();
        (times.len() == TAKE_OVERS).then_some(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_take_overs_in_a_short_time_are_those_of_two_clients() {
        let (start, contested) = (Instant::now(), Contested::default());
        let (one, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let note = |seconds, peer| contested.note("a", peer, start + Duration::from_secs(seconds));
        assert_eq!((note(0, one), note(10, other)), (None, None));
        assert_eq!(note(20, one), Some(vec![one, other]));
        assert_eq!(note(320, one), None, "the earlier ones are long ago");
    }

    #[test]
    fn client_ids_are_bounded_and_old_ones_make_room() {
        let (start, contested) = (Instant::now(), Contested::default());
        for n in 0..2 * CLIENT_IDS {
            contested.note(&n.to_string(), [192, 0, 2, 1].into(), start);
        }
        assert_eq!(contested.by_client.lock().unwrap().len(), CLIENT_IDS);
        contested.note("new", [192, 0, 2, 1].into(), start + WITHIN);
        assert_eq!(contested.by_client.lock().unwrap().len(), 1);
    }
}

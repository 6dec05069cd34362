//! The MQTT clients that were refused lately and not admitted since, for the operator: a board that nobody lets in would
//! else be seen in the broker's log alone.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::refusals::Cause;
use super::start;
use crate::broker::net::limits::origin;
use crate::clock;

/// Clients that are kept. The one refused longest ago makes room.
const CLIENTS_MAX: usize = 64;
/// Clients of one address (IPv6: of one /64): one that makes names up leaves those of others.
const CLIENTS_PER_ADDRESS_MAX: usize = 16;
/// How long a client is kept after its last refusal. A board tries again each minute.
const KEPT_FOR: Duration = Duration::from_mins(10);

/// A client that was refused.
#[derive(Debug, Clone)]
pub struct RefusedClient {
    /// Its client id; the first bytes of a long one.
    pub client_id: String,
    /// The user that it named, likewise; empty: none.
    pub user: String,
    /// Where it connects from.
    pub address: IpAddr,
    /// Why it was refused the last time.
    pub cause: Cause,
    /// Refusals for this cause.
    pub count: u64,
    /// When the last one was, Unix ms UTC.
    pub at_ms: i64,
    last: Instant,
}

/// The clients, the one refused last at the end.
#[derive(Debug, Default)]
pub(super) struct RefusedClients(Mutex<Vec<RefusedClient>>);

impl RefusedClients {
    /// Notes a refusal.
    pub fn note(&self, address: IpAddr, client_id: &str, user: &str, cause: Cause, now: Instant) {
        let (client_id, user) = (start(client_id), start(user));
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop_old(&mut clients, now);
        let same =
            |client: &RefusedClient| client.address == address && client.client_id == client_id;
        let known = clients.iter().position(same).map(|at| clients.remove(at));
        let count = known.filter(|known| known.cause == cause && known.user == user);
        let count = count.map_or(0, |known| known.count).saturating_add(1);
        let of_address = |client: &RefusedClient| origin(client.address) == origin(address);
        if clients.iter().filter(|client| of_address(client)).count() >= CLIENTS_PER_ADDRESS_MAX {
            let oldest = clients.iter().position(of_address);
            oldest.map(|oldest| clients.remove(oldest));
        } else if clients.len() >= CLIENTS_MAX {
            clients.remove(0);
        }
        let (client_id, user) = (client_id.to_owned(), user.to_owned());
        let at_ms = clock::unix_ms();
        clients.push(RefusedClient { client_id, user, address, cause, count, at_ms, last: now });
    }

    /// Notes that a client was admitted.
    pub fn admitted(&self, address: IpAddr, client_id: &str) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|client| client.address != address || client.client_id != start(client_id));
    }

    /// The clients, the one refused last first.
    pub fn list(&self, now: Instant) -> Vec<RefusedClient> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop_old(&mut clients, now);
        clients.iter().rev().cloned().collect()
    }
}

fn drop_old(clients: &mut Vec<RefusedClient>, now: Instant) {
    clients.retain(|client| now.saturating_duration_since(client.last) < KEPT_FOR);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_kept_with_its_last_cause_until_it_is_admitted_or_gone() {
        let (clients, start) = (RefusedClients::default(), Instant::now());
        let address = IpAddr::from([192, 0, 2, 7]);
        let later = |minutes| start + Duration::from_mins(minutes);
        clients.note(address, "humidor-pi4", "plant", Cause::UnknownUser, start);
        clients.note(address, "humidor-pi4", "plant", Cause::WrongPassword, later(1));
        clients.note(address, "humidor-pi4", "plant", Cause::WrongPassword, later(2));
        clients.note(address, "humidor-oven", "", Cause::NoLogin, later(3));
        let found = clients.list(later(3));
        let shown: Vec<_> = found.iter().map(|c| (&*c.client_id, c.cause, c.count)).collect();
        assert_eq!(
            shown,
            [("humidor-oven", Cause::NoLogin, 1), ("humidor-pi4", Cause::WrongPassword, 2)]
        );
        clients.admitted(address, "humidor-oven");
        assert_eq!(clients.list(later(3)).len(), 1);
        assert_eq!(clients.list(later(12)).len(), 0);
    }

    #[test]
    fn an_address_that_makes_names_up_leaves_those_of_others() {
        let (clients, now) = (RefusedClients::default(), Instant::now());
        let other = IpAddr::from([192, 0, 2, 1]);
        clients.note(other, "humidor-pi4", "plant", Cause::WrongPassword, now);
        for n in 0..1_000 {
            let name = format!("{n}-{}", "온".repeat(100));
            clients.note([192, 0, 2, 2].into(), &name, &name, Cause::UnknownUser, now);
        }
        let found = clients.list(now);
        assert_eq!(found.len(), CLIENTS_PER_ADDRESS_MAX + 1);
        assert_eq!(found.last().unwrap().client_id, "humidor-pi4");
        assert!(found.iter().all(|client| client.user.len() <= 64));
        for n in 0..1_000 {
            // Of one site.
            let from = format!("2001:db8::{n:x}:1").parse().unwrap();
            clients.note(from, "humidor-x", "", Cause::NoLogin, now);
        }
        assert_eq!(clients.list(now).len(), 2 * CLIENTS_PER_ADDRESS_MAX + 1);
        for n in 0..=255 {
            clients.note([192, 0, 2, n].into(), "humidor-x", "", Cause::NoLogin, now);
        }
        assert_eq!(clients.list(now).len(), CLIENTS_MAX);
    }
}

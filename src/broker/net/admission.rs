//! Connections that have not said who they are yet, and the places of those that have: bounded in all and by
//! address. Who is slow to say makes way for who comes, so that a flood of silent sockets keeps nobody out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::broker::net::limits::{Limits, origin};

/// Connections without a CONNECT, TLS handshakes among them: in all, and of one address. Each may hold a
/// handshake's 20 KiB.
pub const UNNAMED: usize = 256;
pub const UNNAMED_PER_ADDRESS: usize = 128;

#[derive(Debug, Default)]
struct Table {
    /// By age; the sender tells it to go.
    unnamed: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
    unnamed_of: HashMap<IpAddr, usize>,
    seated: usize,
    seated_of: HashMap<IpAddr, usize>,
    tickets: u64,
}

impl Table {
    fn leave(&mut self, ticket: u64) {
        if let Some((origin, _)) = self.unnamed.remove(&ticket) {
            count_down(&mut self.unnamed_of, origin);
        }
    }
}

fn count_down(counts: &mut HashMap<IpAddr, usize>, origin: IpAddr) {
    if let Some(count) = counts.get_mut(&origin) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&origin);
        }
    }
}

/// Who has come.
#[derive(Debug, Clone)]
pub struct Lobby {
    table: Arc<Mutex<Table>>,
    limits: Limits,
}

/// There is no place for another client, or none for another from its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all places for clients are taken")]
pub struct Full;

/// A connection's place. Dropping it leaves.
#[derive(Debug)]
pub struct Visitor {
    lobby: Lobby,
    origin: IpAddr,
    ticket: u64,
    evicted: oneshot::Receiver<()>,
    seated: bool,
}

impl Lobby {
    /// Nobody has come yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { table: Arc::default(), limits }
    }

    /// Somebody has come. Where there is no room, the one who has been silent for longest goes.
    #[must_use]
    pub fn enter(&self, from: IpAddr) -> Visitor {
        let origin = origin(from);
        let (evict, evicted) = oneshot::channel();
        let mut table = self.lock();
        let crowded = table.unnamed_of.get(&origin).is_some_and(|n| *n >= UNNAMED_PER_ADDRESS);
        if crowded || table.unnamed.len() >= UNNAMED {
            let mut oldest = table.unnamed.iter();
            let oldest = oldest.find(|(_, (who, _))| !crowded || *who == origin);
            if let Some(ticket) = oldest.map(|(ticket, _)| *ticket)
                && let Some((who, evict)) = table.unnamed.remove(&ticket)
            {
                count_down(&mut table.unnamed_of, who);
                let _ = evict.send(());
            }
        }
        table.tickets += 1;
        let ticket = table.tickets;
        table.unnamed.insert(ticket, (origin, evict));
        *table.unnamed_of.entry(origin).or_default() += 1;
        drop(table);
        Visitor { lobby: self.clone(), origin, ticket, evicted, seated: false }
    }

    /// What one client may take from the others.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visitor {
    /// Resolves when it has to make way. Not before it has a seat, and not after.
    pub async fn evicted(&mut self) {
        if self.seated || (&mut self.evicted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Takes a client's place.
    ///
    /// # Errors
    /// When there is none.
    pub fn sit_down(&mut self) -> Result<(), Full> {
        let Limits { connections, connections_per_address, .. } = self.lobby.limits;
        let mut table = self.lobby.lock();
        let of_origin = table.seated_of.get(&self.origin).copied().unwrap_or(0);
        if table.seated >= connections || of_origin >= connections_per_address {
            return Err(Full);
        }
        table.leave(self.ticket);
        table.seated += 1;
        *table.seated_of.entry(self.origin).or_default() += 1;
        drop(table);
        self.seated = true;
        Ok(())
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut table = self.lobby.lock();
        if self.seated {
            table.seated -= 1;
            count_down(&mut table.seated_of, self.origin);
        } else {
            table.leave(self.ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0xc000_0200 + n).into()
    }

    #[tokio::test]
    async fn the_silent_make_way_and_who_has_a_place_keeps_it() {
        let lobby = Lobby::new(Limits { connections: 300, ..Limits::default() });
        let mut named = lobby.enter(address(1));
        named.sit_down().unwrap();
        let mut first = lobby.enter(address(1));
        let mut other = lobby.enter(address(2));
        let crowd: Vec<_> = (0..UNNAMED_PER_ADDRESS).map(|_| lobby.enter(address(1))).collect();
        first.evicted().await;
        assert!(other.evicted.try_recv().is_err(), "another address is not to blame");
        let many: Vec<_> = (3..=130).map(|n| lobby.enter(address(n))).collect();
        other.evicted().await;
        assert_eq!(lobby.lock().unnamed.len(), UNNAMED);
        drop((crowd, many, first, other, named));
        let table = lobby.lock();
        assert!(table.unnamed.is_empty() && table.unnamed_of.is_empty());
        assert!(table.seated == 0 && table.seated_of.is_empty());
    }

    #[test]
    fn places_are_bounded_in_all_and_by_address() {
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let lobby = Lobby::new(limits);
        let sit = |n| {
            let mut visitor = lobby.enter(address(n));
            visitor.sit_down().map(|()| visitor)
        };
        let (one, two) = (sit(1).unwrap(), sit(1).unwrap());
        assert!(sit(1).is_err(), "two of one address");
        let _three = sit(2).unwrap();
        assert!(sit(3).is_err(), "three in all");
        drop(one);
        assert!(sit(3).is_ok());
        drop(two);
    }
}

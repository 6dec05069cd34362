//! Admission: permits for connections without a CONNECT and for clients, bounded in all and by address. A connection
//! that has sent no CONNECT is evicted for a new one, oldest first, so that a flood of silent sockets locks no client
//! out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::broker::net::limits::{Limits, origin};

/// Connections without a CONNECT, TLS handshakes among them: in all, and of one address. Each may hold a
/// handshake's 20 KiB.
pub const WITHOUT_CONNECT: usize = 256;
pub const WITHOUT_CONNECT_PER_ADDRESS: usize = 128;

#[derive(Debug, Default)]
struct Table {
    /// Connections without a CONNECT, by age; the sender evicts.
    waiting: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
    waiting_of: HashMap<IpAddr, usize>,
    admitted: usize,
    admitted_of: HashMap<IpAddr, usize>,
    tickets: u64,
}

impl Table {
    fn leave(&mut self, ticket: u64) {
        if let Some((origin, _)) = self.waiting.remove(&ticket) {
            count_down(&mut self.waiting_of, origin);
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

/// Gives permits to connections.
#[derive(Debug, Clone)]
pub struct Admission {
    table: Arc<Mutex<Table>>,
    limits: Limits,
}

/// The limit of clients is reached, in all or for this address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many clients, in all or from this address")]
pub struct Full;

/// A connection's permit. Dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    admission: Admission,
    origin: IpAddr,
    ticket: u64,
    evicted: oneshot::Receiver<()>,
    admitted: bool,
}

impl Admission {
    /// No connection is open yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { table: Arc::default(), limits }
    }

    /// Permits a new connection. Where there is no room, the connection that has been without a CONNECT for longest is
    /// evicted.
    #[must_use]
    pub fn enter(&self, from: IpAddr) -> Permit {
        let origin = origin(from);
        let (evict, evicted) = oneshot::channel();
        let mut table = self.lock();
        let crowded =
            table.waiting_of.get(&origin).is_some_and(|n| *n >= WITHOUT_CONNECT_PER_ADDRESS);
        if crowded || table.waiting.len() >= WITHOUT_CONNECT {
            let mut oldest = table.waiting.iter();
            let oldest = oldest.find(|(_, (other, _))| !crowded || *other == origin);
            if let Some(ticket) = oldest.map(|(ticket, _)| *ticket)
                && let Some((other, evict)) = table.waiting.remove(&ticket)
            {
                count_down(&mut table.waiting_of, other);
                let _ = evict.send(());
            }
        }
        table.tickets += 1;
        let ticket = table.tickets;
        table.waiting.insert(ticket, (origin, evict));
        *table.waiting_of.entry(origin).or_default() += 1;
        drop(table);
        Permit { admission: self.clone(), origin, ticket, evicted, admitted: false }
    }

    /// Limits on clients.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Resolves when it is evicted; never for the permit of a client.
    pub async fn evicted(&mut self) {
        if self.admitted || (&mut self.evicted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Makes it the permit of a client.
    ///
    /// # Errors
    /// [`Full`] when the limit of clients is reached.
    pub fn admit_client(&mut self) -> Result<(), Full> {
        let Limits { connections, connections_per_address, .. } = self.admission.limits;
        let mut table = self.admission.lock();
        let of_origin = table.admitted_of.get(&self.origin).copied().unwrap_or(0);
        if table.admitted >= connections || of_origin >= connections_per_address {
            return Err(Full);
        }
        table.leave(self.ticket);
        table.admitted += 1;
        *table.admitted_of.entry(self.origin).or_default() += 1;
        drop(table);
        self.admitted = true;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.admission.lock();
        if self.admitted {
            table.admitted -= 1;
            count_down(&mut table.admitted_of, self.origin);
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
    async fn a_new_connection_evicts_the_oldest_without_a_connect_and_never_a_client() {
        let admission = Admission::new(Limits { connections: 300, ..Limits::default() });
        let mut named = admission.enter(address(1));
        named.admit_client().unwrap();
        let mut first = admission.enter(address(1));
        let mut other = admission.enter(address(2));
        let crowd: Vec<_> =
            (0..WITHOUT_CONNECT_PER_ADDRESS).map(|_| admission.enter(address(1))).collect();
        first.evicted().await;
        assert!(other.evicted.try_recv().is_err(), "another address is not evicted");
        let many: Vec<_> = (3..=130).map(|n| admission.enter(address(n))).collect();
        other.evicted().await;
        assert_eq!(admission.lock().waiting.len(), WITHOUT_CONNECT);
        drop((crowd, many, first, other, named));
        let table = admission.lock();
        assert!(table.waiting.is_empty() && table.waiting_of.is_empty());
        assert!(table.admitted == 0 && table.admitted_of.is_empty());
    }

    #[test]
    fn clients_are_bounded_in_all_and_by_address() {
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let admission = Admission::new(limits);
        let admit = |n| {
            let mut permit = admission.enter(address(n));
            permit.admit_client().map(|()| permit)
        };
        let (one, two) = (admit(1).unwrap(), admit(1).unwrap());
        assert!(admit(1).is_err(), "two of one address");
        let _three = admit(2).unwrap();
        assert!(admit(3).is_err(), "three in all");
        drop(one);
        assert!(admit(3).is_ok());
        drop(two);
    }
}

//! Admission of HTTP connections, bounded in number. For a new connection beyond the bound an open one is closed: of the
//! address with the most of them, first those without a request under way, oldest first.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::broker::origin;

/// HTTP connections at once, event streams among them. A browser opens six.
pub const HTTP_CONNECTIONS: usize = 256;

/// What a connection does, in the order in which connections are closed for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No whole head of a request has come since its last answer.
    Idle,
    /// A request is answered; its body may not be whole.
    Asked,
    /// An answer is written, an event stream for example.
    Answering,
}

#[derive(Debug)]
struct Open {
    origin: IpAddr,
    stage: Stage,
    evict: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Table {
    /// By age.
    open: BTreeMap<u64, Open>,
    tickets: u64,
}

impl Table {
    /// The connection that makes room for another one.
    fn to_evict(&self) -> Option<u64> {
        let mut of: HashMap<IpAddr, usize> = HashMap::new();
        for open in self.open.values() {
            *of.entry(open.origin).or_default() += 1;
        }
        let most = of.values().max()?;
        let of_most = self.open.iter().filter(|(_, open)| of.get(&open.origin) == Some(most));
        of_most.min_by_key(|(ticket, open)| (open.stage, **ticket)).map(|(ticket, _)| *ticket)
    }
}

/// Gives permits to connections. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Admission(Arc<Mutex<Table>>);

/// A connection's permit.
#[derive(Debug)]
pub struct Permit {
    admission: Admission,
    ticket: u64,
}

impl Admission {
    /// Permits a connection from an address. The receiver resolves when it has to make room for another one.
    pub fn enter(&self, from: IpAddr) -> (Permit, oneshot::Receiver<()>) {
        let (evict, evicted) = oneshot::channel();
        let mut table = self.lock();
        if table.open.len() >= HTTP_CONNECTIONS
            && let Some(open) = table.to_evict().and_then(|ticket| table.open.remove(&ticket))
        {
            let _ = open.evict.send(());
        }
        table.tickets += 1;
        let ticket = table.tickets;
        let open = Open { origin: origin(from), stage: Stage::Idle, evict };
        table.open.insert(ticket, open);
        drop(table);
        (Permit { admission: self.clone(), ticket }, evicted)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Notes what the connection does.
    pub fn set(&self, stage: Stage) {
        if let Some(open) = self.admission.lock().open.get_mut(&self.ticket) {
            open.stage = stage;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.lock().open.remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_with_the_most_closes_idle_connections_first_and_the_oldest_of_them() {
        let admission = Admission::default();
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let (lone, mut lone_evicted) = admission.enter(address(1));
        let mut crowd: Vec<_> =
            (1..HTTP_CONNECTIONS).map(|_| admission.enter(address(2))).collect();
        crowd[0].0.set(Stage::Answering);
        crowd[1].0.set(Stage::Asked);
        let mut others = Vec::new();
        let mut evicted = |crowd: &mut Vec<(Permit, oneshot::Receiver<()>)>| {
            others.push(admission.enter(address(3)));
            crowd.iter_mut().position(|(_, evicted)| evicted.try_recv().is_ok())
        };
        assert_eq!([(); 2].map(|()| evicted(&mut crowd)), [Some(2), Some(3)]);
        for (permit, _) in &crowd[4..] {
            permit.set(Stage::Answering);
        }
        assert_eq!([(); 2].map(|()| evicted(&mut crowd)), [Some(1), Some(0)], "the latter last");
        assert!(lone_evicted.try_recv().is_err(), "another address is left alone");
        drop((lone, others, crowd));
        assert!(admission.lock().open.is_empty());
    }
}

//! Admission of HTTP connections, bounded in number and in what their clients have not read. For a new connection beyond the
//! bound an open one is closed: of the address with the most of them, first those without a request under way, oldest
//! first. For an answer beyond the bound one is closed whose answer is older, of the user with most bytes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::broker::origin;

/// HTTP connections at once, event streams among them. A browser opens six.
pub const HTTP_CONNECTIONS: usize = 256;

/// Bytes of answers that are made and not written yet, since their clients do not read them. One answer more may be there:
/// the latest.
pub const ANSWER_BYTES: usize = 8 * 1024 * 1024;

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
    /// Whose answer it is: a user's, or its address's.
    holder: Arc<str>,
    /// What is not written of it, in bytes, and its number.
    unread: usize,
    answer: u64,
    evict: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Table {
    /// By age.
    open: BTreeMap<u64, Open>,
    tickets: u64,
    /// Bytes that are not written, of all.
    unread: usize,
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

    /// The connection whose answer makes room for that of `latest`: the oldest answer, of the holder with most bytes.
    fn least_read(&self, latest: u64) -> Option<u64> {
        let mut of: HashMap<&str, usize> = HashMap::new();
        for open in self.open.values() {
            *of.entry(&open.holder).or_default() += open.unread;
        }
        let others =
            self.open.iter().filter(|(ticket, open)| **ticket != latest && open.unread > 0);
        let most =
            others.max_by_key(|(_, open)| (of.get(&*open.holder).copied(), Reverse(open.answer)));
        most.map(|(ticket, _)| *ticket)
    }

    fn close(&mut self, ticket: Option<u64>) {
        if let Some(open) = ticket.and_then(|ticket| self.open.remove(&ticket)) {
            self.unread -= open.unread;
            let _ = open.evict.send(());
        }
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
        if table.open.len() >= HTTP_CONNECTIONS {
            let ticket = table.to_evict();
            table.close(ticket);
        }
        table.tickets += 1;
        let ticket = table.tickets;
        let origin = origin(from);
        let holder = origin.to_string().into();
        let (stage, unread, answer) = (Stage::Idle, 0, 0);
        let open = Open { origin, stage, holder, unread, answer, evict };
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

    /// Notes that an answer begins, to `holder` if its user is known.
    pub fn answers(&self, holder: Option<Arc<str>>) {
        let mut table = self.admission.lock();
        table.tickets += 1;
        let number = table.tickets;
        if let Some(open) = table.open.get_mut(&self.ticket) {
            open.stage = Stage::Answering;
            open.answer = number;
            open.holder = holder.unwrap_or_else(|| open.origin.to_string().into());
        }
    }

    /// Notes that an answer is written, if no other request has come.
    pub fn answered(&self) {
        let mut table = self.admission.lock();
        if let Some(open) = table.open.get_mut(&self.ticket)
            && open.stage == Stage::Answering
        {
            open.stage = Stage::Idle;
        }
    }

    /// Notes so many bytes that are to be written. Where all of them are too many, other connections are closed.
    pub fn add(&self, bytes: usize) {
        let mut table = self.admission.lock();
        if let Some(open) = table.open.get_mut(&self.ticket) {
            open.unread += bytes;
            table.unread += bytes;
        }
        while table.unread > ANSWER_BYTES
            && let Some(other) = table.least_read(self.ticket)
        {
            table.close(Some(other));
        }
    }

    /// Notes so many bytes that are written, or will not be.
    pub fn subtract(&self, bytes: usize) {
        let mut table = self.admission.lock();
        if let Some(open) = table.open.get_mut(&self.ticket) {
            open.unread -= bytes;
            table.unread -= bytes;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.admission.lock();
        if let Some(open) = table.open.remove(&self.ticket) {
            table.unread -= open.unread;
        }
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

    #[test]
    fn the_user_with_most_bytes_unread_loses_its_oldest_answer() {
        const MIB: usize = 1024 * 1024;
        let admission = Admission::default();
        let answer = |holder: &str, bytes| {
            let (permit, evicted) = admission.enter([10, 0, 0, 1].into());
            permit.answers(Some(holder.into()));
            permit.add(bytes);
            (permit, evicted)
        };
        let gone = |answers: &mut Vec<(Permit, oneshot::Receiver<()>)>| -> Vec<usize> {
            let evicted = answers.iter_mut().map(|(_, evicted)| evicted.try_recv().is_ok());
            evicted.enumerate().filter_map(|(at, gone)| gone.then_some(at)).collect()
        };
        let mut modest = answer("alice", MIB);
        let mut greedy: Vec<_> = (0..9).map(|_| answer("mallory", MIB)).collect();
        assert_eq!(gone(&mut greedy), [0, 1]);
        // One of them is read, and makes room.
        greedy[2].0.subtract(MIB);
        greedy.push(answer("mallory", MIB));
        assert!(gone(&mut greedy).is_empty());
        let mut large = answer("bob", 6 * MIB);
        assert_eq!(gone(&mut greedy).len(), 6, "as many as it takes");
        assert!(modest.1.try_recv().is_err() && large.1.try_recv().is_err());
        // The largest there is goes where it is alone.
        let mut own: Vec<_> = (0..2).map(|_| answer("carol", 9 * MIB)).collect();
        assert_eq!(gone(&mut own), [0]);
        drop((modest, greedy, large, own));
        assert_eq!(admission.lock().unread, 0);
    }
}

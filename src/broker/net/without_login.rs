//! The connections without a login: by age and by address, what they hold, and which of them makes room.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// Bytes of the CONNECTs of all. Beyond it the largest is evicted, of the address with most of them.
const CONNECT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of CONNECTs whose connections are evicted and have not ended: beyond it nothing is read.
const LEAVING_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
struct Waiting {
    origin: IpAddr,
    evict: oneshot::Sender<()>,
    since: Instant,
    /// Bytes of its CONNECT.
    bytes: usize,
}

/// All of them, by ticket: a later one has a higher number.
#[derive(Debug, Default)]
pub struct WithoutLogin {
    waiting: BTreeMap<u64, Waiting>,
    of: HashMap<IpAddr, usize>,
    connect_bytes: usize,
    /// Bytes of those that were evicted and have not ended.
    leaving: HashMap<u64, usize>,
    leaving_bytes: usize,
}

impl WithoutLogin {
    /// A new one. `evict` tells it to make room.
    pub fn enter(
        &mut self,
        ticket: u64,
        origin: IpAddr,
        evict: oneshot::Sender<()>,
        since: Instant,
    ) {
        self.waiting.insert(ticket, Waiting { origin, evict, since, bytes: 0 });
        *self.of.entry(origin).or_default() += 1;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many of an address there are.
    pub fn of(&self, origin: IpAddr) -> usize {
        self.of.get(&origin).copied().unwrap_or(0)
    }

    /// Since when it waits.
    pub fn since(&self, ticket: u64) -> Option<Instant> {
        self.waiting.get(&ticket).map(|waiting| waiting.since)
    }

    /// It has a login, or has ended.
    pub fn leave(&mut self, ticket: u64) -> Option<oneshot::Sender<()>> {
        let left = self.waiting.remove(&ticket)?;
        count_down(&mut self.of, &left.origin);
        self.connect_bytes -= left.bytes;
        Some(left.evict)
    }

    /// Has one make room.
    pub fn evict(&mut self, ticket: u64) {
        let bytes = self.waiting.get(&ticket).map_or(0, |waiting| waiting.bytes);
        if let Some(evict) = self.leave(ticket)
            && evict.send(()).is_ok()
        {
            self.leaving.insert(ticket, bytes);
            self.leaving_bytes += bytes;
        }
    }

    /// Notes that one has given back what it had; returns whether it was evicted.
    pub fn has_left(&mut self, ticket: u64) -> bool {
        let bytes = self.leaving.remove(&ticket);
        self.leaving_bytes -= bytes.unwrap_or(0);
        bytes.is_some()
    }

    /// Whether more may be read: those that were evicted have given back what they had.
    pub const fn may_read(&self) -> bool {
        self.leaving_bytes <= LEAVING_BYTES
    }

    /// Notes that so many bytes of its CONNECT have arrived; returns whether it is there. Where all of them are too many, one
    /// is evicted.
    pub fn holds(&mut self, ticket: u64, bytes: usize) -> bool {
        let Some(waiting) = self.waiting.get_mut(&ticket) else { return false };
        let before = std::mem::replace(&mut waiting.bytes, bytes);
        self.connect_bytes = self.connect_bytes - before + bytes;
        while self.connect_bytes > CONNECT_BYTES
            && let Some(largest) = self.largest()
        {
            self.evict(largest);
        }
        true
    }

    /// The connection that has been without a login for longest, of such an address.
    pub fn oldest(&self, is_of: impl Fn(&IpAddr) -> bool) -> Option<u64> {
        self.waiting.iter().find(|(_, other)| is_of(&other.origin)).map(|(ticket, _)| *ticket)
    }

    /// That of the address with most of them: two addresses that fill all places keep no third one out.
    pub fn oldest_of_most(&self) -> Option<u64> {
        let most = self.of.values().max();
        self.oldest(|origin| self.of.get(origin) == most)
    }

    /// The largest CONNECT, of the address with most of them.
    fn largest(&self) -> Option<u64> {
        let mut by_origin: HashMap<IpAddr, usize> = HashMap::new();
        for waiting in self.waiting.values() {
            *by_origin.entry(waiting.origin).or_default() += waiting.bytes;
        }
        let (origin, _) = by_origin.into_iter().max_by_key(|(_, bytes)| *bytes)?;
        let of_origin = self.waiting.iter().filter(|(_, waiting)| waiting.origin == origin);
        of_origin.max_by_key(|(_, waiting)| waiting.bytes).map(|(ticket, _)| *ticket)
    }
}

/// One less of `holder`, which goes with its last.
pub fn count_down<K: Eq + Hash>(counts: &mut HashMap<K, usize>, holder: &K) {
    if let Some(count) = counts.get_mut(holder) {
        *count -= 1;
        if *count == 0 {
            counts.remove(holder);
        }
    }
}

#[cfg(test)]
impl WithoutLogin {
    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
            && self.of.is_empty()
            && self.leaving.is_empty()
            && self.connect_bytes + self.leaving_bytes == 0
    }
}

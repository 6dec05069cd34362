//! Which client ids are connected, and what a persistent session keeps between connections.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::wire::Filter;

/// Persistent sessions that are kept. Beyond it the one that has been away for longest ends.
const PERSISTENT_SESSIONS: usize = 1000;

/// What belongs to a session: it outlives the connection unless the session is clean.
#[derive(Debug, Default)]
pub struct State {
    /// What is subscribed.
    pub filters: HashSet<Filter>,
    /// Packet ids of `QoS` 2 messages that were taken but not released yet.
    pub received: HashSet<u16>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Makes the present connection leave.
    takeover: Option<oneshot::Sender<()>>,
    /// Resolves when the present connection has left, its will said.
    left: Option<oneshot::Receiver<()>>,
    /// Tells this connection's claim from the one that took over.
    claim: u64,
    persistent: Option<(u64, Arc<Mutex<State>>)>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<String, Entry>,
    claims: u64,
    /// Numbers of persistent sessions: the highest given, and those that may be given again.
    highest: u64,
    free: Vec<u64>,
    persistent: usize,
}

impl Table {
    /// Ends the persistent session that has been without a connection for longest.
    fn evict(&mut self) -> Option<u64> {
        let idle = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.takeover.is_none() && entry.persistent.is_some());
        let oldest = idle.min_by_key(|(_, entry)| entry.claim).map(|(id, _)| id.clone())?;
        let (number, _) = self.entries.remove(&oldest)?.persistent?;
        self.persistent -= 1;
        Some(number)
    }

    fn number(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            self.highest += 1;
            self.highest
        })
    }
}

/// All sessions of the broker.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    table: Arc<Mutex<Table>>,
}

/// A client id's present connection. Dropping it leaves.
#[derive(Debug)]
pub struct Claim {
    sessions: Sessions,
    client_id: String,
    number: u64,
    /// Resolves when another connection takes the client id over.
    pub taken_over: oneshot::Receiver<()>,
    /// Resolves when the connection that had the client id before has left, its will said.
    pub predecessor: Option<oneshot::Receiver<()>>,
    /// For the CONNACK.
    pub session_present: bool,
    /// Number of the persistent session, if it is one.
    pub persistent: Option<u64>,
    /// Number of a persistent session that ended to make way for this one. The router has to forget it,
    /// then [`Sessions::forgotten`].
    pub discarded: Option<u64>,
    /// The session's state.
    state: Arc<Mutex<State>>,
    /// Dropped with the claim.
    _leaving: oneshot::Sender<()>,
}

/// There are [`PERSISTENT_SESSIONS`] already, all of them connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for another persistent session ({PERSISTENT_SESSIONS})")]
pub struct TooMany;

impl Sessions {
    /// Connects `client_id`; whoever had it is told to leave ([MQTT-3.1.4-2]).
    ///
    /// # Errors
    /// When a new persistent session finds no room.
    pub fn claim(&self, client_id: String, clean: bool) -> Result<Claim, TooMany> {
        let (takeover, taken_over) = oneshot::channel();
        let (leaving, left) = oneshot::channel();
        let mut table = self.lock();
        let known = table.entries.get(&client_id).and_then(|entry| entry.persistent.clone());
        let session_present = !clean && known.is_some();
        let (persistent, discarded) = match (clean, known) {
            (true, None) => (None, None),
            (true, Some((number, _))) => {
                table.persistent -= 1;
                (None, Some(number))
            }
            (false, Some(known)) => (Some(known), None),
            (false, None) => {
                let full = table.persistent >= PERSISTENT_SESSIONS;
                let evicted = if full { Some(table.evict().ok_or(TooMany)?) } else { None };
                table.persistent += 1;
                (Some((table.number(), Arc::default())), evicted)
            }
        };
        table.claims += 1;
        let number = table.claims;
        let entry = table.entries.entry(client_id.clone()).or_default();
        if let Some(previous) = entry.takeover.replace(takeover) {
            let _ = previous.send(());
        }
        let predecessor = entry.left.replace(left);
        entry.claim = number;
        entry.persistent.clone_from(&persistent);
        let (persistent, state) = match persistent {
            Some((number, state)) => (Some(number), state),
            None => (None, Arc::default()),
        };
        Ok(Claim {
            sessions: self.clone(),
            client_id,
            number,
            taken_over,
            predecessor,
            session_present,
            persistent,
            discarded,
            state,
            _leaving: leaving,
        })
    }

    /// The router has forgotten persistent session `number`, which may be used anew.
    pub fn forgotten(&self, number: u64) {
        self.lock().free.push(number);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The session's state, for a moment.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = self.sessions.lock();
        let Some(entry) = table.entries.get_mut(&self.client_id) else { return };
        if entry.claim != self.number {
            return;
        }
        entry.takeover = None;
        entry.left = None;
        if entry.persistent.is_none() {
            table.entries.remove(&self.client_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_connection_takes_over_and_the_first_leaves_no_trace() {
        let sessions = Sessions::default();
        let mut first = sessions.claim("a".to_owned(), true).unwrap();
        let second = sessions.claim("a".to_owned(), true).unwrap();
        assert!(first.taken_over.try_recv().is_ok());
        drop(first);
        assert_eq!(sessions.lock().entries.len(), 1);
        drop(second);
        assert!(sessions.lock().entries.is_empty());
    }

    #[test]
    fn a_persistent_session_is_present_until_a_clean_one_ends_it() {
        let sessions = Sessions::default();
        let first = sessions.claim("a".to_owned(), false).unwrap();
        assert!(!first.session_present);
        first.state().received.insert(7);
        drop(first);
        let again = sessions.claim("a".to_owned(), false).unwrap();
        assert!(again.session_present && again.state().received.contains(&7));
        let number = again.persistent;
        drop(again);
        let clean = sessions.claim("a".to_owned(), true).unwrap();
        assert_eq!((clean.session_present, clean.discarded), (false, number));
        drop(clean);
        sessions.forgotten(number.unwrap());
        let anew = sessions.claim("a".to_owned(), false).unwrap();
        assert!(!anew.session_present && anew.state().received.is_empty());
        assert_eq!((anew.persistent, sessions.lock().persistent), (number, 1));
    }

    #[test]
    fn the_session_that_was_away_for_longest_makes_way() {
        let sessions = Sessions::default();
        let keep = |n: usize| sessions.claim(format!("c{n}"), false).unwrap();
        let connected = keep(0);
        let first_away = keep(1).persistent;
        for n in 2..PERSISTENT_SESSIONS {
            drop(keep(n));
        }
        let new = keep(PERSISTENT_SESSIONS);
        assert_eq!(new.discarded, first_away);
        assert!(!keep(1).session_present);
        assert!(keep(3).session_present);
        drop(connected);
        assert_eq!(sessions.lock().persistent, PERSISTENT_SESSIONS);
    }

    #[tokio::test]
    async fn who_takes_over_can_wait_for_the_other_to_leave() {
        let sessions = Sessions::default();
        let first = sessions.claim("a".to_owned(), true).unwrap();
        let mut second = sessions.claim("a".to_owned(), true).unwrap();
        let mut gone = second.predecessor.take().unwrap();
        assert!(gone.try_recv().is_err());
        drop(first);
        assert!(gone.await.is_err(), "closed, which is the news");
    }
}

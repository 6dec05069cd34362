//! Which client ids are connected, and what a persistent session keeps between connections.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::wire::Filter;

/// Persistent sessions that are kept. A new one beyond it is refused, not an old one forgotten.
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
    /// Tells this connection's claim from the one that took over.
    claim: u64,
    persistent: Option<(u64, Arc<Mutex<State>>)>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<String, Entry>,
    claims: u64,
    persistent: usize,
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
    /// For the CONNACK.
    pub session_present: bool,
    /// Number of the persistent session, if it is one.
    pub persistent: Option<u64>,
    /// Number of the persistent session that this clean one ends.
    pub discarded: Option<u64>,
    /// The session's state.
    pub state: Arc<Mutex<State>>,
}

/// There are [`PERSISTENT_SESSIONS`] already.
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
        let mut table = self.lock();
        table.claims += 1;
        let claim = table.claims;
        let known = table.entries.get(&client_id).and_then(|entry| entry.persistent.clone());
        let present = known.is_some();
        if !clean && !present && table.persistent >= PERSISTENT_SESSIONS {
            return Err(TooMany);
        }
        let (persistent, discarded) = match (clean, known) {
            (true, known) => (None, known.map(|(number, _)| number)),
            (false, Some(known)) => (Some(known), None),
            (false, None) => (Some((claim, Arc::default())), None),
        };
        table.persistent += usize::from(!clean && !present);
        table.persistent -= usize::from(clean && present);
        let entry = table.entries.entry(client_id.clone()).or_default();
        if let Some(previous) = entry.takeover.replace(takeover) {
            let _ = previous.send(());
        }
        entry.claim = claim;
        entry.persistent.clone_from(&persistent);
        let (persistent, state) = match persistent {
            Some((number, state)) => (Some(number), state),
            None => (None, Arc::default()),
        };
        Ok(Claim {
            sessions: self.clone(),
            client_id,
            number: claim,
            taken_over,
            session_present: !clean && present,
            persistent,
            discarded,
            state,
        })
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
        let anew = sessions.claim("a".to_owned(), false).unwrap();
        assert!(!anew.session_present && anew.state().received.is_empty());
        assert_eq!(sessions.lock().persistent, 1);
    }
}

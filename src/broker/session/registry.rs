//! Which client ids are connected, and what a session keeps between connections. What must survive a restart is
//! said as [`Change`]s, which whoever asks has to commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tracing::warn;

use crate::broker::delivery::subscriptions::Routes;
use crate::broker::session::lease::Claim;
use crate::broker::session::session::{Session, State};
use crate::mqtt::Filter;
use crate::store::{Change, Stored};

/// Persistent sessions that are kept. Beyond it the one that has been away for longest ends.
const PERSISTENT_SESSIONS: usize = 1000;
/// Session expiry interval of a session that has no end by itself (MQTT 5.0 §3.1.2.11.2), seconds.
pub const FOR_EVER: u32 = u32::MAX;

/// What is known of a client id.
#[derive(Debug, Default)]
pub(in crate::broker) struct Entry {
    /// Makes the present connection leave.
    pub takeover: Option<oneshot::Sender<()>>,
    /// Resolves when the present connection has left, its will said.
    pub left: Option<oneshot::Receiver<()>>,
    /// Tells this connection's claim from the one that took over.
    pub claim: u64,
    /// The session that outlives connections.
    pub persistent: Option<Arc<Session>>,
}

impl Entry {
    fn has_expired(&self, now_ms: i64) -> bool {
        let Some(session) = self.persistent.as_ref().filter(|_| self.takeover.is_none()) else {
            return false;
        };
        let state = session.state();
        let expires_at_ms = state.left_at_ms.saturating_add(i64::from(state.expiry_s) * 1000);
        state.expiry_s != FOR_EVER && expires_at_ms <= now_ms
    }
}

/// All client ids that are connected or have a session that waits.
#[derive(Debug, Default)]
pub(in crate::broker) struct Table {
    pub entries: HashMap<String, Entry>,
    claims: u64,
    /// Highest number given to a persistent session.
    highest: i64,
    persistent: usize,
    /// Ends that nobody has committed yet.
    uncommitted: Vec<Change>,
}

impl Table {
    /// The client id of the persistent session that has been without a connection for longest.
    fn longest_away(&self) -> Option<String> {
        let idle = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.takeover.is_none() && entry.persistent.is_some());
        idle.min_by_key(|(_, entry)| entry.claim).map(|(id, _)| id.clone())
    }

    /// Ends a persistent session; to be committed.
    pub fn end(&mut self, client_id: &str, routes: &Routes) -> Option<Change> {
        let entry = self.entries.get_mut(client_id)?;
        let session = entry.persistent.take()?;
        if entry.takeover.is_none() {
            self.entries.remove(client_id);
        }
        self.persistent -= 1;
        routes.forget(&session);
        // Whoever waits to say its will hears that the session is over.
        session.state().will = None;
        session.persistent.map(|session| Change::End { session })
    }
}

/// All sessions of the broker.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    table: Arc<Mutex<Table>>,
    /// Who gets what beside the router.
    pub routes: Routes,
}

/// There are [`PERSISTENT_SESSIONS`] already, all of them connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for another persistent session ({PERSISTENT_SESSIONS})")]
pub struct TooMany;

impl Sessions {
    /// With the sessions that were there when the broker last ended, the one that has been away for longest
    /// first. Those whose client was connected then have been away since `now_ms`.
    pub fn new(stored: Vec<Stored>, now_ms: i64) -> Self {
        let sessions = Self::default();
        let mut table = sessions.lock();
        for stored in stored {
            let mut subscriptions = HashMap::new();
            for (filter, options) in stored.subscriptions {
                match filter.parse::<Filter>() {
                    Ok(filter) => drop(subscriptions.insert(filter, options)),
                    Err(error) => warn!(filter, %error, "a stored subscription is left out"),
                }
            }
            let state = State {
                subscriptions,
                received: stored.received.into_iter().collect(),
                // Nobody knows what of it was sent; better marked as a duplicate too often than too seldom.
                sent: stored.latest,
                expiry_s: stored.expiry_s,
                left_at_ms: stored.left_at_ms.unwrap_or(now_ms),
                ..State::default()
            };
            let session = Session::new(&stored.client_id, Some(stored.session), state);
            let filters: Vec<Filter> = session.state().subscriptions.keys().cloned().collect();
            for filter in &filters {
                sessions.routes.add(filter, &session);
            }
            table.claims += 1;
            table.persistent += 1;
            table.highest = table.highest.max(stored.session);
            let entry =
                Entry { claim: table.claims, persistent: Some(session), ..Entry::default() };
            table.entries.insert(stored.client_id, entry);
        }
        drop(table);
        sessions
    }

    /// Connects `client_id`; whoever had it is told to leave ([MQTT-3.1.4-2]). `clean_start` ends the session that
    /// is there; the new one outlives its connection by `expiry_s` seconds.
    ///
    /// # Errors
    /// When a new persistent session finds no room.
    pub fn claim(
        &self,
        client_id: &str,
        clean_start: bool,
        expiry_s: u32,
        now_ms: i64,
    ) -> Result<Claim, TooMany> {
        let (takeover, taken_over) = oneshot::channel();
        let (leaving, left) = oneshot::channel();
        let mut table = self.lock();
        let mut changes = Vec::new();
        let over = |entry: &Entry| clean_start || entry.has_expired(now_ms);
        if table.entries.get(client_id).is_some_and(over) {
            changes.extend(table.end(client_id, &self.routes));
        }
        let known = table.entries.get(client_id).and_then(|entry| entry.persistent.clone());
        let session_present = known.is_some();
        let session = match known {
            Some(session) => session,
            None if expiry_s == 0 => Session::new(client_id, None, State::default()),
            None => {
                if table.persistent >= PERSISTENT_SESSIONS {
                    let evicted = table.longest_away().ok_or(TooMany)?;
                    changes.extend(table.end(&evicted, &self.routes));
                }
                table.persistent += 1;
                table.highest += 1;
                Session::new(client_id, Some(table.highest), State::default())
            }
        };
        {
            let mut state = session.state();
            state.expiry_s = expiry_s;
            // For a connection that breaks before it is accepted, and leaves nothing else.
            state.left_at_ms = now_ms;
            state.inbox = None;
            let _ = state.will.take().map(|waiting| waiting.send(()));
        }
        if let Some(number) = session.persistent {
            let client_id = Arc::clone(&session.client_id);
            changes.push(Change::Begin { session: number, client_id, expiry_s });
        }
        table.claims += 1;
        let number = table.claims;
        let entry = table.entries.entry(client_id.to_owned()).or_default();
        if let Some(previous) = entry.takeover.replace(takeover) {
            let _ = previous.send(());
        }
        let predecessor = entry.left.replace(left);
        entry.claim = number;
        entry.persistent = session.persistent.map(|_| Arc::clone(&session));
        Ok(Claim {
            sessions: self.clone(),
            number,
            taken_over,
            predecessor,
            session_present,
            changes,
            session,
            _leaving: leaving,
        })
    }

    /// Takes back changes that could not be handed to the writer. Only ends matter: what else they say of a session
    /// is said again when its client comes, or assumed at the next start.
    pub fn take_back(&self, changes: impl IntoIterator<Item = Change>) {
        let ends = changes.into_iter().filter(|change| matches!(change, Change::End { .. }));
        self.lock().uncommitted.extend(ends);
    }

    /// Ends the sessions that have expired; to be committed, with the ends that were taken back.
    pub fn expire(&self, now_ms: i64) -> Vec<Change> {
        let mut table = self.lock();
        let mut changes = std::mem::take(&mut table.uncommitted);
        let expired = table.entries.iter().filter(|(_, entry)| entry.has_expired(now_ms));
        let expired: Vec<String> = expired.map(|(id, _)| id.clone()).collect();
        changes.extend(expired.iter().filter_map(|id| table.end(id, &self.routes)));
        changes
    }

    /// Connected clients, persistent sessions, and subscriptions of both.
    pub fn count(&self) -> (usize, usize) {
        let table = self.lock();
        let connected = table.entries.values().filter(|entry| entry.takeover.is_some()).count();
        (connected, table.persistent)
    }

    pub(in crate::broker) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_760_000_000_000;

    fn claim(sessions: &Sessions, id: &str, clean: bool) -> Claim {
        sessions.claim(id, clean, if clean { 0 } else { FOR_EVER }, NOW).unwrap()
    }

    /// It was accepted: its changes were committed. Then it goes.
    fn go(mut claim: Claim) {
        claim.changes.clear();
        let expiry_s = claim.session.state().expiry_s;
        claim.leave(expiry_s, NOW);
        drop(claim);
    }

    #[test]
    fn a_second_connection_takes_over_and_the_first_leaves_no_trace() {
        let sessions = Sessions::default();
        let mut first = claim(&sessions, "a", true);
        let second = claim(&sessions, "a", true);
        assert!(first.taken_over.try_recv().is_ok());
        go(first);
        assert_eq!(sessions.lock().entries.len(), 1);
        go(second);
        assert!(sessions.lock().entries.is_empty());
    }

    #[test]
    fn a_persistent_session_is_present_until_a_clean_one_ends_it() {
        let sessions = Sessions::default();
        let first = claim(&sessions, "a", false);
        assert!(!first.session_present);
        first.session.state().received.insert(7);
        go(first);
        let again = claim(&sessions, "a", false);
        assert!(again.session_present && again.session.state().received.contains(&7));
        let number = again.session.persistent.unwrap();
        go(again);
        let clean = claim(&sessions, "a", true);
        assert!(!clean.session_present);
        assert!(matches!(clean.changes[..], [Change::End { session }] if session == number));
        go(clean);
        let anew = claim(&sessions, "a", false);
        assert!(!anew.session_present && anew.session.state().received.is_empty());
        assert_eq!(sessions.count(), (1, 1));
    }

    #[test]
    fn a_session_ends_when_its_interval_is_over_and_not_before() {
        let sessions = Sessions::default();
        let connect = |now| {
            let mut claim = sessions.claim("a", false, 5, now).unwrap();
            claim.changes.clear();
            claim
        };
        let first = connect(NOW);
        first.leave(5, NOW);
        drop(first);
        assert!(sessions.expire(NOW + 4_999).is_empty());
        let second = connect(NOW + 4_999);
        assert!(second.session_present);
        assert!(sessions.expire(NOW + 60_000).is_empty(), "it is connected");
        second.leave(5, NOW + 60_000);
        drop(second);
        assert!(!connect(NOW + 65_000).session_present);
        assert!(matches!(sessions.expire(NOW + 70_000)[..], [Change::End { .. }]));
        assert_eq!(sessions.count(), (0, 0));
    }

    #[test]
    fn the_session_that_was_away_for_longest_makes_way() {
        let sessions = Sessions::default();
        let keep = |n: usize| claim(&sessions, &format!("c{n}"), false);
        let connected = keep(0);
        let first_away = connected.session.persistent.unwrap() + 1;
        for n in 1..PERSISTENT_SESSIONS {
            go(keep(n));
        }
        let new = keep(PERSISTENT_SESSIONS);
        assert!(matches!(new.changes[0], Change::End { session } if session == first_away));
        let anew = keep(1);
        assert!(!anew.session_present);
        go(anew);
        assert!(keep(3).session_present);
        go(connected);
        assert_eq!(sessions.count().1, PERSISTENT_SESSIONS);
    }
}

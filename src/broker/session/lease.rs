//! A client id's present connection: what it was promised when it came, and what becomes of its session when it goes.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::broker::session::registry::Sessions;
use crate::broker::session::session::Session;
use crate::store::Change;

/// A client id's present connection. Dropping it leaves; [`Claim::leave`] says what is to be committed then.
#[derive(Debug)]
pub struct Claim {
    pub(in crate::broker) sessions: Sessions,
    pub(in crate::broker) number: u64,
    /// Resolves when another connection takes the client id over.
    pub taken_over: oneshot::Receiver<()>,
    /// Resolves when the connection that had the client id before has left, its will said.
    pub predecessor: Option<oneshot::Receiver<()>>,
    /// For the CONNACK.
    pub session_present: bool,
    /// To commit before the CONNACK.
    pub changes: Vec<Change>,
    /// The session.
    pub session: Arc<Session>,
    /// Dropped with the claim.
    pub(in crate::broker) _leaving: oneshot::Sender<()>,
}

/// What has become of a session whose connection broke.
#[derive(Debug)]
pub enum Fate {
    /// Its client is back.
    Back,
    /// It is over.
    Over,
    /// It waits for its client. Resolves to `Ok` when that is back, to an error when the session is over.
    Alone(oneshot::Receiver<()>),
}

impl Claim {
    /// The session's connection is over; it lasts `expiry_s` more seconds. What is to be committed.
    pub fn leave(&self, expiry_s: u32, now_ms: i64) -> Vec<Change> {
        let mut table = self.sessions.lock();
        let client_id = &*self.session.client_id;
        let entry = table.entries.get(client_id);
        if entry.is_none_or(|entry| entry.claim != self.number) {
            // Who took over decides. What was not persistent, or was ended by a clean start, has ended: also what
            // it subscribed to since.
            let lives_on = entry
                .and_then(|entry| entry.persistent.as_ref())
                .is_some_and(|other| Arc::ptr_eq(other, &self.session));
            if !lives_on {
                self.sessions.routes.forget(&self.session);
            }
            return Vec::new();
        }
        {
            let mut state = self.session.state();
            state.inbox = None;
            state.expiry_s = expiry_s;
            state.left_at_ms = now_ms;
        }
        let Some(session) = self.session.persistent else {
            self.sessions.routes.forget(&self.session);
            return Vec::new();
        };
        if expiry_s > 0 {
            return vec![Change::Left { session, at_ms: now_ms, expiry_s }];
        }
        table.end(client_id, &self.sessions.routes).into_iter().collect()
    }

    /// What becomes of the session after [`Claim::leave`], for a will that is to wait.
    pub fn fate(&self) -> Fate {
        let table = self.sessions.lock();
        let entry = table.entries.get(&*self.session.client_id);
        let Some(entry) = entry else { return Fate::Over };
        let same = entry.persistent.as_ref().is_some_and(|other| Arc::ptr_eq(other, &self.session));
        if !same {
            return Fate::Over;
        }
        if entry.claim != self.number {
            return Fate::Back;
        }
        let (will, waiting) = oneshot::channel();
        self.session.state().will = Some(will);
        Fate::Alone(waiting)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The client was not accepted: the end of an earlier session is still to be committed.
        let unsaid = std::mem::take(&mut self.changes);
        let refused = !unsaid.is_empty();
        self.sessions.take_back(unsaid);
        let mut table = self.sessions.lock();
        let client_id = &*self.session.client_id;
        let Some(entry) = table.entries.get_mut(client_id) else { return };
        if entry.claim != self.number {
            return;
        }
        entry.takeover = None;
        entry.left = None;
        if entry.persistent.is_none() {
            table.entries.remove(client_id);
        } else if refused && !self.session_present {
            // A session that its client never heard of, and that never began on the disk.
            let _ = table.end(client_id, &self.sessions.routes);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::mqtt::QoS;

    use super::*;
    use crate::broker::session::registry::FOR_EVER;
    use crate::mqtt::{Filter, Message};
    use crate::store::Options;

    const NOW: i64 = 1_760_000_000_000;

    fn claim(sessions: &Sessions, clean: bool) -> Claim {
        sessions.claim("a", clean, if clean { 0 } else { FOR_EVER }, NOW).unwrap()
    }

    /// It was accepted: its changes were committed. Then it goes.
    fn go(mut claim: Claim) {
        claim.changes.clear();
        let expiry_s = claim.session.state().expiry_s;
        claim.leave(expiry_s, NOW);
        drop(claim);
    }

    #[tokio::test]
    async fn who_takes_over_can_wait_for_the_other_to_leave() {
        let sessions = Sessions::default();
        let first = claim(&sessions, true);
        let mut second = claim(&sessions, true);
        let mut gone = second.predecessor.take().unwrap();
        assert!(gone.try_recv().is_err());
        go(first);
        assert!(gone.await.is_err(), "closed, which is the news");
    }

    #[tokio::test]
    async fn a_waiting_will_hears_whether_its_client_is_back_or_its_session_over() {
        let sessions = Sessions::default();
        for back in [true, false] {
            let mut first = claim(&sessions, false);
            first.changes.clear();
            first.leave(FOR_EVER, NOW);
            let Fate::Alone(waiting) = first.fate() else { panic!("nobody else is there") };
            drop(first);
            let second = claim(&sessions, !back);
            assert_eq!(waiting.await.is_ok(), back);
            go(second);
        }
    }

    #[test]
    fn the_end_that_a_refused_connection_was_to_commit_is_committed_later() {
        let sessions = Sessions::default();
        let first = claim(&sessions, false);
        let number = first.session.persistent.unwrap();
        go(first);
        // Clean, and gone before it was accepted.
        drop(claim(&sessions, true));
        assert!(matches!(sessions.expire(NOW)[..], [Change::End { session }] if session == number));
        assert!(sessions.expire(NOW).is_empty(), "once");
        // Not clean: a session that nobody was told of is not there next time.
        drop(claim(&sessions, false));
        assert_eq!(sessions.count(), (0, 0));
        assert!(!claim(&sessions, false).session_present);
    }

    #[test]
    fn what_a_connection_subscribes_to_after_its_session_has_ended_is_forgotten() {
        let sessions = Sessions::default();
        let mut first = claim(&sessions, false);
        first.changes.clear();
        let second = claim(&sessions, true);
        let filter: Filter = "$share/g/t".parse().unwrap();
        let options = Options {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            identifier: 0,
        };
        first.session.state().subscriptions.insert(filter.clone(), options);
        sessions.routes.add(&filter, &first.session);
        let message = Message::own("t", "1");
        assert!(sessions.routes.find(&message).is_some());
        go(first);
        assert!(sessions.routes.find(&message).is_none());
        go(second);
    }
}

//! A client id's present connection: what it was promised when it came, and what becomes of its session when it goes.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::session::Session;
use super::sessions::Sessions;
use crate::store::Change;

/// A client id's present connection. Dropping it leaves; [`Claim::leave`] says what is to be committed then.
#[derive(Debug)]
pub struct Claim {
    pub(super) sessions: Sessions,
    pub(super) number: u64,
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
    pub(super) _leaving: oneshot::Sender<()>,
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
        let present = table.entries.get(client_id).is_some_and(|entry| entry.claim == self.number);
        if !present {
            // Who took over decides. What was not persistent has ended.
            if self.session.persistent.is_none() {
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sessions::FOR_EVER;
    use super::*;

    const NOW: i64 = 1_760_000_000_000;

    fn claim(sessions: &Sessions, clean: bool) -> Claim {
        sessions.claim("a", clean, if clean { 0 } else { FOR_EVER }, NOW).unwrap()
    }

    fn go(claim: Claim) {
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
            let first = claim(&sessions, false);
            first.leave(FOR_EVER, NOW);
            let Fate::Alone(waiting) = first.fate() else { panic!("nobody else is there") };
            drop(first);
            let second = claim(&sessions, !back);
            assert_eq!(waiting.await.is_ok(), back);
            go(second);
        }
    }
}

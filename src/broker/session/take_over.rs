//! The lease of a client id: the connection that has it, its take-over by another one, and the session's outcome.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::registry::{Entry, Registry, TooMany};
use super::state::{Session, State, row_bytes};
use crate::store::Change;
use crate::store::user_of;

/// The lease of a client id by its present connection. Dropping it gives the client id up; [`Lease::leave`] returns the
/// changes to commit before that.
#[derive(Debug)]
pub struct Lease {
    registry: Registry,
    number: u64,
    /// Resolves when another connection takes the client id over.
    pub taken_over: oneshot::Receiver<()>,
    /// Resolves when the previous connection has left and its will is published.
    pub previous: Option<oneshot::Receiver<()>>,
    /// For the CONNACK.
    pub session_present: bool,
    /// To commit before the CONNACK.
    pub changes: Vec<Change>,
    /// The session.
    pub session: Arc<Session>,
    /// Dropped with the lease.
    _leaving: oneshot::Sender<()>,
}

/// The outcome of a session whose connection broke.
#[derive(Debug)]
pub enum SessionOutcome {
    /// Its client is back.
    Back,
    /// The session has ended.
    Over,
    /// The session waits for its client. Resolves to `Ok` when the client is back, to an error when the session has
    /// ended.
    Alone(oneshot::Receiver<()>),
}

impl SessionOutcome {
    fn alone(session: &Session) -> Self {
        let (will, waiting) = oneshot::channel();
        session.state().will = Some(will);
        Self::Alone(waiting)
    }

    /// The outcome of the session of `client_id`, for a delayed will of the broker's previous run.
    pub fn of(registry: &Registry, client_id: &str) -> Self {
        let table = registry.lock();
        let Some(entry) = table.entries.get(client_id) else { return Self::Over };
        if entry.takeover.is_some() {
            return Self::Back;
        }
        entry.persistent.as_ref().map_or(Self::Over, |session| Self::alone(session))
    }
}

impl Lease {
    /// Takes `client_id` for a new connection and ends the previous one ([MQTT-3.1.4-2]). `clean_start` ends an
    /// existing session. The session outlives the new connection by `expiry_s` seconds.
    ///
    /// # Errors
    /// [`TooMany`] when there is no room for a new persistent session.
    pub fn take(
        registry: &Registry,
        client_id: &str,
        clean_start: bool,
        expiry_s: u32,
        now_ms: i64,
    ) -> Result<Self, TooMany> {
        let (takeover, taken_over) = oneshot::channel();
        let (leaving, left) = oneshot::channel();
        let mut table = registry.lock();
        let mut changes = Vec::new();
        let over = |entry: &Entry| clean_start || entry.has_expired(now_ms);
        if table.entries.get(client_id).is_some_and(over) {
            changes.extend(table.end(client_id, &registry.subscriptions));
        }
        let known = table.entries.get(client_id).and_then(|entry| entry.persistent.clone());
        let session_present = known.is_some();
        let session = match known {
            Some(session) => session,
            None if expiry_s == 0 => {
                registry.subscriptions.session(client_id, None, State::default())
            }
            None => {
                let (user, bytes) = (user_of(client_id).into(), row_bytes(client_id));
                let mut rows = registry.row_bytes.share(&user, bytes);
                if rows.is_none() || !table.persistent.admits(&user, 1) {
                    let evicted = table.longest_away(&user).ok_or(TooMany)?;
                    changes.extend(table.end(&evicted, &registry.subscriptions));
                }
                table.persistent.take(&user, 1);
                table.highest += 1;
                // The session that has ended made room for this one.
                rows.get_or_insert_with(|| registry.row_bytes.share_anyway(&user, bytes));
                let state = State { rows, ..State::default() };
                registry.subscriptions.session(client_id, Some(table.highest), state)
            }
        };
        // Deliveries that waited for the previous connection are not for this one.
        session.queue.close();
        {
            let mut state = session.state();
            state.expiry_s = expiry_s;
            // For a connection that breaks before it is accepted: it does not call `leave`.
            state.left_at_ms = now_ms;
            let _ = state.will.take().map(|waiting| waiting.send(()));
        }
        if let Some(number) = session.persistent {
            let client_id = Arc::clone(&session.client_id);
            changes.push(Change::Begin { session: number, client_id, expiry_s });
        }
        table.leases += 1;
        let number = table.leases;
        let _ = table.returns.remove(client_id).map(|expected| expected.send(()));
        let entry = table.entries.entry(client_id.to_owned()).or_default();
        if let Some(other) = entry.takeover.replace(takeover) {
            let _ = other.send(());
        }
        let previous = entry.left.replace(left);
        entry.lease = number;
        entry.persistent = session.persistent.map(|_| Arc::clone(&session));
        Ok(Self {
            registry: registry.clone(),
            number,
            taken_over,
            previous,
            session_present,
            changes,
            session,
            _leaving: leaving,
        })
    }

    /// Ends the session's connection; the session lasts `expiry_s` more seconds. Returns the changes to commit.
    pub fn leave(&self, expiry_s: u32, now_ms: i64) -> Vec<Change> {
        let mut table = self.registry.lock();
        let client_id = &*self.session.client_id;
        let entry = table.entries.get(client_id);
        if entry.is_none_or(|entry| entry.lease != self.number) {
            // The connection that took over decides. A session that was not persistent, or that a clean start has
            // ended, is over, and so are the subscriptions that it made since.
            let lives_on = entry
                .and_then(|entry| entry.persistent.as_ref())
                .is_some_and(|other| Arc::ptr_eq(other, &self.session));
            if !lives_on {
                self.registry.subscriptions.forget(&self.session);
            }
            return Vec::new();
        }
        self.session.queue.close();
        {
            let mut state = self.session.state();
            state.expiry_s = expiry_s;
            state.left_at_ms = now_ms;
        }
        let Some(session) = self.session.persistent else {
            self.registry.subscriptions.forget(&self.session);
            return Vec::new();
        };
        if expiry_s > 0 {
            let sent = self.session.state().sent;
            return vec![Change::Left { session, at_ms: now_ms, expiry_s, sent }];
        }
        table.end(client_id, &self.registry.subscriptions).into_iter().collect()
    }

    /// The session's outcome after [`Lease::leave`], for a will with a delay.
    pub fn outcome(&self) -> SessionOutcome {
        let table = self.registry.lock();
        let entry = table.entries.get(&*self.session.client_id);
        let Some(entry) = entry else { return SessionOutcome::Over };
        let same = entry.persistent.as_ref().is_some_and(|other| Arc::ptr_eq(other, &self.session));
        if !same {
            return SessionOutcome::Over;
        }
        if entry.lease != self.number {
            return SessionOutcome::Back;
        }
        SessionOutcome::alone(&self.session)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The client was not accepted: the end of an earlier session is still to be committed.
        let uncommitted = std::mem::take(&mut self.changes);
        let refused = !uncommitted.is_empty();
        self.registry.take_back(uncommitted);
        let mut table = self.registry.lock();
        let client_id = &*self.session.client_id;
        let Some(entry) = table.entries.get_mut(client_id) else { return };
        if entry.lease != self.number {
            return;
        }
        entry.takeover = None;
        entry.left = None;
        if entry.persistent.is_none() {
            table.entries.remove(client_id);
        } else if refused && !self.session_present {
            // No CONNACK has named this session, and it never began on the disk.
            let _ = table.end(client_id, &self.registry.subscriptions);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::mqtt::QoS;

    use super::*;
    use crate::broker::session::registry::{FOR_EVER, PERSISTENT_SESSIONS};
    use crate::mqtt::{Filter, Message};
    use crate::store::Options;

    /// Of one user, alone.
    const SHARE: usize = PERSISTENT_SESSIONS / 2;
    const NOW: i64 = 1_760_000_000_000;

    fn take(sessions: &Registry, id: &str, clean: bool) -> Lease {
        Lease::take(sessions, id, clean, if clean { 0 } else { FOR_EVER }, NOW).unwrap()
    }

    /// Leaves after it was accepted: its changes were committed.
    fn leave(mut lease: Lease) {
        lease.changes.clear();
        let expiry_s = lease.session.state().expiry_s;
        lease.leave(expiry_s, NOW);
        drop(lease);
    }

    #[tokio::test]
    async fn a_take_over_can_wait_for_the_previous_connection_to_leave() {
        let sessions = Registry::default();
        let first = take(&sessions, "a", true);
        let mut second = take(&sessions, "a", true);
        let mut gone = second.previous.take().unwrap();
        assert!(gone.try_recv().is_err());
        leave(first);
        assert!(gone.await.is_err(), "closed: the previous connection has left");
    }

    #[tokio::test]
    async fn a_delayed_will_ends_when_its_client_is_back_or_its_session_over() {
        let sessions = Registry::default();
        for back in [true, false] {
            let mut first = take(&sessions, "a", false);
            first.changes.clear();
            first.leave(FOR_EVER, NOW);
            let SessionOutcome::Alone(waiting) = first.outcome() else {
                panic!("no other connection has it")
            };
            drop(first);
            let second = take(&sessions, "a", !back);
            assert_eq!(waiting.await.is_ok(), back);
            leave(second);
        }
    }

    #[test]
    fn the_end_that_a_refused_connection_was_to_commit_is_committed_later() {
        let sessions = Registry::default();
        let first = take(&sessions, "a", false);
        let number = first.session.persistent.unwrap();
        leave(first);
        // Clean, and closed before it was accepted.
        drop(take(&sessions, "a", true));
        assert!(matches!(sessions.expire(NOW)[..], [Change::End { session }] if session == number));
        assert!(sessions.expire(NOW).is_empty(), "once");
        // Not clean: a session that no CONNACK has named does not exist next time.
        drop(take(&sessions, "a", false));
        assert_eq!(sessions.count(), (0, 0));
        assert!(!take(&sessions, "a", false).session_present);
    }

    #[test]
    fn subscriptions_made_after_the_end_of_their_session_are_removed() {
        let sessions = Registry::default();
        let mut first = take(&sessions, "a", false);
        first.changes.clear();
        let second = take(&sessions, "a", true);
        let filter: Filter = "$share/g/t".parse().unwrap();
        let options = Options {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            identifier: 0,
        };
        first.session.state().subscriptions.insert(filter.clone(), options);
        sessions.subscriptions.add(&filter, &first.session, options);
        first.session.queue.open();
        let message = Message::own("t", "1");
        assert_eq!(sessions.subscriptions.select(&message).live.len(), 1);
        leave(first);
        assert!(sessions.subscriptions.select(&message).live.is_empty());
        leave(second);
    }

    #[test]
    fn a_second_connection_takes_over_and_the_first_leaves_no_trace() {
        let sessions = Registry::default();
        let mut first = take(&sessions, "a", true);
        let second = take(&sessions, "a", true);
        assert!(first.taken_over.try_recv().is_ok());
        leave(first);
        assert_eq!(sessions.lock().entries.len(), 1);
        leave(second);
        assert!(sessions.lock().entries.is_empty());
    }

    #[test]
    fn a_persistent_session_is_present_until_a_clean_one_ends_it() {
        let sessions = Registry::default();
        let first = take(&sessions, "a", false);
        assert!(!first.session_present);
        first.session.state().received.insert(7);
        leave(first);
        let again = take(&sessions, "a", false);
        assert!(again.session_present && again.session.state().received.contains(&7));
        let number = again.session.persistent.unwrap();
        leave(again);
        let clean = take(&sessions, "a", true);
        assert!(!clean.session_present);
        assert!(matches!(clean.changes[..], [Change::End { session }] if session == number));
        leave(clean);
        let anew = take(&sessions, "a", false);
        assert!(!anew.session_present && anew.session.state().received.is_empty());
        assert_eq!(sessions.count(), (1, 1));
    }

    #[test]
    fn a_session_ends_when_its_interval_is_over_and_not_before() {
        let sessions = Registry::default();
        let connect = |now| {
            let mut lease = Lease::take(&sessions, "a", false, 5, now).unwrap();
            lease.changes.clear();
            lease
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
    fn the_session_that_was_away_for_longest_is_ended_for_a_new_one() {
        let sessions = Registry::default();
        let keep = |n: usize| take(&sessions, &format!("c{n}"), false);
        let connected = keep(0);
        let first_away = connected.session.persistent.unwrap() + 1;
        for n in 1..SHARE {
            leave(keep(n));
        }
        let new = keep(SHARE);
        assert!(matches!(new.changes[0], Change::End { session } if session == first_away));
        let anew = keep(1);
        assert!(!anew.session_present);
        leave(anew);
        assert!(keep(3).session_present);
        leave(connected);
        assert_eq!(sessions.count().1, SHARE);
    }

    #[test]
    fn a_users_sessions_end_for_its_own_and_connected_ones_leave_room_for_others() {
        let sessions = Registry::default();
        leave(take(&sessions, "a\u{1}kept", false));
        let connected: Vec<_> =
            (0..SHARE - 1).map(|n| take(&sessions, &format!("b\u{1}{n}"), false)).collect();
        let idle = take(&sessions, "b\u{1}idle", false);
        let ended = idle.session.persistent.unwrap();
        leave(idle);
        let last = take(&sessions, "b\u{1}last", false);
        assert!(
            last.changes
                .iter()
                .any(|change| matches!(change, Change::End { session } if *session == ended))
        );
        let refused = Lease::take(&sessions, "b\u{1}new", false, FOR_EVER, NOW);
        assert!(refused.is_err(), "all of its own are connected");
        assert!(take(&sessions, "a\u{1}kept", false).session_present);
        let others: Vec<_> =
            (0..SHARE / 4).map(|n| take(&sessions, &format!("a\u{1}{n}"), false)).collect();
        drop((connected, last, others));
    }

    #[test]
    fn a_session_that_ends_is_subscribed_to_nothing() {
        let registry = Registry::default();
        let lease = take(&registry, "a", false);
        let options = Options {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            identifier: 0,
        };
        for filter in ["t", "$share/g/t"] {
            let filter: Filter = filter.parse().unwrap();
            lease.session.state().subscriptions.insert(filter.clone(), options);
            registry.subscriptions.add(&filter, &lease.session, options);
        }
        leave(lease);
        let message = Message { qos: QoS::AtLeastOnce, retain: false, ..Message::own("t", "1") };
        assert_eq!(registry.subscriptions.select(&message).targets.len(), 2);
        // A clean start ends it.
        leave(take(&registry, "a", true));
        let selection = registry.subscriptions.select(&message);
        assert!(selection.targets.is_empty() && selection.live.is_empty());
    }
}

//! The registry of client ids: which are connected, and which have a session that outlives the connection. It returns
//! [`Change`]s for the state that must survive a restart; the caller commits them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tracing::warn;

use super::state::{EXCHANGE_BYTES, RELEASED_BYTES, Session, State, row_bytes};
use super::subscriptions::Subscriptions;
use crate::broker::access::acl::CompiledAcl;
use crate::broker::net::shares::{Pool, Shares};
use crate::mqtt::Filter;
use crate::store::user_of;
use crate::store::{Change, Retention, Stored};

/// Persistent sessions, shared by user. For one more than a user's share the one of its own that has been away for longest
/// ends.
pub(in crate::broker) const PERSISTENT_SESSIONS: usize = 2000;
/// Bytes of wills, of connected clients and delayed ones, shared by user.
pub(in crate::broker) const WILL_BYTES: usize = 8 * 1024 * 1024;
/// One part in so many of the log's largest size, where that is less: the series keep the rest.
const WILL_SHARE: u64 = 32;
/// Bytes that persistent sessions take in the log, with their subscriptions and open exchanges, shared by user.
pub(in crate::broker) const SESSION_ROWS_BYTES: usize = 16 * 1024 * 1024;
/// One part in so many of the log's largest size, where that is less: the series keep the rest.
const SESSION_ROWS_SHARE: u64 = 64;
/// Session expiry interval of a session that never expires (MQTT 5.0 §3.1.2.11.2), seconds.
pub const FOR_EVER: u32 = u32::MAX;

/// The state of a client id.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Ends the present connection.
    pub takeover: Option<oneshot::Sender<()>>,
    /// Resolves when the present connection has left and its will is published.
    pub left: Option<oneshot::Receiver<()>>,
    /// Number of the present lease; the latest when there is no connection.
    pub lease: u64,
    /// The session that outlives connections.
    pub persistent: Option<Arc<Session>>,
}

impl Entry {
    pub fn has_expired(&self, now_ms: i64) -> bool {
        let Some(session) = self.persistent.as_ref().filter(|_| self.takeover.is_none()) else {
            return false;
        };
        let state = session.state();
        let expires_at_ms = state.left_at_ms.saturating_add(i64::from(state.expiry_s) * 1000);
        state.expiry_s != FOR_EVER && expires_at_ms <= now_ms
    }
}

/// All client ids that are connected or have a session that waits.
#[derive(Debug)]
pub(super) struct Table {
    pub entries: HashMap<String, Entry>,
    pub leases: u64,
    /// Highest number given to a persistent session.
    pub highest: i64,
    /// Persistent sessions by user.
    pub persistent: Shares,
    /// Clients that were connected when the broker's previous run died, and whose wills wait for their return.
    pub returns: HashMap<String, oneshot::Sender<()>>,
    /// Ends of sessions that are still to be committed.
    uncommitted: Vec<Change>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            leases: 0,
            highest: 0,
            persistent: Shares::new(PERSISTENT_SESSIONS),
            returns: HashMap::new(),
            uncommitted: Vec::new(),
        }
    }
}

impl Table {
    /// The client id of the persistent session of `user` that has been without a connection for longest.
    pub fn longest_away(&self, user: &str) -> Option<String> {
        let idle = self.entries.iter().filter(|(id, entry)| {
            user_of(id) == user && entry.takeover.is_none() && entry.persistent.is_some()
        });
        idle.min_by_key(|(_, entry)| entry.lease).map(|(id, _)| id.clone())
    }

    /// Ends a persistent session. Returns the change to commit.
    pub fn end(&mut self, client_id: &str, subscriptions: &Subscriptions) -> Option<Change> {
        let entry = self.entries.get_mut(client_id)?;
        let session = entry.persistent.take()?;
        if entry.takeover.is_none() {
            self.entries.remove(client_id);
        }
        self.persistent.give_back(user_of(client_id), 1);
        subscriptions.forget(&session);
        let mut state = session.state();
        // Tells the task that waits to publish its will: the session is over.
        state.will = None;
        state.rows = None;
        drop(state);
        session.persistent.map(|session| Change::End { session })
    }
}

/// Client ids and their sessions.
#[derive(Debug, Clone)]
pub struct Registry {
    table: Arc<Mutex<Table>>,
    /// The subscription index.
    pub subscriptions: Subscriptions,
    /// Bytes of wills.
    pub will_bytes: Pool,
    /// Bytes of persistent sessions in the log.
    pub(super) row_bytes: Pool,
    /// Highest number given to a will.
    wills: Arc<AtomicI64>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            table: Arc::default(),
            subscriptions: Subscriptions::default(),
            will_bytes: Pool::new(WILL_BYTES),
            row_bytes: Pool::new(SESSION_ROWS_BYTES),
            wills: Arc::default(),
        }
    }
}

/// The user has its share of [`PERSISTENT_SESSIONS`], all of them connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its user has its share of persistent sessions")]
pub struct TooMany;

impl Registry {
    /// A registry with the sessions of the broker's previous run, the one that has been away for longest first. A
    /// session whose client was connected at the end has been away since `now_ms`. Wills and sessions take a part of what the
    /// log may.
    pub fn new(stored: Vec<Stored>, now_ms: i64, retention: &Retention) -> Self {
        let will_bytes = Pool::new(retention.pool(WILL_SHARE, WILL_BYTES));
        let row_bytes_pool = Pool::new(retention.pool(SESSION_ROWS_SHARE, SESSION_ROWS_BYTES));
        let registry = Self { will_bytes, row_bytes: row_bytes_pool, ..Self::default() };
        let mut table = registry.lock();
        for stored in stored {
            let mut subscriptions = HashMap::new();
            for (filter, options) in stored.subscriptions {
                match filter.parse::<Filter>() {
                    Ok(filter) => drop(subscriptions.insert(filter, options)),
                    Err(error) => warn!(filter, %error, "a stored subscription is left out"),
                }
            }
            let user = user_of(&stored.client_id).into();
            let bytes = row_bytes(&stored.client_id)
                + subscriptions.keys().map(|filter| row_bytes(filter.as_str())).sum::<usize>()
                + stored.received.len() * EXCHANGE_BYTES
                + stored.released.len() * RELEASED_BYTES;
            let state = State {
                subscriptions,
                rows: Some(registry.row_bytes.share_anyway(&user, bytes)),
                received: stored.received.into_iter().collect(),
                released: stored.released,
                // Where the broker died, the log does not tell which messages were sent. DUP on too many is better than on
                // too few.
                sent: stored.sent.unwrap_or(stored.latest),
                expiry_s: stored.expiry_s,
                left_at_ms: stored.left_at_ms.unwrap_or(now_ms),
                ..State::default()
            };
            let session =
                registry.subscriptions.session(&stored.client_id, Some(stored.session), state);
            let held = session.state().subscriptions.clone();
            for (filter, options) in held {
                registry.subscriptions.add(&filter, &session, options);
            }
            table.leases += 1;
            table.persistent.take(&user, 1);
            table.highest = table.highest.max(stored.session);
            let entry =
                Entry { lease: table.leases, persistent: Some(session), ..Entry::default() };
            table.entries.insert(stored.client_id, entry);
        }
        drop(table);
        registry
    }

    /// Takes back changes that could not be handed to the writer. Only ends of sessions matter: the other changes are
    /// made again when the client connects, or assumed at the next start.
    pub fn take_back(&self, changes: impl IntoIterator<Item = Change>) {
        let ends = changes.into_iter().filter(|change| matches!(change, Change::End { .. }));
        self.lock().uncommitted.extend(ends);
    }

    /// Ends the sessions that have expired. Returns the changes to commit, with the ends that were taken back.
    pub fn expire(&self, now_ms: i64) -> Vec<Change> {
        let mut table = self.lock();
        let mut changes = std::mem::take(&mut table.uncommitted);
        let expired = table.entries.iter().filter(|(_, entry)| entry.has_expired(now_ms));
        let expired: Vec<String> = expired.map(|(id, _)| id.clone()).collect();
        changes.extend(expired.iter().filter_map(|id| table.end(id, &self.subscriptions)));
        changes
    }

    /// Judges the persistent sessions without a connection anew. `acl_of` returns the rules of the owner of a session,
    /// `None` when nobody has it any more: then the session ends. Others lose the shared subscriptions that they may not
    /// have any more: messages would go to them instead of to the other members. Returns the changes to commit.
    pub fn judge(&self, acl_of: impl Fn(&str) -> Option<CompiledAcl>) -> Vec<Change> {
        let mut table = self.lock();
        let away = table.entries.iter().filter(|(_, entry)| entry.takeover.is_none());
        let away: Vec<(String, Option<Arc<Session>>)> =
            away.map(|(id, entry)| (id.clone(), entry.persistent.clone())).collect();
        let mut changes = Vec::new();
        for (client_id, session) in away {
            match (acl_of(&client_id), session) {
                (None, _) => changes.extend(table.end(&client_id, &self.subscriptions)),
                (Some(acl), Some(session)) => {
                    changes.extend(self.subscriptions.withdraw(&session, &acl));
                }
                (Some(_), None) => {}
            }
        }
        changes
    }

    /// Ends the sessions of a client id, of any user, that have no connection. Returns the changes to commit.
    pub fn end_left(&self, client_id: &str) -> Vec<Change> {
        let mut table = self.lock();
        let left = table.entries.iter().filter(|(session, entry)| {
            let id = session.split('\u{1}').nth(1).unwrap_or(session);
            id == client_id && entry.takeover.is_none()
        });
        let left: Vec<String> = left.map(|(session, _)| session.clone()).collect();
        left.iter().filter_map(|session| table.end(session, &self.subscriptions)).collect()
    }

    /// Expects the return of a client that was connected when the broker's previous run died. Resolves to `Ok` when it
    /// is back.
    pub fn expect_return(&self, client_id: &str) -> oneshot::Receiver<()> {
        let (returned, waiting) = oneshot::channel();
        self.lock().returns.insert(client_id.to_owned(), returned);
        waiting
    }

    /// No longer expects it; returns whether the client is connected.
    pub fn give_up_return(&self, client_id: &str) -> bool {
        let mut table = self.lock();
        table.returns.remove(client_id);
        table.entries.get(client_id).is_some_and(|entry| entry.takeover.is_some())
    }

    /// A new number for a will.
    pub fn number_will(&self) -> i64 {
        self.wills.fetch_add(1, Relaxed) + 1
    }

    /// The wills of the broker's previous run have the numbers up to `highest`.
    pub fn number_wills_after(&self, highest: i64) {
        self.wills.store(highest, Relaxed);
    }

    /// The numbers of connected clients and of persistent sessions.
    pub fn count(&self) -> (usize, usize) {
        let table = self.lock();
        let connected = table.entries.values().filter(|entry| entry.takeover.is_some()).count();
        (connected, table.persistent.used())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

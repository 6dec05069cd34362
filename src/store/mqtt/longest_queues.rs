//! Finds the longest queue of the user for whom most bytes wait.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The queues that are not empty, by their length. A change or a look-up takes as many steps as the logarithm of their
/// number.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct LongestQueues {
    users: HashMap<Arc<str>, OfUser>,
    /// Users by the bytes that wait for them.
    by_bytes: BTreeSet<(u64, Arc<str>)>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct OfUser {
    bytes: u64,
    /// Sessions by the bytes that wait for them.
    sessions: BTreeSet<(u64, i64)>,
}

impl LongestQueues {
    /// Adds the queue of a session of `user`, for which `bytes` wait.
    pub fn add(&mut self, user: &Arc<str>, session: i64, bytes: u64) {
        let of_user = self.users.entry(Arc::clone(user)).or_default();
        self.by_bytes.remove(&(of_user.bytes, Arc::clone(user)));
        of_user.sessions.insert((bytes, session));
        of_user.bytes += bytes;
        self.by_bytes.insert((of_user.bytes, Arc::clone(user)));
    }

    /// Removes a queue, which was added with the same arguments.
    pub fn remove(&mut self, user: &Arc<str>, session: i64, bytes: u64) {
        let Some(of_user) = self.users.get_mut(user) else { return };
        if !of_user.sessions.remove(&(bytes, session)) {
            return;
        }
        self.by_bytes.remove(&(of_user.bytes, Arc::clone(user)));
        of_user.bytes -= bytes;
        if of_user.sessions.is_empty() {
            self.users.remove(user);
        } else {
            self.by_bytes.insert((of_user.bytes, Arc::clone(user)));
        }
    }

    /// The session with the longest queue, of the user for whose sessions most bytes wait.
    pub fn longest(&self) -> Option<i64> {
        let (_, user) = self.by_bytes.last()?;
        let (_, session) = self.users.get(user)?.sessions.last()?;
        Some(*session)
    }
}

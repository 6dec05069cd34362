//! Shared subscriptions: one member of a group gets each message (MQTT 5.0 §4.8.2).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::{Session, Wanted};
use crate::mqtt::{Filter, Message, QoS};
use crate::store::Options;

/// A group's name and filter, and its members.
#[derive(Debug)]
pub struct Group {
    pub filter: Filter,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<(Arc<Session>, Options)>,
    /// Index of the member that is next.
    next: usize,
}

impl Group {
    /// A group without members.
    pub fn new(filter: Filter) -> Self {
        Self { filter, members: Mutex::default() }
    }

    /// Adds a member or changes its options.
    pub fn join(&self, session: &Arc<Session>, options: Options) {
        let mut members = self.lock();
        let known = members.list.iter_mut().find(|(member, _)| Arc::ptr_eq(member, session));
        if let Some((_, held)) = known {
            *held = options;
            return;
        }
        members.list.push((Arc::clone(session), options));
    }

    /// Removes a member. Returns whether it was one.
    pub fn leave(&self, session: &Arc<Session>) -> bool {
        let mut members = self.lock();
        let before = members.list.len();
        members.list.retain(|(member, _)| !Arc::ptr_eq(member, session));
        members.list.len() < before
    }

    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.lock().list.is_empty()
    }

    /// Whether `session` is a member.
    pub fn has(&self, session: &Arc<Session>) -> bool {
        self.lock().list.iter().any(|(member, _)| Arc::ptr_eq(member, session))
    }

    /// The member that gets `message`: the next one that is connected, or else one for which it can wait.
    pub fn select(&self, message: &Message) -> Option<(Arc<Session>, Wanted)> {
        let mut members = self.lock();
        let count = members.list.len();
        let mut absent = None;
        for n in 0..count {
            let turn = (members.next + n) % count;
            let (member, options) = &members.list[turn];
            let wanted = Wanted::new(*options, message);
            if member.queue.is_open() {
                let selected = (Arc::clone(member), wanted);
                members.next = turn + 1;
                return Some(selected);
            }
            if absent.is_none() && member.persistent.is_some() && wanted.qos > QoS::AtMostOnce {
                absent = Some((turn, Arc::clone(member), wanted));
            }
        }
        let (turn, member, wanted) = absent?;
        members.next = turn + 1;
        Some((member, wanted))
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

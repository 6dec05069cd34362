//! A batch for one commit: records, changes of sessions, accepted messages.

use super::classify;
use crate::broker::delivery::fan_out::{Accepted, FanOut};
use crate::broker::delivery::retained_messages::{NoRoom, Room};
use crate::broker::delivery::retained_replay::ReplayRequest;
use crate::mqtt::{Filter, Message};
use crate::store::{Change, Record};

/// Records, changes and messages that are committed together. The messages are delivered afterwards.
#[derive(Debug, Default)]
pub struct Batch {
    /// Records for the log.
    pub records: Vec<Record>,
    /// Changes of sessions.
    pub changes: Vec<Change>,
    /// Messages, in the order of their publishing.
    pub accepted: Vec<Accepted>,
    /// New subscriptions of persistent sessions, whose retained messages are committed with them.
    pub replays: Vec<ReplayRequest>,
}

impl Batch {
    /// Adds a message. `logged` are the topic filters of foreign publishers that are logged. A message that is to be
    /// retained and finds no room is delivered without being retained.
    pub fn accept(&mut self, message: Message, fan_out: &FanOut, logged: &[Filter]) {
        let room = fan_out.reserve(&message);
        self.accept_with(message, room, fan_out, logged);
    }

    /// As [`Batch::accept`], with the answer of [`FanOut::reserve`].
    pub fn accept_with(
        &mut self,
        message: Message,
        room: Result<Option<Room>, NoRoom>,
        fan_out: &FanOut,
        logged: &[Filter],
    ) {
        self.records.extend(classify::record(&message, logged, fan_out.timeline.now_ms()));
        self.accepted.push(fan_out.accept(message, room));
    }

    /// Whether something has to be committed before the messages are delivered.
    pub fn needs_commit(&self) -> bool {
        !self.records.is_empty()
            || !self.changes.is_empty()
            || !self.replays.is_empty()
            || self.accepted.iter().any(Accepted::needs_commit)
    }

    /// The number of its records, changes, messages and replay requests.
    pub const fn len(&self) -> usize {
        self.records.len() + self.changes.len() + self.accepted.len() + self.replays.len()
    }
}

//! A batch for one commit: records, changes of sessions, accepted messages.

use std::sync::Arc;

use super::classify;
use super::logged_topics::LoggedTopics;
use super::series_quota::{self, KnownTopics, QuotaExceeded, SeriesQuota};
use crate::broker::delivery::fan_out::{Accepted, FanOut};
use crate::broker::delivery::retained_messages::{NoRoom, Room};
use crate::broker::delivery::retained_replay::ReplayRequest;
use crate::broker::session::state::Session;
use crate::mqtt::Message;
use crate::store::{Change, Record};

/// Sessions whose queues a batch has congested: its publisher is held back for them.
pub type Congested = Vec<Arc<Session>>;

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
    /// Sessions for which its messages are stored, as often as there are messages for one.
    pub stored: usize,
}

impl Batch {
    /// Takes the first of these changes, with the end of one session at most: all that waits for it goes with it, and one
    /// commit is not to have many of them.
    pub fn of_changes(changes: &mut Vec<Change>) -> Self {
        let is_end = |change: &Change| matches!(change, Change::End { .. });
        let mut ends = changes.iter().enumerate().filter(|(_, change)| is_end(change));
        let length = ends.nth(1).map_or(changes.len(), |(second, _)| second);
        let rest = changes.split_off(length);
        Self { changes: std::mem::replace(changes, rest), ..Self::default() }
    }

    /// Adds the records that the log keeps of a message. `logged` are the topics of other publishers that are
    /// logged; `at_ms` is now in log time.
    ///
    /// # Errors
    /// When it would begin more series than its publisher's user may: then only the refusal is recorded. With `lenient`
    /// that is no error for a foreign message, and the numbers whose series are known are recorded.
    pub fn log(
        &mut self,
        message: &Message,
        logged: &LoggedTopics,
        quota: &SeriesQuota,
        known: &mut KnownTopics,
        lenient: bool,
        at_ms: i64,
    ) -> Result<(), QuotaExceeded> {
        let Some(record) = classify::record(message, logged, at_ms) else { return Ok(()) };
        let owner = message.publisher.split_once('\u{1}').map_or("", |(user, _)| user);
        let mut begun = Vec::new();
        let admitted = quota.admit(&message.topic, owner, &record, known, &mut begun);
        let Err(exceeded) = admitted else {
            self.records.push(record);
            self.records.append(&mut begun);
            return Ok(());
        };
        self.records.push(classify::refusal(message, at_ms, series_quota::CAUSE));
        if let Record::Foreign { topic, at_ms, numbers } = record
            && lenient
        {
            let numbers = quota.known_numbers(&topic, numbers);
            self.records.push(Record::Foreign { topic, at_ms, numbers });
            return Ok(());
        }
        Err(exceeded)
    }

    /// Adds a message to deliver. One that is to be retained and finds no room is delivered without being retained.
    pub fn accept(&mut self, message: Message, fan_out: &FanOut) {
        let room = fan_out.reserve(&message);
        self.accept_with(message, room, fan_out);
    }

    /// As [`Batch::accept`], with the answer of [`FanOut::reserve`].
    pub fn accept_with(
        &mut self,
        message: Message,
        room: Result<Option<Room>, NoRoom>,
        fan_out: &FanOut,
    ) {
        let accepted = fan_out.accept(message, room);
        self.stored += accepted.stored().len();
        self.accepted.push(accepted);
    }

    /// Whether something has to be committed before the messages are delivered.
    pub fn needs_commit(&self) -> bool {
        !self.records.is_empty()
            || !self.changes.is_empty()
            || !self.replays.is_empty()
            || self.accepted.iter().any(Accepted::needs_commit)
    }

    /// The number of its records, changes, messages, replay requests, and rows for sessions. Those of a message that is to be
    /// retained are not known before its commit.
    pub const fn len(&self) -> usize {
        let own = self.records.len() + self.changes.len() + self.accepted.len();
        own + self.replays.len() + self.stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::delivery::retained_messages::Retained;
    use crate::broker::session::state::State;
    use crate::broker::session::subscriptions::Subscriptions;
    use crate::mqtt::QoS;
    use crate::store::Options;
    use crate::timeline::Timeline;

    /// One message of 800 sessions is 800 rows of a commit, for which all others wait.
    #[test]
    fn a_message_weighs_as_many_as_the_sessions_that_store_it() {
        let fan_out = FanOut {
            subscriptions: Subscriptions::default(),
            retained: Retained::default(),
            traffic: Arc::default(),
            timeline: Timeline::default(),
        };
        let qos = QoS::AtLeastOnce;
        let options = Options { qos, no_local: false, retain_as_published: false, identifier: 0 };
        let subscribe = |client: &str, number: Option<i64>| {
            let session = fan_out.subscriptions.session(client, number, State::default());
            session.queue.open();
            fan_out.subscriptions.add(&"a/#".parse().unwrap(), &session, options);
            session
        };
        let sessions =
            [subscribe("one", Some(1)), subscribe("two", Some(2)), subscribe("live", None)];
        let mut batch = Batch::default();
        for topic in ["a/b", "a/b", "other"] {
            batch.accept(Message { qos, retain: false, ..Message::own(topic, "1") }, &fan_out);
        }
        assert_eq!(batch.len(), 3 + 2 * 2);
        drop(sessions);
    }

    #[test]
    fn each_batch_has_the_end_of_one_session() {
        let end = |session| Change::End { session };
        let mut changes =
            vec![Change::WillGone { id: 1 }, end(1), end(2), Change::WillGone { id: 2 }];
        let mut lengths = Vec::new();
        while !changes.is_empty() {
            lengths.push(Batch::of_changes(&mut changes).len());
        }
        assert_eq!(lengths, [2, 2]);
    }
}

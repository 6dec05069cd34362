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
    /// Stored sessions that the messages are for: each takes a row.
    pub waiting: usize,
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
        self.waiting += fan_out.waiting(&accepted);
        self.accepted.push(accepted);
    }

    /// Whether something has to be committed before the messages are delivered.
    pub fn needs_commit(&self) -> bool {
        !self.records.is_empty()
            || !self.changes.is_empty()
            || !self.replays.is_empty()
            || self.accepted.iter().any(Accepted::needs_commit)
    }

    /// The number of its records, changes, messages, replay requests, and of the stored sessions that the messages are for.
    pub const fn len(&self) -> usize {
        self.records.len()
            + self.changes.len()
            + self.accepted.len()
            + self.replays.len()
            + self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::delivery::retained_messages::Retained;
    use crate::broker::session::registry::{FOR_EVER, Registry};
    use crate::broker::session::take_over::Lease;
    use crate::mqtt::{Filter, QoS};
    use crate::store::Options;
    use crate::timeline::Timeline;

    #[test]
    fn a_message_counts_with_the_stored_sessions_that_it_is_for() {
        const SESSIONS: usize = 3;
        let registry = Registry::default();
        let filter: Filter = "t".parse().unwrap();
        let subscribe = |id: &str, expiry_s, qos| {
            let lease = Lease::take(&registry, id, false, expiry_s, 0).unwrap();
            let options =
                Options { qos, no_local: false, retain_as_published: false, identifier: 0 };
            lease.session.state().subscriptions.insert(filter.clone(), options);
            registry.subscriptions.add(&filter, &lease.session, options);
            lease
        };
        let _stored: Vec<Lease> = (0..SESSIONS)
            .map(|n| subscribe(&format!("stored-{n}"), FOR_EVER, QoS::AtLeastOnce))
            .collect();
        let _others = [
            subscribe("live", 0, QoS::AtLeastOnce),
            subscribe("stored-at-qos-0", FOR_EVER, QoS::AtMostOnce),
        ];
        let fan_out = FanOut {
            subscriptions: registry.subscriptions.clone(),
            retained: Retained::default(),
            traffic: Arc::default(),
            timeline: Timeline::default(),
        };
        for (qos, retain, rows) in [
            (QoS::AtLeastOnce, false, SESSIONS),
            (QoS::AtLeastOnce, true, SESSIONS),
            (QoS::AtMostOnce, false, 0),
            (QoS::AtMostOnce, true, 0),
        ] {
            let mut batch = Batch::default();
            batch.accept(Message { qos, retain, ..Message::own("t", "1") }, &fan_out);
            assert_eq!(batch.len(), 1 + rows, "{qos:?}, retain {retain}");
        }
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

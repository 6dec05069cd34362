//! Where a log is to be continued: the upstream database's word against the log's queue. Pure.
//!
//! The upstream database is asked in every new session, and its word is the truth: after a commit whose answer was lost,
//! and after it was restored from an older copy or a standby that lagged behind was promoted, which then get again what
//! they lack.

use crate::store::{LogIdentity, StoredPlace};

/// A log's row in the upstream database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Operations up to this number are there.
    pub upto: i64,
    /// The mark of the queue's row that ends with it; 0 where that row had left the queue.
    pub mark: i64,
    /// The latest request for stored readings that was carried out.
    pub again: i64,
    /// A request that is being carried out.
    pub fill: Option<Fill>,
}

/// How far stored readings have been sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// The stored readings stand for operations up to this number, which count as there from the first step on.
    pub to: i64,
    /// The request.
    pub again: i64,
    /// Readings from this time on are sent, Unix ms.
    pub from_ms: i64,
    /// The last reading that was sent: its run and number. Both the least possible while those that have arrived are sent.
    pub sent: (i64, i64),
}

/// Before all stored readings at their place.
const UNSENT: (i64, i64) = (i64::MIN, i64::MIN);

/// The queue of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// The number before its oldest operation.
    pub before: i64,
    /// The number of its newest operation.
    pub last: i64,
    /// The mark of its row that ends with the cursor, if there is one.
    pub mark_at_cursor: Option<i64>,
}

/// What is to be done first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// The queue is sent from the cursor on.
    Continue,
    /// Stored readings are sent, from this place on, and then the queue.
    Fill {
        /// The place to go on from.
        place: StoredPlace,
        /// What is noted with each step.
        fill: Fill,
    },
    /// The log is not the one that was forwarded under its name: an older copy of it, or one that went its own way.
    Diverged,
}

/// Decides where to go on.
#[must_use]
pub fn plan(cursor: &Cursor, queue: Queue, identity: &LogIdentity) -> Plan {
    let Cursor { upto, mark, .. } = *cursor;
    if upto > queue.last {
        return Plan::Diverged;
    }
    let is_in_queue = upto > queue.before;
    if is_in_queue && queue.mark_at_cursor != Some(mark) {
        return Plan::Diverged;
    }
    // At the very end of what has left the queue there is no mark to compare, unless none was known when the cursor was
    // put there.
    let is_continued = is_in_queue || upto == queue.before && mark == 0;
    let is_requested = identity.again > cursor.again;
    // One that was begun stands for operations that count as there, whether it was requested or not.
    let begun_from_ms = cursor.fill.map(|fill| fill.from_ms);
    let requested_from_ms = is_requested.then_some(identity.again_from);
    let from_ms = match (is_continued, begun_from_ms, requested_from_ms) {
        (true, None, None) => return Plan::Continue,
        (true, Some(begun), Some(requested)) => begun.min(requested),
        (true, Some(one), None) | (true, None, Some(one)) => one,
        (false, ..) => i64::MIN,
    };
    let to = if is_continued { upto } else { queue.before };
    let resumed = cursor.fill.filter(|fill| {
        fill.again == identity.again && fill.from_ms <= from_ms && (is_continued || fill.to >= to)
    });
    if let Some(fill) = resumed {
        let place = if fill.sent == UNSENT {
            StoredPlace::START
        } else {
            StoredPlace::Placed(fill.sent.0, fill.sent.1)
        };
        return Plan::Fill { place, fill };
    }
    let fill = Fill { to, again: identity.again, from_ms, sent: UNSENT };
    Plan::Fill { place: StoredPlace::START, fill }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(again: i64) -> LogIdentity {
        LogIdentity { log: "x".to_owned(), again, again_from: 1_000 }
    }

    fn at(upto: i64, mark: i64) -> Cursor {
        Cursor { upto, mark, ..Cursor::default() }
    }

    fn queue(before: i64, last: i64, mark_at_cursor: Option<i64>) -> Queue {
        Queue { before, last, mark_at_cursor }
    }

    fn filled(plan: Plan) -> (i64, i64, StoredPlace) {
        match plan {
            Plan::Fill { place, fill } => (fill.from_ms, fill.to, place),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_queue_goes_on_from_its_row_with_the_same_mark() {
        assert_eq!(plan(&at(0, 0), queue(0, 0, None), &identity(0)), Plan::Continue);
        assert_eq!(plan(&at(0, 0), queue(0, 90, None), &identity(0)), Plan::Continue);
        assert_eq!(plan(&at(40, 7), queue(0, 90, Some(7)), &identity(0)), Plan::Continue);
        assert_eq!(plan(&at(90, 7), queue(80, 90, Some(7)), &identity(0)), Plan::Continue);
        assert_eq!(plan(&at(80, 0), queue(80, 90, None), &identity(0)), Plan::Continue);
    }

    #[test]
    fn another_log_of_the_same_name_is_recognised() {
        // A backup that was restored; one that went on since; a copied volume.
        assert_eq!(plan(&at(91, 7), queue(0, 90, None), &identity(0)), Plan::Diverged);
        assert_eq!(plan(&at(40, 7), queue(0, 90, Some(8)), &identity(0)), Plan::Diverged);
        assert_eq!(plan(&at(40, 7), queue(0, 90, None), &identity(0)), Plan::Diverged);
    }

    #[test]
    fn an_older_database_gets_the_stored_readings_when_the_queue_does_not_reach_back() {
        for cursor in [at(0, 0), at(79, 7), at(80, 7)] {
            let plan = plan(&cursor, queue(80, 90, None), &identity(0));
            assert_eq!(filled(plan), (i64::MIN, 80, StoredPlace::START), "{cursor:?}");
        }
    }

    #[test]
    fn a_request_is_carried_out_once_and_goes_on_where_it_was() {
        let before = at(40, 7);
        let found = queue(0, 90, Some(7));
        assert_eq!(filled(plan(&before, found, &identity(2))), (1_000, 40, StoredPlace::START));
        let sent = Fill { to: 40, again: 2, from_ms: 1_000, sent: (3, 5) };
        let half = Cursor { fill: Some(sent), ..before };
        assert_eq!(
            filled(plan(&half, found, &identity(2))),
            (1_000, 40, StoredPlace::Placed(3, 5))
        );
        // One that has just begun sends those that have arrived once more.
        let begun = Cursor { fill: Some(Fill { sent: (i64::MIN, i64::MIN), ..sent }), ..before };
        assert_eq!(filled(plan(&begun, found, &identity(2))), (1_000, 40, StoredPlace::START));
        // A later request begins anew, and so does one that needs more than was sent.
        assert_eq!(filled(plan(&half, found, &identity(3))).2, StoredPlace::START);
        let short = queue(80, 90, None);
        assert_eq!(filled(plan(&half, short, &identity(2))), (i64::MIN, 80, StoredPlace::START));
        let done = Cursor { again: 2, ..before };
        assert_eq!(plan(&done, found, &identity(2)), Plan::Continue);
    }

    #[test]
    fn stored_readings_that_were_being_sent_are_not_forgotten_when_the_queue_went_on_beside_them() {
        // The queue began with 81, and went on to 95 while stored readings from its beginning on were sent.
        let sent = Fill { to: 80, again: 0, from_ms: i64::MIN, sent: (3, 5) };
        let half = Cursor { fill: Some(sent), ..at(95, 9) };
        let found = queue(85, 120, Some(9));
        let resumed = (i64::MIN, 80, StoredPlace::Placed(3, 5));
        assert_eq!(filled(plan(&half, found, &identity(0))), resumed);
        // A request meanwhile asks for no less than is missing.
        let anew = (i64::MIN, 95, StoredPlace::START);
        assert_eq!(filled(plan(&half, found, &identity(1))), anew);
        // The queue overflowed all the same.
        let lost = queue(100, 120, None);
        assert_eq!(filled(plan(&half, lost, &identity(0))), (i64::MIN, 100, StoredPlace::START));
        let other = Plan::Diverged;
        assert_eq!(plan(&half, queue(85, 120, Some(8)), &identity(0)), other, "another log");
    }
}

//! The queue of each persistent session: messages that wait for its client, bounded.
//!
//! A waiting message's number within its session also gives its packet id, so that a message which is sent again
//! after a restart has the id under which the client may know it ([MQTT-4.4.0-1]).

use rusqlite::{OptionalExtension, Transaction, params};

use crate::mqtt::{Message, QoS};
use crate::store::mqtt::queue_counts::QueueCounts;

/// Packet ids there are ([MQTT-2.3.1-1]); a message that as many later ones have overtaken is dropped.
pub(in crate::store) const PACKET_IDS: i64 = 65_535;

/// Bytes that a waiting message takes in the log beside its topic, payload, properties and publisher.
const ROW_BYTES: usize = 64;

/// A session that a message waits for, and how the message is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Number of the session.
    pub session: i64,
    /// 1 or 2.
    pub qos: QoS,
    /// The retain flag.
    pub retain: bool,
    /// Identifiers of the subscriptions that match.
    pub identifiers: Vec<u32>,
}

/// Bytes of a waiting message; `None` when it is not there or only its PUBREL is left.
pub(in crate::store) fn size_of(
    transaction: &Transaction<'_>,
    session: i64,
    number: i64,
) -> rusqlite::Result<Option<u64>> {
    transaction
        .prepare_cached(
            "SELECT size FROM queued WHERE session = ? AND number = ? AND payload IS NOT NULL",
        )?
        .query_row(params![session, number], |row| row.get(0))
        .optional()
}

/// Adds a message to the queue of its target, and drops those that must make room. Does nothing when there is no such
/// session.
pub(in crate::store) fn enqueue(
    transaction: &Transaction<'_>,
    counts: &mut QueueCounts,
    message: &Message,
    target: &Target,
) -> rusqlite::Result<()> {
    let session = target.session;
    let size = (message.size() + message.publisher.len() + ROW_BYTES) as u64;
    let Some(number) = counts.add(session, size) else { return Ok(()) };
    let identifiers: Vec<u8> = target.identifiers.iter().flat_map(|id| id.to_be_bytes()).collect();
    transaction
        .prepare_cached(
            "INSERT INTO queued (session, number, qos, retain, identifiers, topic, payload, properties, publisher, expires_at, size)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            session,
            number,
            target.qos as u8,
            target.retain,
            identifiers,
            message.topic.as_str(),
            &message.payload[..],
            &message.properties[..],
            &*message.publisher,
            message.expires_at_ms,
            size,
        ])?;
    drop_overtaken(transaction, counts, session, number)?;
    make_room(transaction, counts, session)
}

/// Drops the messages whose packet ids are needed again, now that there is message `number`.
fn drop_overtaken(
    transaction: &Transaction<'_>,
    counts: &mut QueueCounts,
    session: i64,
    number: i64,
) -> rusqlite::Result<()> {
    let mut overtaken = transaction.prepare_cached(
        "DELETE FROM queued WHERE session = ? AND number <= ? RETURNING payload IS NULL, size",
    )?;
    let mut gone = overtaken.query(params![session, number - PACKET_IDS])?;
    while let Some(row) = gone.next()? {
        let is_delivered: bool = row.get(0)?;
        if !is_delivered {
            counts.drop_one(session, row.get(1)?);
        }
    }
    Ok(())
}

/// Drops the oldest messages of a session, and of others where all of them have too many bytes, until they are within
/// their bounds.
fn make_room(
    transaction: &Transaction<'_>,
    counts: &mut QueueCounts,
    session: i64,
) -> rusqlite::Result<()> {
    while let Some(session) = counts.to_drop(session) {
        // A message that only waits for its PUBCOMP stays: without its PUBREL the client would take the next message
        // with this packet id for the same one.
        let oldest: Option<(i64, u64)> = transaction
            .prepare_cached(
                "SELECT number, size FROM queued WHERE session = ? AND payload IS NOT NULL
                 ORDER BY number LIMIT 1",
            )?
            .query_row([session], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((number, size)) = oldest else { break };
        transaction
            .prepare_cached("DELETE FROM queued WHERE session = ? AND number = ?")?
            .execute(params![session, number])?;
        counts.drop_one(session, size);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::store::mqtt::queue_counts::QueueCounts;
    use crate::store::{Change, LOG_FILE, Queued, Retention, Store};

    const MIB: usize = 1024 * 1024;

    fn begin(session: i64) -> Change {
        Change::Begin { session, client_id: Arc::from(format!("c{session}")), expiry_s: 9 }
    }

    fn queue(sessions: &[i64], payload_bytes: usize) -> Change {
        let message = Message::own("t", vec![b'x'; payload_bytes]);
        let target = |session: &i64| Target {
            session: *session,
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: vec![],
        };
        Change::Queue { message: Arc::new(message), targets: sessions.iter().map(target).collect() }
    }

    fn numbers(path: &Path, session: i64) -> Vec<i64> {
        let (queued, mut numbers) = (Queued::open(path).unwrap(), Vec::new());
        loop {
            let page = queued.page(session, numbers.last().copied().unwrap_or(0)).unwrap();
            if page.is_empty() {
                return numbers;
            }
            numbers.extend(page.iter().map(|waiting| waiting.number));
        }
    }

    /// Commits `changes` while the disk takes no retained message, so that the last step of the attempt fails.
    fn fail(store: &mut Store, changes: &[&Change]) {
        store
            .connection
            .execute_batch(
                "CREATE TEMP TRIGGER full BEFORE INSERT ON retained BEGIN SELECT RAISE(ABORT, 'full'); END",
            )
            .unwrap();
        let retain = Change::Retain(Arc::new(Message::own("r", "1")));
        let changes: Vec<&Change> = changes.iter().copied().chain([&retain]).collect();
        store.commit(&[], &changes).unwrap_err();
        store.connection.execute_batch("DROP TRIGGER full").unwrap();
    }

    #[test]
    fn a_failed_commit_does_not_read_the_queue_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let mut store = Store::open(&path).unwrap();
        store.commit(&[], &[&begin(1), &queue(&[1], 1)]).unwrap();
        // Counts read from this table now would call the queue full.
        store.connection.execute("UPDATE queued SET size = 1 << 30", []).unwrap();
        fail(&mut store, &[&queue(&[1], 1)]);
        let appended = store.commit(&[], &[&queue(&[1], 1)]).unwrap();
        assert_eq!(appended.dropped, 0);
        assert_eq!(numbers(&path, 1), [1, 2]);
    }

    #[test]
    fn a_failed_commit_leaves_the_counts_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join(LOG_FILE)).unwrap();
        let (done, release) =
            (Change::Done { session: 1, number: 1 }, Change::Release { session: 1, number: 2 });
        store.commit(&[], &[&begin(1), &begin(2), &queue(&[1, 2], 7), &queue(&[1], 8)]).unwrap();
        let before = QueueCounts::load(&store.connection).unwrap();
        let attempts: [&[&Change]; 4] = [
            &[&begin(3), &queue(&[3], 9)],
            &[&Change::End { session: 1 }, &begin(1), &queue(&[1], 5)],
            &[&done, &release, &Change::End { session: 2 }],
            // Four megabytes drop the messages that wait.
            &[&queue(&[1, 2], MIB), &queue(&[1], MIB), &queue(&[1], MIB), &queue(&[1], MIB)],
        ];
        for changes in attempts {
            fail(&mut store, changes);
            assert_eq!(store.queues(), &before, "{changes:?}");
        }
        let appended = store.commit(&[], &[&queue(&[1], 1)]).unwrap();
        assert_eq!((appended.dropped, appended.dropped_by_session), (0, vec![]));
        assert_eq!(store.queues(), &QueueCounts::load(&store.connection).unwrap());
    }

    /// A store that cannot commit for hours makes tens of thousands of attempts. If each used up a packet id, the next
    /// commit would drop all messages that wait.
    #[test]
    fn a_failed_commit_uses_up_no_number_and_gives_none_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let mut store = Store::open(&path).unwrap();
        store.commit(&[], &[&begin(1), &queue(&[1], 1), &queue(&[1], 1)]).unwrap();
        // The table forgets the numbers, the client does not.
        let done = [1, 2].map(|number| Change::Done { session: 1, number });
        store.commit(&[], &[&done[0], &done[1]]).unwrap();
        for _ in 0..3 {
            fail(&mut store, &[&queue(&[1], 1)]);
        }
        store.commit(&[], &[&queue(&[1], 1)]).unwrap();
        assert_eq!(numbers(&path, 1), [3]);
    }

    #[test]
    fn dropped_messages_are_counted_by_session() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let mut store = Store::open(&path).unwrap();
        store.commit(&[], &[&begin(1), &begin(2), &begin(3), &queue(&[1, 3], MIB)]).unwrap();
        let large = queue(&[2, 1], MIB);
        let appended = store.commit(&[], &[&large, &large, &large, &large, &large]).unwrap();
        assert_eq!(appended.dropped_by_session, [(1, 3), (2, 2)]);
        assert_eq!(appended.dropped, 5);
        assert_eq!(numbers(&path, 1), [4, 5, 6]);
        let appended = store.commit(&[], &[&queue(&[2], 1)]).unwrap();
        assert_eq!((appended.dropped, appended.dropped_by_session), (0, vec![]));
    }

    #[test]
    fn a_user_for_whom_all_there_is_room_for_waits_loses_its_own_messages() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let mut store = Store::open(&path).unwrap();
        let begin_of = |user: &str, session: i64| Change::Begin {
            session,
            client_id: format!("{user}\u{1}{session}").into(),
            expiry_s: 9,
        };
        let many: Vec<i64> = (2..=70).collect();
        let begins: Vec<Change> = many.iter().map(|session| begin_of("many", *session)).collect();
        store.commit(&[], &begins.iter().collect::<Vec<_>>()).unwrap();
        store.commit(&[], &[&begin_of("other", 1), &queue(&[1], 7), &queue(&many, 7)]).unwrap();
        // As if each of these had four megabytes.
        store.connection.execute("UPDATE queued SET size = 4000000 WHERE session > 1", []).unwrap();
        drop(store);
        let mut store = Store::open(&path).unwrap();
        let appended = store.commit(&[], &[&queue(&[1], 7)]).unwrap();
        assert_eq!(numbers(&path, 1), [1, 2], "the other user keeps both");
        assert!(appended.dropped_by_session.iter().all(|(session, _)| *session > 1));
        assert_eq!(appended.dropped, 2, "as many as there is room for again");
    }

    #[test]
    fn in_a_small_log_an_eighth_waits_and_what_is_there_already_goes_with_the_next_message() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let mut store = Store::open(&path).unwrap();
        let begin_of = |user: &str, session: i64| Change::Begin {
            session,
            client_id: format!("{user}\u{1}{session}").into(),
            expiry_s: 9,
        };
        store.commit(&[], &[&begin_of("other", 1), &begin_of("m", 2), &begin_of("m", 3)]).unwrap();
        let large = queue(&[2, 3], MIB);
        store.commit(&[], &[&queue(&[1], 7), &large, &large, &large]).unwrap();
        store.retain(Retention { keep_raw: None, max_bytes: 16 * MIB as u64 });
        assert_eq!(numbers(&path, 2).len() + numbers(&path, 3).len(), 6, "nothing goes by itself");
        let appended = store.commit(&[], &[&queue(&[1], 7)]).unwrap();
        assert_eq!(numbers(&path, 1), [1, 2], "the other user keeps both");
        assert_eq!(numbers(&path, 2).len() + numbers(&path, 3).len(), 1);
        assert_eq!(appended.dropped, 5, "and that is counted");
    }

    #[test]
    fn short_messages_are_counted_with_their_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let mut store = Store::open(&path).unwrap();
        store.retain(Retention { keep_raw: None, max_bytes: 16 * MIB as u64 });
        let sessions: Vec<i64> = (1..=10).collect();
        let begins: Vec<Change> = sessions.iter().map(|session| begin(*session)).collect();
        store.commit(&[], &begins.iter().collect::<Vec<_>>()).unwrap();
        let used = store.used_bytes().unwrap();
        let short = queue(&sessions, 1);
        store.commit(&[], &vec![&short; 5_000]).unwrap();
        let taken = store.used_bytes().unwrap() - used;
        assert!((MIB as u64..=4 * MIB as u64).contains(&taken), "{taken} bytes");
    }

    #[test]
    fn a_message_that_all_packet_ids_have_overtaken_is_counted_as_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let mut store = Store::open(&path).unwrap();
        store.commit(&[], &[&begin(1), &queue(&[1], 1), &queue(&[1], 1), &queue(&[1], 1)]).unwrap();
        // The client has the second one: nothing is lost with it.
        store.commit(&[], &[&Change::Release { session: 1, number: 2 }]).unwrap();
        let latest = PACKET_IDS + 2;
        store
            .connection
            .execute("UPDATE queued SET number = ? WHERE number = 3", [latest])
            .unwrap();
        drop(store);
        let mut store = Store::open(&path).unwrap();
        let appended = store.commit(&[], &[&queue(&[1], 1)]).unwrap();
        assert_eq!(numbers(&path, 1), [latest, latest + 1]);
        assert_eq!((appended.dropped, appended.dropped_by_session), (1, vec![(1, 1)]));
    }
}

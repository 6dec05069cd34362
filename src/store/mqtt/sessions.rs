//! Persistent sessions on disk: their clients, their subscriptions, and where each `QoS` 2 exchange stands.

use std::collections::HashSet;

use rusqlite::{Connection, Transaction};

use crate::mqtt::QoS;
use crate::store::mqtt::columns::qos;
use crate::store::mqtt::packet_ids::packet_id;

/// One subscription, with the options of MQTT 5.0 §3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Highest `QoS` of its deliveries.
    pub qos: QoS,
    /// Messages that the session's client published itself are not delivered to it.
    pub no_local: bool,
    /// The retain flag is delivered as it was published.
    pub retain_as_published: bool,
    /// Subscription identifier, 0 when there is none.
    pub identifier: u32,
}

/// A session as the broker finds it at its start.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Number of the session.
    pub session: i64,
    /// Client id.
    pub client_id: String,
    /// Seconds that it outlives its connection; `u32::MAX`: for ever.
    pub expiry_s: u32,
    /// When its client went away, Unix ms UTC; `None` when the broker ended first.
    pub left_at_ms: Option<i64>,
    /// Filters as the client wrote them.
    pub subscriptions: Vec<(String, Options)>,
    /// Packet ids of `QoS` 2 messages that were taken and not released.
    pub received: Vec<u16>,
    /// Packet ids of `QoS` 2 deliveries whose PUBREC has come, and not their PUBCOMP.
    pub released: HashSet<u16>,
    /// Number of the latest waiting message, 0 when there is none.
    pub latest: i64,
    /// Highest number of a message that was ever sent; `None`: the broker ended while its client was connected.
    pub sent: Option<i64>,
}

/// The user in the name of a session, which begins with it and U+0001. All clients without a login are one user, the
/// empty name.
#[must_use]
pub fn user_of(session: &str) -> &str {
    session.split_once('\u{1}').map_or("", |(user, _)| user)
}

/// All sessions, without their messages. The session whose client has been away for longest comes first; those whose
/// clients were connected when the broker ended come last.
pub(in crate::store) fn load(connection: &Connection) -> rusqlite::Result<Vec<Stored>> {
    let mut sessions: Vec<Stored> = connection
        .prepare(
            "SELECT id, client_id, expiry_s, left_at, sent,
                    (SELECT coalesce(max(number), 0) FROM queued WHERE session = id)
             FROM session ORDER BY left_at IS NULL, left_at, id",
        )?
        .query_map([], |row| {
            Ok(Stored {
                session: row.get(0)?,
                client_id: row.get(1)?,
                expiry_s: row.get(2)?,
                left_at_ms: row.get(3)?,
                subscriptions: Vec::new(),
                received: Vec::new(),
                released: HashSet::new(),
                sent: row.get(4)?,
                latest: row.get(5)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let mut subscriptions = connection.prepare(
        "SELECT filter, qos, no_local, as_published, identifier FROM subscription WHERE session = ?",
    )?;
    let mut received = connection.prepare("SELECT packet_id FROM received WHERE session = ?")?;
    let mut released = connection.prepare(
        "SELECT number FROM queued WHERE session = ? AND payload IS NULL AND message IS NULL",
    )?;
    for session in &mut sessions {
        session.subscriptions = subscriptions
            .query_map([session.session], |row| {
                let options = Options {
                    qos: qos(row, 1)?,
                    no_local: row.get(2)?,
                    retain_as_published: row.get(3)?,
                    identifier: row.get(4)?,
                };
                Ok((row.get(0)?, options))
            })?
            .collect::<Result<_, _>>()?;
        session.released = released
            .query_map([session.session], |row| Ok(packet_id(row.get(0)?)))?
            .collect::<Result<_, _>>()?;
        session.received =
            received.query_map([session.session], |row| row.get(0))?.collect::<Result<_, _>>()?;
    }
    Ok(sessions)
}

/// Deletes a session, for which no message waits any more, with its subscriptions and packet ids.
pub(in crate::store) fn delete(
    transaction: &Transaction<'_>,
    session: i64,
) -> rusqlite::Result<()> {
    for rows in [
        "DELETE FROM received WHERE session = ?",
        "DELETE FROM subscription WHERE session = ?",
        "DELETE FROM session WHERE id = ?",
    ] {
        transaction.prepare_cached(rows)?.execute([session])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mqtt::Message;
    use crate::store::{Change, LOG_FILE, Store, Target};

    #[test]
    fn a_client_id_has_one_session_in_whatever_order_ends_and_begins_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let mut store = Store::open(&path).unwrap();
        let begin = |session| Change::Begin { session, client_id: Arc::from("x"), expiry_s: 9 };
        let options = Options {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            identifier: 0,
        };
        let subscribe = Change::Subscribe { session: 1, filter: "t".to_owned(), options };
        let message = Arc::new(Message::own("t", "1"));
        let target =
            Target { session: 1, qos: QoS::AtLeastOnce, retain: false, identifiers: vec![] };
        let queue = Change::Queue { message, targets: vec![target] };
        store.commit(&[], &[&begin(1), &subscribe, &queue]).unwrap();
        store.commit(&[], &[&begin(2)]).unwrap();
        store.commit(&[], &[&Change::End { session: 1 }, &subscribe]).unwrap();
        let stored = load(&store.connection).unwrap();
        let [Stored { session: 2, subscriptions, latest: 0, .. }] = &stored[..] else {
            panic!("not the second session alone: {stored:?}")
        };
        assert!(subscriptions.is_empty());
    }

    #[test]
    fn the_user_of_a_session_is_in_its_name() {
        assert_eq!((user_of("plant\u{1}board"), user_of("board")), ("plant", ""));
    }

    #[test]
    fn a_client_that_was_connected_at_the_end_has_been_away_for_the_shortest() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join(LOG_FILE)).unwrap();
        for session in 1..=3 {
            let client_id = Arc::from(format!("c{session}"));
            store.commit(&[], &[&Change::Begin { session, client_id, expiry_s: 9 }]).unwrap();
        }
        let left = |session, at_ms| Change::Left { session, at_ms, expiry_s: 9, sent: 0 };
        store.commit(&[], &[&left(2, 2000), &left(3, 1000)]).unwrap();
        let order: Vec<i64> =
            load(&store.connection).unwrap().iter().map(|stored| stored.session).collect();
        assert_eq!(order, [3, 2, 1]);
    }

    #[test]
    fn deliveries_that_wait_for_pubcomp_are_found_by_their_packet_ids() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join(LOG_FILE)).unwrap();
        let queue = |bytes| {
            let target = |session| Target {
                session,
                qos: QoS::ExactlyOnce,
                retain: false,
                identifiers: vec![7],
            };
            let message = Arc::new(Message::own("t", vec![b'x'; bytes]));
            Change::Queue { message, targets: vec![target(1), target(2)] }
        };
        for session in 1..=2 {
            let client_id = Arc::from(format!("c{session}"));
            store.commit(&[], &[&Change::Begin { session, client_id, expiry_s: 9 }]).unwrap();
        }
        store.commit(&[], &[&queue(1), &queue(1_000), &queue(1)]).unwrap();
        for number in 1..=2 {
            store.commit(&[], &[&Change::Release { session: 1, number }]).unwrap();
        }
        let stored = load(&store.connection).unwrap();
        let released: Vec<_> = stored.into_iter().map(|stored| stored.released).collect();
        assert_eq!(released, [HashSet::from([2, 3]), HashSet::new()]);
    }
}

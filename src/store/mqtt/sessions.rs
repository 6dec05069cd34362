//! Persistent sessions on disk: who they are, what they subscribed to, and where each `QoS` 2 exchange stands; and
//! the changes of all that survives a restart.

use std::sync::Arc;

use crate::mqtt::QoS;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::mqtt::Message;
use crate::store::mqtt::queue::{Queues, Target, enqueue, size_of};
use crate::store::mqtt::retained;

/// One subscription, with the options of MQTT 5.0 §3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Highest `QoS` of what is delivered.
    pub qos: QoS,
    /// What the session's client published itself is not delivered to it.
    pub no_local: bool,
    /// The retain flag is delivered as it was published.
    pub retain_as_published: bool,
    /// Subscription identifier, 0 when there is none.
    pub identifier: u32,
}

/// A change of what survives a restart. `session` is the number of a session, `number` that of a message which
/// waits for it.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // of the fields, which say what they are
pub enum Change {
    /// A session begins, or goes on with another expiry interval (seconds; `u32::MAX`: never).
    Begin { session: i64, client_id: Arc<str>, expiry_s: u32 },
    /// Its client went away.
    Left { session: i64, at_ms: i64, expiry_s: u32 },
    /// It is over.
    End { session: i64 },
    /// A subscription, new or with other options.
    Subscribe { session: i64, filter: String, options: Options },
    /// No subscription any more.
    Unsubscribe { session: i64, filter: String },
    /// A message waits for sessions.
    Queue { message: Arc<Message>, targets: Vec<Target> },
    /// PUBREC: the client has this `QoS` 2 message, only PUBREL is left to say.
    Release { session: i64, number: i64 },
    /// PUBACK or PUBCOMP: nothing is left to say.
    Done { session: i64, number: i64 },
    /// A `QoS` 2 message with this packet id was taken from the client.
    Received { session: i64, packet_id: u16 },
    /// PUBREL: the packet id may be used anew.
    Released { session: i64, packet_id: u16 },
    /// The retained message of a topic; an empty one deletes it.
    Retain(Arc<Message>),
    /// What expired by then may go, Unix ms UTC.
    Expire { at_ms: i64 },
}

/// A session as it is found at the start.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its number.
    pub session: i64,
    /// Whose it is.
    pub client_id: String,
    /// Seconds that it outlives its connection; `u32::MAX`: for ever.
    pub expiry_s: u32,
    /// When its client went away, Unix ms UTC; `None` when the broker ended first.
    pub left_at_ms: Option<i64>,
    /// Filters as the client wrote them.
    pub subscriptions: Vec<(String, Options)>,
    /// Packet ids of `QoS` 2 messages that were taken and not released.
    pub received: Vec<u16>,
    /// Number of the latest message that waits, 0 when none does.
    pub latest: i64,
}

/// Makes one change. Returns how many waiting messages had to make room.
pub(in crate::store) fn apply(
    transaction: &Transaction<'_>,
    queues: &mut Queues,
    change: &Change,
) -> rusqlite::Result<u64> {
    let run = |sql, values: &[&dyn rusqlite::ToSql]| {
        transaction.prepare_cached(sql)?.execute(values).map(|_| 0)
    };
    match change {
        Change::Begin { session, client_id, expiry_s } => {
            // A client id has one session. The end of an earlier one may come later, or never.
            let earlier: Option<i64> = transaction
                .prepare_cached("SELECT id FROM session WHERE client_id = ? AND id <> ?")?
                .query_row(params![&**client_id, session], |row| row.get(0))
                .optional()?;
            if let Some(earlier) = earlier {
                end(transaction, queues, earlier)?;
            }
            queues.begin(*session);
            run(
                "INSERT INTO session (id, client_id, expiry_s, left_at) VALUES (?, ?, ?, NULL)
                 ON CONFLICT (id) DO UPDATE SET expiry_s = excluded.expiry_s, left_at = NULL",
                &[session, &&**client_id, expiry_s],
            )
        }
        Change::Left { session, at_ms, expiry_s } => run(
            "UPDATE session SET left_at = ?2, expiry_s = ?3 WHERE id = ?1",
            &[session, at_ms, expiry_s],
        ),
        Change::End { session } => end(transaction, queues, *session).map(|()| 0),
        // A connection that was taken over may still speak of a session that has ended.
        Change::Subscribe { session, .. } | Change::Received { session, .. }
            if !queues.sessions.contains_key(session) =>
        {
            Ok(0)
        }
        Change::Subscribe { session, filter, options } => run(
            "INSERT INTO subscription (session, filter, qos, no_local, as_published, identifier)
             VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (session, filter) DO UPDATE
             SET qos = excluded.qos, no_local = excluded.no_local,
                 as_published = excluded.as_published, identifier = excluded.identifier",
            &[
                session,
                filter,
                &(options.qos as u8),
                &options.no_local,
                &options.retain_as_published,
                &options.identifier,
            ],
        ),
        Change::Unsubscribe { session, filter } => {
            run("DELETE FROM subscription WHERE session = ? AND filter = ?", &[session, filter])
        }
        Change::Queue { message, targets } => {
            let mut dropped = 0;
            for target in targets {
                dropped += enqueue(transaction, queues, message, target)?;
            }
            Ok(dropped)
        }
        Change::Release { session, number } => {
            let size = size_of(transaction, *session, *number)?;
            if let Some(size) = size {
                queues.take_out(*session, 1, size);
            }
            run(
                "UPDATE queued SET topic = NULL, payload = NULL, properties = NULL, size = 0
                 WHERE session = ? AND number = ?",
                &[session, number],
            )
        }
        Change::Done { session, number } => {
            let size = size_of(transaction, *session, *number)?;
            if let Some(size) = size {
                queues.take_out(*session, 1, size);
            }
            run("DELETE FROM queued WHERE session = ? AND number = ?", &[session, number])
        }
        Change::Received { session, packet_id } => run(
            "INSERT OR IGNORE INTO received (session, packet_id) VALUES (?, ?)",
            &[session, packet_id],
        ),
        Change::Released { session, packet_id } => {
            run("DELETE FROM received WHERE session = ? AND packet_id = ?", &[session, packet_id])
        }
        Change::Retain(message) => retained::retain(transaction, message).map(|()| 0),
        Change::Expire { at_ms } => retained::expire(transaction, *at_ms).map(|()| 0),
    }
}

fn end(transaction: &Transaction<'_>, queues: &mut Queues, session: i64) -> rusqlite::Result<()> {
    queues.end(session);
    for table in [
        "DELETE FROM queued WHERE session = ?",
        "DELETE FROM received WHERE session = ?",
        "DELETE FROM subscription WHERE session = ?",
        "DELETE FROM session WHERE id = ?",
    ] {
        transaction.prepare_cached(table)?.execute([session])?;
    }
    Ok(())
}

/// All sessions, with what belongs to them but for the messages; who has been away for longest first, who was
/// connected when the broker ended last.
pub(in crate::store) fn load(connection: &Connection) -> rusqlite::Result<Vec<Stored>> {
    let mut sessions: Vec<Stored> = connection
        .prepare(
            "SELECT id, client_id, expiry_s, left_at,
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
                latest: row.get(4)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let mut subscriptions = connection.prepare(
        "SELECT filter, qos, no_local, as_published, identifier FROM subscription WHERE session = ?",
    )?;
    let mut received = connection.prepare("SELECT packet_id FROM received WHERE session = ?")?;
    for session in &mut sessions {
        session.subscriptions = subscriptions
            .query_map([session.session], |row| {
                let options = Options {
                    qos: QoS::from_u8(row.get(1)?).unwrap_or_default(),
                    no_local: row.get(2)?,
                    retain_as_published: row.get(3)?,
                    identifier: row.get(4)?,
                };
                Ok((row.get(0)?, options))
            })?
            .collect::<Result<_, _>>()?;
        session.received =
            received.query_map([session.session], |row| row.get(0))?.collect::<Result<_, _>>()?;
    }
    Ok(sessions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{LOG_FILE, Store};

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
    fn at_the_start_who_was_connected_has_been_away_for_the_shortest() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join(LOG_FILE)).unwrap();
        for session in 1..=3 {
            let client_id = Arc::from(format!("c{session}"));
            store.commit(&[], &[&Change::Begin { session, client_id, expiry_s: 9 }]).unwrap();
        }
        let left = |session, at_ms| Change::Left { session, at_ms, expiry_s: 9 };
        store.commit(&[], &[&left(2, 2000), &left(3, 1000)]).unwrap();
        let order: Vec<i64> =
            load(&store.connection).unwrap().iter().map(|stored| stored.session).collect();
        assert_eq!(order, [3, 2, 1]);
    }
}

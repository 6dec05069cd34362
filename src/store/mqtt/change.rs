//! Changes of the state that survives a restart, made in the writer's transaction.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction, params};

use crate::mqtt::Message;
use crate::reading::Id;
use crate::store::Store;
use crate::store::mqtt::forgotten;
use crate::store::mqtt::queue::{self, Target};
use crate::store::mqtt::queue_counts::QueueCounts;
use crate::store::mqtt::retained;
use crate::store::mqtt::sessions::{self, Options};
use crate::store::mqtt::wills::{self, StoredWill};

/// A change of the state that survives a restart. `session` is the number of a session, `number` that of a message
/// which waits for it.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // The fields' names are their documentation.
pub enum Change {
    /// A session begins, or goes on with another expiry interval (seconds; `u32::MAX`: never).
    Begin { session: i64, client_id: Arc<str>, expiry_s: u32 },
    /// Its client went away. `sent` is the highest number of a message that was ever sent to it.
    Left { session: i64, at_ms: i64, expiry_s: u32, sent: i64 },
    /// It is over.
    End { session: i64 },
    /// A subscription, new or with other options.
    Subscribe { session: i64, filter: String, options: Options },
    /// No subscription any more.
    Unsubscribe { session: i64, filter: String },
    /// A message waits for sessions.
    Queue { message: Arc<Message>, targets: Vec<Target> },
    /// PUBREC: the client has this `QoS` 2 message, only PUBREL is left to send.
    Release { session: i64, number: i64 },
    /// PUBACK or PUBCOMP: nothing is left to send.
    Done { session: i64, number: i64 },
    /// A `QoS` 2 message with this packet id was taken from the client.
    Received { session: i64, packet_id: u16 },
    /// PUBREL: the packet id may be used anew.
    Released { session: i64, packet_id: u16 },
    /// The retained message of a topic; an empty one deletes it.
    Retain(Arc<Message>),
    /// The will of a client that connects, in place of an earlier one.
    Will(Box<StoredWill>),
    /// The will's client went away, and the will is delayed.
    WillDue { id: i64, at_ms: i64 },
    /// The will was published, or will not be.
    WillGone { id: i64 },
    /// A node is to be forgotten: its retained messages and sessions, and then its rows.
    Forget { node: Id },
    /// Nothing of it is retained any more, and its sessions are over.
    Cleared { node: Id },
    /// Deletes the retained messages that have expired by then, Unix ms UTC.
    Expire { at_ms: i64 },
}

impl Store {
    /// How many waiting messages a change deletes, beyond one: those of a session that ends.
    #[must_use]
    pub fn deleted_by(&self, change: &Change) -> usize {
        match change {
            Change::End { session } => {
                usize::try_from(self.queues().messages(*session)).unwrap_or(usize::MAX)
            }
            _ => 0,
        }
    }
}

/// Makes one change.
pub(in crate::store) fn apply(
    transaction: &Transaction<'_>,
    counts: &mut QueueCounts,
    change: &Change,
) -> rusqlite::Result<()> {
    let run = |sql, values: &[&dyn rusqlite::ToSql]| {
        transaction.prepare_cached(sql)?.execute(values).map(|_| ())
    };
    match change {
        Change::Begin { session, client_id, expiry_s } => {
            // A client id has one session. The end of an earlier one may come later, or never.
            let earlier: Option<i64> = transaction
                .prepare_cached("SELECT id FROM session WHERE client_id = ? AND id <> ?")?
                .query_row(params![&**client_id, session], |row| row.get(0))
                .optional()?;
            if let Some(earlier) = earlier {
                end(transaction, counts, earlier)?;
            }
            counts.begin(*session, client_id);
            run(
                "INSERT INTO session (id, client_id, expiry_s, left_at) VALUES (?, ?, ?, NULL)
                 ON CONFLICT (id) DO UPDATE SET expiry_s = excluded.expiry_s, left_at = NULL,
                 sent = NULL",
                &[session, &&**client_id, expiry_s],
            )
        }
        Change::Left { session, at_ms, expiry_s, sent } => run(
            "UPDATE session SET left_at = ?2, expiry_s = ?3, sent = ?4 WHERE id = ?1",
            &[session, at_ms, expiry_s, sent],
        ),
        Change::End { session } => end(transaction, counts, *session),
        // A connection that was taken over may still send changes of an ended session.
        Change::Subscribe { session, .. } | Change::Received { session, .. }
            if !counts.contains(*session) =>
        {
            Ok(())
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
        Change::Queue { message, targets } => queue::enqueue(transaction, counts, message, targets),
        Change::Release { session, number } => {
            queue::release(transaction, counts, *session, *number)
        }
        Change::Done { session, number } => queue::done(transaction, counts, *session, *number),
        Change::Received { session, packet_id } => run(
            "INSERT OR IGNORE INTO received (session, packet_id) VALUES (?, ?)",
            &[session, packet_id],
        ),
        Change::Released { session, packet_id } => {
            run("DELETE FROM received WHERE session = ? AND packet_id = ?", &[session, packet_id])
        }
        Change::Retain(message) => retained::retain(transaction, message),
        Change::Will(will) => wills::put(transaction, will),
        Change::WillDue { id, at_ms } => wills::set_due(transaction, *id, *at_ms),
        Change::WillGone { id } => wills::delete(transaction, *id),
        Change::Forget { node } => forgotten::request(transaction, node),
        Change::Cleared { node } => forgotten::cleared(transaction, node),
        Change::Expire { at_ms } => retained::expire(transaction, *at_ms),
    }
}

fn end(
    transaction: &Transaction<'_>,
    counts: &mut QueueCounts,
    session: i64,
) -> rusqlite::Result<()> {
    queue::end(transaction, counts, session)?;
    sessions::delete(transaction, session)
}

//! One transaction upstream: the rows of a batch in the order of their keys, and the cursor.
//!
//! All statements are sent together and their answers judged in their order. COMMIT follows only then: that of a failed
//! transaction would be answered as if it had succeeded.

use bytes::Bytes;
use tokio_postgres::{Row, Statement};

use super::columns::{Alarms, Columns, Readings, Runs, Samples};
use super::connect::Session;
use super::copy::{STATEMENT, copy};
use super::cursor::{Cursor, Fill};
use super::fault::{Fault, Kind};
use crate::store::Operation;

/// Longest text of a refused operation, and of its cause, in bytes.
const REFUSED_MAX_BYTES: usize = 2_000;

/// The statements of a batch, prepared in a session.
pub struct Statements {
    copy: Statement,
    readings: Statement,
    runs: Statement,
    lock: Statement,
    correct: Statement,
    samples: Statement,
    alarms: Statement,
    refused: Statement,
    cursor: Statement,
}

/// A log's right to move its cursor in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The log's name.
    pub log: String,
    /// A random number, which the next session replaces.
    pub session: i64,
}

impl Statements {
    /// Prepares them.
    ///
    /// # Errors
    /// What the server says: tables may be missing, or rights.
    pub async fn prepare(session: &Session) -> Result<Self, Fault> {
        let prepare = |sql: &'static str| async move {
            session.exchange("prepare", session.client.prepare(sql)).await
        };
        Ok(Self {
            copy: prepare(STATEMENT).await?,
            readings: prepare(
                "INSERT INTO humidor.reading (node, boot, seq, sensor, at, clock, mono, temperature, humidity, via)
                 SELECT *, $10::text::uuid FROM unnest($1::text[], $2::text[], $3::int8[], $4::text[],
                     $5::int8[], $6::int2[], $7::int8[], $8::float8[], $9::float8[])
                 ON CONFLICT (node, boot, seq) DO NOTHING",
            )
            .await?,
            runs: prepare(
                "INSERT INTO humidor.run AS known (node, boot, offset_ms, synced_seq)
                 SELECT * FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[])
                 ON CONFLICT (node, boot) DO UPDATE
                 SET offset_ms = excluded.offset_ms, synced_seq = excluded.synced_seq
                 WHERE excluded.synced_seq < known.synced_seq",
            )
            .await?,
            // The readings of one run may come through two brokers at the same time, and its clock through a third.
            lock: prepare(
                "SELECT pg_advisory_xact_lock(hashtextextended(node || ' ' || boot, 0))
                 FROM unnest($1::text[], $2::text[]) AS run (node, boot)",
            )
            .await?,
            correct: prepare(
                "UPDATE humidor.reading AS reading
                 SET at_original = reading.at, at = reading.mono + run.offset_ms, clock = 2
                 FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[]) AS part (node, boot, first, last)
                 JOIN humidor.run AS run ON run.node = part.node AND run.boot = part.boot
                 WHERE reading.node = part.node AND reading.boot = part.boot
                   AND reading.seq BETWEEN part.first AND part.last
                   AND reading.seq < run.synced_seq AND reading.clock = 0",
            )
            .await?,
            samples: prepare(
                "INSERT INTO humidor.sample (log, position, topic, field, at, clock, value)
                 SELECT $7::text::uuid, * FROM unnest($1::int8[], $2::text[], $3::text[], $4::int8[],
                     $5::int2[], $6::float8[])
                 ON CONFLICT (log, position) DO NOTHING",
            )
            .await?,
            alarms: prepare(
                "INSERT INTO humidor.alarm (log, position, name, at, raised, detail)
                 SELECT $6::text::uuid, * FROM unnest($1::int8[], $2::text[], $3::int8[], $4::bool[],
                     $5::text[])
                 ON CONFLICT (log, position) DO NOTHING",
            )
            .await?,
            refused: prepare(
                "INSERT INTO humidor.refused (log, position, content, cause)
                 VALUES ($1::text::uuid, $2, $3, $4) ON CONFLICT DO NOTHING",
            )
            .await?,
            cursor: prepare(
                "UPDATE humidor.upstream_cursor
                 SET upto = $4, mark = $5, again = $6, fill_to = $7, fill_again = $8, fill_from = $9,
                     fill_run = $10, fill_seq = $11, moved_at = now()
                 WHERE log = $1::text::uuid AND session = $2 AND upto = $3",
            )
            .await?,
        })
    }
}

/// Takes the right to move the cursor of a log, and reads it. Sessions before this one cannot move it any more, whatever
/// they still send. When it returns, all that the cursor counts is on the disks that a commit waits for.
///
/// # Errors
/// What the server says.
pub async fn take_over(session: &Session, log: &str, name: &str) -> Result<(Lease, Cursor), Fault> {
    let lease = Lease { log: log.to_owned(), session: fastrand::i64(1..) };
    let sql = "INSERT INTO humidor.upstream_cursor AS known (log, upto, mark, again, session, name, moved_at)
         VALUES ($1::text::uuid, 0, 0, 0, $2, $3, now())
         ON CONFLICT (log) DO UPDATE SET session = excluded.session, name = excluded.name
         RETURNING upto, mark, again, fill_to, fill_again, fill_from, fill_run, fill_seq";
    session.exchange("BEGIN", session.client.batch_execute("BEGIN")).await?;
    let row = session
        .exchange("cursor", session.client.query_one(sql, &[&lease.log, &lease.session, &name]))
        .await?;
    let cursor = cursor_of(&row);
    session.commit().await?;
    Ok((lease, cursor?))
}

/// Reads the cursor of a log, and takes nothing over; `None` where there is none yet.
///
/// # Errors
/// What the server says.
pub async fn look(session: &Session, log: &str) -> Result<Option<Cursor>, Fault> {
    let sql = "SELECT upto, mark, again, fill_to, fill_again, fill_from, fill_run, fill_seq
         FROM humidor.upstream_cursor WHERE log = $1::text::uuid";
    let row = session.exchange("cursor", session.client.query_opt(sql, &[&log])).await?;
    Ok(row.as_ref().map(cursor_of).transpose()?)
}

fn cursor_of(row: &Row) -> Result<Cursor, tokio_postgres::Error> {
    let fill = match row.try_get::<_, Option<i64>>(3)? {
        None => None,
        Some(to) => Some(Fill {
            to,
            again: row.try_get(4)?,
            from_ms: row.try_get(5)?,
            sent: (row.try_get(6)?, row.try_get(7)?),
        }),
    };
    let (upto, mark, again) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(Cursor { upto, mark, again, fill })
}

/// Operations of one transaction.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Each with its number.
    pub operations: &'a [(i64, Operation)],
    /// The readings among them, where they are to be sent by COPY.
    pub copied: Option<Bytes>,
}

/// Sends operations and moves the cursor with them. Returns how many the database refused, which it keeps apart.
///
/// # Errors
/// When it is not sure whether the batch is committed: the connection is to be given up.
pub async fn send(
    session: &Session,
    statements: &Statements,
    lease: &Lease,
    Batch { operations, copied }: Batch<'_>,
    (from, to): (&Cursor, &Cursor),
) -> Result<u64, Fault> {
    let is_copied = copied.is_some();
    let columns = Columns::of(operations, is_copied);
    let begin = session.client.batch_execute("BEGIN");
    let copied = async {
        match copied {
            Some(rows) => copy(session, &statements.copy, rows).await,
            None => Ok(()),
        }
    };
    let outcome = session
        .exchange("batch", async {
            let (begin, copied, applied, moved) = tokio::join!(
                biased;
                begin,
                copied,
                Box::pin(apply(session, statements, lease, &columns)),
                move_cursor(session, statements, lease, from, to),
            );
            begin?;
            copied?;
            applied?;
            moved
        })
        .await;
    let (refused, moved) = match outcome {
        Ok(moved) => (0, moved),
        // INSERT may take it, and says what is wrong if not.
        Err(fault)
            if is_copied && matches!(fault.kind, Kind::Row | Kind::Schema | Kind::Permission) =>
        {
            return Err(Fault { kind: Kind::Copy, ..fault });
        }
        Err(fault) if fault.kind == Kind::Row => {
            session.exchange("ROLLBACK", session.client.batch_execute("ROLLBACK")).await?;
            session.exchange("BEGIN", session.client.batch_execute("BEGIN")).await?;
            let refused = send_apart(session, statements, lease, operations).await?;
            let moved = move_cursor(session, statements, lease, from, to);
            (refused, session.exchange("cursor", moved).await?)
        }
        Err(fault) => return Err(fault),
    };
    if moved != 1 {
        return Err(Fault::new(
            Kind::Contested,
            format!(
                "another humidor forwards under the name of this log ({}): is its volume a copy of another broker's? Stop one of them, and run `humidor upstream forward --again all --rename` for the copy",
                lease.log
            ),
        ));
    }
    session.commit().await?;
    Ok(refused)
}

/// Finds the operations that the database does not take, by halves, and keeps them apart.
async fn send_apart(
    session: &Session,
    statements: &Statements,
    lease: &Lease,
    operations: &[(i64, Operation)],
) -> Result<u64, Fault> {
    let mut refused = 0;
    let mut parts = vec![operations];
    while let Some(part) = parts.pop() {
        let savepoint = session.client.batch_execute("SAVEPOINT part");
        session.exchange("SAVEPOINT", savepoint).await?;
        let columns = Columns::of(part, false);
        let applied = Box::pin(apply(session, statements, lease, &columns));
        let fault = match session.exchange("part", applied).await {
            Ok(()) => {
                let release = session.client.batch_execute("RELEASE SAVEPOINT part");
                session.exchange("RELEASE", release).await?;
                continue;
            }
            Err(fault) if fault.kind == Kind::Row => fault,
            Err(fault) => return Err(fault),
        };
        let back = session.client.batch_execute("ROLLBACK TO SAVEPOINT part");
        session.exchange("ROLLBACK", back).await?;
        if let [(position, operation)] = part {
            // As Rust writes it: a text with a zero byte is one that no column takes.
            let (content, cause) = (shortened(format!("{operation:?}")), shortened(fault.text));
            let row: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&lease.log, position, &content, &cause];
            session
                .exchange("refused row", session.client.execute(&statements.refused, &row))
                .await?;
            tracing::warn!(%cause, %content, "PostgreSQL refused a row; table humidor.refused keeps it");
            refused += 1;
        } else {
            let (first, second) = part.split_at(part.len() / 2);
            parts.extend([second, first]);
        }
    }
    Ok(refused)
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(REFUSED_MAX_BYTES));
    text
}

async fn move_cursor(
    session: &Session,
    statements: &Statements,
    lease: &Lease,
    from: &Cursor,
    to: &Cursor,
) -> Result<u64, tokio_postgres::Error> {
    let fill = to.fill;
    session
        .client
        .execute(
            &statements.cursor,
            &[
                &lease.log,
                &lease.session,
                &from.upto,
                &to.upto,
                &to.mark,
                &to.again,
                &fill.map(|fill| fill.to),
                &fill.map(|fill| fill.again),
                &fill.map(|fill| fill.from_ms),
                &fill.map(|fill| fill.sent.0),
                &fill.map(|fill| fill.sent.1),
            ],
        )
        .await
}

/// Sends the rows of a batch. The statements are sent in their order at the first poll; an empty one is left out.
async fn apply(
    session: &Session,
    statements: &Statements,
    lease: &Lease,
    columns: &Columns<'_>,
) -> Result<(), tokio_postgres::Error> {
    let client = &session.client;
    let (parts, log) = (&columns.parts, &lease.log);
    let has_parts = !parts.node.is_empty();
    let lock = async {
        if has_parts {
            client.query(&statements.lock, &[&parts.node, &parts.boot]).await?;
        }
        Ok(())
    };
    let insert = async {
        let Readings { node, boot, seq, sensor, at, clock, mono, temperature, humidity } =
            &columns.readings;
        if !node.is_empty() {
            client
                .execute(
                    &statements.readings,
                    &[node, boot, seq, sensor, at, clock, mono, temperature, humidity, log],
                )
                .await?;
        }
        Ok(())
    };
    let runs = async {
        let Runs { node, boot, offset_ms, synced_seq } = &columns.runs;
        if !node.is_empty() {
            client.execute(&statements.runs, &[node, boot, offset_ms, synced_seq]).await?;
        }
        Ok(())
    };
    let correct = async {
        if has_parts {
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&parts.node, &parts.boot, &parts.first, &parts.last];
            client.execute(&statements.correct, &parameters).await?;
        }
        Ok(())
    };
    let samples = async {
        let Samples { position, topic, field, at, clock, value } = &columns.samples;
        if !position.is_empty() {
            client
                .execute(&statements.samples, &[position, topic, field, at, clock, value, log])
                .await?;
        }
        Ok(())
    };
    let alarms = async {
        let Alarms { position, name, at, raised, detail } = &columns.alarms;
        if !position.is_empty() {
            client.execute(&statements.alarms, &[position, name, at, raised, detail, log]).await?;
        }
        Ok::<_, tokio_postgres::Error>(())
    };
    let outcomes = tokio::join!(biased; lock, insert, runs, correct, samples, alarms);
    // The first fault is the cause of those behind it.
    outcomes.0.and(outcomes.1).and(outcomes.2).and(outcomes.3).and(outcomes.4).and(outcomes.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_row_is_told_in_a_bounded_text() {
        assert_eq!(shortened("é".repeat(2_000)).len(), 2_000);
        assert_eq!(shortened("x".to_owned()), "x");
    }
}

//! What an operator asks of the upstream database.

use super::config::Target;
use super::connect::Connector;
use super::fault::{Fault, Kind};
use super::schema;
use crate::store::Gap;

/// A log that is forwarded, as the upstream database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedLog {
    /// Its name.
    pub log: String,
    /// The machine that last forwarded it.
    pub machine: String,
    /// Operations up to this number are there.
    pub upto: i64,
    /// Seconds since that last rose, by the database's clock.
    pub moved_s: i64,
    /// Whether stored readings are being sent again.
    pub filling: bool,
    /// Rows of it that the database did not take.
    pub refused: i64,
}

fn connector(target: Target) -> Result<Connector, Fault> {
    Connector::new(target).map_err(|error| Fault::new(Kind::Settings, error.to_string()))
}

/// Makes the tables or brings them up to date; `grant` gets the rights of a forwarder. Returns the versions before and
/// after, and the server.
///
/// # Errors
/// What is wrong.
pub async fn migrate(target: Target, grant: Option<&str>) -> Result<(usize, usize, String), Fault> {
    let session = connector(target)?.connect().await?;
    let (before, after) = schema::migrate(&session, grant).await?;
    Ok((before, after, session.server.clone()))
}

/// Every log that is forwarded, and the server.
///
/// # Errors
/// What is wrong.
pub async fn logs(target: Target) -> Result<(Vec<ForwardedLog>, String), Fault> {
    let session = connector(target)?.connect().await?;
    schema::check(&session).await?;
    let rows = session
        .values(
            "SELECT log, name, upto, greatest(0, extract(epoch FROM now() - moved_at)::bigint), fill_to IS NOT NULL,
                    (SELECT count(*) FROM humidor.refused WHERE refused.log = upstream_cursor.log)
             FROM humidor.upstream_cursor ORDER BY name, log",
        )
        .await?;
    let number = |text: &String| text.parse().unwrap_or_default();
    let logs = rows.iter().filter_map(|row| match row.as_slice() {
        [log, machine, upto, moved_s, filling, refused] => Some(ForwardedLog {
            log: log.clone(),
            machine: machine.clone(),
            upto: number(upto),
            moved_s: number(moved_s),
            filling: filling == "t",
            refused: number(refused),
        }),
        _ => None,
    });
    Ok((logs.collect(), session.server.clone()))
}

/// What is missing of `gaps` upstream, too: a board that changes brokers has holes in each one's log.
///
/// # Errors
/// What is wrong.
pub async fn gaps(target: Target, gaps: &[Gap]) -> Result<Vec<Gap>, Fault> {
    let session = connector(target)?.connect().await?;
    schema::check(&session).await?;
    let column = |of: fn(&Gap) -> &str| gaps.iter().map(of).collect::<Vec<_>>();
    let number = |of: fn(&Gap) -> i64| gaps.iter().map(of).collect::<Vec<_>>();
    let rows = session.client.query(
        "WITH part AS (
             SELECT * FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[])
                 WITH ORDINALITY AS part (node, boot, first, last, n)),
         found AS (
             SELECT n, first - 1 AS seq, last FROM part
             UNION ALL
             SELECT part.n, reading.seq, part.last FROM part JOIN humidor.reading AS reading
                 ON reading.node = part.node AND reading.boot = part.boot
                 AND reading.seq BETWEEN part.first AND part.last),
         hole AS (
             SELECT n, seq + 1 AS first, lead(seq, 1, last + 1) OVER (PARTITION BY n ORDER BY seq) - 1 AS last
             FROM found)
         SELECT node, boot, hole.first, hole.last FROM hole JOIN part USING (n)
         WHERE hole.last >= hole.first ORDER BY n, hole.first",
        &[
            &column(|gap| &gap.node),
            &column(|gap| &gap.boot),
            &number(|gap| gap.from),
            &number(|gap| gap.to),
        ],
    )
    .await
    .map_err(|error| session.cause(error))?;
    let gap = |row: &tokio_postgres::Row| -> Result<Gap, tokio_postgres::Error> {
        Ok(Gap {
            node: row.try_get(0)?,
            boot: row.try_get(1)?,
            from: row.try_get(2)?,
            to: row.try_get(3)?,
        })
    };
    Ok(rows.iter().map(gap).collect::<Result<_, _>>()?)
}

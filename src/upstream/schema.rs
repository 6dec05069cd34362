//! The tables upstream: made and brought up to date by `humidor upstream migrate`, checked by the forwarder.

use super::connect::Session;
use super::fault::{Fault, Kind};

/// One script a version. A script that has been released is never changed.
const MIGRATIONS: &[&str] = &[include_str!("schema/1_log.sql")];
/// Makes the schema, and the table with its version.
const BEGIN: &str = "CREATE SCHEMA IF NOT EXISTS humidor;
CREATE TABLE IF NOT EXISTS humidor.schema_version (version integer NOT NULL);";
/// The lock of a migration, so that two of them take turns: `hmdr` in ASCII.
const LOCK: &str = "SELECT pg_advisory_xact_lock(1751999602)";
/// What the forwarder's user needs, and a reader's.
const GRANTS: &[&str] = &[
    "GRANT USAGE ON SCHEMA humidor TO ",
    "GRANT SELECT ON ALL TABLES IN SCHEMA humidor TO ",
    "GRANT INSERT ON humidor.reading, humidor.run, humidor.sample, humidor.alarm, humidor.refused, humidor.upstream_cursor TO ",
    "GRANT UPDATE ON humidor.reading, humidor.run, humidor.upstream_cursor TO ",
];

/// Refuses a database whose tables are missing, or those of a newer program.
///
/// # Errors
/// What to do.
pub async fn check(session: &Session) -> Result<(), Fault> {
    match version(session).await? {
        Some(found) if found == MIGRATIONS.len() => Ok(()),
        Some(found) if found > MIGRATIONS.len() => Err(newer(found)),
        found => Err(Fault::new(
            Kind::Schema,
            format!(
                "the tables are of version {}, this program needs {}: run `humidor upstream migrate`",
                found.unwrap_or_default(),
                MIGRATIONS.len()
            ),
        )),
    }
}

fn newer(found: usize) -> Fault {
    Fault::new(
        Kind::Schema,
        format!(
            "the tables are of version {found}, this program knows up to {}: use the newer humidor",
            MIGRATIONS.len()
        ),
    )
}

/// The version of the tables; `None` where there are none yet.
async fn version(session: &Session) -> Result<Option<usize>, Fault> {
    let rows = session.values("SELECT max(version) FROM humidor.schema_version").await?;
    Ok(rows.first().and_then(|row| row.first()).and_then(|version| version.parse().ok()))
}

/// Makes the tables or brings them up to date, and gives `grant` the rights of a forwarder. Returns the versions before and
/// after.
///
/// # Errors
/// What the server says.
pub async fn migrate(session: &Session, grant: Option<&str>) -> Result<(usize, usize), Fault> {
    // Not within the limit of an exchange: a new index on a large table takes its time.
    let run = |script: String| async move {
        session.client.batch_execute(&script).await.map_err(|error| session.cause(error))
    };
    run(format!("BEGIN; {LOCK}; {BEGIN}")).await?;
    let found = version(session).await?.unwrap_or_default();
    if found > MIGRATIONS.len() {
        return Err(newer(found));
    }
    for script in &MIGRATIONS[found..] {
        run((*script).to_owned()).await?;
    }
    run(format!(
        "DELETE FROM humidor.schema_version; INSERT INTO humidor.schema_version VALUES ({})",
        MIGRATIONS.len()
    ))
    .await?;
    if let Some(role) = grant {
        let role = format!("\"{}\"", role.replace('"', "\"\""));
        for right in GRANTS {
            run(format!("{right}{role}")).await?;
        }
    }
    session.commit().await?;
    Ok((found, MIGRATIONS.len()))
}

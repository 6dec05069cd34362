//! Tells our databases from those of other programs, and brings an older schema up to date.

use std::path::Path;

use rusqlite::Connection;

use crate::store::file::error::OpenError;

/// What kind of database a file is: its schema, and the mark that tells it from others.
#[derive(Debug, Clone, Copy)]
pub struct Database {
    /// `PRAGMA application_id`, so that the file of another program is not migrated.
    pub application_id: i32,
    /// One script a schema version; `PRAGMA user_version` counts how many have run.
    pub migrations: &'static [&'static str],
}

/// Refuses a database of another program or of a newer version, before anything in it is changed. Returns its version.
pub(in crate::store) fn refuse_others(
    connection: &Connection,
    path: &Path,
    kind: Database,
) -> Result<usize, OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(sqlite);
    let found = number("PRAGMA application_id")?;
    let empty = found == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0;
    if found != i64::from(kind.application_id) && !empty {
        return Err(OpenError::Foreign { path: path.to_owned(), found });
    }
    let version = usize::try_from(number("PRAGMA user_version")?).unwrap_or_default();
    let known = kind.migrations.len();
    if version > known {
        return Err(OpenError::Newer { path: path.to_owned(), found: version, known });
    }
    Ok(version)
}

/// Runs the scripts that the database has not run yet, each in one transaction.
pub(in crate::store) fn migrate(
    connection: &mut Connection,
    path: &Path,
    kind: Database,
) -> Result<(), OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let found: usize =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sqlite)?;
    for (done, script) in kind.migrations.iter().enumerate().skip(found) {
        let mut step = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            transaction.execute_batch(script)?;
            transaction.pragma_update(None, "application_id", kind.application_id)?;
            transaction.pragma_update(None, "user_version", done + 1)?;
            transaction.commit()
        };
        step().map_err(sqlite)?;
    }
    Ok(())
}

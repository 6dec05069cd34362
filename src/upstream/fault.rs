//! What is wrong with the upstream database, in words, and what the forwarder does about it.

use std::error::Error as _;
use std::time::Duration;

use tokio_postgres::error::SqlState;

/// What kind of fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No server answers, or none that can be written; it may pass.
    Unavailable,
    /// A login or a right is refused.
    Permission,
    /// The database or its certificate is not what the settings say.
    Settings,
    /// The schema is missing, or newer than this program.
    Schema,
    /// The database does not take a row.
    Row,
    /// A row cannot be sent by COPY, most likely one that is there already: it goes by INSERT, over a new connection.
    Copy,
    /// Another humidor forwards under this log's name.
    Contested,
    /// The log is not the one that was forwarded under its name.
    Diverged,
    /// The log itself cannot be read.
    Log,
    /// None: an operator has requested stored readings.
    Requested,
}

/// A fault of the upstream database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// Its kind.
    pub kind: Kind,
    /// What, where, and what to do.
    pub text: String,
}

impl Fault {
    /// A fault in our own words.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// An exchange that took too long: what it asked for may be done or not.
    pub fn slow(what: &str, limit: Duration) -> Self {
        Self::new(Kind::Unavailable, format!("{what}: no answer within {} s", limit.as_secs()))
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            // The message alone is "db error" or "error performing TLS handshake".
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            let kind = if text.contains(CERTIFICATE) { Kind::Settings } else { Kind::Unavailable };
            return Self::new(kind, text);
        };
        let (kind, remedy) = judge(said.code());
        let mut text = format!("{} ({})", said.message(), said.code().code());
        for more in [said.detail(), (!remedy.is_empty()).then_some(remedy)].into_iter().flatten() {
            text = format!("{text}: {more}");
        }
        Self::new(kind, text)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(Kind::Log, format!("the log cannot be read: {error}"))
    }
}

/// Begins the sentence about a certificate.
pub(super) const CERTIFICATE: &str = "the server's certificate";

/// The kind of an error by its SQLSTATE, and what to do.
fn judge(code: &SqlState) -> (Kind, &'static str) {
    match code.code() {
        "28P01" => (
            Kind::Permission,
            "HUMIDOR_UPSTREAM_PASSWORD_FILE has another password than PostgreSQL",
        ),
        "28000" => (Kind::Permission, "pg_hba.conf does not let this user in from here"),
        "42501" => (
            Kind::Permission,
            "`humidor upstream migrate --grant USER`, run as the owner of the database, gives the brokers' user its rights",
        ),
        "3D000" => (Kind::Settings, "create the database, or name another one in HUMIDOR_UPSTREAM"),
        "42P01" | "3F000" | "42703" | "42704" => {
            (Kind::Schema, "`humidor upstream migrate` makes the tables")
        }
        // A table that is not the one of the schema any more: a view, or one with policies for its rows.
        "0A000" | "42809" => (Kind::Schema, "is table humidor.reading another one now?"),
        // Data exceptions, constraints, and what a trigger raises.
        code if ["22", "23", "44", "P0"].iter().any(|class| code.starts_with(class)) => {
            (Kind::Row, "")
        }
        _ => (Kind::Unavailable, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_a_row_is_taken_for_a_fault_of_the_row() {
        let kind = |code: &str| judge(&SqlState::from_code(code)).0;
        for row in ["22021", "22P02", "23514", "23502", "44000", "P0001"] {
            assert_eq!(kind(row), Kind::Row, "{row}");
        }
        // Deadlock, lock not available, full disk, shutdown, read-only, cancelled, failed transaction.
        for passing in ["40P01", "55P03", "53100", "57P01", "25006", "57014", "25P02", "40001"] {
            assert_eq!(kind(passing), Kind::Unavailable, "{passing}");
        }
        assert_eq!(kind("42501"), Kind::Permission);
        assert_eq!(kind("42P01"), Kind::Schema);
        assert_eq!(kind("0A000"), Kind::Schema, "COPY into a table with policies for its rows");
    }
}

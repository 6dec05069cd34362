//! The settings of access, and why they cannot be used.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::broker::access::users::{HashError, UsersError};

/// Whether a client may connect without a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Anonymous {
    /// While there is no user and only this machine reaches the port.
    #[default]
    Auto,
    /// From any machine.
    Yes,
    /// Never.
    No,
}

/// A password in memory. Its debug form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The settings of access.
#[derive(Debug, Clone, Default)]
pub struct AccessConfig {
    /// The users file.
    pub users_file: Option<PathBuf>,
    /// Whether a setting names it: then it must exist.
    pub users_file_named: bool,
    /// The single user of `HUMIDOR_USER`, who may do everything.
    pub user: Option<(String, Password)>,
    /// Whether a client may connect without a login.
    pub anonymous: Anonymous,
    /// The file that notes that there were users; `None`: it is not noted.
    pub had_users: Option<PathBuf>,
    /// The file with the clients that have logged in; `None`: they are forgotten at the end.
    pub known_clients: Option<PathBuf>,
}

/// Why access cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The users file is missing or wrong.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The password of `HUMIDOR_USER` cannot be hashed.
    #[error("HUMIDOR_PASSWORD: {0}")]
    Password(#[from] HashError),
    /// A user is defined twice.
    #[error("user {0} is both in HUMIDOR_USER and in the users file; keep one")]
    Twice(String),
    /// Other machines can reach the port, and there is no user.
    #[error(
        "{address} can be reached from other machines, and there is no user yet. Choose one:\n\
         \x20 - users: `humidor user add --role admin NAME{file}` for the page, `humidor user add --role fleet NAME{file}` for all boards; or one for everything, HUMIDOR_USER and HUMIDOR_PASSWORD_FILE here and on the boards\n\
         \x20 - no login (anyone on the network may do anything; for a first try only): HUMIDOR_ANONYMOUS=yes\n\
         \x20 - this machine only: HUMIDOR_MQTT_LISTEN=127.0.0.1:1883"
    )]
    Open {
        /// The address.
        address: SocketAddr,
        /// The option that names the users file, with a space before it; empty where none is needed.
        file: String,
    },
    /// There were users once, and now there are none.
    #[error(
        "this broker has had users, and there is none now in {0}. Choose one:\n\
         \x20 - put the users file back, or name it with HUMIDOR_USERS_FILE\n\
         \x20 - a new user: `humidor user add NAME`, or HUMIDOR_USER and HUMIDOR_PASSWORD_FILE\n\
         \x20 - no login (anyone who reaches the ports may do anything): HUMIDOR_ANONYMOUS=yes"
    )]
    UsersGone(String),
    /// The users file is gone or empty while the broker runs.
    #[error("{} is gone or empty; put it back. `humidor user remove` removes users", .0.display())]
    FileGone(PathBuf),
    /// SIGHUP cannot be caught.
    #[error("cannot watch the users file: {0}")]
    Watch(std::io::Error),
}

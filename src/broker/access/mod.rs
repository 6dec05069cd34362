//! Access: logins, roles and rules, and the permissions of each client.

pub(in crate::broker) mod acl;
mod check_time;
mod config;
mod guesses;
mod known_clients;
mod known_file;
pub(in crate::broker) mod login_attempts;
pub(in crate::broker) mod permissions;
mod refusal_lines;
mod refusals;
mod refused_clients;
mod renewal;
mod session_rules;
mod sources;
pub(in crate::broker) mod users;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub use config::{AccessConfig, AccessError, Anonymous, Password};
pub use refusal_lines::{BOARDS_USER, UserOfBoards};
pub use refusals::{NotAdmitted, Refusals};
pub use refused_clients::RefusedClient;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::broker::access::acl::{CompiledAcl, Role};
use crate::broker::access::login_attempts::{Attempt, Checks, LoginError};
use crate::broker::access::permissions::{Caller, Permissions};
use crate::broker::access::refused_clients::RefusedClients;
use crate::broker::access::sources::{NotRead, Sources};
use crate::broker::access::users::{Account, Directory};
use crate::broker::net::reload::Watched;
use crate::shutdown::Shutdown;
use crate::throttled_log::{ThrottledLog, ThrottledLogs};

/// Longest client id in bytes. The protocol asks for at least 23.
const CLIENT_ID_MAX_BYTES: usize = 256;
/// Most bytes of a refused name in the log.
const SHOWN_BYTES: usize = 64;
/// Refusals of one kind are logged at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// The users file where no setting names a folder.
const DEFAULT_USERS_FILE: &str = "./data/users.toml";

/// Checks logins, and gives permissions.
#[derive(Debug, Clone)]
pub struct Access {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sources: Sources,
    anonymous: Anonymous,
    /// Whether only this machine reaches the ports.
    local: bool,
    directory: watch::Sender<Arc<Directory>>,
    /// Whether there was ever a user, also before the start.
    had_users: AtomicBool,
    checks: Checks,
    refusals: Refusals,
    refused: RefusedClients,
    login_lines: ThrottledLogs,
    publish_line: ThrottledLog,
}

impl Access {
    /// Reads the users. `listen` are the addresses that clients reach. Hashes a password: not on an async
    /// thread.
    ///
    /// # Errors
    /// [`AccessError`], with a message for the operator.
    pub fn open(config: AccessConfig, listen: &[SocketAddr]) -> Result<Self, AccessError> {
        let (anonymous, known_clients) = (config.anonymous, config.known_clients.clone());
        let sources = Sources::new(config)?;
        let directory = sources.first()?;
        warn_of_weak_hashes(&directory);
        let (empty, had_users) = (directory.accounts.is_empty(), sources.had_users());
        let open = listen.iter().find(|address| !address.ip().is_loopback());
        if anonymous == Anonymous::Auto && empty {
            if had_users {
                return Err(AccessError::UsersGone(sources.shown()));
            }
            if let Some(address) = open {
                let named = sources.file().filter(|path| path != Path::new(DEFAULT_USERS_FILE));
                let file = named.map(|path| format!(" --users-file {}", path.display()));
                return Err(AccessError::Open {
                    address: *address,
                    file: file.unwrap_or_default(),
                });
            }
        }
        let inner = Inner {
            sources,
            anonymous,
            local: open.is_none(),
            directory: watch::Sender::new(Arc::new(directory)),
            had_users: AtomicBool::new(had_users),
            checks: Checks::new(known_clients)?,
            refusals: Refusals::default(),
            refused: RefusedClients::default(),
            login_lines: ThrottledLogs::new(COMPLAINT_INTERVAL),
            publish_line: ThrottledLog::new(COMPLAINT_INTERVAL),
        };
        if !empty {
            inner.note_users();
        }
        let access = Self { inner: Arc::new(inner) };
        access.log_mode();
        Ok(access)
    }

    /// Logs whether clients need a login.
    fn log_mode(&self) {
        let directory = self.inner.directory.borrow();
        let users = directory.accounts.len();
        match (self.inner.anonymous, self.inner.admits_anonymous(&directory)) {
            (Anonymous::Yes, _) if self.inner.local => {
                info!(users, "clients on this machine may connect without a login");
            }
            (Anonymous::Yes, _) => {
                warn!(users, "anyone on the network may connect without a login");
            }
            (_, true) => info!("no users: clients on this machine may connect without a login"),
            _ => info!(users, "clients have to log in"),
        }
    }

    /// Reads the users file again whenever it has changed, until `shutdown`.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn watch(&self, mut shutdown: Shutdown) -> Result<(), AccessError> {
        let Some(path) = self.inner.sources.file() else { return Ok(()) };
        let mut watched = Watched::new(vec![path]).map_err(AccessError::Watch)?;
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = watched.changed() => {}
                    () = shutdown.requested() => return,
                }
                let reading = Arc::clone(&inner);
                // On a thread that may wait for a disk.
                let read = spawn_blocking(move || {
                    let read = reading.sources.again();
                    if read.as_ref().is_ok_and(|directory| !directory.accounts.is_empty()) {
                        reading.note_users();
                    }
                    read
                });
                match read.await {
                    Ok(Ok(directory)) => {
                        let directory = Arc::new(directory);
                        inner.directory.send_replace(Arc::clone(&directory));
                        // Said when it is so: who reads the line may log in by the new file.
                        info!(users = directory.accounts.len(), "users read again");
                        warn_of_weak_hashes(&directory);
                    }
                    Ok(Err(NotRead::Unchanged)) | Err(_) => {}
                    Ok(Err(NotRead::Wrong(error))) => error!(%error, "the users stay as they were"),
                }
            }
        });
        Ok(())
    }

    /// Writes which clients have logged in, as the broker ends. Blocks.
    pub fn save_known_clients(&self) {
        self.inner.checks.save();
    }

    /// Counts of refusals since the start.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.inner.refusals
    }

    /// Whether there is any user.
    #[must_use]
    pub fn has_users(&self) -> bool {
        !self.inner.directory.borrow().accounts.is_empty()
    }

    /// Whether a client may connect without a login.
    #[must_use]
    pub fn admits_anonymous(&self) -> bool {
        self.inner.admits_anonymous(&self.inner.directory.borrow())
    }

    /// As [`Access::admits_anonymous`], with the users of `directory`.
    pub(in crate::broker) fn admits_anonymous_of(&self, directory: &Directory) -> bool {
        self.inner.admits_anonymous(directory)
    }

    /// Resolves at each later change of the users or rules.
    pub(in crate::broker) fn changes(&self) -> watch::Receiver<Arc<Directory>> {
        self.inner.directory.subscribe()
    }

    /// Counts a message to a topic that its publisher may not write, and logs it, throttled.
    pub(in crate::broker) fn refuse_publish(&self, user: &str, client_id: &str, topic: &str) {
        self.inner.refusals.publishes.fetch_add(1, Relaxed);
        if let Some(left_out) = self.inner.publish_line.due(Instant::now()) {
            warn!(user, client = ?client_id, ?topic, left_out, "publish refused: this user may not write this topic");
        }
    }

    /// Whether a client on any machine may connect without a login.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.inner.anonymous, Anonymous::Yes)
    }

    async fn account(
        &self,
        directory: &Directory,
        attempt: Attempt<'_>,
        password: &[u8],
    ) -> Result<Arc<Account>, LoginError> {
        let account = directory.accounts.get(attempt.user);
        let checked = account.map(AsRef::as_ref);
        self.inner.checks.check(attempt, checked, directory.costliest, password).await?;
        let account = account.ok_or(LoginError::Wrong)?;
        if let Some(renew) = self.inner.sources.renewal(attempt.user, account, password) {
            let inner = Arc::clone(&self.inner);
            spawn_blocking(move || renew(&inner.sources));
        }
        Ok(Arc::clone(account))
    }

    /// The permissions of a client of HTTP without a login: those of `role`, behind the rules for all users.
    ///
    /// # Errors
    /// When a rule cannot be applied to `client_id`.
    pub fn guest(&self, client_id: &str, role: Role) -> Result<Permissions, NotAdmitted> {
        let mut changes = self.inner.directory.subscribe();
        let directory = Arc::clone(&changes.borrow_and_update());
        let acl = Arc::new(CompiledAcl::new(&[&directory.rules], role, None, client_id)?);
        let client_id = client_id.to_owned();
        let caller = Caller::Guest;
        Ok(Permissions { access: self.clone(), client_id, caller, directory, changes, acl })
    }

    /// Admits a client. `login` is its name and password.
    ///
    /// # Errors
    /// [`NotAdmitted`], which is counted and logged.
    pub async fn admit(
        &self,
        peer: SocketAddr,
        client_id: &str,
        login: Option<(&str, &[u8])>,
    ) -> Result<Permissions, NotAdmitted> {
        self.admit_as(peer, client_id, client_id, login).await
    }

    /// As [`Access::admit`]. `client` tells it from other clients at its address instead of its client id.
    ///
    /// # Errors
    /// [`NotAdmitted`], which is counted and logged.
    pub async fn admit_as(
        &self,
        peer: SocketAddr,
        client_id: &str,
        client: &str,
        login: Option<(&str, &[u8])>,
    ) -> Result<Permissions, NotAdmitted> {
        let admitted = self.try_admit(peer.ip(), (client_id, client), login).await;
        if let Err(refusal) = &admitted {
            self.inner.refusals.logins.fetch_add(1, Relaxed);
            // Debug form: it escapes control characters in names that come from the network.
            let user = login.map_or("", |(name, _)| start(name));
            // For each address and user, so that those with many refusals do not hide the others.
            if let Some(left_out) = self.inner.login_lines.due((peer.ip(), user), Instant::now()) {
                let client = start(client_id);
                let why = self.explain(*refusal, login.map(|(name, _)| name));
                warn!(%peer, ?user, ?client, left_out, "login refused: {why}");
            }
        }
        admitted
    }

    async fn try_admit(
        &self,
        from: IpAddr,
        (client_id, client): (&str, &str),
        login: Option<(&str, &[u8])>,
    ) -> Result<Permissions, NotAdmitted> {
        let mut changes = self.inner.directory.subscribe();
        let directory = Arc::clone(&changes.borrow_and_update());
        let caller = match login {
            // Where there are no users, an anonymous client may send any name.
            Some((name, password)) if !directory.accounts.is_empty() => {
                let attempt = Attempt { from, client, user: name };
                match self.account(&directory, attempt, password).await {
                    Ok(account) => Caller::User(name.to_owned(), account),
                    Err(LoginError::Wrong) => return Err(NotAdmitted::NotAuthorized),
                    Err(LoginError::Refused) => return Err(NotAdmitted::NoGuessLeft),
                    Err(LoginError::Busy) => return Err(NotAdmitted::Busy),
                    Err(LoginError::Crowded) => return Err(NotAdmitted::Crowded),
                }
            }
            // HTTP may be reachable from more machines than the ports of MQTT.
            _ if self.inner.admits_anonymous(&directory)
                && (self.is_open() || from.to_canonical().is_loopback()) =>
            {
                Caller::Anonymous
            }
            _ => return Err(NotAdmitted::NotAuthorized),
        };
        let acl = match &caller {
            Caller::User(name, account) => directory.acl(name, account, client_id)?,
            _ => CompiledAcl::new(&[&directory.rules], Role::Admin, None, client_id)?,
        };
        let client_id = client_id.to_owned();
        let acl = Arc::new(acl);
        Ok(Permissions { access: self.clone(), client_id, caller, directory, changes, acl })
    }
}

impl Inner {
    /// A broker that has had users does not become open again when they are gone.
    fn admits_anonymous(&self, directory: &Directory) -> bool {
        match self.anonymous {
            Anonymous::Yes => true,
            Anonymous::No => false,
            Anonymous::Auto => {
                self.local && directory.accounts.is_empty() && !self.had_users.load(Relaxed)
            }
        }
    }

    /// Notes that there are users, for this run and the next ones.
    fn note_users(&self) {
        self.had_users.store(true, Relaxed);
        self.sources.note_users();
    }
}

fn warn_of_weak_hashes(directory: &Directory) {
    let users = directory.weak();
    if !users.is_empty() {
        warn!(
            ?users,
            "the hashes of these users are cheap to guess at; each is replaced when its user logs in next"
        );
    }
}

/// The start of a name from the network, for the log: at most [`SHOWN_BYTES`].
fn start(name: &str) -> &str {
    &name[..name.floor_char_boundary(SHOWN_BYTES)]
}

/// Whether the broker accepts a client id: 1 to [`CLIENT_ID_MAX_BYTES`] bytes without control characters.
#[must_use]
pub fn client_id(id: &str) -> bool {
    (1..=CLIENT_ID_MAX_BYTES).contains(&id.len()) && !id.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_for_the_log_at_a_character() {
        assert_eq!(start("plant"), "plant");
        // The 64th byte is in the middle of a character of three.
        let long = format!("{}{}", "a".repeat(62), "온".repeat(7000));
        assert_eq!(start(&long), "a".repeat(62));
        let fits = format!("{}{}", "a".repeat(61), "온".repeat(7000));
        assert_eq!(start(&fits).len(), 64);
    }
}

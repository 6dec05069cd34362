//! Access: logins, roles and rules, and the permissions of each client.

pub(in crate::broker) mod acl;
mod config;
mod guesses;
pub(in crate::broker) mod login_attempts;
pub(in crate::broker) mod permissions;
pub(in crate::broker) mod users;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use config::{AccessConfig, AccessError, Anonymous, Password};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::broker::access::acl::{CompiledAcl, Role, UnfitClientId};
use crate::broker::access::login_attempts::{Attempt, Checks, LoginError};
use crate::broker::access::permissions::Permissions;
use crate::broker::access::users::{Account, Directory};
use crate::broker::net::reload::Watched;
use crate::mqtt::codec::Reason;
use crate::shutdown::Shutdown;
use crate::throttled_log::{ThrottledLog, ThrottledLogs};

/// Longest client id in bytes. The protocol asks for at least 23.
const CLIENT_ID_MAX_BYTES: usize = 256;
/// Most bytes of a refused name in the log.
const SHOWN_BYTES: usize = 64;
/// Refusals of one kind are logged at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Counts of refusals since the start.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Refused logins.
    pub logins: AtomicU64,
    /// Messages to topics that their publisher may not write.
    pub publishes: AtomicU64,
}

/// Why a client was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The name or the password is wrong, or a login is missing.
    #[error("not authorized")]
    NotAuthorized,
    /// Its client id would change a rule's meaning.
    #[error(transparent)]
    ClientId(#[from] UnfitClientId),
    /// The client can try again later.
    #[error("too many logins wait or have failed; try again later")]
    Busy,
}

impl NotAdmitted {
    /// The reason code of MQTT 5.0 §3.2.2.2. As in other brokers, a wrong password is "not authorized": the code does
    /// not tell whether the user exists.
    pub const fn reason(self) -> Reason {
        match self {
            Self::NotAuthorized => Reason::NotAuthorized,
            Self::ClientId(_) => Reason::ClientIdentifierNotValid,
            Self::Busy => Reason::ServerBusy,
        }
    }
}

/// Checks logins, and gives permissions.
#[derive(Debug, Clone)]
pub struct Access {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    users_file: Option<PathBuf>,
    user: Option<(String, Arc<Account>)>,
    anonymous: Anonymous,
    /// Whether only this machine reaches the ports.
    local: bool,
    directory: watch::Sender<Arc<Directory>>,
    checks: Checks,
    refusals: Refusals,
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
        let user = match config.user {
            Some((name, password)) => {
                let hash = users::hash(password.0.as_bytes())?;
                Some((name, Arc::new(Account { hash, role: Role::Admin, rules: Vec::new() })))
            }
            None => None,
        };
        // A file in the data folder may be created later; a file that a setting names must exist.
        let users_file = config.users_file;
        let there =
            users_file.as_ref().filter(|path| config.users_file_named || path.exists()).cloned();
        let directory = directory(there.as_ref(), user.as_ref())?;
        if let Some(path) = there.filter(|path| users::is_world_readable(path)) {
            warn!(file = %path.display(), "every user of this machine can read the password hashes; run chmod 640");
        }
        warn_of_weak_hashes(&directory);
        let open = listen.iter().find(|address| !address.ip().is_loopback());
        if let (Some(address), Anonymous::Auto, true) =
            (open, config.anonymous, directory.accounts.is_empty())
        {
            return Err(AccessError::Open(*address));
        }
        let inner = Inner {
            users_file,
            user,
            anonymous: config.anonymous,
            local: open.is_none(),
            directory: watch::Sender::new(Arc::new(directory)),
            checks: Checks::new()?,
            refusals: Refusals::default(),
            login_lines: ThrottledLogs::new(COMPLAINT_INTERVAL),
            publish_line: ThrottledLog::new(COMPLAINT_INTERVAL),
        };
        let access = Self { inner: Arc::new(inner) };
        access.log_mode();
        Ok(access)
    }

    /// Logs whether clients need a login.
    fn log_mode(&self) {
        let directory = self.inner.directory.borrow();
        let users = directory.accounts.len();
        match (self.inner.anonymous, self.inner.admits_anonymous(&directory)) {
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
        let Some(path) = self.inner.users_file.clone() else { return Ok(()) };
        let mut watched = Watched::new(vec![path.clone()]).map_err(AccessError::Watch)?;
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = watched.changed() => {}
                    () = shutdown.requested() => return,
                }
                let (path, user) = (path.clone(), inner.user.clone());
                // On a thread that may wait for a disk.
                let read = spawn_blocking(move || {
                    directory(path.exists().then_some(&path), user.as_ref())
                });
                let Ok(read) = read.await else { continue };
                match read {
                    Ok(directory) => {
                        info!(users = directory.accounts.len(), "users read again");
                        warn_of_weak_hashes(&directory);
                        inner.directory.send_replace(Arc::new(directory));
                    }
                    Err(error) => error!(%error, "the users stay as they were"),
                }
            }
        });
        Ok(())
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

    /// Counts a message to a topic that its publisher may not write, and logs it, throttled.
    pub(in crate::broker) fn refuse_publish(&self, user: &str, client_id: &str, topic: &str) {
        self.inner.refusals.publishes.fetch_add(1, Ordering::Relaxed);
        if let Some(left_out) = self.inner.publish_line.due(Instant::now()) {
            warn!(user, client = ?client_id, ?topic, left_out, "publish refused: this user may not write this topic");
        }
    }

    /// Whether the client of this session may still publish to `topic`: its user may have been changed or removed since
    /// its connection ended.
    pub(in crate::broker) fn may_still_write(&self, session: &str, topic: &str) -> bool {
        let directory = Arc::clone(&self.inner.directory.borrow());
        let acl = match permissions::parts_of_session(session) {
            (Some(name), client_id) => directory.accounts.get(name).map(|account| {
                let rules = [directory.rules.as_slice(), account.rules.as_slice()];
                CompiledAcl::new(&rules, account.role, Some(name), client_id)
            }),
            (None, client_id) => self
                .inner
                .admits_anonymous(&directory)
                .then(|| CompiledAcl::new(&[&directory.rules], Role::Admin, None, client_id)),
        };
        acl.is_some_and(|acl| acl.is_ok_and(|acl| acl.may_write(topic)))
    }

    /// Whether a client on any machine may connect without a login.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.inner.anonymous, Anonymous::Yes)
    }

    /// The role of the user with this name and password, for a client at `from`.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn verify(
        &self,
        from: IpAddr,
        name: &str,
        password: &[u8],
    ) -> Result<Role, LoginError> {
        let directory = Arc::clone(&self.inner.directory.borrow());
        let attempt = Attempt { from, client_id: "", user: name };
        self.account(&directory, attempt, password).await.map(|account| account.role)
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
        account.cloned().ok_or(LoginError::Wrong)
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
        let admitted = self.try_admit(peer.ip(), client_id, login).await;
        if let Err(refusal) = &admitted {
            self.inner.refusals.logins.fetch_add(1, Ordering::Relaxed);
            // Debug form: it escapes control characters in names that come from the network.
            let user = login.map_or("", |(name, _)| start(name));
            // For each address and user, so that those with many refusals do not hide the others.
            if let Some(left_out) = self.inner.login_lines.due((peer.ip(), user), Instant::now()) {
                let client = start(client_id);
                warn!(%peer, ?user, ?client, left_out, "login refused: {refusal}");
            }
        }
        admitted
    }

    async fn try_admit(
        &self,
        from: IpAddr,
        client_id: &str,
        login: Option<(&str, &[u8])>,
    ) -> Result<Permissions, NotAdmitted> {
        let mut changes = self.inner.directory.subscribe();
        let directory = Arc::clone(&changes.borrow_and_update());
        let known = match login {
            // Where there are no users, an anonymous client may send any name.
            Some((name, password)) if !directory.accounts.is_empty() => {
                let attempt = Attempt { from, client_id, user: name };
                match self.account(&directory, attempt, password).await {
                    Ok(account) => Some((name.to_owned(), account)),
                    Err(LoginError::Wrong) => return Err(NotAdmitted::NotAuthorized),
                    Err(LoginError::Busy) => return Err(NotAdmitted::Busy),
                }
            }
            // HTTP may be reachable from more machines than the ports of MQTT.
            _ if self.inner.admits_anonymous(&directory)
                && (self.is_open() || from.to_canonical().is_loopback()) =>
            {
                None
            }
            _ => return Err(NotAdmitted::NotAuthorized),
        };
        let acl = match &known {
            Some((name, account)) => {
                let rules = [directory.rules.as_slice(), account.rules.as_slice()];
                CompiledAcl::new(&rules, account.role, Some(name), client_id)?
            }
            None => CompiledAcl::new(&[&directory.rules], Role::Admin, None, client_id)?,
        };
        let client_id = client_id.to_owned();
        let acl = Arc::new(acl);
        Ok(Permissions { access: self.clone(), client_id, known, directory, changes, acl })
    }
}

impl Inner {
    fn admits_anonymous(&self, directory: &Directory) -> bool {
        match self.anonymous {
            Anonymous::Yes => true,
            Anonymous::No => false,
            Anonymous::Auto => self.local && directory.accounts.is_empty(),
        }
    }
}

fn directory(
    users_file: Option<&PathBuf>,
    user: Option<&(String, Arc<Account>)>,
) -> Result<Directory, AccessError> {
    let mut directory = match users_file {
        Some(path) => Directory::read(path)?,
        None => Directory::default(),
    };
    if let Some((name, account)) = user
        && directory.accounts.insert(name.clone(), Arc::clone(account)).is_some()
    {
        return Err(AccessError::Twice(name.clone()));
    }
    Ok(directory)
}

fn warn_of_weak_hashes(directory: &Directory) {
    let users = directory.weak();
    if !users.is_empty() {
        warn!(
            ?users,
            "the hashes of these users are cheap to guess at; run `humidor user passwd NAME`"
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

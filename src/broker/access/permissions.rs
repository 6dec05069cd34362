//! The permissions of an admitted client, until its user is changed.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::broker::access::Access;
use crate::broker::access::acl::{CompiledAcl, Role};
use crate::broker::access::users::{Account, Directory};
use crate::mqtt::codec::Reason;
use crate::mqtt::{Filter, FilterError};

/// Topic filters that one session may hold.
pub const SESSION_FILTERS: usize = 200;

/// Who has permissions.
#[derive(Debug)]
pub enum Caller {
    /// A user: name and account.
    User(String, Arc<Account>),
    /// An MQTT client without a login.
    Anonymous,
    /// An HTTP client without a login.
    Guest,
}

/// The permissions of one connection, while its user stays as it is.
#[derive(Debug)]
pub struct Permissions {
    pub(in crate::broker) access: Access,
    pub(in crate::broker) client_id: String,
    pub(in crate::broker) caller: Caller,
    /// The users at the login, and their later changes.
    pub(in crate::broker) directory: Arc<Directory>,
    pub(in crate::broker) changes: watch::Receiver<Arc<Directory>>,
    pub(in crate::broker) acl: Arc<CompiledAcl>,
}

impl Permissions {
    /// The name of the client's session. So no client takes over another user's session by its client id, and no user
    /// that of an earlier one with the same name.
    #[must_use]
    pub fn session(&self) -> String {
        let client_id = &self.client_id;
        match &self.caller {
            Caller::User(name, account) => match &account.id {
                Some(id) => format!("{name}\u{1}{client_id}\u{1}{id}"),
                None => format!("{name}\u{1}{client_id}"),
            },
            Caller::Anonymous | Caller::Guest => client_id.clone(),
        }
    }

    /// Whether a message of this topic may be received.
    #[must_use]
    pub fn may_read(&self, topic: &str) -> bool {
        self.acl.may_read(topic)
    }

    /// Whether every topic that `filter` matches may be read.
    #[must_use]
    pub fn reads_all(&self, filter: &Filter) -> bool {
        self.acl.reads_all(filter)
    }

    /// Whether some topic that `filter` matches may be read.
    #[must_use]
    pub fn reads_some(&self, filter: &Filter) -> bool {
        self.acl.reads_some(filter)
    }

    /// Whether some topic that `filter` matches may be published to.
    #[must_use]
    pub fn writes_some(&self, filter: &Filter) -> bool {
        self.acl.writes_some(filter)
    }

    /// The name of the client's user; `None` without a login.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match &self.caller {
            Caller::User(name, _) => Some(name),
            Caller::Anonymous | Caller::Guest => None,
        }
    }

    /// The rules that are checked before each delivery.
    #[must_use]
    pub(in crate::broker) fn acl(&self) -> Arc<CompiledAcl> {
        Arc::clone(&self.acl)
    }

    /// Whether the user has the role of an administrator.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        matches!(&self.caller, Caller::User(_, account) if account.role == Role::Admin)
    }

    /// Whether this topic may be published to. A refusal is counted, and logged, throttled.
    #[must_use]
    pub fn may_write(&self, topic: &str) -> bool {
        let may = self.acl.may_write(topic);
        if !may {
            let user = match &self.caller {
                Caller::User(name, _) => name,
                Caller::Anonymous | Caller::Guest => "",
            };
            self.access.refuse_publish(user, &self.client_id, topic);
        }
        may
    }

    /// Checks one filter of a SUBSCRIBE for a session with `held` subscriptions; `known` tells whether it is one of
    /// these.
    ///
    /// # Errors
    /// [`NotGranted`].
    pub fn subscription(
        &self,
        filter: &str,
        held: usize,
        known: impl Fn(&Filter) -> bool,
    ) -> Result<Filter, NotGranted> {
        let filter: Filter = filter.parse()?;
        if held >= SESSION_FILTERS && !known(&filter) {
            return Err(NotGranted::TooMany);
        }
        if !self.acl.may_subscribe(&filter) {
            return Err(NotGranted::NotAuthorized);
        }
        Ok(filter)
    }

    /// Resolves when they are no longer valid: the user was changed or removed, rules have changed, or a login is
    /// needed now.
    pub async fn withdrawn(&self) {
        let mut changes = self.changes.clone();
        loop {
            let now = match changes.changed().await {
                Ok(()) => Arc::clone(&changes.borrow_and_update()),
                Err(_) => std::future::pending().await,
            };
            if !self.hold_under(&now) {
                return;
            }
        }
    }

    /// Whether they are no longer valid.
    #[must_use]
    pub fn are_withdrawn(&self) -> bool {
        let now = Arc::clone(&self.changes.borrow());
        !self.hold_under(&now)
    }

    fn hold_under(&self, now: &Directory) -> bool {
        let same_caller = match &self.caller {
            Caller::User(name, account) => {
                now.accounts.get(name).is_some_and(|other| other.is_still(account))
            }
            Caller::Anonymous => self.access.admits_anonymous_of(now),
            // What a guest may do depends on whether there are users.
            Caller::Guest => now.accounts.is_empty() == self.directory.accounts.is_empty(),
        };
        same_caller && now.rules == self.directory.rules
    }
}

/// The owner of a session, from the name of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// `None` for a client without a login.
    pub user: Option<&'a str>,
    pub client_id: &'a str,
    /// The id of the user's account, if it has one.
    pub id: Option<&'a str>,
}

impl<'a> Owner<'a> {
    /// The parts of what [`Permissions::session`] returns. None of them has a control character.
    pub fn of_session(session: &'a str) -> Self {
        let mut parts = session.split('\u{1}');
        let (first, second, id) = (parts.next().unwrap_or(session), parts.next(), parts.next());
        match second {
            Some(client_id) => Self { user: Some(first), client_id, id },
            None => Self { user: None, client_id: first, id: None },
        }
    }
}

/// As in `$SYS` and the metrics: `<client id>` or `<user>/<client id>`.
impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            Some(user) => write!(f, "{user}/{}", self.client_id),
            None => f.write_str(self.client_id),
        }
    }
}

/// Why a filter was not granted; the client sees it in its SUBACK.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// Not a filter, or a reserved one.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// More than [`SESSION_FILTERS`].
    #[error("more than {SESSION_FILTERS} subscriptions in one session")]
    TooMany,
    /// The user's rules do not allow it.
    #[error("not authorized")]
    NotAuthorized,
}

impl NotGranted {
    /// The reason code of MQTT 5.0 §3.9.3.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Filter(_) => Reason::TopicFilterInvalid,
            Self::TooMany => Reason::QuotaExceeded,
            Self::NotAuthorized => Reason::NotAuthorized,
        }
    }
}

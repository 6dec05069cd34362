//! The permissions of an admitted client, until its user is changed.

use std::sync::Arc;

use tokio::sync::watch;

use crate::broker::access::Access;
use crate::broker::access::acl::CompiledAcl;
use crate::broker::access::users::{Account, Directory};
use crate::mqtt::codec::Reason;
use crate::mqtt::{Filter, FilterError};

/// Topic filters that one session may hold.
pub const SESSION_FILTERS: usize = 200;

/// The permissions of one connection, while its user stays as it is.
#[derive(Debug)]
pub struct Permissions {
    pub(in crate::broker) access: Access,
    pub(in crate::broker) client_id: String,
    /// Name and account; `None` for a client without a login.
    pub(in crate::broker) known: Option<(String, Arc<Account>)>,
    /// The users at the login, and their later changes.
    pub(in crate::broker) directory: Arc<Directory>,
    pub(in crate::broker) changes: watch::Receiver<Arc<Directory>>,
    pub(in crate::broker) acl: Arc<CompiledAcl>,
}

impl Permissions {
    /// The name of the client's session: the user's name, U+0001 and the client id. So no client takes over another
    /// user's session by its client id. Neither part has a control character.
    #[must_use]
    pub fn session(&self) -> String {
        match &self.known {
            Some((name, _)) => format!("{name}\u{1}{}", self.client_id),
            None => self.client_id.clone(),
        }
    }

    /// The rules that are checked before each delivery.
    #[must_use]
    pub fn acl(&self) -> Arc<CompiledAcl> {
        Arc::clone(&self.acl)
    }

    /// Whether this topic may be published to. A refusal is counted, and logged, throttled.
    #[must_use]
    pub fn may_write(&self, topic: &str) -> bool {
        let may = self.acl.may_write(topic);
        if !may {
            let user = self.known.as_ref().map_or("", |(name, _)| name);
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
            let same_user = match &self.known {
                Some((name, account)) => now.accounts.get(name) == Some(account),
                None => self.access.admits_anonymous_of(&now),
            };
            if !same_user || now.rules != self.directory.rules {
                return;
            }
        }
    }
}

/// The user's name, if any, and the client id in the name of a session.
pub(super) fn parts_of_session(session: &str) -> (Option<&str>, &str) {
    session.split_once('\u{1}').map_or((None, session), |(name, client_id)| (Some(name), client_id))
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

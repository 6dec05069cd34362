//! The broker's log of refused logins: what the operator has to mend, which the client itself is not told.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;
use tracing::warn;

use super::acl::Role;
use super::refusals::Cause;
use super::refused_clients::RefusedClient;
use super::{Access, NotAdmitted, start};

/// Name of a user for all boards, where there is none.
pub const BOARDS_USER: &str = "boards";

/// A user for all boards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserOfBoards {
    /// Its name.
    pub name: String,
    /// Whether it is there; else its name is free.
    pub exists: bool,
}

impl Access {
    /// A user that has the role for all boards, or a name that is free for one.
    #[must_use]
    pub fn user_of_boards(&self) -> UserOfBoards {
        let directory = self.inner.directory.borrow();
        let accounts = &directory.accounts;
        let found = accounts.iter().filter(|(_, account)| account.role == Role::Fleet);
        // The usual one before others.
        if let Some((name, _)) = found.min_by_key(|(name, _)| name.as_str() != BOARDS_USER) {
            return UserOfBoards { name: name.clone(), exists: true };
        }
        let others = (2..).map(|n: usize| format!("{BOARDS_USER}-{n}"));
        let mut names = std::iter::once(BOARDS_USER.to_owned()).chain(others);
        let name = names.find(|name| !accounts.contains_key(name));
        UserOfBoards { name: name.unwrap_or_default(), exists: false }
    }

    /// The role of a user; `None`: there is no such user.
    #[must_use]
    pub fn role(&self, user: &str) -> Option<Role> {
        self.inner.directory.borrow().accounts.get(user).map(|account| account.role)
    }

    /// Whether a user comes from a setting, so that no command changes it.
    #[must_use]
    pub fn is_of_setting(&self, user: &str) -> bool {
        self.inner.sources.is_of_setting(user)
    }

    /// Why a login was refused, for the operator. The client is not told: it could find out the names of users. `None`
    /// when only time will tell.
    fn cause(&self, refusal: NotAdmitted, user: Option<&str>) -> Option<Cause> {
        match (refusal, user) {
            (NotAdmitted::NotAuthorized, None) => Some(Cause::NoLogin),
            (NotAdmitted::NotAuthorized, Some(name)) if self.knows(name) => {
                Some(Cause::WrongPassword)
            }
            (NotAdmitted::NotAuthorized, Some(_)) if self.has_users() => Some(Cause::UnknownUser),
            (NotAdmitted::Name(_), _) => Some(Cause::UnfitName),
            (
                NotAdmitted::NotAuthorized
                | NotAdmitted::NoGuessLeft
                | NotAdmitted::Busy
                | NotAdmitted::Crowded,
                _,
            ) => None,
        }
    }

    /// The same as a sentence for the log.
    pub(super) fn explain(&self, refusal: NotAdmitted, user: Option<&str>) -> String {
        let advice = self.cause(refusal, user).and_then(Cause::advice);
        advice.map_or_else(|| refusal.to_string(), str::to_owned)
    }

    fn knows(&self, name: &str) -> bool {
        self.inner.directory.borrow().accounts.contains_key(name)
    }

    /// Notes an MQTT client that was refused, for [`Access::refused_clients`].
    pub(in crate::broker) fn note_refused(
        &self,
        peer: SocketAddr,
        client_id: &str,
        user: Option<&str>,
        refusal: NotAdmitted,
    ) {
        if let Some(cause) = self.cause(refusal, user) {
            let user = user.unwrap_or_default();
            self.inner.refused.note(peer.ip(), client_id, user, cause, Instant::now());
        }
    }

    /// Notes an MQTT client that was admitted.
    pub(in crate::broker) fn note_admitted(&self, peer: SocketAddr, client_id: &str) {
        self.inner.refused.admitted(peer.ip(), client_id);
    }

    /// The MQTT clients that were refused within the last ten minutes and not admitted since, the latest first.
    #[must_use]
    pub fn refused_clients(&self) -> Vec<RefusedClient> {
        self.inner.refused.list(Instant::now())
    }

    /// Counts and logs a node whose login is right and whose node id is not its user's.
    pub(in crate::broker) fn refuse_node(&self, peer: SocketAddr, user: &str, client_id: &str) {
        self.inner.refusals.logins.fetch_add(1, Ordering::Relaxed);
        self.inner.refused.note(peer.ip(), client_id, user, Cause::WrongNode, Instant::now());
        if let Some(left_out) = self.inner.login_lines.due((peer.ip(), user), Instant::now()) {
            let why = Cause::WrongNode.advice().unwrap_or_default();
            warn!(%peer, user, client = ?start(client_id), left_out, "login refused: {why}");
        }
    }
}

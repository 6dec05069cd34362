//! The broker's log of refused logins: what the operator has to mend, which the client itself is not told.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::warn;

use super::refusals::Cause;
use super::refused_clients::RefusedClient;
use super::{Access, NotAdmitted, start};

impl Access {
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
            (NotAdmitted::NotAuthorized | NotAdmitted::NoGuessLeft | NotAdmitted::Busy, _) => None,
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

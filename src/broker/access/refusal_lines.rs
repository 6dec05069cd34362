//! The broker's log of refused logins: what the operator has to mend, which the client itself is not told.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::warn;

use super::{Access, NotAdmitted, start};

impl Access {
    /// Why a login was refused, for the operator. The client is not told: it could find out the names of users.
    pub(super) fn explain(&self, refusal: NotAdmitted, name: Option<&str>) -> String {
        match (refusal, name) {
            (NotAdmitted::NotAuthorized, None) => {
                "no user and password were sent; on a board write mqtt://USER@HOST into HUMIDOR_BROKER".to_owned()
            }
            (NotAdmitted::NotAuthorized, Some(name)) if self.knows(name) => {
                "wrong password".to_owned()
            }
            (NotAdmitted::NotAuthorized, Some(_)) if self.has_users() => {
                "unknown user; `humidor user list` shows the users".to_owned()
            }
            _ => refusal.to_string(),
        }
    }

    fn knows(&self, name: &str) -> bool {
        self.inner.directory.borrow().accounts.contains_key(name)
    }

    /// Counts and logs a node whose login is right and whose node id is not its user's.
    pub(in crate::broker) fn refuse_node(&self, peer: SocketAddr, user: &str, client_id: &str) {
        self.inner.refusals.logins.fetch_add(1, Ordering::Relaxed);
        if let Some(left_out) = self.inner.login_lines.due((peer.ip(), user), Instant::now()) {
            warn!(
                %peer, user, client = ?start(client_id), left_out,
                "login refused: the password is right, but this user may not publish as this node; set HUMIDOR_NODE to the user's name on the board, or add a user for all boards with --role fleet"
            );
        }
    }
}

//! The rules of a session's owner as they are now: its user may have been changed or removed since its connection ended.

use std::sync::Arc;

use super::Access;
use super::acl::{CompiledAcl, Role};
use super::permissions::Owner;
use super::users::Directory;
use crate::wire::is_status_of;

impl Access {
    /// Whether the client of this session may still publish to `topic`: its user may have been changed or removed since
    /// its connection ended. A node without a login may say that it is offline when logins are needed now.
    pub(in crate::broker) fn may_still_write(&self, session: &str, topic: &str) -> bool {
        let owner = Owner::of_session(session);
        let directory = Arc::clone(&self.inner.directory.borrow());
        let acl = match owner.user {
            None if is_status_of(owner.client_id, topic) => {
                CompiledAcl::new(&[&directory.rules], Role::Admin, None, owner.client_id).ok()
            }
            _ => self.acl_of(&owner, &directory),
        };
        acl.is_some_and(|acl| acl.may_write(topic))
    }

    /// The rules of a session's owner as they are now; `None` when nobody has this session any more.
    pub(in crate::broker) fn acl_of_session(&self, session: &str) -> Option<CompiledAcl> {
        let directory = Arc::clone(&self.inner.directory.borrow());
        self.acl_of(&Owner::of_session(session), &directory)
    }

    /// As [`Access::acl_of_session`], for a session of the previous run: one of a client without a login has its owner,
    /// and while there are no users at all, so has each.
    pub(in crate::broker) fn acl_of_left_session(&self, session: &str) -> Option<CompiledAcl> {
        let directory = Arc::clone(&self.inner.directory.borrow());
        let owner = Owner::of_session(session);
        if owner.user.is_some() && !directory.accounts.is_empty() {
            return self.acl_of(&owner, &directory);
        }
        CompiledAcl::new(&[&directory.rules], Role::Admin, None, owner.client_id).ok()
    }

    fn acl_of(&self, owner: &Owner<'_>, directory: &Directory) -> Option<CompiledAcl> {
        let Some(name) = owner.user else {
            let anonymous = self.inner.admits_anonymous(directory);
            let acl = CompiledAcl::new(&[&directory.rules], Role::Admin, None, owner.client_id);
            return acl.ok().filter(|_| anonymous);
        };
        let account = directory.accounts.get(name)?;
        let same = account.id.as_deref() == owner.id;
        directory.acl(name, account, owner.client_id).ok().filter(|_| same)
    }
}

//! Withdrawal: when users or rules change, the sessions of users that are gone end, and no member of a shared
//! subscription takes messages that it may not read. The clients' connections end by themselves.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::info;

use crate::broker::access::permissions::Permissions;
use crate::broker::context::Services;
use crate::broker::session::state::Session;
use crate::shutdown::Shutdown;
use crate::store::Change;

/// A connection may be ending while users change: they are judged once more after this time.
const AGAIN: Duration = Duration::from_secs(5);

/// Judges the sessions at each change of the users, until `shutdown`, after the changes that [`judge_left`] has found.
pub async fn run(services: Services, mut changes: Vec<Change>, mut shutdown: Shutdown) {
    let mut users = services.access.changes();
    let mut again: Option<Instant> = None;
    loop {
        log(&changes);
        tokio::select! {
            () = services.recorder.note(&mut changes) => {}
            () = shutdown.requested() => return,
        }
        tokio::select! {
            outcome = users.changed() => {
                if outcome.is_err() {
                    return;
                }
                again = Some(Instant::now() + AGAIN);
            }
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => again = None,
            () = shutdown.requested() => return,
        }
        changes = services.registry.judge(|session| services.access.acl_of_session(session));
    }
}

/// The sessions of the broker's previous run, before the first connection: users may have been removed since. Sessions
/// of clients without a login stay, since logins may be needed for this run only. Returns the changes to commit.
pub fn judge_left(services: &Services) -> Vec<Change> {
    services.registry.judge(|session| services.access.acl_of_left_session(session))
}

/// What is to be changed when a connection ends whose permissions were withdrawn: the time that its session lives on, and
/// the subscriptions that it loses.
pub fn leave(
    permissions: &Permissions,
    session: &Arc<Session>,
    services: &Services,
    expiry_s: u32,
) -> (u32, Vec<Change>) {
    if !permissions.are_withdrawn() {
        return (expiry_s, Vec::new());
    }
    match services.access.acl_of_session(&session.client_id) {
        None => (0, Vec::new()),
        Some(acl) => (expiry_s, services.registry.subscriptions.withdraw(session, &acl)),
    }
}

fn log(changes: &[Change]) {
    let ended = changes.iter().filter(|change| matches!(change, Change::End { .. })).count();
    let unsubscribed =
        changes.iter().filter(|change| matches!(change, Change::Unsubscribe { .. })).count();
    if ended + unsubscribed > 0 {
        info!(
            ended,
            unsubscribed,
            "sessions of users who were removed, and shared subscriptions that rules deny now"
        );
    }
}

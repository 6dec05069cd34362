//! Login sessions: a bounded map from the secret token in a browser's cookie to a user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

use crate::broker::Permissions;

/// Login sessions at once; beyond it the one unused for longest ends, of the user with the most of them.
const LOGIN_SESSIONS_MAX: usize = 256;
/// Longest time without a request; then the session ends.
const IDLE_MAX: Duration = Duration::from_hours(12);
/// Longest life of a session, however much it is used.
const LIFETIME_MAX: Duration = Duration::from_hours(7 * 24);
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

#[derive(Debug)]
struct LoginSession {
    user: Arc<str>,
    permissions: Arc<Permissions>,
    opened: Instant,
    used: Instant,
}

/// All login sessions. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct LoginSessions(Arc<Mutex<HashMap<String, LoginSession>>>);

impl LoginSessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, LoginSession>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session and returns its token.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn open(
        &self,
        user: Arc<str>,
        permissions: Arc<Permissions>,
    ) -> Result<String, getrandom::Error> {
        let mut secret = [0; TOKEN_BYTES];
        getrandom::fill(&mut secret)?;
        let token = URL_SAFE_NO_PAD.encode(secret);
        let mut sessions = self.lock();
        if sessions.len() >= LOGIN_SESSIONS_MAX {
            let mut of: HashMap<&str, usize> = HashMap::new();
            for session in sessions.values() {
                *of.entry(&session.user).or_default() += 1;
            }
            let most = of.values().max().copied();
            let of_most =
                sessions.iter().filter(|(_, session)| of.get(&*session.user).copied() == most);
            let oldest = of_most.min_by_key(|(_, session)| session.used);
            if let Some(oldest) = oldest.map(|(token, _)| token.clone()) {
                sessions.remove(&oldest);
            }
        }
        let now = Instant::now();
        sessions.insert(token.clone(), LoginSession { user, permissions, opened: now, used: now });
        Ok(token)
    }

    /// The user of a session, whose idle time starts again. `None` for an unknown token, and when the session was
    /// idle too long, is too old, or its user was changed or removed.
    pub fn resume(&self, token: &str) -> Option<(Arc<str>, Arc<Permissions>)> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(token)?;
        let expired = session.used.elapsed() > IDLE_MAX || session.opened.elapsed() > LIFETIME_MAX;
        if expired || session.permissions.are_withdrawn() {
            sessions.remove(token);
            return None;
        }
        session.used = Instant::now();
        Some((Arc::clone(&session.user), Arc::clone(&session.permissions)))
    }

    /// Ends a session, if it exists.
    pub fn close(&self, token: &str) {
        self.lock().remove(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Access, AccessConfig};

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_it_is_idle_for_long_and_at_last_even_if_it_is_used() {
        let loopback = "127.0.0.1:1".parse().unwrap();
        let access = Access::open(AccessConfig::default(), &[loopback]).unwrap();
        let permissions = Arc::new(access.admit(loopback, "http", None).await.unwrap());
        let sessions = LoginSessions::default();
        let open = || sessions.open("kim".into(), Arc::clone(&permissions)).unwrap();
        let (idle, used) = (open(), open());
        let opened = Instant::now();
        while sessions.resume(&used).is_some() {
            tokio::time::advance(IDLE_MAX / 2).await;
        }
        assert!(opened.elapsed() > LIFETIME_MAX && opened.elapsed() < LIFETIME_MAX + IDLE_MAX);
        assert!(sessions.resume(&idle).is_none());
    }
}

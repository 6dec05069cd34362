//! Login sessions: a bounded map from the secret token in a browser's cookie to a user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::broker::Permissions;

/// Login sessions at once; beyond it the one unused for longest ends, of the user with the most of them.
const LOGIN_SESSIONS_MAX: usize = 256;
/// Longest time without a request; then the session ends.
const IDLE_MAX: Duration = Duration::from_hours(12);
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

#[derive(Debug)]
struct LoginSession {
    user: Arc<str>,
    permissions: Arc<Permissions>,
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
        sessions.insert(token.clone(), LoginSession { user, permissions, used: Instant::now() });
        Ok(token)
    }

    /// The user of a session, whose idle time starts again. `None` for an unknown token, and when the session was
    /// idle too long or its user was changed or removed.
    pub fn resume(&self, token: &str) -> Option<(Arc<str>, Arc<Permissions>)> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(token)?;
        let expired = session.used.elapsed() > IDLE_MAX;
        if expired || session.permissions.withdrawn().now_or_never().is_some() {
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

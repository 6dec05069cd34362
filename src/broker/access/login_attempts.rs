//! Password checks: one at a time, off the async threads, and bounded by address; right passwords are remembered. A
//! flood of logins costs one core and does not stop the broker.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ring::hmac;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::broker::access::users::{self, Account, PASSWORD_MAX_BYTES};
use crate::broker::net::limits::origin;
use crate::broker::net::token_bucket::TokenBucket;

/// Checks that run at once. Each takes 7 MiB and a core.
const CHECKS: usize = 1;
/// Checks that run or wait. Beyond it a client has to try again later.
const CHECKS_WAITING: usize = 64;
/// Wrong passwords of one address in a row, and how long it takes to forget one. Right ones do not count.
const MISTAKES: f64 = 10.0;
const MISTAKE_FORGOTTEN: Duration = Duration::from_secs(5);
/// Addresses whose mistakes are counted.
const ADDRESSES: usize = 1024;
/// Checked for an unknown user, so that the answer takes as long as for a known one. It is the hash of no password, and
/// as costly as those of `users::hash`.
const DECOY: &str = "$argon2id$v=19$m=7168,t=5,p=1$ZGVjb3lkZWNveWRlY295$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why a login failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// An unknown user or a wrong password. The error does not tell which.
    #[error("unknown user or wrong password")]
    Wrong,
    /// Too many checks wait, or too many logins from this address have failed.
    #[error("too many logins wait or have failed; try again later")]
    Busy,
}

/// The checks under way, and their results.
#[derive(Debug)]
pub struct Checks {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Random, of this process.
    key: hmac::Key,
    /// Of each user whose password was right: the hash that it was right for, and its tag under `key`. A hall
    /// of boards that comes back after a broken switch costs no second check.
    proven: Mutex<HashMap<String, (String, hmac::Tag)>>,
    mistakes: Mutex<HashMap<IpAddr, TokenBucket>>,
}

impl Checks {
    /// No checks yet.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new() -> Result<Self, users::HashError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| argon2::password_hash::Error::Crypto)?;
        Ok(Self {
            running: Arc::new(Semaphore::new(CHECKS)),
            waiting: Arc::new(Semaphore::new(CHECKS_WAITING)),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            proven: Mutex::default(),
            mistakes: Mutex::default(),
        })
    }

    /// Checks the password of user `name` with `account`, for a client at `from`.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn check(
        &self,
        from: IpAddr,
        name: &str,
        account: Option<&Account>,
        password: &[u8],
    ) -> Result<(), LoginError> {
        if account.is_some_and(|account| self.is_proven(name, account, password)) {
            return Ok(());
        }
        self.count_mistake(from, Instant::now())?;
        if password.len() > PASSWORD_MAX_BYTES {
            return Err(LoginError::Wrong);
        }
        let waiting = Arc::clone(&self.waiting);
        let waiting = waiting.try_acquire_owned().map_err(|_| LoginError::Busy)?;
        let running = Arc::clone(&self.running);
        let running = running.acquire_owned().await.map_err(|_| LoginError::Busy)?;
        let hash = account.map_or(DECOY, |account| &account.hash).to_owned();
        let secret = password.to_vec();
        let right = spawn_blocking(move || {
            // Held here, since the check of a client that does not wait still runs.
            let _places = (waiting, running);
            users::matches(&hash, &secret)
        });
        let right = right.await.unwrap_or(false);
        match account.filter(|_| right) {
            None => Err(LoginError::Wrong),
            Some(account) => {
                let tag = hmac::sign(&self.key, password);
                lock(&self.proven).insert(name.to_owned(), (account.hash.clone(), tag));
                if let Some(bucket) = lock(&self.mistakes).get_mut(&origin(from)) {
                    bucket.give_back(1.0);
                }
                Ok(())
            }
        }
    }

    fn is_proven(&self, name: &str, account: &Account, password: &[u8]) -> bool {
        let proven = lock(&self.proven);
        proven.get(name).is_some_and(|(hash, tag)| {
            *hash == account.hash && hmac::verify(&self.key, password, tag.as_ref()).is_ok()
        })
    }

    /// Counts a check as a mistake until its password was right.
    fn count_mistake(&self, from: IpAddr, now: Instant) -> Result<(), LoginError> {
        let mut mistakes = lock(&self.mistakes);
        if mistakes.len() >= ADDRESSES {
            mistakes.retain(|_, bucket| !bucket.is_full(now));
        }
        if mistakes.len() >= ADDRESSES {
            return Err(LoginError::Busy);
        }
        let bucket = mistakes.entry(origin(from)).or_insert_with(|| {
            TokenBucket::new(MISTAKES, MISTAKE_FORGOTTEN.as_secs_f64().recip(), now)
        });
        if bucket.take(1.0, now) { Ok(()) } else { Err(LoginError::Busy) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::access::acl::Role;

    #[tokio::test]
    async fn a_right_password_is_remembered_and_wrong_ones_are_counted() {
        let checks = Checks::new().unwrap();
        let hash = users::hash(b"secret").unwrap();
        let account = Account { hash, role: Role::None, rules: Vec::new() };
        let from: IpAddr = "192.0.2.7".parse().unwrap();
        let login = async |address: IpAddr, password: &[u8]| {
            checks.check(address, "press", Some(&account), password).await
        };
        assert_eq!(login(from, b"secret").await, Ok(()));
        let decoy = DECOY.rsplit_once('$').unwrap().0;
        let made = account.hash.split('$').take(4).collect::<Vec<_>>().join("$");
        assert!(
            decoy.starts_with(&made)
                && argon2::password_hash::phc::PasswordHash::new(DECOY).is_ok()
        );
        assert!(lock(&checks.mistakes)[&origin(from)].is_full(Instant::now()));

        // Guesses, all at once: no more than one address may get wrong in a row.
        let now = Instant::now();
        for _ in 0..10 {
            assert_eq!(checks.count_mistake(from, now), Ok(()));
        }
        assert_eq!(checks.count_mistake(from, now), Err(LoginError::Busy));
        assert_eq!(login(from, b"secret").await, Ok(()), "proven needs no check");
        let other = "192.0.2.8".parse().unwrap();
        assert_eq!(login(other, b"guess").await, Err(LoginError::Wrong));
        assert_eq!(checks.check(other, "nobody", None, b"secret").await, Err(LoginError::Wrong));

        let changed = Account { hash: users::hash(b"new").unwrap(), ..account.clone() };
        let old = checks.check(other, "press", Some(&changed), b"secret").await;
        assert_eq!(old, Err(LoginError::Wrong), "proven for the old hash only");
    }
}

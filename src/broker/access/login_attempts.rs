//! Password checks: one at a time, off the async threads, and only for guesses that are left; right and wrong passwords
//! are remembered. A flood of logins costs one core at most and does not stop the broker.
//!
//! A refusal comes a whole number of seconds after its login. No more checks wait than are done by then, and how many
//! seconds follows checks of a hash of nobody's password, so the time tells nothing of the name: neither whether there is
//! such a user, nor whether others try it meanwhile.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ring::hmac;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;

use crate::broker::access::check_time::CheckTime;
use crate::broker::access::guesses::{Guess, Guesses, Login, Verdict};
use crate::broker::access::known_clients::KnownClients;
use crate::broker::access::known_file::KnownFile;
use crate::broker::access::users::{self, Account, PASSWORD_MAX_BYTES};
use crate::broker::net::limits::origin;

/// Checks that run at once. Each takes 7 MiB and a core.
const CHECKS: usize = 1;
/// Checks that run or wait; fewer where they would not be done when a refusal is due. Beyond it a client has to try again
/// later.
const CHECKS_WAITING: usize = 64;
/// Those of them that may be of clients that were never right before: half. The rest is for boards that come back.
const STRANGE_CHECKS: usize = CHECKS_WAITING / 2;
/// A refusal comes so long after its login at least, and no later where [`CHECKS_IN_TIME`] take less.
const REFUSED_AFTER: Duration = Duration::from_secs(1);
/// And so long at most, unless two checks of the costliest hash take longer.
const REFUSED_AFTER_MAX: Duration = Duration::from_secs(3);
/// Checks of the costliest hash that are to be done before a refusal.
const CHECKS_IN_TIME: u32 = 8;
/// Checked to find out how long a check takes. It is the hash of no password, and as costly as those of `users::hash`.
const DECOY: &str = "$argon2id$v=19$m=7168,t=5,p=1$ZGVjb3lkZWNveWRlY295$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why a login failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// An unknown user or a wrong password. The error does not tell which.
    #[error("unknown user or wrong password")]
    Wrong,
    /// The password was not looked at: too many logins of this user have failed. For the operator: its client is told
    /// what one with a wrong password is told, or it could find out the names of users.
    #[error("too many wrong passwords for this user lately; a minute without them ends it")]
    Refused,
    /// Too many checks wait, of a client that was right before.
    #[error("too many logins wait; try again later")]
    Busy,
    /// Too many checks wait, of clients that were never right before. For the operator, as [`LoginError::Refused`].
    #[error("too many logins of clients that have not logged in before wait")]
    Crowded,
}

/// A try to log in.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    pub from: IpAddr,
    /// Tells the clients at an address apart: those that were right before have guesses of their own.
    pub client: &'a str,
    pub user: &'a str,
}

/// The checks under way, and their results.
#[derive(Debug)]
pub struct Checks {
    running: Arc<Semaphore>,
    places: Arc<Places>,
    /// Random, of this process.
    key: hmac::Key,
    guesses: Arc<Mutex<Guesses>>,
    file: KnownFile,
    time: Arc<Mutex<CheckTime>>,
}

/// The checks that run or wait: all, and those of clients that were never right before.
#[derive(Debug, Default)]
struct Places(Mutex<(usize, usize)>);

/// A check's place. Dropping it gives it back.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    is_strange: bool,
}

impl Places {
    /// A place, where fewer than `most` are taken and, for a client that was never right before, half of them.
    fn take(self: &Arc<Self>, most: usize, is_strange: bool) -> Option<Place> {
        let mut taken = lock(&self.0);
        let strange_most = (most / 2).min(STRANGE_CHECKS);
        if taken.0 >= most || is_strange && taken.1 >= strange_most {
            return None;
        }
        *taken = (taken.0 + 1, taken.1 + usize::from(is_strange));
        Some(Place { places: Arc::clone(self), is_strange })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.0);
        *taken = (taken.0 - 1, taken.1 - usize::from(self.is_strange));
    }
}

impl Checks {
    /// No checks yet. `known` is the file with the clients that were right before, if they are to be kept.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(known: Option<PathBuf>) -> Result<Self, users::HashError> {
        let random = || -> Result<[u8; 32], users::HashError> {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|_| argon2::password_hash::Error::Crypto)?;
            Ok(key)
        };
        let (file, earlier) = KnownFile::open(known);
        let earlier = earlier.map_or_else(|| random().map(KnownClients::new), Ok)?;
        Ok(Self {
            running: Arc::new(Semaphore::new(CHECKS)),
            places: Arc::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &random()?),
            guesses: Arc::new(Mutex::new(Guesses::new(earlier))),
            file,
            time: Arc::default(),
        })
    }

    /// Writes the clients that were right, as the broker ends. Blocks.
    pub fn save(&self) {
        self.file.save(&self.guesses);
    }

    /// Checks the password of a user with `account`. `costliest` is the cost of the costliest hash of all users. A right
    /// login is answered as soon as it is known to be right. A refusal takes [`REFUSED_AFTER`], whether there is such a
    /// user or not, whatever its hash costs, whether the password was looked at, and whoever else tries the name.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn check(
        &self,
        attempt: Attempt<'_>,
        account: Option<&Account>,
        costliest: u64,
        password: &[u8],
    ) -> Result<(), LoginError> {
        let began = Instant::now();
        if lock(&self.time).is_unknown() {
            self.measure().await;
        }
        let outcome = match account {
            Some(account) if password.len() <= PASSWORD_MAX_BYTES => {
                self.decide(attempt, account, costliest, password).await
            }
            // It takes no core.
            _ => {
                self.pass_queue().await;
                Err(LoginError::Wrong)
            }
        };
        if outcome.is_ok() {
            self.file.save_later(&self.guesses);
            return outcome;
        }
        if lock(&self.time).begin(Instant::now()) {
            tokio::spawn(self.measure());
        }
        sleep_until((began + self.refused_after(costliest)).into()).await;
        outcome
    }

    /// Finds out how long a check takes. One of those who wait for the first time does so for all.
    fn measure(&self) -> impl Future<Output = ()> + Send + use<> {
        let (running, time) = (Arc::clone(&self.running), Arc::clone(&self.time));
        let is_first = lock(&time).is_unknown();
        async move {
            let Ok(running) = running.acquire_owned().await else { return };
            if is_first && !lock(&time).is_unknown() {
                return;
            }
            lock(&time).begin(Instant::now());
            let measured = spawn_blocking(move || {
                let _running = running;
                let started = Instant::now();
                let _ = users::matches(DECOY, b"");
                let took_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
                lock(&time).note(took_ns / users::cost(DECOY).max(1), Instant::now());
            });
            let _ = measured.await;
        }
    }

    /// Waits for the checks that wait now. Where they take longer than they should, a login whose password is not looked
    /// at is refused no earlier than others.
    async fn pass_queue(&self) {
        drop(self.running.acquire().await);
    }

    /// The time from a login to its refusal.
    fn refused_after(&self, costliest: u64) -> Duration {
        let check = self.time_of_check(costliest);
        let most = REFUSED_AFTER_MAX.max(check * 2);
        let wanted = (check * CHECKS_IN_TIME).min(most);
        let steps = wanted.as_millis().div_ceil(REFUSED_AFTER.as_millis());
        REFUSED_AFTER * u32::try_from(steps).unwrap_or(1).max(1)
    }

    /// Checks that may run and wait, so that they are done when refusals are due. One more may be a measurement.
    fn most_waiting(&self, costliest: u64) -> usize {
        let check = self.time_of_check(costliest).as_nanos().max(1);
        let in_time = (self.refused_after(costliest).as_nanos() / check).saturating_sub(1);
        usize::try_from(in_time).unwrap_or(usize::MAX).clamp(2, CHECKS_WAITING)
    }

    fn time_of_check(&self, cost: u64) -> Duration {
        lock(&self.time).of(cost, Instant::now())
    }

    async fn decide(
        &self,
        Attempt { from, client, user: name }: Attempt<'_>,
        account: &Account,
        costliest: u64,
        password: &[u8],
    ) -> Result<(), LoginError> {
        let tag = hmac::sign(&self.key, password);
        let tag = tag.as_ref().try_into().map_err(|_| LoginError::Wrong)?;
        let hash = account.hash.as_str();
        let login = Login { origin: origin(from), client, name, hash, password: tag };
        loop {
            let verdict = lock(&self.guesses).judge(login, Instant::now());
            match verdict {
                Verdict::Right => return Ok(()),
                Verdict::Wrong => {
                    self.pass_queue().await;
                    return Err(LoginError::Wrong);
                }
                Verdict::Refused => {
                    self.pass_queue().await;
                    return Err(LoginError::Refused);
                }
                Verdict::Awaited(mut done) => {
                    let _ = done.changed().await;
                }
                Verdict::Unknown(guess) => {
                    let guess =
                        PendingGuess { guesses: Arc::clone(&self.guesses), guess: Some(guess) };
                    return self.run(guess, hash, costliest, password).await;
                }
            }
        }
    }

    /// Checks a password. Cancelled before it has begun, the guess is given back.
    async fn run(
        &self,
        guess: PendingGuess,
        hash: &str,
        costliest: u64,
        password: &[u8],
    ) -> Result<(), LoginError> {
        let is_strange = !guess.is_known();
        let Some(place) = self.places.take(self.most_waiting(costliest), is_strange) else {
            drop(guess);
            self.pass_queue().await;
            return Err(if is_strange { LoginError::Crowded } else { LoginError::Busy });
        };
        let running = Arc::clone(&self.running);
        let running = running.acquire_owned().await.map_err(|_| LoginError::Busy)?;
        let (hash, password) = (hash.to_owned(), password.to_vec());
        let right = spawn_blocking(move || {
            // Held here, since the check of a client that does not wait still runs.
            let _places = (place, running);
            let right = users::matches(&hash, &password);
            guess.end(right);
            right
        });
        if right.await.unwrap_or(false) { Ok(()) } else { Err(LoginError::Wrong) }
    }
}

/// A guess whose password is to be checked. Dropped without a result, it is given back.
struct PendingGuess {
    guesses: Arc<Mutex<Guesses>>,
    guess: Option<Guess>,
}

impl PendingGuess {
    fn is_known(&self) -> bool {
        self.guess.as_ref().is_some_and(Guess::is_known)
    }

    fn end(mut self, right: bool) {
        if let Some(guess) = self.guess.take() {
            lock(&self.guesses).end(guess, Some(right), Instant::now());
        }
    }
}

impl Drop for PendingGuess {
    fn drop(&mut self) {
        if let Some(guess) = self.guess.take() {
            lock(&self.guesses).end(guess, None, Instant::now());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::access::acl::Role;

    fn account(password: &[u8]) -> Account {
        Account {
            hash: users::hash(password).unwrap(),
            role: Role::None,
            rules: Vec::new(),
            id: None,
            renewed_from: None,
        }
    }

    async fn login(
        checks: &Checks,
        (from, client, user): (u8, &str, &str),
        account: Option<&Account>,
        password: &[u8],
    ) -> Result<(), LoginError> {
        let attempt = Attempt { from: [192, 0, 2, from].into(), client, user };
        checks.check(attempt, account, users::STANDARD_COST, password).await
    }

    #[tokio::test]
    async fn a_right_password_is_remembered_and_wrong_ones_are_counted() {
        let checks = Checks::new(None).unwrap();
        let press = account(b"secret");
        let decoy = DECOY.rsplit_once('$').unwrap().0;
        let made = press.hash.split('$').take(4).collect::<Vec<_>>().join("$");
        assert!(
            decoy.starts_with(&made)
                && argon2::password_hash::phc::PasswordHash::new(DECOY).is_ok()
        );
        let board = (7, "humidor-press", "press");
        assert_eq!(login(&checks, board, Some(&press), b"secret").await, Ok(()));
        // Guesses, until no more are left to this address.
        let mut guesses = Vec::new();
        for n in 0..10 {
            let guess = format!("guess-{n}");
            guesses.push(
                login(&checks, (7, "guesser", "press"), Some(&press), guess.as_bytes()).await,
            );
        }
        assert_eq!(guesses[0], Err(LoginError::Wrong));
        assert_eq!(guesses[9], Err(LoginError::Refused));
        assert_eq!(
            login(&checks, board, Some(&press), b"secret").await,
            Ok(()),
            "it was right before"
        );
        let oven = account(b"other");
        let right = login(&checks, (7, "humidor-oven", "oven"), Some(&oven), b"other").await;
        assert_eq!(right, Ok(()), "guesses at another name do not count");
        let stranger = login(&checks, (8, "c", "nobody"), None, b"secret").await;
        assert_eq!(stranger, Err(LoginError::Wrong));
        let changed = account(b"new");
        let old = login(&checks, (8, "c", "press"), Some(&changed), b"secret").await;
        assert_eq!(old, Err(LoginError::Wrong), "right for the old hash only");
    }

    /// The time of each of these logins, which are refused.
    async fn refused(
        checks: &Arc<Checks>,
        account: Option<&Arc<Account>>,
        logins: impl Iterator<Item = (u8, &'static str)>,
    ) -> Vec<Duration> {
        let logins: Vec<_> = logins
            .map(|(from, password)| {
                let (checks, account) = (Arc::clone(checks), account.cloned());
                tokio::spawn(async move {
                    let began = Instant::now();
                    let who = (from, "guesser", "press");
                    let answer = login(&checks, who, account.as_deref(), password.as_bytes()).await;
                    assert!(answer.is_err());
                    began.elapsed()
                })
            })
            .collect();
        let mut times = Vec::new();
        for login in logins {
            times.push(login.await.unwrap());
        }
        times
    }

    #[tokio::test]
    async fn a_refusal_comes_no_earlier_whatever_was_known_of_its_password() {
        let checks = Arc::new(Checks::new(None).unwrap());
        let press = Arc::new(account(b"secret"));
        let one = |password| (0..6).map(move |_| (7, password));
        let unknown = refused(&checks, None, one("guess")).await;
        // One that is checked and five that wait for it, and later the same one again.
        let known = refused(&checks, Some(&press), one("guess")).await;
        let again = refused(&checks, Some(&press), one("guess")).await;
        // Two more that are checked, and four for which no guess is left.
        let more = ["1", "2", "3", "4", "5", "6"].map(|password| (7, password));
        let used_up = refused(&checks, Some(&press), more.into_iter()).await;
        for time in [unknown, known, again, used_up].concat() {
            assert!(time >= REFUSED_AFTER, "{time:?}");
        }
    }

    #[tokio::test]
    async fn no_more_checks_wait_than_are_done_when_refusals_are_due() {
        let checks = Arc::new(Checks::new(None).unwrap());
        let press = Arc::new(account(b"secret"));
        // As if a check took 400 ms.
        let check = Duration::from_millis(400);
        let unit_ns = u64::try_from(check.as_nanos()).unwrap() / users::STANDARD_COST;
        lock(&checks.time).note(unit_ns, Instant::now());
        assert_eq!(checks.refused_after(users::STANDARD_COST), REFUSED_AFTER_MAX);
        let running = Arc::clone(&checks.running).acquire_owned().await.unwrap();
        let waiting = |from: u8| {
            let (checks, press) = (Arc::clone(&checks), Arc::clone(&press));
            tokio::spawn(async move {
                let guess = from.to_string();
                login(&checks, (from, "guesser", "press"), Some(&press), guess.as_bytes()).await
            })
        };
        let logins: Vec<_> = (0..20).map(waiting).collect();
        let taken = || lock(&checks.places.0).0;
        // Each has asked for its place when it was first polled.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(taken(), 3);
        drop(running);
        let mut crowded = 0;
        for login in logins {
            crowded += usize::from(login.await.unwrap() == Err(LoginError::Crowded));
        }
        assert!(crowded >= 17, "three fit, {crowded} did not");
        assert_eq!(taken(), 0);
    }

    #[tokio::test]
    async fn a_refusal_takes_as_long_for_an_unknown_user_as_for_the_costliest_hash() {
        let checks = Checks::new(None).unwrap();
        assert_eq!(login(&checks, (7, "c", "nobody"), None, b"1").await, Err(LoginError::Wrong));
        let unit = checks.time_of_check(1);
        assert!(!unit.is_zero(), "the first check has shown what one takes");
        let costliest = 3 * users::STANDARD_COST;
        let began = Instant::now();
        let attempt = Attempt { from: [192, 0, 2, 7].into(), client: "c", user: "nobody" };
        assert_eq!(checks.check(attempt, None, costliest, b"2").await, Err(LoginError::Wrong));
        assert!(began.elapsed() >= unit * u32::try_from(costliest).unwrap());
    }

    #[tokio::test]
    async fn a_hall_that_logs_in_at_once_with_one_password_needs_one_check() {
        let checks = Arc::new(Checks::new(None).unwrap());
        let plant = Arc::new(account(b"secret"));
        let logins: Vec<_> = (0..1400)
            .map(|n| {
                let (checks, plant) = (Arc::clone(&checks), Arc::clone(&plant));
                tokio::spawn(async move {
                    let id = format!("board-{n}");
                    login(&checks, (7, &id, "plant"), Some(&plant), b"secret").await
                })
            })
            .collect();
        for login in logins {
            assert_eq!(login.await.unwrap(), Ok(()));
        }
    }
}

//! The memory of logins: which passwords were right or wrong, and how many guesses are left to an address and for a
//! user. Pure: it checks no password itself, and the time is passed in.
//!
//! A guess is a password that was not tried for this user before. It is charged before it is looked at, and given back
//! if it was right. A client that was right before has guesses of its own, so that the wrong passwords of others at its
//! address do not keep it out. A board with a wrong password tries the same one again and again, which costs nothing.
//!
//! Nothing is remembered of names without a user. All refusals are answered alike, so that whether a guess was left
//! shows to nobody, and the names of users neither.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::broker::access::known_clients::{KnownClients, Seen};
use crate::broker::net::token_bucket::TokenBucket;

/// Guesses at once and per second, of one address for one user.
const OF_ADDRESS: (f64, f64) = (3.0, 3.0 / 60.0);
/// The same of the clients at an address that were right before, together. With [`OF_ADDRESS`] at most ten in any minute.
const OF_KNOWN: (f64, f64) = (2.0, 2.0 / 60.0);
/// The same of each such client: it leaves some to the others.
const OF_CLIENT: (f64, f64) = (1.0, 1.0 / 60.0);
/// The same of all addresses together from which no client of the user was right before: of those that have not failed
/// lately, for their first guess, and of all of them. So a new client gets in beside many addresses that guess, at
/// the latest when each of these has failed once: of 250 after 10 minutes, of 1,000 after 41.
const OF_NEW: (f64, f64) = (24.0, 24.0 / 60.0);
const OF_ALL: (f64, f64) = (6.0, 6.0 / 60.0);
/// Wrong passwords that are remembered for one user.
const WRONG_REMEMBERED: usize = 8;
/// Addresses, and clients, whose guesses for one user are counted. Those of [`OF_NEW`] and [`OF_ALL`] come from fewer.
const ADDRESSES: usize = 256;
/// An address has failed lately for so long, and for up to twice as long, unless so many others have since.
const FAILED_LATELY: Duration = Duration::from_hours(2);
const FAILED_ADDRESSES: usize = 2048;

/// A password under a key of this process.
pub type Tag = [u8; 32];

/// A login of a user.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// The address that counts: see `limits::origin`.
    pub origin: IpAddr,
    /// Tells the clients at that address apart, as far as they say the truth.
    pub client: &'a str,
    pub name: &'a str,
    /// The hash of the user's password.
    pub hash: &'a str,
    pub password: Tag,
}

/// What is known of a login without a check of its password.
#[derive(Debug)]
pub enum Verdict {
    Right,
    Wrong,
    /// No guess is left.
    Refused,
    /// The password is being checked for another login: ask again when this resolves.
    Awaited(watch::Receiver<()>),
    /// The password is to be checked. The guess is charged.
    Unknown(Guess),
}

/// A guess that was charged. It is given to [`Guesses::end`].
#[derive(Debug)]
pub struct Guess {
    name: String,
    hash: String,
    password: Tag,
    seen: Seen,
    charge: Charge,
    /// Dropped with the guess: it wakes those who wait for the same.
    _checking: watch::Sender<()>,
}

impl Guess {
    /// Whether it is one of a client that was right before.
    pub const fn is_known(&self) -> bool {
        matches!(self.charge, Charge::Client)
    }
}

#[derive(Debug, Clone, Copy)]
enum Charge {
    /// Of a client that was right before, and its address.
    Client,
    /// Of an address, and of what it shares with others.
    Address(IpAddr, Shared),
}

#[derive(Debug, Clone, Copy)]
enum Shared {
    /// Nothing: a client was right before from there.
    Nothing,
    /// The guesses of addresses that have not failed lately.
    New,
    /// Those of all.
    All,
}

/// The addresses that have failed for a user lately, by tag, in two generations.
#[derive(Debug)]
struct Failed {
    began: Instant,
    young: Vec<u64>,
    old: Vec<u64>,
}

/// What is remembered of one user.
#[derive(Debug)]
struct User {
    /// The hash that `right` and `wrong` are about.
    hash: String,
    right: Option<Tag>,
    wrong: VecDeque<Tag>,
    checking: HashMap<Tag, watch::Receiver<()>>,
    of_new: TokenBucket,
    of_all: TokenBucket,
    failed: Failed,
    of_address: Buckets<IpAddr>,
    /// Of clients that were right before, and of their addresses, by tag.
    of_known: Buckets<u64>,
    of_client: Buckets<u64>,
}

/// All guesses.
#[derive(Debug)]
pub struct Guesses {
    users: HashMap<String, User>,
    pub known: KnownClients,
}

/// Budgets that are not full.
#[derive(Debug)]
struct Buckets<K>(HashMap<K, TokenBucket>);

impl<K: Eq + std::hash::Hash> Buckets<K> {
    /// The budget of `key`; `None` when there are too many.
    fn of(&mut self, key: K, size: (f64, f64), now: Instant) -> Option<&mut TokenBucket> {
        if self.0.len() >= ADDRESSES {
            self.0.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.0.len() >= ADDRESSES && !self.0.contains_key(&key) {
            return None;
        }
        Some(self.0.entry(key).or_insert_with(|| bucket(size, now)))
    }

    fn give_back(&mut self, key: &K) {
        if let Some(bucket) = self.0.get_mut(key) {
            bucket.give_back(1.0);
        }
    }
}

impl Failed {
    const fn new(now: Instant) -> Self {
        Self { began: now, young: Vec::new(), old: Vec::new() }
    }

    fn contains(&mut self, address: u64, now: Instant) -> bool {
        if now.saturating_duration_since(self.began) >= FAILED_LATELY {
            self.renew(now);
        }
        self.young.contains(&address) || self.old.contains(&address)
    }

    fn add(&mut self, address: u64, now: Instant) {
        if !self.contains(address, now) {
            if self.young.len() >= FAILED_ADDRESSES {
                self.renew(now);
            }
            self.young.push(address);
        }
    }

    fn renew(&mut self, now: Instant) {
        self.old = std::mem::take(&mut self.young);
        self.began = now;
    }
}

fn bucket((most, per_second): (f64, f64), now: Instant) -> TokenBucket {
    TokenBucket::new(most, per_second, now)
}

impl User {
    fn new(hash: &str, now: Instant) -> Self {
        Self {
            hash: hash.to_owned(),
            right: None,
            wrong: VecDeque::new(),
            checking: HashMap::new(),
            of_new: bucket(OF_NEW, now),
            of_all: bucket(OF_ALL, now),
            failed: Failed::new(now),
            of_address: Buckets(HashMap::new()),
            of_known: Buckets(HashMap::new()),
            of_client: Buckets(HashMap::new()),
        }
    }

    /// Forgets what it knows of another password.
    fn is_about(&mut self, hash: &str) {
        if self.hash != hash {
            hash.clone_into(&mut self.hash);
            self.right = None;
            self.wrong.clear();
            self.checking.clear();
        }
    }

    fn charge(&mut self, origin: IpAddr, seen: Seen, now: Instant) -> Option<Charge> {
        if seen.knows_client
            && let Some(of_known) = self.of_known.of(seen.address, OF_KNOWN, now)
            && of_known.left(now) >= 1.0
            && let Some(of_client) = self.of_client.of(seen.client, OF_CLIENT, now)
            && of_client.take(1.0, now)
        {
            return of_known.take(1.0, now).then_some(Charge::Client);
        }
        let of_address = self.of_address.of(origin, OF_ADDRESS, now)?;
        // A refused login leaves what is shared to others.
        if of_address.left(now) < 1.0 {
            return None;
        }
        let shared = if seen.knows_address {
            Shared::Nothing
        } else if !self.failed.contains(seen.address, now) && self.of_new.take(1.0, now) {
            Shared::New
        } else if self.of_all.take(1.0, now) {
            Shared::All
        } else {
            return None;
        };
        of_address.take(1.0, now).then_some(Charge::Address(origin, shared))
    }

    fn give_back(&mut self, charge: Charge, seen: Seen) {
        match charge {
            Charge::Client => {
                self.of_known.give_back(&seen.address);
                self.of_client.give_back(&seen.client);
            }
            Charge::Address(origin, shared) => {
                self.of_address.give_back(&origin);
                match shared {
                    Shared::Nothing => {}
                    Shared::New => self.of_new.give_back(1.0),
                    Shared::All => self.of_all.give_back(1.0),
                }
            }
        }
    }

    fn remember_wrong(&mut self, password: Tag, seen: Seen, now: Instant) {
        self.failed.add(seen.address, now);
        if self.wrong.len() >= WRONG_REMEMBERED {
            self.wrong.pop_front();
        }
        self.wrong.push_back(password);
    }
}

impl Guesses {
    /// No guess yet. `known` are the clients that were right in earlier runs.
    pub fn new(known: KnownClients) -> Self {
        Self { users: HashMap::new(), known }
    }

    /// What is known of a login; charges a guess.
    pub fn judge(&mut self, login: Login<'_>, now: Instant) -> Verdict {
        let Login { origin, client, name, hash, password } = login;
        if !self.users.contains_key(name) {
            self.users.insert(name.to_owned(), User::new(hash, now));
        }
        let Some(user) = self.users.get_mut(name) else { return Verdict::Refused };
        user.is_about(hash);
        // Not a new guess.
        if user.wrong.contains(&password) {
            return Verdict::Wrong;
        }
        if let Some(checking) = user.checking.get(&password) {
            return Verdict::Awaited(checking.clone());
        }
        let seen = self.known.see(name, origin, client);
        let Some(charge) = user.charge(origin, seen, now) else { return Verdict::Refused };
        if let Some(right) = user.right {
            if right != password {
                user.remember_wrong(password, seen, now);
                return Verdict::Wrong;
            }
            user.give_back(charge, seen);
            self.known.remember(seen);
            return Verdict::Right;
        }
        let (sender, receiver) = watch::channel(());
        user.checking.insert(password, receiver);
        let (name, hash) = (name.to_owned(), hash.to_owned());
        Verdict::Unknown(Guess { name, hash, password, seen, charge, _checking: sender })
    }

    /// Ends a guess: its password was right, or wrong, or was not checked.
    pub fn end(&mut self, guess: Guess, right: Option<bool>, now: Instant) {
        let Guess { name, hash, password, seen, charge, _checking } = guess;
        // The user's password may have been changed meanwhile.
        let Some(user) = self.users.get_mut(&name).filter(|user| user.hash == hash) else { return };
        user.checking.remove(&password);
        match right {
            Some(false) => user.remember_wrong(password, seen, now),
            Some(true) => {
                user.right = Some(password);
                user.give_back(charge, seen);
                self.known.remember(seen);
            }
            None => user.give_back(charge, seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RIGHT: Tag = [1; 32];

    fn wrong(n: u32) -> Tag {
        let mut tag = [2; 32];
        tag[..4].copy_from_slice(&n.to_be_bytes());
        tag
    }

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    fn guesses() -> Guesses {
        Guesses::new(KnownClients::new([7; 32]))
    }

    /// Judges, and checks where the answer is not known.
    fn login(
        guesses: &mut Guesses,
        from: u32,
        client: &str,
        password: Tag,
        now: Instant,
    ) -> Verdict {
        let login = Login { origin: address(from), client, name: "press", hash: "hash", password };
        match guesses.judge(login, now) {
            Verdict::Unknown(guess) => {
                guesses.end(guess, Some(password == RIGHT), now);
                if password == RIGHT { Verdict::Right } else { Verdict::Wrong }
            }
            other => other,
        }
    }

    /// Guesses that were looked at in a minute, of a hundred a second, in turn from `addresses` and by `clients`.
    fn evaluated(guesses: &mut Guesses, addresses: u32, clients: &[&str], start: Instant) -> u32 {
        let mut count = 0;
        for n in 0..6000 {
            let now = start + Duration::from_millis(u64::from(n) * 10);
            let client_id = clients[n as usize % clients.len()];
            let verdict = login(guesses, n % addresses, client_id, wrong(n), now);
            count += u32::from(!matches!(verdict, Verdict::Refused));
        }
        count
    }

    #[test]
    fn guesses_are_bounded_by_address_and_user_whether_the_user_was_right_before_or_not() {
        let start = Instant::now();
        let mut guesses = self::guesses();
        assert!(evaluated(&mut guesses, 1, &["c"], start) <= 6);
        let mut guesses = self::guesses();
        assert!(evaluated(&mut guesses, 1000, &["c"], start) <= 60);
        // Whoever names all clients that were right before has no more.
        let mut guesses = self::guesses();
        for client in ["a", "b", "c"] {
            assert!(matches!(login(&mut guesses, 0, client, RIGHT, start), Verdict::Right));
        }
        assert!(evaluated(&mut guesses, 1, &["a", "b", "c", "guesser"], start) <= 10);
    }

    /// The first minute in which a client that was never seen before gets in beside guesses from so many addresses, and the
    /// most guesses that were looked at in one of the minutes.
    fn first_right_login(addresses: u32) -> (u32, u32) {
        let (mut guesses, start) = (self::guesses(), Instant::now());
        let mut most = 0;
        for minute in 0..120 {
            let now = start + Duration::from_mins(1) * minute;
            most = most.max(evaluated(&mut guesses, addresses, &["guesser"], now));
            // With the latest guess: no other one can have been gained since.
            let now = now + Duration::from_millis(59_990);
            let new = login(&mut guesses, 5000 + minute, "new board", RIGHT, now);
            if matches!(new, Verdict::Right) {
                return (minute + 1, most);
            }
        }
        panic!("never");
    }

    #[test]
    fn a_new_client_gets_in_when_each_of_the_addresses_that_guess_has_failed_once() {
        for (addresses, minutes) in [(1, 1), (250, 10)] {
            let (minute, guesses) = first_right_login(addresses);
            assert!(minute <= minutes && guesses <= 60, "{addresses}: {minute}, {guesses}");
        }
    }

    #[test]
    fn who_has_failed_is_remembered_for_hours_and_in_bounded_memory() {
        let start = Instant::now();
        let mut failed = Failed::new(start);
        for address in 0..FAILED_ADDRESSES as u64 {
            failed.add(address, start);
        }
        assert!(failed.contains(0, start + FAILED_LATELY));
        assert!(!failed.contains(0, start + 3 * FAILED_LATELY));
        for address in 0..10 * FAILED_ADDRESSES as u64 {
            failed.add(address, start);
        }
        assert!(failed.young.len().max(failed.old.len()) <= FAILED_ADDRESSES);
    }

    #[test]
    fn guesses_from_a_thousand_addresses_keep_no_address_out_from_which_the_user_was_right() {
        let start = Instant::now();
        let mut guesses = self::guesses();
        assert!(matches!(login(&mut guesses, 2000, "board", RIGHT, start), Verdict::Right));
        evaluated(&mut guesses, 1000, &["board"], start);
        let later = start + Duration::from_mins(1);
        evaluated(&mut guesses, 1000, &["board"], later);
        for client in ["board", "another"] {
            assert!(matches!(login(&mut guesses, 2000, client, RIGHT, later), Verdict::Right));
        }
        // The same in the next run.
        let known = KnownClients::read(&guesses.known.save().unwrap()).unwrap();
        let mut guesses = Guesses::new(known);
        evaluated(&mut guesses, 1000, &["board"], start);
        for client in ["another", "board"] {
            assert!(matches!(login(&mut guesses, 2000, client, RIGHT, start), Verdict::Right));
        }
    }

    #[test]
    fn who_names_a_client_takes_the_guesses_of_that_one_only() {
        let start = Instant::now();
        let mut guesses = self::guesses();
        for client in ["board", "another"] {
            assert!(matches!(login(&mut guesses, 0, client, RIGHT, start), Verdict::Right));
        }
        for n in 0..600 {
            let now = start + Duration::from_millis(100 * n);
            login(&mut guesses, 0, "board", wrong(u32::try_from(n).unwrap()), now);
            assert!(matches!(login(&mut guesses, 0, "another", RIGHT, now), Verdict::Right), "{n}");
        }
    }

    #[test]
    fn the_same_wrong_password_again_costs_nothing_and_keeps_nobody_out() {
        let start = Instant::now();
        let mut guesses = self::guesses();
        for n in 0..1000 {
            let now = start + Duration::from_millis(n);
            let verdict = login(&mut guesses, 0, "wrong", wrong(0), now);
            assert!(matches!(verdict, Verdict::Wrong), "{n}");
        }
        for n in 0..100 {
            let verdict = login(&mut guesses, 0, &format!("board-{n}"), RIGHT, start);
            assert!(matches!(verdict, Verdict::Right), "{n}");
        }
    }

    #[test]
    fn a_client_that_was_right_before_gets_in_beside_guesses_from_its_address() {
        let start = Instant::now();
        let mut guesses = self::guesses();
        assert!(matches!(login(&mut guesses, 0, "board", RIGHT, start), Verdict::Right));
        evaluated(&mut guesses, 1, &["guesser"], start);
        let later = start + Duration::from_mins(1);
        login(&mut guesses, 0, "guesser", wrong(7000), later);
        for _ in 0..10 {
            assert!(matches!(login(&mut guesses, 0, "board", RIGHT, later), Verdict::Right));
        }
        // The exemption is that of its address.
        for n in 0..3 {
            login(&mut guesses, 9, "guesser", wrong(8000 + n), later);
        }
        assert!(matches!(login(&mut guesses, 9, "board", RIGHT, later), Verdict::Refused));
        // Another password: that the old one was right counts no more.
        let changed = Login {
            origin: address(0),
            client: "board",
            name: "press",
            hash: "other",
            password: RIGHT,
        };
        let much_later = later + Duration::from_mins(1);
        assert!(matches!(guesses.judge(changed, much_later), Verdict::Unknown(_)));
    }

    #[test]
    fn a_password_is_checked_once_for_all_who_send_it_meanwhile() {
        let now = Instant::now();
        let mut guesses = self::guesses();
        let login = |n| Login {
            origin: address(n),
            client: "c",
            name: "plant",
            hash: "hash",
            password: RIGHT,
        };
        let Verdict::Unknown(first) = guesses.judge(login(0), now) else { panic!("not known yet") };
        let waiting = |guesses: &mut Guesses, n| match guesses.judge(login(n), now) {
            Verdict::Awaited(waiting) => waiting,
            other => panic!("{other:?}"),
        };
        let waiters: Vec<_> = (0..1400).map(|n| waiting(&mut guesses, n)).collect();
        guesses.end(first, Some(true), now);
        assert!(waiters.iter().all(|waiter| waiter.has_changed().is_err()), "all are woken");
        for n in 0..1400 {
            assert!(matches!(guesses.judge(login(n), now), Verdict::Right));
        }
        let mut guesses = self::guesses();
        let Verdict::Unknown(gone) = guesses.judge(login(0), now) else { panic!("not known yet") };
        guesses.end(gone, None, now);
        assert!(matches!(guesses.judge(login(1), now), Verdict::Unknown(_)), "checked by another");
    }
}

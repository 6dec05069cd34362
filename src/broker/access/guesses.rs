//! The memory of logins: which passwords were right or wrong, and how many guesses are left to an address and for a
//! user. Pure: it checks no password itself, and the time is passed in.
//!
//! A guess is a password that was not tried for this user before. It is charged before it is looked at, and given back
//! if it was right. A client that was right before has guesses of its own, so that the wrong passwords of others at its
//! address do not keep it out. A board with a wrong password tries the same one again and again, which costs nothing.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Instant;

use tokio::sync::watch;

use crate::broker::net::token_bucket::TokenBucket;

/// Guesses at once and per second, of one address for one user.
const OF_ADDRESS: (f64, f64) = (3.0, 3.0 / 60.0);
/// The same of a client that was right before. With [`OF_ADDRESS`] at most ten in any minute.
const OF_CLIENT: (f64, f64) = (2.0, 2.0 / 60.0);
/// The same of all addresses together for one user; clients that were right before do not count.
const OF_ALL: (f64, f64) = (30.0, 30.0 / 60.0);
/// Wrong passwords that are remembered for one user.
const WRONG_REMEMBERED: usize = 8;
/// Addresses whose guesses for one user are counted. The guesses of [`OF_ALL`] come from fewer.
const ADDRESSES: usize = 256;
/// Clients of one user that are remembered: as many as may be connected from one address.
const CLIENTS: usize = 2048;
/// Names without a user whose guesses are counted, so that a name shows in no answer whether there is such a user.
const STRANGERS: usize = 1024;

/// A password under a key of this process.
pub type Tag = [u8; 32];

/// A login.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// The address that counts: see `limits::origin`.
    pub origin: IpAddr,
    pub client_id: &'a str,
    pub name: &'a str,
    /// The hash of the user's password; `None` where there is no such user.
    pub hash: Option<&'a str>,
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
    hash: Option<String>,
    password: Tag,
    client: u64,
    charge: Charge,
    /// Dropped with the guess: it wakes those who wait for the same.
    _checking: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy)]
enum Charge {
    Client,
    Address(IpAddr),
}

/// What is remembered of one name.
#[derive(Debug)]
struct User {
    /// The hash that `right` and `wrong` are about.
    hash: Option<String>,
    right: Option<Tag>,
    wrong: VecDeque<Tag>,
    checking: HashMap<Tag, watch::Receiver<()>>,
    of_all: TokenBucket,
    of_address: HashMap<IpAddr, TokenBucket>,
    of_client: HashMap<u64, TokenBucket>,
}

/// All guesses.
#[derive(Debug, Default)]
pub struct Guesses {
    users: HashMap<String, User>,
    strangers: HashMap<u64, User>,
    /// In the order of their first login.
    oldest: VecDeque<u64>,
    hasher: RandomState,
}

fn bucket((most, per_second): (f64, f64), now: Instant) -> TokenBucket {
    TokenBucket::new(most, per_second, now)
}

impl User {
    fn new(hash: Option<&str>, now: Instant) -> Self {
        Self {
            hash: hash.map(str::to_owned),
            right: None,
            wrong: VecDeque::new(),
            checking: HashMap::new(),
            of_all: bucket(OF_ALL, now),
            of_address: HashMap::new(),
            of_client: HashMap::new(),
        }
    }

    /// Forgets what it knows of another password.
    fn is_about(&mut self, hash: Option<&str>) {
        if self.hash.as_deref() != hash {
            self.hash = hash.map(str::to_owned);
            self.right = None;
            self.wrong.clear();
            self.checking.clear();
            self.of_client.clear();
        }
    }

    fn charge(&mut self, origin: IpAddr, client: u64, now: Instant) -> Option<Charge> {
        if self.of_client.get_mut(&client).is_some_and(|bucket| bucket.take(1.0, now)) {
            return Some(Charge::Client);
        }
        if self.of_address.len() >= ADDRESSES {
            self.of_address.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.of_address.len() >= ADDRESSES && !self.of_address.contains_key(&origin) {
            return None;
        }
        // A refused login leaves the budget of all to others.
        let of_address = self.of_address.entry(origin).or_insert_with(|| bucket(OF_ADDRESS, now));
        if of_address.left(now) < 1.0 || !self.of_all.take(1.0, now) {
            return None;
        }
        of_address.take(1.0, now).then_some(Charge::Address(origin))
    }

    fn give_back(&mut self, charge: Charge, client: u64) {
        match charge {
            Charge::Client => {
                let _ = self.of_client.get_mut(&client).map(|bucket| bucket.give_back(1.0));
            }
            Charge::Address(origin) => {
                self.of_all.give_back(1.0);
                let _ = self.of_address.get_mut(&origin).map(|bucket| bucket.give_back(1.0));
            }
        }
    }

    /// Remembers a client that was right.
    fn remember(&mut self, client: u64, now: Instant) {
        if self.of_client.len() < CLIENTS {
            self.of_client.entry(client).or_insert_with(|| bucket(OF_CLIENT, now));
        }
    }

    fn remember_wrong(&mut self, password: Tag) {
        if self.wrong.len() >= WRONG_REMEMBERED {
            self.wrong.pop_front();
        }
        self.wrong.push_back(password);
    }
}

impl Guesses {
    /// What is known of a login; charges a guess.
    pub fn judge(&mut self, login: Login<'_>, now: Instant) -> Verdict {
        let Login { origin, client_id, name, hash, password } = login;
        let client = self.hasher.hash_one((origin, client_id));
        let user = self.user(name, hash, now);
        user.is_about(hash);
        // Not a new guess.
        if user.wrong.contains(&password) {
            return Verdict::Wrong;
        }
        if let Some(checking) = user.checking.get(&password) {
            return Verdict::Awaited(checking.clone());
        }
        let Some(charge) = user.charge(origin, client, now) else { return Verdict::Refused };
        if let Some(right) = user.right {
            if right != password {
                user.remember_wrong(password);
                return Verdict::Wrong;
            }
            user.give_back(charge, client);
            user.remember(client, now);
            return Verdict::Right;
        }
        let (sender, receiver) = watch::channel(());
        user.checking.insert(password, receiver);
        let (name, hash) = (name.to_owned(), hash.map(str::to_owned));
        Verdict::Unknown(Guess { name, hash, password, client, charge, _checking: sender })
    }

    /// Ends a guess: its password was right, or wrong, or was not checked.
    pub fn end(&mut self, guess: Guess, right: Option<bool>, now: Instant) {
        let Guess { name, hash, password, client, charge, _checking } = guess;
        let user = self.user(&name, hash.as_deref(), now);
        // The user's password may have been changed meanwhile.
        if user.hash != hash {
            return;
        }
        user.checking.remove(&password);
        match right {
            Some(false) => user.remember_wrong(password),
            Some(true) => {
                user.right = Some(password);
                user.give_back(charge, client);
                user.remember(client, now);
            }
            None => user.give_back(charge, client),
        }
    }

    fn user(&mut self, name: &str, hash: Option<&str>, now: Instant) -> &mut User {
        if hash.is_some() {
            return self.users.entry(name.to_owned()).or_insert_with(|| User::new(hash, now));
        }
        // The name comes from the network, and may be long.
        let key = self.hasher.hash_one(name);
        if !self.strangers.contains_key(&key) {
            if self.strangers.len() >= STRANGERS
                && let Some(oldest) = self.oldest.pop_front()
            {
                self.strangers.remove(&oldest);
            }
            self.oldest.push_back(key);
        }
        self.strangers.entry(key).or_insert_with(|| User::new(None, now))
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

    /// Judges, and checks where the answer is not known.
    fn login(
        guesses: &mut Guesses,
        from: u32,
        client_id: &str,
        password: Tag,
        now: Instant,
    ) -> Verdict {
        let login =
            Login { origin: address(from), client_id, name: "press", hash: Some("hash"), password };
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
        let mut guesses = Guesses::default();
        assert!(evaluated(&mut guesses, 1, &["c"], start) <= 6);
        let mut guesses = Guesses::default();
        assert!(evaluated(&mut guesses, 1000, &["c"], start) <= 60);
        let mut guesses = Guesses::default();
        assert!(matches!(login(&mut guesses, 0, "http", RIGHT, start), Verdict::Right));
        assert!(evaluated(&mut guesses, 1, &["c", "http"], start) <= 10);
    }

    #[test]
    fn the_same_wrong_password_again_costs_nothing_and_keeps_nobody_out() {
        let start = Instant::now();
        let mut guesses = Guesses::default();
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
        let mut guesses = Guesses::default();
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
        // Another password: nothing of the old one counts.
        let changed = Login {
            origin: address(0),
            client_id: "board",
            name: "press",
            hash: Some("other"),
            password: RIGHT,
        };
        let much_later = later + Duration::from_mins(1);
        assert!(matches!(guesses.judge(changed, much_later), Verdict::Unknown(_)));
    }

    #[test]
    fn a_password_is_checked_once_for_all_who_send_it_meanwhile() {
        let now = Instant::now();
        let mut guesses = Guesses::default();
        let login = |n| Login {
            origin: address(n),
            client_id: "c",
            name: "plant",
            hash: Some("hash"),
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
        let mut guesses = Guesses::default();
        let Verdict::Unknown(gone) = guesses.judge(login(0), now) else { panic!("not known yet") };
        guesses.end(gone, None, now);
        assert!(matches!(guesses.judge(login(1), now), Verdict::Unknown(_)), "checked by another");
    }

    #[test]
    fn names_without_a_user_are_refused_as_those_of_users_and_are_bounded() {
        let now = Instant::now();
        let mut guesses = Guesses::default();
        let mut refused_after = Vec::new();
        for hash in [None, Some("hash")] {
            let verdicts = (0..20).map(|n| {
                let login = Login {
                    origin: address(0),
                    client_id: "c",
                    name: "somebody",
                    hash,
                    password: wrong(n),
                };
                match guesses.judge(login, now) {
                    Verdict::Unknown(guess) => guesses.end(guess, Some(false), now),
                    Verdict::Refused => return true,
                    other => panic!("{other:?}"),
                }
                false
            });
            refused_after.push(verdicts.take_while(|refused| !refused).count());
        }
        assert_eq!(refused_after, [3, 3]);
        for n in 0..3 * STRANGERS {
            let name = n.to_string();
            let login = Login {
                origin: address(0),
                client_id: "c",
                name: &name,
                hash: None,
                password: RIGHT,
            };
            guesses.judge(login, now);
        }
        assert_eq!((guesses.strangers.len(), guesses.oldest.len()), (STRANGERS, STRANGERS));
    }
}

//! Wrong logins keep nobody out, and guesses are few: a right login beside a hundred wrong ones a second from the same
//! address gets in, over MQTT and over HTTP. No refusal tells whether there is a user of that name. `GUESSING_ROUNDS` sets
//! how often the times of refusals are measured; with `--nocapture` they are printed.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use socket2::{Domain, Socket, Type};
use support::users::add;
use support::{PATIENCE, Process, packets};

const ACCEPTED: u8 = 0;
const NOT_AUTHORIZED: u8 = 5;

fn start(data: &Path) -> (Process, SocketAddr, SocketAddr) {
    let (process, address) = support::broker(data, "127.0.0.1:0", &[]);
    let line = process.said("listening for HTTP");
    let http = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    (process, address, http)
}

/// Logs in over MQTT; returns the CONNACK's code.
fn login(address: SocketAddr, id: &str, user: &str, password: &str) -> u8 {
    answer_of(begin_login(Ipv4Addr::LOCALHOST, address, id, user, password))
}

/// Sends a CONNECT from an address of this machine.
fn begin_login(
    from: Ipv4Addr,
    address: SocketAddr,
    id: &str,
    user: &str,
    password: &str,
) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from.into(), 0).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream: TcpStream = socket.into();
    stream.write_all(&packets::connect_with_login(id, user, password)).unwrap();
    stream
}

/// The code of the CONNACK.
fn answer_of(mut stream: TcpStream) -> u8 {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack[..3], [0x20, 2, 0]);
    connack[3]
}

/// Asks for the latest readings over HTTP with a program's name, a name and a password; returns the status.
fn ask(http: SocketAddr, program: &str, user: &str, password: &str) -> u16 {
    let pair = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let headers = [("authorization", pair.as_str()), ("user-agent", program)];
    support::http::request(http, "GET", "/api/v1/latest", &headers, "").status
}

/// Sets its flag when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Makes a hundred wrong logins a second with `wrong` while `right` runs.
fn beside<T>(wrong: impl Fn(u32) + Sync, right: impl FnOnce() -> T) -> T {
    // A refusal takes up to three seconds.
    const AT_ONCE: u32 = 300;
    let (over, made, began) = (AtomicBool::new(false), AtomicU32::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    let next = Instant::now() + AT_ONCE * Duration::from_millis(10);
                    wrong(made.fetch_add(1, Relaxed));
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
        }
        // The others end when it panics, too.
        let _over = Over(&over);
        support::wait_until("there are wrong logins", || made.load(Relaxed) > 60);
        let result = right();
        println!("{} wrong logins in {:?}", made.load(Relaxed), began.elapsed());
        result
    })
}

#[test]
fn a_right_login_gets_in_beside_a_hundred_wrong_ones_a_second_from_its_address() {
    let data = tempfile::tempdir().unwrap();
    let boards: Vec<String> = (0..10).map(|n| format!("board{n}")).collect();
    for name in boards.iter().map(String::as_str).chain(["known", "plant"]) {
        add(data.path(), name, "reader");
    }
    let (_broker, address, http) = start(data.path());
    assert_eq!(login(address, "humidor-known", "known", "known-secret"), ACCEPTED);
    assert_eq!(ask(http, "scraper", "known", "known-secret"), 200);
    // Of one name, of names that are no users, and of a board with an old password.
    let wrong = |n: u32| match n % 4 {
        0 => drop(login(address, "guesser", "known", &format!("guess-{n}"))),
        1 => drop(login(address, "guesser", &format!("nobody-{n}"), "x")),
        2 => drop(ask(http, "guesser", "known", &format!("guess-{n}"))),
        _ => drop(login(address, "humidor-old", "plant", "old")),
    };
    beside(wrong, || {
        let began = Instant::now();
        for name in &boards {
            let password = format!("{name}-secret");
            // The first login of each ever.
            assert_eq!(login(address, &format!("humidor-{name}"), name, &password), ACCEPTED);
        }
        for n in 0..10 {
            let id = format!("humidor-{n}");
            assert_eq!(login(address, "humidor-known", "known", "known-secret"), ACCEPTED);
            assert_eq!(ask(http, "scraper", "known", "known-secret"), 200, "the guessed name");
            assert_eq!(login(address, &id, "plant", "plant-secret"), ACCEPTED, "a shared name");
            assert_eq!(ask(http, "scraper", "plant", "plant-secret"), 200);
        }
        println!("50 right logins in {:?}", began.elapsed());
    });
}

#[test]
fn a_board_that_was_right_before_a_restart_gets_in_after_it_beside_guesses_at_its_name() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "known", "reader");
    let noted = || data.path().join("known-clients").metadata().map_or(0, |file| file.len());
    let (broker, address, _) = start(data.path());
    assert_eq!(login(address, "humidor-known", "known", "known-secret"), ACCEPTED);
    support::wait_until("the board is noted", || noted() > 0);
    assert_eq!(broker.terminate(), Some(0));
    let (before, (broker, _, http)) = (noted(), start(data.path()));
    assert_eq!(ask(http, "scraper", "known", "known-secret"), 200);
    support::wait_until("the scraper is noted", || noted() > before);
    assert_eq!(broker.terminate(), Some(0));
    let (_broker, address, http) = start(data.path());
    let wrong = |n: u32| match n % 2 {
        0 => drop(login(address, "guesser", "known", &format!("guess-{n}"))),
        _ => drop(ask(http, "guesser", "known", &format!("guess-{n}"))),
    };
    beside(wrong, || {
        assert_eq!(login(address, "guesser", "known", "known-secret"), NOT_AUTHORIZED);
        for _ in 0..10 {
            assert_eq!(login(address, "humidor-known", "known", "known-secret"), ACCEPTED);
            assert_eq!(ask(http, "scraper", "known", "known-secret"), 200);
        }
    });
}

#[test]
fn guesses_at_a_name_are_few_through_both_doors_together_also_after_a_right_login() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "known", "reader");
    let (_broker, address, http) = start(data.path());
    assert_eq!(login(address, "humidor-known", "known", "known-secret"), ACCEPTED);
    assert_eq!(ask(http, "scraper", "known", "known-secret"), 200);
    let both = |mqtt: &str, over_http: &str| {
        assert_eq!(login(address, "guesser", "known", mqtt), NOT_AUTHORIZED);
        assert_eq!(ask(http, "guesser", "known", over_http), 401);
    };
    std::thread::scope(|scope| {
        for n in 0..5 {
            scope.spawn(move || both(&format!("guess-{n}"), &format!("other-{n}")));
        }
    });
    // No guess is left: a right one is not looked at either.
    both("known-secret", "known-secret");
    assert_eq!(login(address, "humidor-known", "known", "known-secret"), ACCEPTED);
    assert_eq!(ask(http, "scraper", "known", "known-secret"), 200);
}

#[test]
fn no_answer_tells_whether_there_is_a_user_of_that_name() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "known", "reader");
    let (_broker, address, http) = start(data.path());
    // All at once.
    let guess_at = |name: &'static str, round: &'static str| -> Vec<(u8, u16)> {
        std::thread::scope(|scope| {
            let guesses: Vec<_> = (0..10)
                .map(|n| {
                    scope.spawn(move || {
                        let guess = format!("{round}-{n}");
                        let mqtt = login(address, "guesser", name, &guess);
                        (mqtt, ask(http, "guesser", name, &guess))
                    })
                })
                .collect();
            guesses.into_iter().map(|guess| guess.join().unwrap()).collect()
        })
    };
    assert_eq!(guess_at("known", "before"), guess_at("nobody", "before"));
    // Names that might crowd out what is remembered of others.
    std::thread::scope(|scope| {
        for n in 0..300 {
            scope.spawn(move || login(address, "guesser", &format!("other-{n}"), "x"));
        }
    });
    assert_eq!(guess_at("known", "after"), guess_at("nobody", "after"));
    // More passwords of a user than checks may wait, each from an address with guesses: no answer says that they wait.
    let crowd: Vec<TcpStream> = (1..=60)
        .map(|n| {
            let from = Ipv4Addr::new(127, 0, 2, n);
            begin_login(from, address, "c", "known", &format!("crowd-{n}"))
        })
        .collect();
    let crowd: Vec<u8> = crowd.into_iter().map(answer_of).collect();
    assert_eq!(crowd, [NOT_AUTHORIZED; 60]);
}

/// The times of refusals of `name`, while five guesses at `beside` are under way from other addresses.
fn refusals(
    (address, http): (SocketAddr, SocketAddr),
    name: &str,
    beside: Option<&str>,
    round: u8,
) -> Vec<Duration> {
    let guess = |door: u8, n: u8| format!("guess-{name}-{round}-{door}-{n}");
    let doors = (0..2).map(|door| {
        let others: Vec<TcpStream> = beside
            .into_iter()
            .flat_map(|user| (1..=5).map(move |n| (user, n)))
            .map(|(user, n)| {
                let from = Ipv4Addr::new(127, 1 + round, 2 * n + door, n);
                begin_login(from, address, "other", user, &guess(door, n))
            })
            .collect();
        let began = Instant::now();
        if door == 0 {
            let from = Ipv4Addr::new(127, 1 + round, 99, 99);
            let one = begin_login(from, address, "guesser", name, &guess(door, 0));
            assert_eq!(answer_of(one), NOT_AUTHORIZED);
        } else {
            assert_eq!(ask(http, "guesser", name, &guess(door, 0)), 401);
        }
        let took = began.elapsed();
        assert!(others.into_iter().map(answer_of).all(|code| code == NOT_AUTHORIZED));
        took
    });
    doors.collect()
}

#[test]
fn a_refusal_takes_the_same_time_whether_there_is_such_a_user_and_whoever_tries_the_name() {
    let data = tempfile::tempdir().unwrap();
    for name in ["idle", "tried", "beside", "busy"] {
        add(data.path(), name, "reader");
    }
    let (_broker, address, http) = start(data.path());
    let rounds = std::env::var("GUESSING_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let doors = (address, http);
    // What was measured: without others, beside five of the same name, and beside five of another user.
    let of = |known: &str, unknown: &str, others: [Option<&str>; 2]| {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..rounds.unwrap_or(1) {
            for (times, (name, others)) in
                times.iter_mut().zip([known, unknown].into_iter().zip(others))
            {
                times.extend(refusals(doors, name, others, round));
            }
        }
        for (name, times) in ["known", "unknown"].iter().zip(&mut times) {
            times.sort_unstable();
            let [first, median, last] =
                [0, times.len() / 2, times.len() - 1].map(|at| times[at].as_millis());
            println!("{known:7} {name:7} median {median} ms, {first} to {last} ms");
        }
        let [known, unknown] = times.map(|times| times[times.len() / 2]);
        assert!(known < unknown * 2 && unknown < known * 2, "{known:?} and {unknown:?}");
    };
    of("idle", "nobody", [None; 2]);
    of("tried", "no-one", [Some("tried"), Some("no-one")]);
    of("beside", "none", [Some("busy"); 2]);
}

#[test]
fn the_log_tells_whose_logins_are_refused_and_why() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "press", "reader");
    let (broker, address, _) = start(data.path());
    std::thread::scope(|scope| {
        for n in 0..5 {
            scope.spawn(move || login(address, "noisy", "press", &format!("guess-{n}")));
        }
    });
    login(address, "quiet", "oven", "x");
    let noisy = broker.said("login refused");
    assert!(noisy.contains("user=\"press\"") && noisy.contains("client=\"noisy\""), "{noisy}");
    let quiet = broker.said("user=\"oven\"");
    assert!(quiet.contains("login refused") && quiet.contains("127.0.0.1"), "{quiet}");
}

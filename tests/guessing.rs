//! Wrong logins keep nobody out, and guesses are few: a right login beside a hundred wrong ones a second from the same
//! address gets in, over MQTT and over HTTP.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use support::{PATIENCE, Process, humidor, packets};

const ACCEPTED: u8 = 0;
const NOT_AUTHORIZED: u8 = 5;

fn add_user(data: &Path, name: &str) {
    let mut command = humidor();
    command
        .args(["user", "add", name, "--role", "reader", "--data"])
        .arg(data)
        .stdin(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{name}-secret\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn start(data: &Path) -> (Process, SocketAddr, SocketAddr) {
    let (process, address) = support::broker(data, "127.0.0.1:0", &[]);
    let line = process.said("listening for HTTP");
    let http = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    (process, address, http)
}

/// Logs in over MQTT; returns the CONNACK's code.
fn login(address: SocketAddr, id: &str, user: &str, password: &str) -> u8 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&packets::connect_with_login(id, user, password)).unwrap();
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
    const AT_ONCE: u32 = 20;
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
        add_user(data.path(), name);
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
    add_user(data.path(), "known");
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
    add_user(data.path(), "known");
    let (_broker, address, http) = start(data.path());
    assert_eq!(login(address, "humidor-known", "known", "known-secret"), ACCEPTED);
    assert_eq!(ask(http, "scraper", "known", "known-secret"), 200);
    for n in 0..5 {
        let guess = format!("guess-{n}");
        assert_eq!(login(address, "guesser", "known", &guess), NOT_AUTHORIZED);
        assert_eq!(ask(http, "guesser", "known", &format!("other-{n}")), 401);
    }
    // No guess is left: a right one is not looked at either.
    assert_eq!(login(address, "guesser", "known", "known-secret"), NOT_AUTHORIZED);
    assert_eq!(ask(http, "guesser", "known", "known-secret"), 401);
    assert_eq!(login(address, "humidor-known", "known", "known-secret"), ACCEPTED);
    assert_eq!(ask(http, "scraper", "known", "known-secret"), 200);
}

#[test]
fn no_answer_tells_whether_there_is_a_user_of_that_name() {
    let data = tempfile::tempdir().unwrap();
    add_user(data.path(), "known");
    let (_broker, address, http) = start(data.path());
    let timed = |answer: &dyn Fn() -> u16| {
        let began = Instant::now();
        (answer(), began.elapsed())
    };
    let guess_at = |name: &str, round: &str| -> (Vec<u16>, Duration) {
        let answers: Vec<_> = (0..10)
            .flat_map(|n| {
                let guess = format!("{round}-{n}");
                let mqtt = timed(&|| login(address, "guesser", name, &guess).into());
                [mqtt, timed(&|| ask(http, "guesser", name, &guess))]
            })
            .collect();
        let fastest = answers.iter().map(|(_, took)| *took).min().unwrap();
        (answers.into_iter().map(|(code, _)| code).collect(), fastest)
    };
    let before = ["known", "nobody"].map(|name| guess_at(name, "before"));
    assert_eq!(before[0].0, before[1].0);
    // Names that might crowd out what is remembered of others.
    std::thread::scope(|scope| {
        for part in 0..32 {
            scope.spawn(move || {
                for n in 0..33 {
                    login(address, "guesser", &format!("other-{part}-{n}"), "x");
                }
            });
        }
    });
    let after = ["known", "nobody"].map(|name| guess_at(name, "after"));
    assert_eq!(after[0].0, after[1].0);
    // A password that is not looked at takes no less time.
    let (known, nobody) = (after[0].1, after[1].1);
    assert!(known > nobody / 2 && nobody > known / 2, "{known:?} and {nobody:?}");
}

#[test]
fn the_log_tells_whose_logins_are_refused_and_why() {
    let data = tempfile::tempdir().unwrap();
    add_user(data.path(), "press");
    let (broker, address, _) = start(data.path());
    for n in 0..5 {
        login(address, "noisy", "press", &format!("guess-{n}"));
    }
    login(address, "quiet", "oven", "x");
    let noisy = broker.said("login refused");
    assert!(noisy.contains("user=\"press\"") && noisy.contains("client=\"noisy\""), "{noisy}");
    let quiet = broker.said("user=\"oven\"");
    assert!(quiet.contains("login refused") && quiet.contains("127.0.0.1"), "{quiet}");
}

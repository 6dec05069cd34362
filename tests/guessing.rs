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
const SERVER_UNAVAILABLE: u8 = 3;
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

/// Asks for the latest readings over HTTP with a name and a password; returns the status.
fn ask(http: SocketAddr, user: &str, password: &str) -> u16 {
    let pair = STANDARD.encode(format!("{user}:{password}"));
    let header = ("authorization", format!("Basic {pair}"));
    support::http::request(http, "GET", "/api/v1/latest", &[(header.0, &header.1)], "").status
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
    let (over, made) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    wrong(made.fetch_add(1, Relaxed));
                    std::thread::sleep(Duration::from_millis(40));
                }
            });
        }
        // The others end when it panics, too.
        let _over = Over(&over);
        support::wait_until("there are wrong logins", || made.load(Relaxed) > 20);
        right()
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
    let began = Instant::now();
    // Of one name, of names that are no users, and of a board with an old password.
    let wrong = |n: u32| match n % 4 {
        0 => drop(login(address, "guesser", "known", &format!("guess-{n}"))),
        1 => drop(login(address, "guesser", &format!("nobody-{n}"), "x")),
        2 => drop(ask(http, "known", &format!("guess-{n}"))),
        _ => drop(login(address, "humidor-old", "plant", "old")),
    };
    beside(wrong, || {
        for name in &boards {
            let password = format!("{name}-secret");
            // The first login of each since the start.
            assert_eq!(login(address, &format!("humidor-{name}"), name, &password), ACCEPTED);
        }
        for n in 0..10 {
            let id = format!("humidor-{n}");
            assert_eq!(login(address, "humidor-known", "known", "known-secret"), ACCEPTED);
            assert_eq!(login(address, &id, "plant", "plant-secret"), ACCEPTED, "a shared name");
            assert_eq!(ask(http, "plant", "plant-secret"), 200);
        }
    });
    println!("40 right logins in {:?}", began.elapsed());
}

#[test]
fn guesses_at_a_name_are_few_through_both_doors_together_also_after_a_right_login() {
    let data = tempfile::tempdir().unwrap();
    add_user(data.path(), "known");
    let (_broker, address, http) = start(data.path());
    assert_eq!(login(address, "humidor-known", "known", "known-secret"), ACCEPTED);
    assert_eq!(ask(http, "known", "known-secret"), 200);
    let (mut evaluated, began) = (0, Instant::now());
    for n in 0..200 {
        match login(address, "guesser", "known", &format!("guess-{n}")) {
            NOT_AUTHORIZED => evaluated += 1,
            code => assert_eq!(code, SERVER_UNAVAILABLE),
        }
        match ask(http, "known", &format!("other-{n}")) {
            401 => evaluated += 1,
            status => assert_eq!(status, 429),
        }
    }
    // A guess that is right is not looked at either.
    assert_eq!(login(address, "guesser", "known", "known-secret"), SERVER_UNAVAILABLE);
    assert_eq!(login(address, "humidor-known", "known", "known-secret"), ACCEPTED);
    // Ten in any minute.
    let minutes = u32::try_from(began.elapsed().as_secs() / 60).unwrap() + 1;
    assert!((1..=10 * minutes).contains(&evaluated), "{evaluated} in {:?}", began.elapsed());
}

#[test]
fn the_log_tells_whose_logins_are_refused() {
    let data = tempfile::tempdir().unwrap();
    add_user(data.path(), "press");
    let (broker, address, _) = start(data.path());
    for n in 0..50 {
        login(address, "noisy", "press", &format!("guess-{n}"));
    }
    login(address, "quiet", "oven", "x");
    let noisy = broker.said("login refused");
    assert!(noisy.contains("user=\"press\"") && noisy.contains("client=\"noisy\""), "{noisy}");
    let quiet = broker.said("user=\"oven\"");
    assert!(quiet.contains("login refused") && quiet.contains("127.0.0.1"), "{quiet}");
}

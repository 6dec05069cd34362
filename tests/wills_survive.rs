//! A will survives the broker: after `kill -9` it is published once its client had its time to return
//! ([MQTT-3.1.2-8]), and only then.

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rusqlite::Connection;
use support::packets::{self, Wire};
use support::{PATIENCE, broker, kills, wait_until};

/// Connects a client of MQTT 3.1.1 with the retained will `gone` to the topic `will/<id>`.
fn connect(address: SocketAddr, id: &str, clean: bool, keep_alive_s: u16) -> TcpStream {
    let topic = format!("will/{id}");
    let connect = packets::connect_with_will(id, clean, keep_alive_s, &topic, b"gone", true);
    let mut connack = [0; 4];
    let mut stream = open(address, &connect);
    stream.read_exact(&mut connack).unwrap();
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    stream
}

/// The same of MQTT 5.0, with a session of an hour and a will of this delay.
fn connect_delayed(address: SocketAddr, id: &str, delay_s: u32) -> TcpStream {
    let text = |text: &str| {
        [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
    };
    let mut body = [&text("MQTT")[..], &[5, 0x2c, 0, 60, 5, 0x11, 0, 0, 0x0e, 0x10]].concat();
    body.extend(text(id));
    body.extend([5, 0x18]);
    body.extend(delay_s.to_be_bytes());
    body.extend([text(&format!("will/{id}")), text("gone")].concat());
    let mut stream = open(address, &packets::packet(0x10, &body));
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    stream
}

fn open(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// Stored wills by their topics, and whether they have a due time.
fn stored(data: &Path) -> Vec<(String, bool)> {
    let log = Connection::open(data.join("humidor.db")).unwrap();
    log.busy_timeout(PATIENCE).unwrap();
    let sql = "SELECT topic, due_at IS NOT NULL FROM will ORDER BY topic";
    let mut statement = log.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn wait_for_wills(data: &Path, expected: &[(&str, bool)]) {
    let expected: Vec<_> = expected.iter().map(|(id, due)| (format!("will/{id}"), *due)).collect();
    wait_until(&format!("the stored wills are {expected:?}"), || stored(data) == expected);
}

/// The topics of the retained wills, once `last` is among them.
fn wills(address: SocketAddr, last: &str) -> Vec<String> {
    let mut watcher = Wire::connect(address, "watcher", true);
    assert_eq!(watcher.subscribe(&[("will/#", 0)]), [0]);
    let mut found: Vec<String> = Vec::new();
    while found.last().is_none_or(|topic| topic != last) {
        let message = watcher.message();
        assert_eq!(message.payload, b"gone");
        found.push(message.topic);
    }
    found.sort();
    found
}

#[test]
fn the_will_of_a_client_that_does_not_return_after_the_brokers_death_is_published() {
    let data = tempfile::tempdir().unwrap();
    let (process, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let mut connections = Vec::new();
    for (id, clean) in [("clean", true), ("kept", false), ("back", true), ("back-kept", false)] {
        connections.push(connect(address, id, clean, 1));
    }
    // Its time to return ends after the others'.
    connections.push(connect(address, "last", true, 3));
    for id in ["left", "left-kept"] {
        let mut left = connect(address, id, id == "left", 1);
        left.write_all(&packets::disconnect()).unwrap();
    }
    let connected =
        [("back", false), ("back-kept", false), ("clean", false), ("kept", false), ("last", false)];
    wait_for_wills(data.path(), &connected);
    process.kill_9();

    let (process, address) = broker(data.path(), "127.0.0.1:0", &[]);
    // No keep-alive any more: they stay connected.
    let _back = [connect(address, "back", true, 0), connect(address, "back-kept", false, 0)];
    assert_eq!(wills(address, "will/last"), ["will/clean", "will/kept", "will/last"]);
    wait_for_wills(data.path(), &[("back", false), ("back-kept", false)]);

    // What was published is not published again, and what is stored for those who returned is theirs.
    process.kill_9();
    let (process, address) = broker(data.path(), "127.0.0.1:0", &[]);
    wait_for_wills(data.path(), &[("back", false), ("back-kept", false)]);
    // As they were still connected when the broker stops.
    assert_eq!(process.terminate(), Some(0));
    let (_process, address_again) = broker(data.path(), "127.0.0.1:0", &[]);
    assert_ne!(address, address_again);
    let all = wills(address_again, "will/last");
    assert_eq!(all, ["will/back", "will/back-kept", "will/clean", "will/kept", "will/last"]);
    wait_for_wills(data.path(), &[]);
}

#[test]
fn the_delay_of_a_will_survives_the_brokers_death() {
    let data = tempfile::tempdir().unwrap();
    let (process, address) = broker(data.path(), "127.0.0.1:0", &[]);
    drop(connect_delayed(address, "soon", 10));
    drop(connect_delayed(address, "late", 3600));
    let _last = connect(address, "last", true, 3);
    wait_for_wills(data.path(), &[("last", false), ("late", true), ("soon", true)]);
    process.kill_9();
    let (process, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let found = wills(address, "will/soon");
    assert_eq!(found, ["will/last", "will/soon"]);
    wait_for_wills(data.path(), &[("late", true)]);
    // A client that returns takes its delayed will back.
    let mut late = connect_delayed(address, "late", 3600);
    wait_for_wills(data.path(), &[("late", false)]);
    late.write_all(&packets::disconnect_v5(0)).unwrap();
    wait_for_wills(data.path(), &[]);
    assert_eq!(process.terminate(), Some(0));
}

#[test]
fn every_will_is_right_after_kills_amid_connects_and_disconnects() {
    let kills = kills(10);
    let data = tempfile::tempdir().unwrap();
    let (mut process, mut address) = broker(data.path(), "127.0.0.1:0", &[]);
    for kill in 0..kills {
        let connections: Vec<(String, TcpStream)> = (0..40)
            .map(|n| (format!("k{kill:03}-{n:02}"), n))
            .map(|(id, n)| (id.clone(), connect(address, &id, n % 2 == 0, 1)))
            .collect();
        let mut staying = Vec::new();
        for (n, (id, mut stream)) in connections.into_iter().enumerate() {
            match n % 4 {
                // Goes away in order.
                0 | 1 => stream.write_all(&packets::disconnect()).unwrap(),
                // Vanishes: its will is published now or after the kill.
                2 => {}
                // Is connected when the broker dies.
                _ => staying.push((id, stream)),
            }
        }
        let mut barrier = Wire::connect(address, "barrier", true);
        barrier.send(&packets::publish("barrier", 1, true, 1, b"x"));
        let _ = barrier.receive();
        wait_until("the wills of those who went away in order are gone", || {
            stored(data.path()).iter().all(|(topic, _)| {
                let number: usize = topic.rsplit('-').next().unwrap().parse().unwrap();
                number % 4 > 1
            })
        });
        process.kill_9();
        (process, address) = broker(data.path(), "127.0.0.1:0", &[]);
    }
    wait_until("all are published", || stored(data.path()).is_empty());
    let mut watcher = Wire::connect(address, "watcher", true);
    assert_eq!(watcher.subscribe(&[("will/#", 0)]), [0]);
    // What is published last may come after what was retained before the subscription.
    let expected: BTreeSet<String> = (0..kills)
        .flat_map(|kill| (0..40).filter(|n| n % 4 > 1).map(move |n| (kill, n)))
        .map(|(kill, n)| format!("will/k{kill:03}-{n:02}"))
        .collect();
    let found: Vec<String> = expected.iter().map(|_| watcher.message().topic).collect();
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "each once");
    watcher.send(&packets::publish("will/end", 0, false, 0, b""));
    assert_eq!(watcher.message().topic, "will/end", "and no other");
}

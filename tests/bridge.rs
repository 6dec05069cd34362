//! A bridge of Debian's mosquitto, as docs/OPERATIONS.md shows it, connects and carries messages both ways. Skipped where
//! mosquitto is not installed (`docker/setup.sh peer`).

mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use support::packets::{self, PUBACK, Packet, Wire};
use support::{Process, broker, wait_until};

fn mosquitto() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join("mosquitto")).find(|file| file.is_file())
}

/// A port that is free; mosquitto does not let the system choose one.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The first block of code under the heading of the manual.
fn documented() -> String {
    let manual =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md")).unwrap();
    let section = manual.split("\n## Bridge from Mosquitto\n").nth(1).expect("there is a section");
    let block = section.split("```").nth(1).expect("it has a configuration");
    block.trim_start_matches("conf").to_owned()
}

fn publish(wire: &mut Wire, topic: &str, payload: &[u8]) {
    wire.send(&packets::publish(topic, 1, true, 1, payload));
    // The broker's status may come first.
    while !matches!(wire.receive(), Packet::Answer(PUBACK, _)) {}
}

#[test]
fn mosquitto_bridges_both_ways_as_the_manual_shows() {
    let Some(mosquitto) = mosquitto() else {
        println!("skipped: mosquitto is not installed; docker/setup.sh peer installs it");
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &["--logged-filters", "plant/#"]);
    let local: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let bridge = documented().replace("broker.plant:1883", &address.to_string());
    // The broker of the test has no users.
    let bridge: Vec<&str> = bridge.lines().filter(|line| !line.starts_with("remote_")).collect();
    let bridge = bridge.join("\n");
    let file = data.path().join("bridge.conf");
    let own = format!("listener {} 127.0.0.1\nallow_anonymous true\n", local.port());
    fs::write(&file, format!("{own}{bridge}\nrestart_timeout 1\n")).unwrap();
    let mut command = Command::new(mosquitto);
    command.arg("-v").arg("-c").arg(&file);
    let _mosquitto = Process::start(command);
    wait_until("mosquitto listens", || TcpStream::connect(local).is_ok());

    let mut here = Wire::connect(address, "here", true);
    assert_eq!(here.subscribe(&[("plant/#", 1)]), [1]);
    let mut there = Wire::connect(local, "there", true);
    assert_eq!(there.subscribe(&[("humidor/#", 1)]), [1]);
    // From mosquitto to the broker, and into its log.
    publish(&mut there, "plant/press/temperature", b"81.5");
    let arrived = here.message();
    assert_eq!(
        (arrived.topic.as_str(), &arrived.payload[..]),
        ("plant/press/temperature", &b"81.5"[..])
    );
    wait_until("it is in the log", || support::log(data.path()).stats().unwrap().samples > 0);
    // And back.
    publish(&mut here, "humidor/oven/status", b"online");
    while there.message().topic != "humidor/oven/status" {}
}

#[test]
fn a_will_to_a_topic_of_the_brokers_own_is_left_out_and_does_not_refuse_its_client() {
    let data = tempfile::tempdir().unwrap();
    let (process, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let mut watcher = Wire::connect(address, "watcher", true);
    let state = "$SYS/broker/connection/edge/state";
    assert_eq!(watcher.subscribe(&[(state, 0), ("after", 0)]), [0, 0]);
    for id in ["edge", "edge-2"] {
        let mut stream = TcpStream::connect(address).unwrap();
        let connect = packets::connect_with_will(id, true, 60, state, b"0", true);
        std::io::Write::write_all(&mut stream, &connect).unwrap();
        let mut connack = [0; 4];
        std::io::Read::read_exact(&mut stream, &mut connack).unwrap();
        assert_eq!(connack, [0x20, 2, 0, 0]);
        // Its end without a DISCONNECT is read before its next connection is accepted.
        drop(stream);
        Wire::connect(address, id, true);
    }
    watcher.send(&packets::publish("after", 0, false, 0, b""));
    assert_eq!(watcher.message().topic, "after", "no will was published");
    let line = process.said("the will of a client is left out");
    assert!(line.contains("client=\"edge\"") && line.contains(state), "{line}");
    assert!(!process.last_words().contains("the will of a client is left out"), "once");
}

//! A retired board is removed: its readings, its retained messages (Home Assistant's device among them) and its session,
//! while the broker runs and while it does not.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use humidor::broker::{Role, hash};
use support::http::request;
use support::packets::{self, PUBACK, Packet, Wire};
use support::{Process, broker, humidor, readings, telemetry, wait_until};

const DEVICE: &str = "homeassistant/device/humidor_press/config";

/// What two boards leave: readings, retained messages, sessions.
fn boards(address: SocketAddr) {
    for node in ["oven", "press"] {
        let mut board = Wire::connect(address, &format!("humidor-{node}"), false);
        let device = format!("homeassistant/device/humidor_{node}/config");
        assert_eq!(board.subscribe(&[("humidor/broker/status", 1)]), [1]);
        let mut publish = |topic: String, retain, payload: &[u8]| {
            board.send(&packets::publish(&topic, 1, retain, 7, payload));
            while !matches!(board.receive(), Packet::Answer(PUBACK, _)) {}
        };
        for seq in 1..=20 {
            publish(format!("humidor/{node}/sensor/air"), false, &telemetry("b", seq));
        }
        publish(format!("humidor/{node}/health"), true, b"{}");
        publish(format!("humidor/{node}/output/fan"), true, b"OFF");
        publish(device, true, b"{}");
        publish(format!("humidor/{node}/status"), true, b"offline");
    }
}

fn forget(data: &Path, node: &str, more: &[&str]) -> Output {
    let mut command = humidor();
    command.args(["db", "forget", node, "--data"]).arg(data).args(more);
    command.stdin(std::process::Stdio::null()).output().unwrap()
}

/// Session present of the client's next CONNECT.
fn has_session(address: SocketAddr, client_id: &str) -> bool {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, &packets::connect(client_id, false)).unwrap();
    let mut connack = [0; 4];
    std::io::Read::read_exact(&mut stream, &mut connack).unwrap();
    connack[2] == 1
}

fn assert_only_the_oven_is_left(data: &Path, address: SocketAddr) {
    let left = readings(data);
    assert_eq!(left.len(), 20);
    assert!(left.iter().all(|reading| reading.node == "oven"));
    let mut client = Wire::connect(address, "later", true);
    client.subscribe(&[("humidor/+/health", 0), ("humidor/+/output/+", 0), ("homeassistant/#", 0)]);
    client.send(&packets::pingreq());
    let mut retained = Vec::new();
    while let Packet::Message(message) = client.receive() {
        retained.push(message.topic);
    }
    retained.sort_unstable();
    let expected = [
        "homeassistant/device/humidor_oven/config",
        "humidor/oven/health",
        "humidor/oven/output/fan",
    ];
    assert_eq!(retained, expected);
    assert!(has_session(address, "humidor-oven"));
}

#[test]
fn a_board_is_forgotten_while_the_broker_runs() {
    let data = tempfile::tempdir().unwrap();
    let (process, address) = broker(data.path(), "127.0.0.1:0", &[]);
    boards(address);
    let mut home = Wire::connect(address, "home", true);
    assert_eq!(home.subscribe(&[(DEVICE, 1)]), [1]);
    assert_eq!(home.message().payload, b"{}");
    for (node, more, code) in [("press", &[][..], 64), ("pres", &["--yes"], 66)] {
        assert_eq!(forget(data.path(), node, more).status.code(), Some(code), "{node} {more:?}");
    }
    let mut back = Wire::connect(address, "humidor-press", false);
    back.send(&packets::publish("humidor/press/status", 1, true, 1, b"online"));
    while !matches!(back.receive(), Packet::Answer(PUBACK, _)) {}
    let online = forget(data.path(), "press", &["--yes"]);
    assert_eq!(online.status.code(), Some(69), "{online:?}");
    back.send(&packets::publish("humidor/press/status", 1, true, 1, b"offline"));
    while !matches!(back.receive(), Packet::Answer(PUBACK, _)) {}
    drop(back);

    let done = forget(data.path(), "press", &["--yes"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(home.message().payload, b"", "Home Assistant removes the device");
    assert!(!has_session(address, "humidor-press"));
    drop(process);
    let (_process, address) = broker(data.path(), "127.0.0.1:0", &[]);
    assert_only_the_oven_is_left(data.path(), address);
}

#[test]
fn a_board_is_forgotten_while_no_broker_runs() {
    let data = tempfile::tempdir().unwrap();
    let (process, address) = broker(data.path(), "127.0.0.1:0", &[]);
    boards(address);
    assert_eq!(process.terminate(), Some(0));
    let done = forget(data.path(), "press", &["--yes"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let (_process, address) = broker(data.path(), "127.0.0.1:0", &[]);
    assert_only_the_oven_is_left(data.path(), address);
    assert!(!has_session(address, "humidor-press"));
}

/// A broker with the users kim (admin) and lee (operator), whose passwords are their names, and its HTTP port.
fn with_users(data: &Path) -> (Process, SocketAddr) {
    let users: String = [("kim", Role::Admin), ("lee", Role::Operator)]
        .map(|(name, role)| {
            let hash = hash(name.as_bytes()).unwrap();
            format!("[user.{name}]\npassword = \"{hash}\"\nrole = \"{role}\"\n")
        })
        .concat();
    std::fs::write(data.join("users.toml"), users).unwrap();
    let (process, _) = broker(data, "127.0.0.1:0", &[]);
    let line = process.said("listening for HTTP");
    let address = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    (process, address)
}

#[test]
fn an_admin_removes_a_board_over_http_and_nobody_else_does() {
    let data = tempfile::tempdir().unwrap();
    let (process, address) = broker(data.path(), "127.0.0.1:0", &[]);
    boards(address);
    let mut lamp = Wire::connect(address, "lamp", true);
    lamp.send(&packets::publish("humidor/lamp/health", 1, true, 7, b"{}"));
    while !matches!(lamp.receive(), Packet::Answer(PUBACK, _)) {}
    assert_eq!(process.terminate(), Some(0));
    let (process, http) = with_users(data.path());
    let kim = ("authorization", "Basic a2ltOmtpbQ==");
    let lee = ("authorization", "Basic bGVlOmxlZQ==");
    let delete = |node: &str, headers: &[(&str, &str)]| {
        request(http, "DELETE", &format!("/api/v1/nodes/{node}"), headers, "").status
    };
    assert_eq!(delete("press", &[]), 401);
    assert_eq!(delete("press", &[lee]), 403);
    assert_eq!(delete("press", &[kim, ("origin", "http://evil.example")]), 403);
    assert_eq!(delete("pres", &[kim]), 404);
    assert_eq!(delete("PRESS", &[kim]), 400);
    let about = |who| request(http, "GET", "/api/v1/about", &[who], "").json();
    assert_eq!(
        (&about(kim)["may"]["forget"], &about(lee)["may"]["forget"]),
        (&true.into(), &false.into())
    );
    assert_eq!(readings(data.path()).len(), 40);
    assert_eq!(delete("lamp", &[kim]), 202, "of which only a health is retained");
    assert_eq!(delete("press", &[kim]), 202);
    wait_until("the readings are deleted", || readings(data.path()).len() == 20);
    wait_until("the board is gone", || {
        let nodes = request(http, "GET", "/api/v1/nodes", &[kim], "").json();
        nodes.as_array().unwrap().iter().all(|board| board["node"] != "press")
    });
    assert_eq!(process.terminate(), Some(0));
    let (_process, address) = {
        std::fs::remove_file(data.path().join("users.toml")).unwrap();
        broker(data.path(), "127.0.0.1:0", &["--anonymous", "yes"])
    };
    assert_only_the_oven_is_left(data.path(), address);
}

#[test]
fn a_board_of_which_only_retained_messages_are_left_is_forgotten() {
    for topic in ["humidor/press/health", "humidor/press/output/fan", DEVICE] {
        let data = tempfile::tempdir().unwrap();
        let (process, address) = broker(data.path(), "127.0.0.1:0", &[]);
        let mut board = Wire::connect(address, "board", true);
        board.send(&packets::publish(topic, 1, true, 7, b"{}"));
        while !matches!(board.receive(), Packet::Answer(PUBACK, _)) {}
        assert_eq!(process.terminate(), Some(0));
        for (node, code) in [("pres", 66), ("press", 0), ("press", 66)] {
            let done = forget(data.path(), node, &["--yes"]);
            assert_eq!(done.status.code(), Some(code), "{topic}: {node}: {done:?}");
        }
    }
}

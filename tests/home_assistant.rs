//! What Home Assistant is told of a node: after a connection, when it starts, and that it is taken back.

mod support;

use std::path::Path;
use std::process::Command;

use humidor::broker::hash;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish};
use support::packets::{Wire, connect_with_login};
use support::{Client, Process, broker, humidor};

const DEVICE: &str = "homeassistant/device/humidor_box/config";

/// `broker` is an address, with a user before it where the broker asks for one.
fn node(data: &Path, broker: impl std::fmt::Display) -> Command {
    let mut command = humidor();
    command
        .args(["node", "--node", "box", "--gpio", "sim", "--interval", "1h", "--sim-faults", "0"])
        .args(["--sensors", "hall=dht22@7", "--outputs", "fan=11", "--inputs", "door=13"])
        .args(["--broker", &format!("mqtt://{broker}"), "--data"])
        .arg(data);
    command
}

/// The next message on `topic`, acknowledged as all before it.
fn heard(client: &mut Client, topic: &str) -> Publish {
    loop {
        match client.receive() {
            Some(Packet::Publish(publish)) => {
                if publish.pkid > 0 {
                    client.send(&Packet::PubAck(rumqttc::mqttbytes::v4::PubAck::new(publish.pkid)));
                }
                if publish.topic == topic {
                    return publish;
                }
            }
            Some(_) => {}
            None => panic!("the broker closed the connection"),
        }
    }
}

#[test]
fn a_node_is_announced_again_when_home_assistant_starts_and_forgotten_when_told() {
    let (data, outbox) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let mut assistant = Client::connect(address, "assistant");
    assistant.subscribe("homeassistant/#", QoS::AtMostOnce);
    assistant.subscribe("humidor/box/#", QoS::AtLeastOnce);

    let running = Process::start(node(outbox.path(), address));
    let first = heard(&mut assistant, DEVICE);
    let device: serde_json::Value = serde_json::from_slice(&first.payload).unwrap();
    assert_eq!(device["cmps"]["sensor_hall_temperature"]["stat_t"], "humidor/box/sensor/hall");
    assert_eq!(device["cmps"]["output_fan"]["cmd_t"], "humidor/box/output/fan/set");

    for _ in 0..3 {
        assistant.publish("homeassistant/status", QoS::AtMostOnce, 0, b"online");
        assert_eq!(heard(&mut assistant, DEVICE).payload, first.payload);
    }
    assert_eq!(running.terminate(), Some(0));

    // And at the next connection.
    let running = Process::start(node(outbox.path(), address));
    assert_eq!(heard(&mut assistant, DEVICE).payload, first.payload);
    assert_eq!(running.terminate(), Some(0));

    let forgotten = node(outbox.path(), address).arg("--forget").output().unwrap();
    assert!(forgotten.status.success(), "{forgotten:?}");
    let said = String::from_utf8(forgotten.stdout).unwrap();
    let topics = [
        DEVICE,
        "humidor/box/status",
        "humidor/box/health",
        "humidor/box/output/fan",
        "humidor/box/input/door",
    ];
    for topic in topics {
        assert!(said.contains(&format!("deleted {topic}\n")), "{topic} in {said}");
    }
    assert_eq!(said.lines().count(), topics.len(), "{said}");
    assert!(heard(&mut assistant, DEVICE).payload.is_empty());

    let again = node(outbox.path(), address).arg("--forget").output().unwrap();
    assert!(String::from_utf8(again.stdout).unwrap().contains("has no retained messages of `box`"));
}

/// A board's own user may write what Home Assistant reads, and read nothing of it.
#[test]
fn a_boards_own_user_may_take_it_back() {
    let (data, outbox) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let users = [("box", "node"), ("kim", "admin")].map(|(name, role)| {
        let hash = hash(name.as_bytes()).unwrap();
        format!("[user.{name}]\npassword = \"{hash}\"\nrole = \"{role}\"\n")
    });
    std::fs::write(data.path().join("users.toml"), users.concat()).unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let of_user = || {
        let mut command = node(outbox.path(), format!("box@{address}"));
        command.env("HUMIDOR_PASSWORD", "box");
        command
    };
    let login = connect_with_login("assistant", "kim", "kim");
    let (mut assistant, _) = Wire::open(address, &login);
    assistant.subscribe(&[("homeassistant/#", 0), ("humidor/box/#", 0)]);
    let mut heard = |topic: &str| loop {
        let message = assistant.message();
        if message.topic == topic {
            return message.payload;
        }
    };
    let running = Process::start(of_user());
    assert!(!heard(DEVICE).is_empty());
    assert_eq!(running.terminate(), Some(0));

    let forgotten = of_user().arg("--forget").output().unwrap();
    assert!(forgotten.status.success(), "{forgotten:?}");
    assert!(heard(DEVICE).is_empty());
}

#[test]
fn without_a_broker_nothing_is_forgotten_and_that_is_said() {
    let outbox = tempfile::tempdir().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let forgotten = node(outbox.path(), closed).arg("--forget").output().unwrap();
    assert_eq!(forgotten.status.code(), Some(69));
}

//! Promises 1 and 2: an acknowledged reading is stored, once; what cannot be stored is not acknowledged.

mod support;

use std::io::Write;
use std::path::Path;

use humidor::broker::{Broker, BrokerConfig};
use humidor::shutdown::{self, Trigger};
use humidor::store::LOG_FILE;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, LastWill, Packet, PubRel};
use support::{Client, readings, telemetry, wait_until};

const TOPIC: &str = "humidor/press/sensor/hall";

struct Running {
    runtime: tokio::runtime::Runtime,
    broker: Option<Broker>,
    trigger: Trigger,
    data: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let data = tempfile::tempdir().unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let config = BrokerConfig {
            data: data.path().to_owned(),
            mqtt_listen: "127.0.0.1:0".parse().unwrap(),
            logged: vec!["plant/#".parse().unwrap()],
            commit_window: std::time::Duration::ZERO,
            retention: humidor::store::Retention::EVERYTHING,
            alarms: Vec::new(),
            discovery: None,
            access: humidor::broker::AccessConfig::default(),
            tls: None,
            limits: humidor::broker::Limits::default(),
            upstream: None,
        };
        let broker = runtime.block_on(Broker::start(config, shutdown)).unwrap();
        Self { runtime, broker: Some(broker), trigger, data }
    }

    fn connect(&self, id: &str) -> Client {
        Client::connect(self.broker().address(), id)
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    fn data(&self) -> &Path {
        self.data.path()
    }

    /// Another program holds the write lock: the store cannot commit.
    fn block_store(&self) -> rusqlite::Connection {
        let other = rusqlite::Connection::open(self.data().join(LOG_FILE)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        other
    }

    fn stop(mut self) {
        self.trigger.throw();
        self.runtime.block_on(self.broker.take().unwrap().ended()).unwrap();
    }
}

#[test]
fn a_puback_means_that_the_row_is_there() {
    let running = Running::start();
    let mut client = running.connect("node");
    for seq in 1..=50 {
        client.publish(TOPIC, QoS::AtLeastOnce, 7, &telemetry("b", seq));
        client.expect_puback(7);
        assert_eq!(support::stored(running.data()), i64::try_from(seq).unwrap());
    }
    running.stop();
}

#[test]
fn a_repeated_reading_is_acknowledged_and_stored_once() {
    let running = Running::start();
    let mut client = running.connect("node");
    for pkid in 1..=3 {
        client.publish(TOPIC, QoS::AtLeastOnce, pkid, &telemetry("b", 1));
        client.expect_puback(pkid);
    }
    client.publish(TOPIC, QoS::AtLeastOnce, 4, &telemetry("other-boot", 1));
    client.expect_puback(4);
    assert_eq!(readings(running.data()).len(), 2);
    running.stop();
}

#[test]
fn while_the_store_cannot_commit_nothing_is_acknowledged_and_afterwards_everything() {
    let running = Running::start();
    let mut client = running.connect("node");
    let lock = running.block_store();
    client.publish(TOPIC, QoS::AtLeastOnce, 1, &telemetry("b", 1));
    let counters = running.broker().counters();
    wait_until("the broker says that it cannot commit", || counters.blocked().is_some());
    let cause = counters.blocked().unwrap_or_default();
    assert!(cause.starts_with("another process holds the lock"), "no room is missing: {cause}");
    assert!(client.is_silent(), "acknowledged what is not stored");
    assert_eq!(support::stored(running.data()), 0);

    lock.execute_batch("ROLLBACK").unwrap();
    client.expect_puback(1);
    assert_eq!(support::stored(running.data()), 1);
    assert_eq!(counters.blocked(), None);
    running.stop();
}

#[test]
fn while_the_store_cannot_commit_the_broker_stops_reading() {
    /// More than both kernels' socket buffers hold; the broker's own buffers are a few kilobytes.
    const FLOOD_BYTES: usize = 64 * 1024 * 1024;
    let running = Running::start();
    let lock = running.block_store();
    let client = running.connect("node");
    let mut packet = bytes::BytesMut::new();
    let mut publish =
        rumqttc::mqttbytes::v4::Publish::new(TOPIC, QoS::AtLeastOnce, telemetry("b", 1));
    publish.pkid = 1;
    publish.write(&mut packet).unwrap();
    let burst = packet.repeat(200);

    let mut stream = client.stream.try_clone().unwrap();
    stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let mut written = 0;
    let stalled = loop {
        match stream.write(&burst) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
        assert!(written < FLOOD_BYTES, "the broker reads on although it cannot store");
    };
    assert_eq!(stalled.kind(), std::io::ErrorKind::WouldBlock, "TCP carries the pressure back");
    // Another client that publishes nothing to store is served meanwhile.
    running.connect("bystander").ping();
    lock.execute_batch("ROLLBACK").unwrap();
    running.stop();
}

#[test]
fn a_stopping_broker_does_not_wait_for_a_store_that_cannot_commit() {
    let running = Running::start();
    let mut client = running.connect("node");
    let _lock = running.block_store();
    client.publish(TOPIC, QoS::AtLeastOnce, 1, &telemetry("b", 1));
    let counters = running.broker().counters();
    wait_until("the broker says that it cannot commit", || counters.blocked().is_some());
    running.stop();
    assert!(client.receive().is_none(), "acknowledged what is not stored");
}

#[test]
fn qos_2_is_stored_once_however_often_it_is_sent() {
    let running = Running::start();
    let mut client = running.connect("press");
    for _ in 0..3 {
        client.publish("plant/press", QoS::ExactlyOnce, 9, b"81.5");
        assert!(matches!(client.receive(), Some(Packet::PubRec(ack)) if ack.pkid == 9));
    }
    client.send(&Packet::PubRel(PubRel::new(9)));
    assert!(matches!(client.receive(), Some(Packet::PubComp(ack)) if ack.pkid == 9));
    assert_eq!(support::log(running.data()).stats().unwrap().samples, 1);
    // Released: the same packet id is a new message.
    client.publish("plant/press", QoS::ExactlyOnce, 9, b"82");
    assert!(matches!(client.receive(), Some(Packet::PubRec(_))));
    assert_eq!(support::log(running.data()).stats().unwrap().samples, 2);
    running.stop();
}

#[test]
fn foreign_numbers_are_kept_and_what_is_no_reading_is_counted_with_an_example() {
    let running = Running::start();
    let mut client = running.connect("plc");
    let sent: [(&str, &[u8]); 6] = [
        ("plant/press/temperature", b"81.5"),
        ("plant/press/state", br#"{"rpm":1450,"oil":{"p":2},"on":true}"#),
        ("plant/press/name", b"Anna"),
        ("office/coffee", b"60"),
        (TOPIC, b"21.5"),
        ("humidor/Press/sensor/hall", &telemetry("b", 1)),
    ];
    for (pkid, (topic, payload)) in (1..).zip(sent) {
        client.publish(topic, QoS::AtLeastOnce, pkid, payload);
        client.expect_puback(pkid);
    }
    let stats = support::log(running.data()).stats().unwrap();
    // The plain number, and two of the object: `rpm` and `oil.p`.
    assert_eq!((stats.readings, stats.samples), (0, 3));
    let refused = [("foreign-no-number", 1), ("payload-json", 1), ("topic-id", 1)];
    assert_eq!(stats.refused, refused.map(|(cause, count)| (cause.to_owned(), count)));
    let raw = rusqlite::Connection::open(running.data().join(LOG_FILE)).unwrap();
    let example: Vec<u8> = raw
        .query_row("SELECT example FROM refusal WHERE topic = 'plant/press/name'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(example, b"Anna");
    running.stop();
}

#[test]
fn a_will_is_published_when_the_client_vanishes_and_not_when_it_says_goodbye() {
    let running = Running::start();
    let address = running.broker().address();
    let mut watcher = running.connect("watcher");
    watcher.subscribe("humidor/+/status", QoS::AtLeastOnce);
    let mut next_status = || loop {
        match watcher.receive() {
            Some(Packet::Publish(publish)) => {
                // The broker's own status is published at QoS 0, and so delivered.
                if publish.qos == QoS::AtLeastOnce {
                    watcher
                        .send(&Packet::PubAck(rumqttc::mqttbytes::v4::PubAck::new(publish.pkid)));
                }
                if publish.topic != "humidor/broker/status" {
                    return (publish.topic, String::from_utf8(publish.payload.to_vec()).unwrap());
                }
            }
            other => panic!("no message but {other:?}"),
        }
    };
    for (id, polite) in [("polite", true), ("killed", false)] {
        let mut connect = Connect::new(id);
        connect.last_will =
            Some(LastWill::new(format!("humidor/{id}/status"), "offline", QoS::AtLeastOnce, true));
        let (mut client, _) = Client::connect_with(address, &connect);
        if polite {
            client.send(&Packet::Disconnect);
            assert!(client.receive().is_none());
        }
    }
    assert_eq!(next_status(), ("humidor/killed/status".to_owned(), "offline".to_owned()));
    running.stop();
}

#[test]
fn a_client_that_takes_its_id_over_comes_after_the_will_of_the_other() {
    let running = Running::start();
    let address = running.broker().address();
    let mut connect = Connect::new("roof");
    connect.last_will =
        Some(LastWill::new("humidor/roof/status", "offline", QoS::AtLeastOnce, true));
    let mut connections = Vec::new();
    for _ in 0..20 {
        let (mut client, _) = Client::connect_with(address, &connect);
        let mut online =
            rumqttc::mqttbytes::v4::Publish::new("humidor/roof/status", QoS::AtLeastOnce, "online");
        (online.pkid, online.retain) = (1, true);
        client.send(&Packet::Publish(online));
        client.expect_puback(1);
        connections.push(client);
    }
    let mut watcher = running.connect("watcher");
    watcher.subscribe("humidor/roof/status", QoS::AtMostOnce);
    match watcher.receive() {
        Some(Packet::Publish(publish)) => assert_eq!(publish.payload, "online"),
        other => panic!("no status but {other:?}"),
    }
    running.stop();
}

#[test]
fn subscribers_get_what_was_accepted_in_order() {
    let running = Running::start();
    let mut watcher = running.connect("watcher");
    watcher.subscribe("humidor/#", QoS::AtMostOnce);
    let mut client = running.connect("node");
    for seq in 1..=500_u16 {
        client.publish(TOPIC, QoS::AtLeastOnce, seq, &telemetry("b", u64::from(seq)));
    }
    let mut seen = 0;
    while seen < 500 {
        match watcher.receive() {
            Some(Packet::Publish(publish)) if publish.topic == TOPIC => {
                seen += 1;
                assert_eq!(publish.payload, telemetry("b", seen));
            }
            Some(Packet::Publish(_)) => {}
            other => panic!("no message but {other:?}"),
        }
    }
    running.stop();
}

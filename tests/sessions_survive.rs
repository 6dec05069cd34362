//! What MQTT asks a broker to keep survives `kill -9`: retained messages, persistent sessions with their
//! subscriptions, what waits for them, and where each `QoS` 2 exchange stands.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    Connect, Packet, PubAck, PubComp, PubRec, PubRel, Publish, Subscribe, SubscribeReasonCode,
};
use support::Client;

/// Times that the broker is killed.
const KILLS: usize = 20;
/// Topics with retained messages.
const TOPICS: u64 = 5;

fn persistent(id: &str) -> Connect {
    let mut connect = Connect::new(id);
    connect.clean_session = false;
    connect
}

/// Sends although the broker may be dead by now.
fn try_send(client: &mut Client, packet: &Packet) {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, usize::MAX).unwrap();
    let _ = client.stream.write_all(&bytes);
}

/// Connects although the broker may be killed meanwhile.
fn try_connect(address: SocketAddr, id: &str) -> Option<(Client, bool)> {
    let mut client = Client::try_open(address)?;
    try_send(&mut client, &Packet::Connect(persistent(id)));
    match client.receive()? {
        Packet::ConnAck(ack) => Some((client, ack.session_present)),
        other => panic!("no CONNACK but {other:?}"),
    }
}

/// A publisher that keeps its own side of each exchange, as the protocol wants it.
#[derive(Default)]
struct Publisher {
    next: u64,
    /// The message under way: its number, its packet id, and whether PUBREC has come.
    under_way: Option<(u64, u16, bool)>,
    /// Numbers whose exchange is complete.
    complete: BTreeSet<u64>,
    connected_before: bool,
}

impl Publisher {
    fn packet(number: u64, pkid: u16, dup: bool) -> Packet {
        // Odd ones at QoS 2 to the session, even ones at QoS 1 and retained.
        let (topic, qos) = if number % 2 == 1 {
            ("waiting/x".to_owned(), QoS::ExactlyOnce)
        } else {
            (format!("kept/{}", number / 2 % TOPICS), QoS::AtLeastOnce)
        };
        let mut publish = Publish::new(&topic, qos, number.to_string());
        (publish.pkid, publish.dup, publish.retain) = (pkid, dup, topic != "waiting/x");
        Packet::Publish(publish)
    }

    /// Publishes one after the other until the broker dies or, with `stop`, what is under way is complete.
    fn run(&mut self, address: SocketAddr, stop: &AtomicBool) {
        let Some((mut client, present)) = try_connect(address, "publisher") else { return };
        assert!(present || !self.connected_before, "the publisher's session survives");
        self.connected_before = true;
        let mut dup = true;
        loop {
            let (number, pkid, released) = match self.under_way {
                Some(under_way) => under_way,
                None if stop.load(Relaxed) => return,
                None => {
                    self.next += 1;
                    dup = false;
                    (self.next, u16::try_from(self.next % 9 + 1).unwrap(), false)
                }
            };
            self.under_way = Some((number, pkid, released));
            let packet = if released {
                Packet::PubRel(PubRel::new(pkid))
            } else {
                Self::packet(number, pkid, dup)
            };
            try_send(&mut client, &packet);
            match client.receive() {
                None => return,
                Some(Packet::PubRec(ack)) if ack.pkid == pkid => {
                    self.under_way = Some((number, pkid, true));
                }
                Some(Packet::PubAck(ack)) if ack.pkid == pkid => {}
                Some(Packet::PubComp(ack)) if ack.pkid == pkid => {}
                other => panic!("no acknowledgement of {number} but {other:?}"),
            }
            if self.under_way == Some((number, pkid, released)) {
                self.complete.insert(number);
                self.under_way = None;
            }
        }
    }
}

/// A subscriber with a persistent session, which takes each `QoS` 2 message once by its packet id.
#[derive(Default)]
struct Subscriber {
    /// Messages in the order of their arrival.
    taken: Vec<u64>,
    /// Packet ids that are not released.
    held: BTreeSet<u16>,
    subscribed: bool,
}

impl Subscriber {
    /// Receives until the broker dies or `last` was taken.
    fn run(&mut self, address: SocketAddr, last: Option<u64>) {
        let Some((mut client, present)) = try_connect(address, "subscriber") else { return };
        assert!(present || !self.subscribed, "a session that was acknowledged survives");
        if !self.subscribed {
            let mut subscribe =
                rumqttc::mqttbytes::v4::Subscribe::new("waiting/#", QoS::ExactlyOnce);
            subscribe.pkid = 1;
            try_send(&mut client, &Packet::Subscribe(subscribe));
        }
        while !(last.is_some_and(|last| self.taken.contains(&last)) && self.held.is_empty()) {
            match client.receive() {
                None => return,
                Some(Packet::SubAck(ack)) => {
                    assert_eq!(ack.return_codes[0], SubscribeReasonCode::Success(QoS::ExactlyOnce));
                    self.subscribed = true;
                }
                Some(Packet::Publish(publish)) => {
                    assert_eq!(publish.qos, QoS::ExactlyOnce);
                    if self.held.insert(publish.pkid) {
                        let number = std::str::from_utf8(&publish.payload).unwrap();
                        self.taken.push(number.parse().unwrap());
                    }
                    try_send(&mut client, &Packet::PubRec(PubRec::new(publish.pkid)));
                }
                Some(Packet::PubRel(release)) => {
                    self.held.remove(&release.pkid);
                    try_send(&mut client, &Packet::PubComp(PubComp::new(release.pkid)));
                }
                other => panic!("no delivery but {other:?}"),
            }
        }
    }
}

#[test]
fn what_was_acknowledged_survives_twenty_kills() {
    let data = tempfile::tempdir().unwrap();
    let publisher = Arc::new(Mutex::new(Publisher::default()));
    let subscriber = Arc::new(Mutex::new(Subscriber::default()));
    let kills = support::kills(KILLS);
    for round in 0..kills {
        let (process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
        let (one, other) = (Arc::clone(&publisher), Arc::clone(&subscriber));
        let receiving = round % 3 != 1; // sometimes it is away
        let subscribing =
            receiving.then(|| std::thread::spawn(move || other.lock().unwrap().run(address, None)));
        let never = AtomicBool::new(false);
        let publishing = std::thread::spawn(move || one.lock().unwrap().run(address, &never));
        // The moment of the kill has to fall anywhere; there is no condition to wait for.
        std::thread::sleep(Duration::from_millis(fastrand::u64(100..400)));
        process.kill_9();
        publishing.join().unwrap();
        if let Some(subscribing) = subscribing {
            subscribing.join().unwrap();
        }
    }
    let (_process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
    let (mut publisher, mut subscriber) = (publisher.lock().unwrap(), subscriber.lock().unwrap());
    publisher.run(address, &AtomicBool::new(true));
    assert!(subscriber.subscribed && publisher.complete.len() > kills);

    let expected: Vec<u64> = (1..=publisher.next).filter(|number| number % 2 == 1).collect();
    subscriber.run(address, expected.last().copied());
    // What was published before the subscription was acknowledged may be missing.
    let first = *subscriber.taken.first().expect("something was delivered");
    let expected: Vec<u64> = expected.into_iter().filter(|number| *number >= first).collect();
    assert_eq!(subscriber.taken, expected, "each message once, in order");

    let mut kept: BTreeMap<String, u64> = BTreeMap::new();
    for number in (1..=publisher.next).filter(|number| number % 2 == 0) {
        kept.insert(format!("kept/{}", number / 2 % TOPICS), number);
    }
    let mut latecomer = Client::connect(address, "latecomer");
    latecomer.subscribe("kept/#", QoS::AtMostOnce);
    let mut found = BTreeMap::new();
    while found.len() < kept.len() {
        match latecomer.receive() {
            Some(Packet::Publish(publish)) => {
                assert!(publish.retain);
                let number = std::str::from_utf8(&publish.payload).unwrap().parse().unwrap();
                found.insert(publish.topic, number);
            }
            other => panic!("no retained message but {other:?}"),
        }
    }
    assert_eq!(found, kept, "the latest acknowledged of each topic");
}

#[test]
fn a_queue_is_bounded_and_its_oldest_goes() {
    /// A little more than the 4 MiB that wait for one session.
    const MESSAGES: u16 = 50;
    let data = tempfile::tempdir().unwrap();
    let (process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
    let (mut away, _) = Client::connect_with(address, &persistent("away"));
    away.subscribe("big", QoS::AtLeastOnce);
    drop(away);
    let mut publisher = Client::connect(address, "publisher");
    let mut payload = vec![b'x'; 100_000];
    for pkid in 1..=MESSAGES {
        payload[..2].copy_from_slice(&pkid.to_be_bytes());
        publisher.publish("big", QoS::AtLeastOnce, pkid, &payload);
        publisher.expect_puback(pkid);
    }
    assert_eq!(process.terminate(), Some(0));
    let (_process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
    let (mut back, present) = Client::connect_with(address, &persistent("away"));
    assert!(present);
    let mut numbers = Vec::new();
    while numbers.last() != Some(&MESSAGES) {
        let Some(Packet::Publish(publish)) = back.receive() else { panic!("no message") };
        numbers.push(u16::from_be_bytes([publish.payload[0], publish.payload[1]]));
        back.send(&Packet::PubAck(PubAck::new(publish.pkid)));
    }
    let first = MESSAGES - 41 + 1;
    assert_eq!(numbers, (first..=MESSAGES).collect::<Vec<_>>(), "4 MiB of the latest");
}

#[test]
fn a_clean_session_ends_the_persistent_one_for_good() {
    let data = tempfile::tempdir().unwrap();
    let (process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
    let (mut client, _) = Client::connect_with(address, &persistent("a"));
    client.subscribe("x", QoS::AtLeastOnce);
    drop(client);
    Client::connect(address, "a").ping();
    process.kill_9();
    let (_process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
    let (_, present) = Client::connect_with(address, &persistent("a"));
    assert!(!present);
}

/// The next message, acknowledged: its payload and retain flag.
fn take(client: &mut Client) -> (String, bool) {
    let Some(Packet::Publish(publish)) = client.receive() else { panic!("no message") };
    client.send(&Packet::PubAck(PubAck::new(publish.pkid)));
    (String::from_utf8(publish.payload.to_vec()).unwrap(), publish.retain)
}

#[test]
fn a_session_gets_what_is_retained_once() {
    let data = tempfile::tempdir().unwrap();
    let (_process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
    let mut publisher = Client::connect(address, "publisher");
    let mut retain = |pkid, payload: &str| {
        let mut publish = Publish::new("state", QoS::AtLeastOnce, payload);
        (publish.pkid, publish.retain) = (pkid, true);
        publisher.send(&Packet::Publish(publish));
        publisher.expect_puback(pkid);
    };
    retain(1, "before");
    let watch = |id: &str| {
        let (mut watcher, _) = Client::connect_with(address, &persistent(id));
        let mut subscribe = Subscribe::new("state", QoS::AtLeastOnce);
        subscribe.pkid = 1;
        watcher.send(&Packet::Subscribe(subscribe));
        assert!(matches!(watcher.receive(), Some(Packet::SubAck(_))), "first it is confirmed");
        assert_eq!(take(&mut watcher), ("before".to_owned(), true));
        watcher
    };
    for n in 0..20 {
        watch(&n.to_string());
    }
    let mut watcher = watch("watcher");
    retain(2, "live");
    assert_eq!(take(&mut watcher), ("live".to_owned(), false));
    drop(watcher);
    retain(3, "away");
    let (mut watcher, present) = Client::connect_with(address, &persistent("watcher"));
    assert!(present);
    assert_eq!(take(&mut watcher), ("away".to_owned(), false));
    watcher.send(&Packet::PingReq);
    assert_eq!(watcher.receive(), Some(Packet::PingResp));
}

#[test]
fn what_is_retained_while_a_session_subscribes_is_not_missed() {
    let data = tempfile::tempdir().unwrap();
    // A commit takes its time, so that most of these messages and subscriptions meet in one.
    let more = ["--commit-window", "20ms"];
    let (_process, address) = support::broker(data.path(), "127.0.0.1:0", &more);
    let mut publisher = Client::connect(address, "publisher");
    let (mut watcher, _) = Client::connect_with(address, &persistent("watcher"));
    for pkid in 1..=20 {
        let topic = format!("state/{pkid}");
        for payload in ["old", "new"] {
            let mut publish = Publish::new(&topic, QoS::AtLeastOnce, payload);
            (publish.pkid, publish.retain) = (pkid, true);
            publisher.send(&Packet::Publish(publish));
            if payload == "old" {
                publisher.expect_puback(pkid);
            }
        }
        let mut subscribe = Subscribe::new(&topic, QoS::AtLeastOnce);
        subscribe.pkid = pkid;
        watcher.send(&Packet::Subscribe(subscribe));
        publisher.expect_puback(pkid);
        // The new one comes as retained or as it is published, and never before the old one.
        let (mut latest, mut subscribed) = (String::new(), false);
        while latest != "new" || !subscribed {
            match watcher.receive() {
                Some(Packet::SubAck(_)) => subscribed = true,
                Some(Packet::Publish(publish)) => {
                    watcher.send(&Packet::PubAck(PubAck::new(publish.pkid)));
                    // One that comes both ways may be late.
                    if publish.topic == topic {
                        latest = String::from_utf8(publish.payload.to_vec()).unwrap();
                    }
                }
                other => panic!("{topic}: after {latest:?}, {other:?}"),
            }
        }
    }
}

/// Payloads of the next `count` messages, acknowledged, and whether each is marked as a duplicate.
fn take_marked(client: &mut Client, count: usize) -> Vec<(String, bool)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let Some(Packet::Publish(publish)) = client.receive() else { panic!("no message") };
        client.send(&Packet::PubAck(PubAck::new(publish.pkid)));
        taken.push((String::from_utf8(publish.payload.to_vec()).unwrap(), publish.dup));
    }
    taken
}

#[test]
fn only_what_was_sent_before_is_a_duplicate_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let (process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
    let (mut subscriber, _) = Client::connect_with(address, &persistent("subscriber"));
    subscriber.subscribe("t", QoS::AtLeastOnce);
    let (mut away, _) = Client::connect_with(address, &persistent("away"));
    away.subscribe("t", QoS::AtLeastOnce);
    away.send(&Packet::Disconnect);
    assert_eq!(away.receive(), None);
    let mut publisher = Client::connect(address, "publisher");
    let mut publish = |pkid: u16| {
        publisher.publish("t", QoS::AtLeastOnce, pkid, pkid.to_string().as_bytes());
        publisher.expect_puback(pkid);
    };
    publish(1);
    // Sent, and not acknowledged.
    assert!(matches!(subscriber.receive(), Some(Packet::Publish(publish)) if !publish.dup));
    subscriber.send(&Packet::Disconnect);
    assert_eq!(subscriber.receive(), None);
    publish(2);
    publish(3);
    assert_eq!(process.terminate(), Some(0));
    // A broker that dies while the client is away has sent it nothing.
    let (process, _) = support::broker(data.path(), "127.0.0.1:0", &[]);
    process.kill_9();
    let (_process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
    let (mut subscriber, present) = Client::connect_with(address, &persistent("subscriber"));
    assert!(present);
    let marked = |numbers: [(&str, bool); 3]| numbers.map(|(n, dup)| (n.to_owned(), dup)).to_vec();
    let taken = take_marked(&mut subscriber, 3);
    assert_eq!(taken, marked([("1", true), ("2", false), ("3", false)]));
    let (mut away, _) = Client::connect_with(address, &persistent("away"));
    assert_eq!(take_marked(&mut away, 3), marked([("1", false), ("2", false), ("3", false)]));
}

#[test]
fn what_comes_after_a_restart_is_no_duplicate_of_what_was_acknowledged_before() {
    let data = tempfile::tempdir().unwrap();
    let (mut process, mut address) = support::broker(data.path(), "127.0.0.1:0", &[]);
    let (mut subscriber, _) = Client::connect_with(address, &persistent("subscriber"));
    subscriber.subscribe("t", QoS::AtLeastOnce);
    let publish = |address, number: u16| {
        let mut publisher = Client::connect(address, "publisher");
        publisher.publish("t", QoS::AtLeastOnce, number, number.to_string().as_bytes());
        publisher.expect_puback(number);
    };
    (1..=3).for_each(|number| publish(address, number));
    assert_eq!(take_marked(&mut subscriber, 3).len(), 3);
    subscriber.ping();
    subscriber.send(&Packet::Disconnect);
    assert_eq!(subscriber.receive(), None);
    // One message in each run, while the client is away.
    for number in 4..=5 {
        assert_eq!(process.terminate(), Some(0));
        (process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
        publish(address, number);
    }
    let (mut subscriber, present) = Client::connect_with(address, &persistent("subscriber"));
    assert!(present);
    let taken = take_marked(&mut subscriber, 2);
    assert_eq!(taken, [("4".to_owned(), false), ("5".to_owned(), false)]);
    drop(process);
}

#[test]
fn what_waited_behind_the_window_is_no_duplicate() {
    /// Messages in flight to a client, and more.
    const MESSAGES: (u16, u16) = (256, 300);
    let data = tempfile::tempdir().unwrap();
    let (_process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
    let (mut subscriber, _) = Client::connect_with(address, &persistent("subscriber"));
    subscriber.subscribe("t", QoS::AtLeastOnce);
    let mut publisher = Client::connect(address, "publisher");
    for pkid in 1..=MESSAGES.1 {
        publisher.publish("t", QoS::AtLeastOnce, pkid, pkid.to_string().as_bytes());
        publisher.expect_puback(pkid);
    }
    for _ in 0..MESSAGES.0 {
        assert!(matches!(subscriber.receive(), Some(Packet::Publish(publish)) if !publish.dup));
    }
    subscriber.ping();
    drop(subscriber);
    let (mut subscriber, _) = Client::connect_with(address, &persistent("subscriber"));
    let taken = take_marked(&mut subscriber, usize::from(MESSAGES.1));
    let expected = (1..=MESSAGES.1).map(|n| (n.to_string(), n <= MESSAGES.0));
    assert_eq!(taken, expected.collect::<Vec<_>>());
}

//! Promise 6: no bytes on the MQTT port end anything but their own connection.

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::LazyLock;

use proptest::prelude::*;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    Connect, LastWill, Login, Packet, PubAck, PubRec, PubRel, Publish, Subscribe, SubscribeFilter,
    SubscribeReasonCode, Unsubscribe,
};
use support::{Client, telemetry};

/// One broker for all attacks of this file: it has to survive them all.
static BROKER: LazyLock<SocketAddr> = LazyLock::new(support::lasting_broker);

fn assert_serving() {
    support::assert_serving(*BROKER);
}

fn send_all(client: &mut Client, bytes: &[u8]) {
    // The broker may close in the middle; that is its right.
    let _ = client.stream.write_all(bytes);
}

fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    packet.write(&mut bytes, usize::MAX).unwrap();
    bytes.to_vec()
}

#[test]
fn a_topic_that_begins_with_a_non_ascii_character_is_delivered_like_any_other() {
    // rumqttd cuts topics at byte 1 and panics inside a character.
    let watchers = ["온도/#", "+/hall", "#"].map(|filter| {
        let mut watcher = Client::connect(*BROKER, &format!("korean-watcher-{filter}"));
        watcher.subscribe(filter, QoS::AtMostOnce);
        watcher
    });
    let mut client = Client::connect(*BROKER, "korean");
    client.publish("온도/hall", QoS::AtLeastOnce, 1, b"21.5");
    client.expect_puback(1);
    for mut watcher in watchers {
        loop {
            match watcher.receive() {
                Some(Packet::Publish(publish)) if publish.topic == "온도/hall" => break,
                Some(Packet::Publish(publish)) => assert!(!publish.topic.contains('\u{1}')),
                other => panic!("no message but {other:?}"),
            }
        }
    }
    assert_serving();
}

#[test]
fn a_client_id_with_topic_characters_connects_as_often_as_it_likes() {
    // rumqttd panics with its lock held when such an id connects for the second time.
    for id in ["a+b", "a#", "$a", "a/b", "+", "#", "$SYS"] {
        for _ in 0..3 {
            let mut client = Client::connect(*BROKER, id);
            client.subscribe("x/#", QoS::AtLeastOnce);
            client.ping();
        }
    }
    assert_serving();
}

#[test]
fn the_last_persistent_member_of_a_shared_group_may_leave() {
    // rumqttd panics when that member has an unacknowledged message.
    let mut persistent = Connect::new("sharer");
    persistent.clean_session = false;
    for _ in 0..3 {
        let (mut client, _) = Client::connect_with(*BROKER, &persistent);
        assert_eq!(
            client.subscribe("$share/g/shared/#", QoS::AtLeastOnce),
            SubscribeReasonCode::Success(QoS::AtLeastOnce)
        );
        client.subscribe("shared/#", QoS::AtLeastOnce);
        let mut publisher = Client::connect(*BROKER, "share-publisher");
        publisher.publish("shared/x", QoS::AtLeastOnce, 1, b"1");
        publisher.expect_puback(1);
        loop {
            match client.receive() {
                Some(Packet::Publish(publish)) if publish.topic == "shared/x" => break,
                Some(_) => {}
                None => panic!("disconnected"),
            }
        }
    }
    assert_serving();
}

#[test]
fn acknowledgements_out_of_order_cost_nobody_a_message() {
    // rumqttd drops who acknowledges out of order, and a word on a dropped link panics it.
    const MESSAGES: u16 = 400;
    let mut client = Client::connect(*BROKER, "out-of-order");
    client.subscribe("order/#", QoS::AtLeastOnce);
    let mut publisher = Client::connect(*BROKER, "order-publisher");
    for pkid in 1..=MESSAGES {
        publisher.publish("order/x", QoS::AtLeastOnce, pkid, pkid.to_string().as_bytes());
    }
    let mut held = None;
    for n in 1..=MESSAGES {
        let Some(Packet::Publish(publish)) = client.receive() else { panic!("no message {n}") };
        assert_eq!(publish.payload, n.to_string().as_bytes());
        // Every second one is acknowledged before the one before it.
        match held.take() {
            None => held = Some(publish.pkid),
            Some(earlier) => {
                client.send(&Packet::PubAck(PubAck::new(publish.pkid)));
                client.send(&Packet::PubAck(PubAck::new(earlier)));
            }
        }
    }
    client.ping();
    assert_serving();
}

#[test]
fn who_takes_nothing_is_not_listened_to_and_harms_nobody() {
    // A PUBACK that nobody asked for closes the connection while much waits for it.
    let mut stalled = Client::connect(*BROKER, "stalled");
    stalled.subscribe("big/#", QoS::AtMostOnce);
    let mut publisher = Client::connect(*BROKER, "big-publisher");
    let big = vec![b'x'; 60_000];
    for pkid in 1..=400 {
        publisher.publish("big/x", QoS::AtLeastOnce, pkid, &big);
        publisher.expect_puback(pkid);
    }
    send_all(&mut stalled, &bytes_of(&Packet::PubAck(PubAck::new(1))));
    let mut received = 0;
    while let Some(packet) = stalled.receive() {
        received += usize::from(matches!(packet, Packet::Publish(_)));
    }
    assert!(received > 0, "closed only when the PUBACK was read");
    assert_serving();
}

#[test]
fn what_must_close_a_connection_does_and_nothing_else() {
    let publish_to =
        |topic: &str| bytes_of(&Packet::Publish(Publish::new(topic, QoS::AtMostOnce, "1")));
    let mut no_id = Subscribe::new("a", QoS::AtMostOnce);
    no_id.pkid = 0;
    let attacks: Vec<(&str, Vec<u8>)> = vec![
        ("wildcard in a topic", publish_to("a/+/b")),
        ("empty topic", publish_to("")),
        ("control character", publish_to("a\u{1}b")),
        ("NUL", publish_to("a\0b")),
        ("topic that is not text", vec![0x30, 4, 0, 1, 0xff, b'1']),
        ("topic of 65,535 bytes", publish_to(&"t".repeat(65_535))),
        ("topic longer than its packet", vec![0x30, 4, 0xff, 0xff, b'a', b'1']),
        ("QoS 3", vec![0x36, 5, 0, 1, b'a', 0, 1]),
        ("packet id 0", vec![0x32, 5, 0, 1, b'a', 0, 0]),
        ("SUBSCRIBE without packet id", bytes_of(&Packet::Subscribe(no_id))),
        ("SUBSCRIBE to nothing", vec![0x82, 2, 0, 1]),
        ("remaining length of five bytes", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("a packet of 256 MiB announced", vec![0x30, 0xff, 0xff, 0xff, 0x7f]),
        ("reserved packet type", vec![0xf0, 0]),
        ("server's packet", vec![0x20, 2, 0, 0]),
        ("second CONNECT", bytes_of(&Packet::Connect(Connect::new("again")))),
        ("PUBACK of nothing", bytes_of(&Packet::PubAck(PubAck::new(7)))),
    ];
    for (attack, bytes) in attacks {
        let mut client = Client::connect(*BROKER, "attacker");
        send_all(&mut client, &bytes);
        assert!(client.receive().is_none(), "{attack}: still connected");
    }
    let mut silent = Client::open(*BROKER);
    send_all(&mut silent, &publish_to("a"));
    assert!(silent.receive().is_none(), "a PUBLISH before the CONNECT");
    assert_serving();
}

#[test]
fn other_protocol_versions_are_told_so() {
    let mut v6 = Client::open(*BROKER);
    send_all(&mut v6, &[0x10, 0x0d, 0, 4, b'M', b'Q', b'T', b'T', 6, 2, 0, 60, 0, 0, 0]);
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut v6.stream, &mut answer).unwrap();
    assert_eq!(answer, [0x20, 3, 0, 0x84, 0]);
    let mut v3 = Client::open(*BROKER);
    send_all(&mut v3, &[0x10, 0x0e, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, 2, 0, 60, 0, 0]);
    answer.clear();
    std::io::Read::read_to_end(&mut v3.stream, &mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 1]);
}

#[test]
fn an_unsubscribe_is_answered_whatever_was_subscribed() {
    let mut client = Client::connect(*BROKER, "unsubscriber");
    client.subscribe("un/a", QoS::AtMostOnce);
    client.subscribe("un/b", QoS::AtMostOnce);
    for topics in [vec!["un/never"], vec!["un/a", "un/b", "un/never"], vec!["un/a"]] {
        let mut unsubscribe = Unsubscribe::new(topics[0]);
        unsubscribe.topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        unsubscribe.pkid = 9;
        client.send(&Packet::Unsubscribe(unsubscribe));
        assert!(matches!(client.receive(), Some(Packet::UnsubAck(ack)) if ack.pkid == 9));
    }
    assert!(client.is_silent(), "answered once each");
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,3}(/[a-z+#$]{0,3}){0,3}",
        Just("humidor/a/sensor/b".to_owned()),
        Just("$share/g/x".to_owned()),
        Just("$SYS/#".to_owned()),
        any::<String>(),
    ]
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn packet() -> impl Strategy<Value = Packet> {
    let payload = prop_oneof![
        Just(telemetry("b", 1)),
        "-?[0-9]{1,400}(\\.[0-9]+)?(e[0-9]+)?".prop_map(String::into_bytes),
        "[\\[{]{1,300}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..200),
    ];
    prop_oneof![
        4 => (text(), qos(), payload, any::<u16>(), any::<bool>(), any::<bool>()).prop_map(
            |(topic, qos, payload, pkid, retain, dup)| {
                let mut publish = Publish::new(topic, qos, payload);
                (publish.pkid, publish.retain, publish.dup) = (pkid.max(1), retain, dup);
                Packet::Publish(publish)
            }
        ),
        2 => (proptest::collection::vec((text(), qos()), 1..4), any::<u16>()).prop_map(|(filters, pkid)| {
            let filters = filters.into_iter().map(|(path, qos)| SubscribeFilter::new(path, qos));
            let mut subscribe = Subscribe::new_many(filters);
            subscribe.pkid = pkid;
            Packet::Subscribe(subscribe)
        }),
        1 => (text(), any::<u16>()).prop_map(|(topic, pkid)| {
            let mut unsubscribe = Unsubscribe::new(topic);
            unsubscribe.pkid = pkid;
            Packet::Unsubscribe(unsubscribe)
        }),
        1 => any::<u16>().prop_map(|pkid| Packet::PubAck(PubAck::new(pkid))),
        1 => any::<u16>().prop_map(|pkid| Packet::PubRec(PubRec::new(pkid))),
        1 => any::<u16>().prop_map(|pkid| Packet::PubRel(PubRel::new(pkid))),
        1 => Just(Packet::PingReq),
    ]
}

fn connect() -> impl Strategy<Value = Packet> {
    (
        text(),
        any::<bool>(),
        any::<u16>(),
        proptest::option::of((text(), qos(), any::<bool>())),
        any::<bool>(),
    )
        .prop_map(|(id, clean, keep_alive, will, login)| {
            let mut connect = Connect::new(id);
            (connect.clean_session, connect.keep_alive) = (clean, keep_alive);
            connect.last_will =
                will.map(|(topic, qos, retain)| LastWill::new(topic, "gone", qos, retain));
            connect.login = login.then(|| Login::new("u", "p"));
            Packet::Connect(connect)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_harm_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..600), connected in any::<bool>()) {
        let mut client = Client::open(*BROKER);
        if connected {
            send_all(&mut client, &bytes_of(&Packet::Connect(Connect::new("fuzz"))));
        }
        send_all(&mut client, &bytes);
        drop(client);
        assert_serving();
    }

    #[test]
    fn arbitrary_and_mutated_packets_harm_nobody(
        connect in connect(),
        packets in proptest::collection::vec(packet(), 0..12),
        mutations in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes: Vec<u8> = packets.iter().flat_map(bytes_of).collect();
        for (place, byte) in mutations {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
        }
        let mut client = Client::open(*BROKER);
        send_all(&mut client, &bytes_of(&connect));
        send_all(&mut client, &bytes);
        drop(client);
        assert_serving();
    }
}

//! Promise 6 in MQTT 5.0: what must end a connection does, with the reason said, and nothing else ends.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::LazyLock;

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, Filter, LastWill, LastWillProperties, Packet, PubAck, PubComp,
    PubRec, PubRel, Publish, PublishProperties, Subscribe, SubscribeProperties, Unsubscribe,
};
use support::assert_serving;

/// One broker for all attacks of this file: it has to survive them all.
static BROKER: LazyLock<SocketAddr> = LazyLock::new(support::lasting_broker);

fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, None).unwrap();
    bytes.to_vec()
}

fn connect(id: &str) -> Vec<u8> {
    let connect =
        Connect { keep_alive: 0, client_id: id.to_owned(), clean_start: true, properties: None };
    bytes_of(&Packet::Connect(connect, None, None))
}

/// What the broker says to these bytes until it closes.
fn answer(bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(*BROKER).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    said
}

#[test]
fn a_breach_is_answered_with_its_reason_and_ends_the_connection() {
    let publish = |topic: &str, properties| {
        bytes_of(&Packet::Publish(Publish::new(topic, QoS::AtMostOnce, "1", Some(properties))))
    };
    let none = PublishProperties::default;
    let alias = |alias| PublishProperties { topic_alias: Some(alias), ..none() };
    let mut no_local = Filter::new("$share/g/x", QoS::AtMostOnce);
    no_local.nolocal = true;
    let subscribe = Subscribe { pkid: 1, filters: vec![no_local], properties: None };
    let begun: Vec<u8> = (1..=257)
        .flat_map(|pkid| {
            let publish = Publish::new("x", QoS::ExactlyOnce, "1", None);
            bytes_of(&Packet::Publish(Publish { pkid, ..publish }))
        })
        .collect();
    let attacks: Vec<(&str, u8, Vec<u8>)> = vec![
        ("wildcard in a topic", 0x90, publish("a/+", none())),
        ("no topic and no alias", 0x82, publish("", none())),
        ("topic alias 0", 0x94, publish("a", alias(0))),
        ("a topic alias above the maximum", 0x94, publish("a", alias(33))),
        ("a topic alias that was never given", 0x94, publish("", alias(3))),
        (
            "a response topic with a wildcard",
            0x82,
            publish("a", PublishProperties { response_topic: Some("#".to_owned()), ..none() }),
        ),
        ("No Local on a shared subscription", 0x82, bytes_of(&Packet::Subscribe(subscribe))),
        ("more QoS 2 messages than the receive maximum", 0x93, begun),
        ("a packet of 256 MiB announced", 0x95, vec![0x30, 0xff, 0xff, 0xff, 0x7f]),
        ("a topic that is not text", 0x81, vec![0x30, 5, 0, 1, 0xff, 0, b'1']),
        ("properties beyond the packet", 0x81, vec![0x30, 4, 0, 1, b'a', 0x7f]),
        ("an unknown property", 0x81, vec![0x30, 6, 0, 1, b'a', 2, 0x7e, 0]),
        ("QoS 3", 0x81, vec![0x36, 6, 0, 1, b'a', 0, 1, 0]),
        ("AUTH", 0x82, vec![0xf0, 0]),
        ("second CONNECT", 0x82, connect("again")),
        ("PUBACK of nothing", 0x82, bytes_of(&Packet::PubAck(PubAck::new(7, None)))),
        ("a session that is to live on after all", 0x82, vec![0xe0, 7, 0, 5, 17, 0, 0, 0, 9]),
    ];
    for (attack, reason, bytes) in attacks {
        let said = answer(&[connect("attacker"), bytes].concat());
        assert!(said.ends_with(&[0xe0, 2, reason, 0]), "{attack}: {said:02x?}");
    }
    assert_serving(*BROKER);
}

#[test]
fn a_connect_that_cannot_be_is_refused_with_its_reason() {
    let with = |properties| {
        let connect = Connect {
            keep_alive: 0,
            client_id: "c".to_owned(),
            clean_start: true,
            properties: Some(properties),
        };
        bytes_of(&Packet::Connect(connect, None, None))
    };
    let mut authentication = ConnectProperties::new();
    authentication.authentication_method = Some("SCRAM-SHA-1".to_owned());
    assert_eq!(answer(&with(authentication)), [0x20, 3, 0, 0x8c, 0]);
    assert_eq!(answer(&connect("\u{1}")), [0x20, 3, 0, 0x85, 0]);
    let mut nothing = ConnectProperties::new();
    nothing.receive_maximum = Some(0);
    assert_eq!(answer(&with(nothing)), [0x20, 3, 0, 0x82, 0]);
    assert_serving(*BROKER);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,3}(/[a-z+#$]{0,3}){0,3}",
        Just("humidor/a/sensor/b".to_owned()),
        Just("$share/g/a/#".to_owned()),
        Just("$SYS/#".to_owned()),
        any::<String>(),
    ]
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn properties() -> impl Strategy<Value = Option<PublishProperties>> {
    let small = (any::<Option<u8>>(), any::<Option<u32>>(), proptest::option::of(0_u16..40));
    let large = (
        proptest::option::of(text()),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
        proptest::collection::vec((text(), text()), 0..3),
        proptest::collection::vec(0_usize..300, 0..2),
        proptest::option::of(text()),
    );
    proptest::option::of((small, large).prop_map(|((format, expiry, alias), large)| {
        let (response, correlation, user, identifiers, content) = large;
        PublishProperties {
            payload_format_indicator: format,
            message_expiry_interval: expiry,
            topic_alias: alias,
            response_topic: response,
            correlation_data: correlation.map(Into::into),
            user_properties: user,
            subscription_identifiers: identifiers,
            content_type: content,
        }
    }))
}

fn packet() -> impl Strategy<Value = Packet> {
    let publish = (text(), qos(), any::<bool>(), 1_u16..400, properties());
    prop_oneof![
        4 => publish.prop_map(|(topic, qos, retain, pkid, properties)| {
            let publish = Publish::new(topic, qos, "21.5", properties);
            Packet::Publish(Publish { pkid, retain, ..publish })
        }),
        2 => (proptest::collection::vec((text(), qos(), any::<bool>()), 1..4), any::<Option<u16>>()).prop_map(
            |(filters, id)| {
                let filters = filters.into_iter().map(|(path, qos, nolocal)| Filter {
                    nolocal,
                    preserve_retain: nolocal,
                    ..Filter::new(path, qos)
                });
                let properties = id.map(|id| SubscribeProperties {
                    id: Some(usize::from(id)),
                    user_properties: vec![],
                });
                Packet::Subscribe(Subscribe { pkid: 1, filters: filters.collect(), properties })
            }
        ),
        1 => text().prop_map(|filter| {
            Packet::Unsubscribe(Unsubscribe { pkid: 2, filters: vec![filter], properties: None })
        }),
        1 => (0_u16..9).prop_map(|pkid| Packet::PubAck(PubAck::new(pkid, None))),
        1 => (0_u16..9).prop_map(|pkid| Packet::PubRec(PubRec::new(pkid, None))),
        1 => (0_u16..9).prop_map(|pkid| Packet::PubRel(PubRel::new(pkid, None))),
        1 => (0_u16..9).prop_map(|pkid| Packet::PubComp(PubComp::new(pkid, None))),
    ]
}

fn opening() -> impl Strategy<Value = Packet> {
    let wishes =
        (any::<Option<u32>>(), any::<Option<u16>>(), any::<Option<u32>>(), any::<Option<u16>>());
    let will = proptest::option::of((text(), qos(), any::<bool>(), 0_u32..2));
    ("[a-f]", any::<bool>(), wishes, will).prop_map(|(client_id, clean_start, wishes, will)| {
        let mut properties = ConnectProperties::new();
        let (expiry, receive, packet, alias) = wishes;
        properties.session_expiry_interval = expiry;
        properties.receive_maximum = receive;
        properties.max_packet_size = packet;
        properties.topic_alias_max = alias;
        let will = will.map(|(topic, qos, retain, delay)| {
            let properties = LastWillProperties {
                delay_interval: Some(delay),
                payload_format_indicator: None,
                message_expiry_interval: Some(1),
                content_type: None,
                response_topic: None,
                correlation_data: None,
                user_properties: vec![],
            };
            LastWill::new(topic, "gone", qos, retain, Some(properties))
        });
        let connect =
            Connect { keep_alive: 0, client_id, clean_start, properties: Some(properties) };
        Packet::Connect(connect, will, None)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_and_mutated_packets_harm_nobody(
        opening in opening(),
        packets in proptest::collection::vec(packet(), 0..12),
        mutations in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        tail in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes: Vec<u8> = packets.iter().flat_map(bytes_of).collect();
        for (place, byte) in mutations {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
        }
        let mut stream = TcpStream::connect(*BROKER).unwrap();
        let _ = stream.write_all(&[bytes_of(&opening), bytes, tail].concat());
        let _ = stream.shutdown(Shutdown::Write);
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        // Until the broker has seen it all.
        let _ = stream.read_to_end(&mut Vec::new());
        assert_serving(*BROKER);
    }
}

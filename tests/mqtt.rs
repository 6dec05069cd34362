//! What MQTT asks of a broker beyond taking messages, in both versions. The clauses are those of MQTT 3.1.1 and,
//! where it says so, 5.0; `tests/clients/paho` runs Eclipse Paho's suites.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;

use bytes::BytesMut;
use rumqttc::mqttbytes::QoS as OldQoS;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectProperties, Disconnect, DisconnectReasonCode, Filter, LastWill,
    LastWillProperties, Packet, PubAck, Publish, PublishProperties, RetainForwardRule, Subscribe,
    SubscribeProperties,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use support::Client;

static BROKER: LazyLock<SocketAddr> = LazyLock::new(support::lasting_broker);

/// A client of MQTT 5.0.
struct Client5 {
    stream: TcpStream,
    inbound: BytesMut,
}

impl Client5 {
    fn connect(id: &str) -> Self {
        Self::connect_with(id, true, ConnectProperties::new(), None).0
    }

    fn connect_with(
        id: &str,
        clean_start: bool,
        properties: ConnectProperties,
        will: Option<LastWill>,
    ) -> (Self, ConnAck) {
        let stream = TcpStream::connect(*BROKER).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let mut client = Self { stream, inbound: BytesMut::new() };
        let properties = Some(properties);
        let connect =
            Connect { keep_alive: 300, client_id: id.to_owned(), clean_start, properties };
        client.send(&Packet::Connect(connect, will, None));
        match client.receive() {
            Some(Packet::ConnAck(ack)) => (client, ack),
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    fn receive(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.inbound, None) {
                Ok(packet) => return Some(packet),
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("the broker sent nonsense: {error}"),
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).unwrap() {
                0 => return None,
                count => self.inbound.extend_from_slice(&chunk[..count]),
            }
        }
    }

    fn subscribe(&mut self, filter: Filter, identifier: Option<usize>) {
        let properties =
            identifier.map(|id| SubscribeProperties { id: Some(id), user_properties: vec![] });
        self.send(&Packet::Subscribe(Subscribe { pkid: 1, filters: vec![filter], properties }));
        assert!(matches!(self.receive(), Some(Packet::SubAck(_))));
    }

    fn publish(&mut self, topic: &str, payload: &str, properties: PublishProperties) {
        let publish = Publish::new(topic, QoS::AtLeastOnce, payload.to_owned(), Some(properties));
        self.send(&Packet::Publish(Publish { pkid: 5, ..publish }));
        assert!(matches!(self.receive(), Some(Packet::PubAck(ack)) if ack.pkid == 5));
    }

    fn message(&mut self) -> Publish {
        match self.receive() {
            Some(Packet::Publish(publish)) => {
                if publish.qos == QoS::AtLeastOnce {
                    self.send(&Packet::PubAck(PubAck::new(publish.pkid, None)));
                }
                publish
            }
            other => panic!("no message but {other:?}"),
        }
    }
}

fn message(client: &mut Client) -> v4::Publish {
    match client.receive() {
        Some(v4::Packet::Publish(publish)) => publish,
        other => panic!("no message but {other:?}"),
    }
}

fn retain(client: &mut Client, topic: &str, payload: &str) {
    let mut publish = v4::Publish::new(topic, OldQoS::AtLeastOnce, payload.to_owned());
    (publish.retain, publish.pkid) = (true, 9);
    client.send(&v4::Packet::Publish(publish));
    client.expect_puback(9);
}

#[test]
fn a_delivery_has_the_lower_qos_of_publication_and_subscription() {
    // [MQTT-3.8.4-6]
    let qos = [OldQoS::AtMostOnce, OldQoS::AtLeastOnce, OldQoS::ExactlyOnce];
    for granted in qos {
        let topic = format!("lower/{}", granted as u8);
        let mut watcher = Client::connect(*BROKER, &format!("lower-{}", granted as u8));
        watcher.subscribe(&topic, granted);
        let mut publisher = Client::connect(*BROKER, "lower-publisher");
        for published in qos {
            publisher.publish(&topic, published, 7, b"1");
            let lower = (published as u8).min(granted as u8);
            assert_eq!(message(&mut watcher).qos as u8, lower);
        }
    }
}

#[test]
fn retained_messages_come_all_at_every_subscribe_and_only_a_retained_empty_one_deletes() {
    // [MQTT-3.3.1-6], [MQTT-3.8.4-3], [MQTT-3.3.1-10], [MQTT-3.3.1-12]
    /// More than may be in flight.
    const TOPICS: u16 = 1200;
    let mut publisher = Client::connect(*BROKER, "retainer");
    for n in 0..TOPICS {
        let mut publish =
            v4::Publish::new(format!("all/{n:04}"), OldQoS::AtLeastOnce, n.to_string());
        (publish.retain, publish.pkid) = (true, n + 1);
        publisher.send(&v4::Packet::Publish(publish));
    }
    (1..=TOPICS).for_each(|pkid| publisher.expect_puback(pkid));
    // Not retained: the retained one stays.
    publisher.publish("all/0001", OldQoS::AtLeastOnce, 9, b"");
    publisher.expect_puback(9);
    retain(&mut publisher, "all/0000", "");
    for qos in [OldQoS::AtMostOnce, OldQoS::AtLeastOnce] {
        let mut watcher = Client::connect(*BROKER, "retained-watcher");
        for _ in 0..2 {
            watcher.subscribe("all/#", qos);
            for n in 1..TOPICS {
                let publish = message(&mut watcher);
                assert_eq!((publish.topic, publish.retain), (format!("all/{n:04}"), true));
                if publish.qos == OldQoS::AtLeastOnce {
                    watcher.send(&v4::Packet::PubAck(v4::PubAck::new(publish.pkid)));
                }
            }
        }
    }
}

#[test]
fn the_broker_says_how_it_is_to_who_asks_for_it() {
    let mut watcher = Client::connect(*BROKER, "explorer");
    watcher.subscribe("$SYS/#", OldQoS::AtMostOnce);
    let mut found = Vec::new();
    while !found.iter().any(|topic| topic == "$SYS/broker/version") {
        found.push(message(&mut watcher).topic);
    }
    // [MQTT-4.7.2-1]: `#` does not match it; clients cannot say anything there.
    let mut publisher = Client::connect(*BROKER, "pretender");
    publisher.publish("$SYS/broker/version", OldQoS::AtLeastOnce, 1, b"mine");
    publisher.expect_puback(1);
    let mut everything = Client::connect(*BROKER, "everything");
    everything.subscribe("#", OldQoS::AtMostOnce);
    publisher.publish("end/of/everything", OldQoS::AtMostOnce, 0, b"1");
    loop {
        let topic = message(&mut everything).topic;
        assert!(!topic.starts_with('$'), "{topic}");
        if topic == "end/of/everything" {
            break;
        }
    }
}

#[test]
fn a_shared_message_goes_to_one_member() {
    // MQTT 5.0 §4.8.2
    let mut members: Vec<Client> = (0..3)
        .map(|n| {
            let mut member = Client::connect(*BROKER, &format!("member-{n}"));
            member.subscribe("$share/group/work/#", OldQoS::AtLeastOnce);
            member
        })
        .collect();
    let mut publisher = Client::connect(*BROKER, "employer");
    for pkid in 1..=6 {
        publisher.publish("work/x", OldQoS::AtLeastOnce, pkid, &pkid.to_be_bytes());
        publisher.expect_puback(pkid);
    }
    let mut shares: Vec<u16> = members
        .iter_mut()
        .flat_map(|member| [message(member), message(member)])
        .map(|publish| u16::from_be_bytes([publish.payload[0], publish.payload[1]]))
        .collect();
    shares.sort_unstable();
    assert_eq!(shares, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_burst_of_shared_messages_reaches_a_member_that_reads() {
    /// As many as one connection has in one commit.
    const BURST: u16 = 256;
    let mut member = Client::connect(*BROKER, "burst-member");
    member.subscribe("$share/burst/burst", OldQoS::AtLeastOnce);
    let mut publisher = Client::connect(*BROKER, "burst-publisher");
    let mut burst = BytesMut::new();
    for pkid in 1..=BURST {
        let mut publish = v4::Publish::new("burst", OldQoS::AtLeastOnce, pkid.to_string());
        publish.pkid = pkid;
        v4::Packet::Publish(publish).write(&mut burst, usize::MAX).unwrap();
    }
    publisher.stream.write_all(&burst).unwrap();
    (1..=BURST).for_each(|pkid| publisher.expect_puback(pkid));
    for number in 1..=BURST {
        let publish = message(&mut member);
        assert_eq!(publish.payload, number.to_string());
        member.send(&v4::Packet::PubAck(v4::PubAck::new(publish.pkid)));
    }
}

#[test]
fn a_message_comes_once_while_one_of_two_subscriptions_that_match_it_ends() {
    /// Messages of a round; at half of them one of the subscriptions ends.
    const MESSAGES: u16 = 2000;
    for (round, gone) in ["half/#", "half/+", "half/#", "half/+"].into_iter().enumerate() {
        let mut subscriber = Client::connect(*BROKER, &format!("half-subscriber-{round}"));
        subscriber.subscribe("half/#", OldQoS::AtLeastOnce);
        subscriber.subscribe("half/+", OldQoS::AtLeastOnce);
        let publishing = std::thread::spawn(move || {
            let mut publisher = Client::connect(*BROKER, &format!("half-publisher-{round}"));
            for first in (1..=MESSAGES).step_by(100) {
                for pkid in first..first + 100 {
                    publisher.publish(
                        "half/a",
                        OldQoS::AtLeastOnce,
                        pkid,
                        pkid.to_string().as_bytes(),
                    );
                }
                (first..first + 100).for_each(|pkid| publisher.expect_puback(pkid));
            }
        });
        let mut seen = std::collections::HashSet::new();
        loop {
            match subscriber.receive() {
                Some(v4::Packet::Publish(publish)) => {
                    subscriber.send(&v4::Packet::PubAck(v4::PubAck::new(publish.pkid)));
                    assert!(
                        seen.insert(publish.payload.clone()),
                        "{:?} came twice",
                        publish.payload
                    );
                    if seen.len() == usize::from(MESSAGES / 2) {
                        let mut unsubscribe = v4::Unsubscribe::new(gone);
                        unsubscribe.pkid = 3;
                        subscriber.send(&v4::Packet::Unsubscribe(unsubscribe));
                    }
                    if publish.payload == MESSAGES.to_string() {
                        break;
                    }
                }
                Some(v4::Packet::UnsubAck(_)) => {}
                other => panic!("no message but {other:?}"),
            }
        }
        publishing.join().unwrap();
        // Whatever were still to come a second time would come before the answer.
        subscriber.send(&v4::Packet::PingReq);
        assert!(matches!(subscriber.receive(), Some(v4::Packet::PingResp)));
    }
}

#[test]
fn properties_travel_and_the_expiry_interval_shrinks_while_a_message_waits() {
    // MQTT 5.0 §3.3.2.3, [MQTT-3.3.2-6]
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(600);
    let (mut away, _) = Client5::connect_with("away", true, properties.clone(), None);
    away.subscribe(Filter::new("props/#", QoS::AtLeastOnce), Some(77));
    drop(away);
    let sent = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(600),
        response_topic: Some("answer/here".to_owned()),
        correlation_data: Some("id".into()),
        content_type: Some("text/plain".to_owned()),
        user_properties: vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())],
        ..PublishProperties::default()
    };
    let mut publisher = Client5::connect("props-publisher");
    publisher.publish("props/x", "1", sent.clone());
    let soon = PublishProperties { message_expiry_interval: Some(0), ..sent.clone() };
    publisher.publish("props/x", "expired", soon);
    publisher.publish("props/x", "2", sent.clone());
    let (mut back, ack) = Client5::connect_with("away", false, properties, None);
    assert!(ack.session_present);
    for payload in ["1", "2"] {
        let message = back.message();
        assert_eq!(message.payload, payload);
        let mut got = message.properties.unwrap();
        assert!((500..=600).contains(&got.message_expiry_interval.unwrap()));
        assert_eq!(std::mem::take(&mut got.subscription_identifiers), [77]);
        got.message_expiry_interval = sent.message_expiry_interval;
        assert_eq!(got, sent);
    }
}

#[test]
fn subscription_options_do_as_they_say() {
    // MQTT 5.0 §3.8.3.1
    let mut client = Client5::connect("optional");
    let filter = Filter {
        nolocal: true,
        preserve_retain: true,
        retain_forward_rule: RetainForwardRule::Never,
        ..Filter::new("options/#", QoS::AtLeastOnce)
    };
    let mut publisher = Client::connect(*BROKER, "options-publisher");
    retain(&mut publisher, "options/x", "before");
    client.subscribe(filter, None);
    client.publish("options/x", "own", PublishProperties::default());
    retain(&mut publisher, "options/x", "after");
    let message = client.message();
    assert_eq!((&message.payload[..], message.retain), (&b"after"[..], true));
}

#[test]
fn a_will_waits_for_its_delay_and_not_when_the_client_is_back() {
    // MQTT 5.0 §3.1.3.2.2, [MQTT-3.1.3-9]
    let will = |delay, payload: &str| {
        let properties = LastWillProperties {
            delay_interval: Some(delay),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: vec![],
        };
        LastWill::new("wills/x", payload.to_owned(), QoS::AtLeastOnce, false, Some(properties))
    };
    let mut lasting = ConnectProperties::new();
    lasting.session_expiry_interval = Some(600);
    let mut watcher = Client::connect(*BROKER, "will-watcher");
    watcher.subscribe("wills/#", OldQoS::AtMostOnce);
    // Back in time, so nothing is said; then gone for good, and the session with it.
    drop(Client5::connect_with("mortal", true, lasting.clone(), Some(will(2, "too early"))).0);
    let (mut back, ack) =
        Client5::connect_with("mortal", false, lasting.clone(), Some(will(600, "session over")));
    assert!(ack.session_present);
    back.send(&Packet::Disconnect(Disconnect {
        reason_code: DisconnectReasonCode::DisconnectWithWillMessage,
        properties: Some(rumqttc::v5::mqttbytes::v5::DisconnectProperties {
            session_expiry_interval: Some(3),
            reason_string: None,
            user_properties: vec![],
            server_reference: None,
        }),
    }));
    // 3 s and not 600: the session ends before its will's delay. By then the first, 2 s, would have been said.
    assert_eq!(message(&mut watcher).payload, "session over");
}

#[test]
fn a_server_says_what_it_gives() {
    let (_, ack) = Client5::connect_with("", true, ConnectProperties::new(), None);
    let properties = ack.properties.unwrap();
    assert!(properties.assigned_client_identifier.unwrap().starts_with("auto-"));
    assert_eq!(properties.server_keep_alive, Some(60));
    assert_eq!(properties.receive_max, Some(256));
}

#[test]
fn what_a_client_publishes_after_a_subscribe_comes_after_it() {
    /// Clients, and how often each of them asks.
    const ASKERS: (usize, usize) = (32, 30);
    let mut answerer = Client::connect(*BROKER, "answerer");
    answerer.subscribe("ask/+", OldQoS::AtMostOnce);
    std::thread::spawn(move || {
        while let Some(v4::Packet::Publish(asked)) = answerer.receive() {
            let topic = asked.topic.replace("ask/", "answer/");
            answerer.publish(&topic, OldQoS::AtMostOnce, 0, b"1");
        }
    });
    let ask = |asker: usize| {
        for n in 0..ASKERS.1 {
            let id = format!("{asker}-{n}");
            let mut client = Client::connect(*BROKER, &id);
            // In one piece, so that the broker has both at once.
            let mut both = BytesMut::new();
            let mut subscribe = v4::Subscribe::new(format!("answer/{id}"), OldQoS::AtMostOnce);
            subscribe.pkid = 1;
            subscribe.write(&mut both).unwrap();
            let asked = v4::Publish::new(format!("ask/{id}"), OldQoS::AtMostOnce, "1");
            asked.write(&mut both).unwrap();
            client.stream.write_all(&both).unwrap();
            assert!(matches!(client.receive(), Some(v4::Packet::SubAck(_))));
            assert!(matches!(client.receive(), Some(v4::Packet::Publish(_))));
        }
    };
    std::thread::scope(|scope| {
        for asker in 0..ASKERS.0 {
            scope.spawn(move || ask(asker));
        }
    });
}

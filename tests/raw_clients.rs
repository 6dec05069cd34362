//! Clients on raw sockets that do what a library would not: bursts, breaches behind good packets, CONNECTs of other
//! kinds. Each was once answered wrongly.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use support::packets::{self, PUBACK, Packet, Wire};
use support::{PATIENCE, broker, humidor, telemetry, wait_until};

/// `PUBREC`
const PUBREC: u8 = 5;

/// Sends `bytes`, says that nothing follows, and returns all that the broker answers until it closes.
fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// CONNECT of a protocol level, clean, with what follows the keep-alive.
fn connect(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 0];
    body.extend_from_slice(rest);
    packets::packet(0x10, &body)
}

fn stored(data: &Path) -> usize {
    support::readings(data).len()
}

#[test]
fn a_burst_in_one_write_is_delivered_without_further_bytes() {
    const BURST: u32 = 1000;
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let mut subscriber = Wire::connect(address, "subscriber", true);
    assert_eq!(subscriber.subscribe(&[("burst/+", 0)]), [0]);
    let mut publisher = Wire::connect(address, "publisher", true);
    let burst: Vec<u8> = (0..BURST)
        .flat_map(|n| packets::publish("burst/a", 0, false, 0, &n.to_be_bytes()))
        .collect();
    // Sooner than any timer of the broker's would look at the connection again.
    subscriber.wait_at_most(Duration::from_secs(20));
    publisher.send(&burst);
    for n in 0..BURST {
        assert_eq!(subscriber.message().payload, n.to_be_bytes());
    }
}

#[test]
fn what_came_before_a_malformed_packet_is_stored_acknowledged_and_not_lost_when_it_comes_again() {
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let topic = "humidor/oven/sensor/top";
    let reading = |qos, seq| {
        let id = u16::try_from(seq).unwrap();
        packets::publish(topic, qos, false, id, &telemetry("b", seq))
    };
    let reserved_type = [0xf1, 0];
    // Both at once: the malformed packet is in the same read as the good ones.
    let connect = packets::connect("oven", false);
    let bytes = [&connect[..], &reading(1, 1), &reading(2, 2), &reserved_type].concat();
    let answers = answer(address, &bytes);
    assert_eq!(answers, [&[0x20, 2, 0, 0][..], &[0x40, 2, 0, 1], &[0x50, 2, 0, 2]].concat());
    assert_eq!(stored(data.path()), 2);
    // The client may send the QoS 2 message again: it was taken, and is not stored twice.
    let mut again = Wire::connect(address, "oven", false);
    again.send(&reading(2, 2));
    assert_eq!(again.receive(), Packet::Answer(PUBREC, vec![0, 2]));
    again.send(&reading(1, 3));
    assert_eq!(again.receive(), Packet::Answer(PUBACK, vec![0, 3]));
    assert_eq!(stored(data.path()), 3);
}

#[test]
fn a_connect_of_another_level_is_refused_in_the_form_that_its_client_understands() {
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let refused = |level| answer(address, &connect(level, 2, &[0, 1, b'a']));
    // Mosquitto's bridges set the highest bit; they try without it when they are told "unacceptable version".
    for level in [0, 3, 0x83, 0x84] {
        assert_eq!(refused(level), [0x20, 2, 0, 1], "level {level:#04x}");
    }
    assert_eq!(refused(6), [0x20, 3, 0, 0x84, 0]);
    assert_eq!(answer(address, &connect(4, 2, &[0, 1, b'a'])), [0x20, 2, 0, 0]);
}

#[test]
fn a_connect_of_mqtt_5_that_is_refused_for_its_form_is_told_why() {
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let with = |properties: &[u8]| {
        // The length of a section takes one byte up to 127 and two beyond.
        let length = match u8::try_from(properties.len()) {
            Ok(short) if short < 128 => vec![short],
            _ => vec![
                u8::try_from(properties.len() % 128).unwrap() | 0x80,
                u8::try_from(properties.len() / 128).unwrap(),
            ],
        };
        connect(5, 2, &[&length[..], properties, &[0, 1, b'a']].concat())
    };
    let user_property = [0x26, 0, 1, b'k', 0, 1, b'v'];
    let reason = |properties: &[u8]| answer(address, &with(properties));
    assert_eq!(reason(&user_property.repeat(65)), [0x20, 3, 0, 0x97, 0], "65 user properties");
    assert_eq!(reason(&user_property.repeat(64))[..4], [0x20, 14, 0, 0], "64 are taken");
    assert_eq!(reason(&[0x21, 0, 0]), [0x20, 3, 0, 0x82, 0], "Receive Maximum 0");
    assert_eq!(reason(&[0x7e]), [0x20, 3, 0, 0x81, 0], "an unknown property");
    // A will whose Payload Format Indicator is neither 0 nor 1 made other clients disconnect when they got it.
    let will = [0, 0, 1, b'a', 2, 0x01, 2, 0, 1, b'w', 0, 1, b'x'];
    let answered = answer(address, &connect(5, 0x26, &will));
    assert!(matches!(answered[..], [0x20, 3, 0, 0x81 | 0x82 | 0x99, 0]), "{answered:02x?}");
}

#[test]
fn a_password_is_bytes() {
    let data = tempfile::tempdir().unwrap();
    let mut command = humidor();
    command
        .args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .env("HUMIDOR_USER", "plant")
        .env("HUMIDOR_PASSWORD", "secret");
    let process = support::Process::start(command);
    let line = process.said("listening for MQTT");
    let address = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    let login = |password: &[u8]| {
        let length = u16::try_from(password.len()).unwrap().to_be_bytes();
        let user = [0, 5, b'p', b'l', b'a', b'n', b't'];
        answer(address, &connect(4, 0xc2, &[&[0, 1, b'a'][..], &user, &length, password].concat()))
    };
    assert_eq!(login(b"secret"), [0x20, 2, 0, 0]);
    // Not closed as malformed: refused as a wrong password.
    assert_eq!(login(&[0xff, 0x00, 0xfe]), [0x20, 2, 0, 5]);
    wait_until("it serves on", || login(b"secret") == [0x20, 2, 0, 0]);
}

#[test]
fn a_qos_2_message_beyond_the_receive_maximum_gets_no_pubrec_and_is_taken_when_it_comes_again() {
    const RECEIVE_MAXIMUM: u16 = 256;
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    // MQTT 5.0, a session that stays: its expiry interval is an hour.
    let connect = connect(5, 0, &[5, 0x11, 0, 0, 0x0e, 0x10, 0, 1, b'q']);
    let begun: Vec<u8> = (1..=RECEIVE_MAXIMUM + 1)
        .flat_map(|id| {
            let mut publish = vec![0, 1, b't'];
            publish.extend(id.to_be_bytes());
            publish.extend([0, b'x']);
            packets::packet(0x34, &publish)
        })
        .collect();
    let answers = answer(address, &[&connect[..], &begun].concat());
    let pubrecs = answers.windows(2).filter(|bytes| bytes == &[0x50, 2]).count();
    assert_eq!(pubrecs, usize::from(RECEIVE_MAXIMUM), "{answers:02x?}");
    assert!(answers.ends_with(&[0xe0, 2, 0x93, 0]), "{answers:02x?}");
}

#[test]
fn nothing_new_is_delivered_after_an_unsuback() {
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) =
        broker(data.path(), "127.0.0.1:0", &["--commit-window", "200ms", "--logged-filters", "#"]);
    let mut subscriber = Wire::connect(address, "subscriber", true);
    assert_eq!(subscriber.subscribe(&[("plant/a", 1), ("plant/b", 1)]), [1, 1]);
    let mut publisher = Wire::connect(address, "publisher", true);
    // Taken, and waiting for its commit, which the UNSUBSCRIBE does not.
    publisher.send(&packets::publish("plant/a", 1, false, 1, b"1"));
    publisher.send(&packets::pingreq());
    subscriber.send(&packets::unsubscribe(2, "plant/a"));
    assert_eq!(subscriber.receive(), Packet::Answer(packets::UNSUBACK, vec![0, 2]));
    publisher.send(&packets::publish("plant/b", 1, false, 2, b"2"));
    let next = subscriber.message();
    assert_eq!((next.topic.as_str(), &next.payload[..]), ("plant/b", &b"2"[..]));
}

#[test]
fn a_limit_on_user_properties_has_its_own_code_in_every_packet() {
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let user_properties = |count: usize| {
        let properties = [0x26, 0, 1, b'k', 0, 1, b'v'].repeat(count);
        let length = properties.len();
        let length =
            [u8::try_from(length % 128).unwrap() | 0x80, u8::try_from(length / 128).unwrap()];
        [&length[..], &properties].concat()
    };
    let many = user_properties(65);
    let will = [&[0, 0, 1, b'a'][..], &many, &[0, 1, b'w', 0, 1, b'x']].concat();
    assert_eq!(answer(address, &connect(5, 0x26, &will)), [0x20, 3, 0, 0x97, 0], "a will");
    let accepts = connect(5, 2, &[0, 0, 1, b'a']);
    for (name, first, head, tail) in [
        ("PUBLISH", 0x30, &[0, 1, b't'][..], &b"x"[..]),
        ("PUBLISH at QoS 1", 0x32, &[0, 1, b't', 0, 1], b"x"),
        ("SUBSCRIBE", 0x82, &[0, 1], &[0, 1, b't', 0]),
        ("UNSUBSCRIBE", 0xa2, &[0, 1], &[0, 1, b't']),
        ("PUBACK", 0x40, &[0, 1, 0], &[]),
        ("PUBREC", 0x50, &[0, 1, 0], &[]),
        ("PUBREL", 0x62, &[0, 1, 0], &[]),
        ("PUBCOMP", 0x70, &[0, 1, 0], &[]),
        ("DISCONNECT", 0xe0, &[0], &[]),
    ] {
        let packet = packets::packet(first, &[head, &many, tail].concat());
        let answers = answer(address, &[&accepts[..], &packet].concat());
        assert!(answers.ends_with(&[0xe0, 2, 0x97, 0]), "{name}: {answers:02x?}");
    }
    let publish = [&[0, 1, b't', 0, 1][..], &user_properties(64), b"x"].concat();
    let answers = answer(address, &[&accepts[..], &packets::packet(0x32, &publish)].concat());
    assert!(answers.windows(4).any(|bytes| bytes == [0x40, 2, 0, 1]), "64: {answers:02x?}");
}

#[test]
fn a_wrong_will_topic_does_not_invite_its_client_to_try_again() {
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let long = "t".repeat(1025);
    for topic in ["", "a/+", "#", &long] {
        let mut will = vec![0, 1, b'a'];
        will.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
        will.extend(topic.as_bytes());
        will.extend([0, 1, b'x']);
        // As mosquitto: closed without the CONNACK "server unavailable", since no code of 3.1.1 fits.
        let answered = answer(address, &connect(4, 6, &will));
        assert!(answered.is_empty(), "{topic}: {answered:02x?}");
        let v5 = [&will[..3], &[0], &will[3..]].concat();
        let v5 = [&[0], &v5[..]].concat();
        assert_eq!(answer(address, &connect(5, 6, &v5)), [0x20, 3, 0, 0x90, 0], "{topic}");
    }
}

#[test]
fn what_is_left_of_an_expiry_interval_is_at_least_a_second() {
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let own = |id: u8| connect(5, 2, &[0, 0, 1, id]);
    let subscribe = packets::packet(0x82, &[0, 1, 0, 0, 1, b't', 0]);
    let expiring: Vec<u8> = (0..60)
        .flat_map(|_| packets::packet(0x30, &[0, 1, b't', 5, 2, 0, 0, 0, 1, b'x']))
        .collect();
    // It gets its own messages, some of them after milliseconds.
    let answers = answer(address, &[&own(b's')[..], &subscribe, &expiring].concat());
    let left: Vec<&[u8]> = answers
        .windows(12)
        .filter(|bytes| bytes.starts_with(&[0x30, 10, 0, 1, b't', 5, 2]))
        .map(|bytes| &bytes[7..11])
        .collect();
    assert!(!left.is_empty() && left.iter().all(|left| *left == [0, 0, 0, 1]), "{left:?}");
}

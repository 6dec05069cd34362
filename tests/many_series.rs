//! Names that clients make up: the series of the log are bounded for each user, and a refusal is never an
//! acknowledgement.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use support::packets::{self, Wire};
use support::{PATIENCE, broker, readings, telemetry};

/// CONNECT of MQTT 5.0, clean, without properties.
fn connect_v5(client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0];
    body.extend(u16::try_from(client_id.len()).unwrap().to_be_bytes());
    body.extend_from_slice(client_id.as_bytes());
    packets::packet(0x10, &body)
}

/// PUBLISH of MQTT 5.0 without properties.
fn publish_v5(topic: &str, qos: u8, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    body.extend(packet_id.to_be_bytes());
    body.push(0);
    body.extend_from_slice(payload);
    packets::packet(0x30 | qos << 1, &body)
}

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

fn sensor(n: u16) -> String {
    format!("humidor/oven/sensor/s{n}")
}

#[test]
fn a_reading_beyond_the_users_series_is_refused_and_not_acknowledged_as_stored() {
    let data = tempfile::tempdir().unwrap();
    let limit = [("HUMIDOR_SERIES", "2")];
    let (process, address) = broker_with(data.path(), &limit);
    let v5: Vec<u8> = [
        connect_v5("a"),
        publish_v5(&sensor(1), 1, 1, &telemetry("b", 1)),
        publish_v5(&sensor(2), 1, 2, &telemetry("b", 2)),
        publish_v5(&sensor(3), 1, 3, &telemetry("b", 3)),
        publish_v5(&sensor(1), 1, 4, &telemetry("b", 4)),
        publish_v5(&sensor(3), 2, 5, &telemetry("b", 5)),
    ]
    .concat();
    let answers = answer(address, &v5);
    let tail = &answers[usize::from(answers[1]) + 2..];
    let expected: [&[u8]; 5] = [
        &[0x40, 2, 0, 1],
        &[0x40, 2, 0, 2],
        // Quota exceeded
        &[0x40, 3, 0, 3, 0x97],
        &[0x40, 2, 0, 4],
        &[0x50, 3, 0, 5, 0x97],
    ];
    assert_eq!(tail, expected.concat());
    assert_eq!(readings(data.path()).len(), 3);
    process.said("HUMIDOR_SERIES");
    // 3.1.1 has no code: what came before is acknowledged, and the connection ends.
    drop(process);
    let (process, address) = broker_with(data.path(), &limit);
    let v4: Vec<u8> = [
        packets::connect("b", true),
        packets::publish(&sensor(2), 1, false, 1, &telemetry("c", 1)),
        packets::publish(&sensor(3), 1, false, 2, &telemetry("c", 2)),
        packets::publish(&sensor(1), 1, false, 3, &telemetry("c", 3)),
    ]
    .concat();
    assert_eq!(answer(address, &v4), [0x20, 2, 0, 0, 0x40, 2, 0, 1], "also after a restart");
    assert_eq!(readings(data.path()).len(), 4);
    let stats = support::log(data.path()).stats().unwrap();
    assert_eq!(stats.refused, [("series-quota".to_owned(), 3)]);
    drop(process);
    // With more room the same packets are taken.
    let (_process, address) = broker_with(data.path(), &[("HUMIDOR_SERIES", "3")]);
    assert_eq!(answer(address, &v4).len(), 16);
    assert_eq!(readings(data.path()).len(), 6);
}

/// A foreign message is for its subscribers; that the log takes its numbers is beside the point for its publisher.
#[test]
fn a_foreign_message_is_delivered_though_its_number_is_not_logged() {
    let data = tempfile::tempdir().unwrap();
    let (_process, address) =
        broker_with(data.path(), &[("HUMIDOR_SERIES", "2"), ("HUMIDOR_LOGGED_FILTERS", "plant/#")]);
    let mut subscriber = Wire::connect(address, "subscriber", true);
    assert_eq!(subscriber.subscribe(&[("plant/#", 1)]), [1]);
    let payload = br#"{"a":1,"b":2,"c":3}"#;
    let bytes = [
        packets::connect("plant", true),
        packets::publish("plant/press", 1, false, 1, br#"{"a":1}"#),
        packets::publish("plant/press", 1, false, 2, payload),
        packets::publish("plant/oven", 0, false, 0, b"7"),
        packets::publish("plant/press", 2, false, 3, payload),
        // Again, before its PUBREL.
        packets::publish("plant/press", 2, false, 3, payload),
    ]
    .concat();
    let answers = answer(address, &bytes);
    assert_eq!(answers[4..], [0x40, 2, 0, 1, 0x40, 2, 0, 2, 0x50, 2, 0, 3, 0x50, 2, 0, 3]);
    for (topic, expected) in [
        ("plant/press", &br#"{"a":1}"#[..]),
        ("plant/press", payload),
        ("plant/oven", b"7"),
        ("plant/press", payload),
    ] {
        let message = subscriber.message();
        assert_eq!((&*message.topic, &*message.payload), (topic, expected));
    }
    let stats = support::log(data.path()).stats().unwrap();
    // `a` three times and `oven`: `b` is not begun by messages with one number too many.
    assert_eq!((stats.samples, stats.refused), (4, vec![("series-quota".to_owned(), 2)]));
    // MQTT 5.0 has a code, and then the message is refused as a whole.
    let v5 = [connect_v5("v5"), publish_v5("plant/store", 1, 1, b"7")].concat();
    let answers = answer(address, &v5);
    assert!(answers.ends_with(&[0x40, 3, 0, 1, 0x97]), "{answers:x?}");
    subscriber.send(&packets::pingreq());
    assert_eq!(subscriber.receive(), packets::Packet::Answer(packets::PINGRESP, vec![]));
}

fn broker_with(
    data: &std::path::Path,
    settings: &[(&str, &str)],
) -> (support::Process, SocketAddr) {
    let flags: Vec<String> = settings
        .iter()
        .map(|(name, value)| {
            let flag = name.trim_start_matches("HUMIDOR_").to_lowercase().replace('_', "-");
            format!("--{flag}={value}")
        })
        .collect();
    broker(data, "127.0.0.1:0", &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

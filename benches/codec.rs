//! What a packet costs to read and to write: `cargo bench --bench codec`.
//!
//! Prints one line of JSON a figure: the broker's codec beside rumqttc's, which version 0.1.0 used. Both go from the read
//! buffer to what the broker keeps (topic, a payload of its own, the properties that travel along), and from a message to
//! the write buffer.

use std::hint::black_box;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use humidor::mqtt::codec::{self, Envelope, Packet, Version};
use humidor::mqtt::{Message, QoS, Topic};
use rumqttc::mqttbytes::{self as old, v4};
use rumqttc::v5::mqttbytes::{self as new, v5};

/// Packets read or written for one sample, and samples of which the median counts.
const PACKETS: u32 = 10_000;
const SAMPLES: usize = 21;
const PACKET_MAX_BYTES: u32 = codec::PACKET_MAX_BYTES;

const PAYLOAD: &[u8] = br#"{"boot":"3f9a","seq":17,"at":1760000000123,"temperature":21.5}"#;

/// Median ns for one packet: `work` on what `prepare` makes, which does not count.
fn ns_per_packet<T>(prepare: impl Fn() -> T, work: impl Fn(&mut T)) -> f64 {
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let mut prepared = prepare();
            let start = Instant::now();
            work(&mut prepared);
            start.elapsed().as_secs_f64() * 1e9 / f64::from(PACKETS)
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    samples[SAMPLES / 2]
}

fn print(case: &str, version: Version, library: &str, ns: f64) {
    let version = if version == Version::V4 { "3.1.1" } else { "5.0" };
    let figure = serde_json::json!({
        "bench": "codec", "case": case, "version": version, "codec": library,
        "ns_per_packet": ns.round(),
    });
    println!("{figure}");
}

fn read(case: &str, version: Version, frame: &[u8], with_rumqttc: fn(BytesMut)) {
    let frames = || BytesMut::from(&frame.repeat(PACKETS as usize)[..]);
    let ours = ns_per_packet(frames, |stream| {
        while let Some(packet) = codec::next(version, stream).expect(case) {
            black_box(packet);
        }
    });
    print(case, version, "humidor", ours);
    let theirs = ns_per_packet(frames, |stream| {
        while !stream.is_empty() {
            with_rumqttc(stream.split_to(frame.len()));
        }
    });
    print(case, version, "rumqttc", theirs);
}

fn rumqttc_v4(mut frame: BytesMut) {
    match v4::Packet::read(&mut frame, PACKET_MAX_BYTES as usize).expect("well-formed") {
        v4::Packet::Publish(publish) => {
            let topic = Topic::from_bytes(publish.topic.as_bytes()).expect("a topic");
            black_box((topic, Bytes::copy_from_slice(&publish.payload)));
        }
        other => {
            black_box(other);
        }
    }
}

fn rumqttc_v5(mut frame: BytesMut) {
    match v5::Packet::read(&mut frame, Some(PACKET_MAX_BYTES)).expect("well-formed") {
        v5::Packet::Publish(publish) => {
            let topic = Topic::from_bytes(&publish.topic).expect("a topic");
            let properties = publish.properties.map(|mut properties| {
                properties.message_expiry_interval = None;
                let mut encoded = BytesMut::new();
                properties.write(&mut encoded).expect("bounded");
                encoded.freeze()
            });
            black_box((topic, Bytes::copy_from_slice(&publish.payload), properties));
        }
        other => {
            black_box(other);
        }
    }
}

fn write(case: &str, version: Version, message: &Message) {
    let out = || BytesMut::with_capacity(256 * PACKETS as usize);
    let envelope = Envelope {
        qos: QoS::AtLeastOnce,
        packet_id: 7,
        dup: false,
        retain: false,
        identifiers: &[],
        alias: None,
    };
    let ours = ns_per_packet(out, |out| {
        for _ in 0..PACKETS {
            codec::write_publish(version, black_box(message), envelope, 0, out);
        }
    });
    print(case, version, "humidor", ours);
    let theirs = ns_per_packet(out, |out| {
        for _ in 0..PACKETS {
            let message = black_box(message);
            let written = match version {
                Version::V4 => {
                    let publish = v4::Publish {
                        dup: false,
                        qos: old::QoS::AtLeastOnce,
                        retain: false,
                        topic: message.topic.to_string(),
                        pkid: 7,
                        payload: message.payload.clone(),
                    };
                    publish.write(out).is_ok()
                }
                Version::V5 => {
                    let publish = v5::Publish {
                        dup: false,
                        qos: new::QoS::AtLeastOnce,
                        retain: false,
                        topic: Bytes::copy_from_slice(message.topic.as_bytes()),
                        pkid: 7,
                        payload: message.payload.clone(),
                        properties: decoded(message),
                    };
                    publish.write(out).is_ok()
                }
            };
            assert!(written, "rumqttc writes no PUBLISH");
        }
    });
    print(case, version, "rumqttc", theirs);
}

/// The properties of a message as version 0.1.0 sent them to each subscriber.
fn decoded(message: &Message) -> Option<v5::PublishProperties> {
    let mut encoded = message.properties.clone();
    let decoded = if encoded.is_empty() {
        None
    } else {
        v5::PublishProperties::read(&mut encoded).expect("well-formed")
    };
    let Some(at_ms) = message.expires_at_ms else { return decoded };
    let mut properties = decoded.unwrap_or_default();
    properties.message_expiry_interval = u32::try_from(at_ms / 1000).ok();
    Some(properties)
}

/// A frame with this first byte; what follows has fewer than 128 bytes.
fn frame(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u8::try_from(body.len()).ok().filter(|length| *length < 0x80);
    [&[first, length.expect("a short frame")], &body[..]].concat()
}

fn main() {
    let topic: &[u8] = b"\0\x1bhumidor/press-3/sensor/hall";
    let user: &[u8] = b"\x0f\x02\0\0\x0e\x10\x26\0\x01k\0\x04hall";
    let publish = frame(0x32, &[topic, b"\0\x07", PAYLOAD]);
    read("PUBLISH QoS 1", Version::V4, &publish, rumqttc_v4);
    let publish = frame(0x32, &[topic, b"\0\x07\0", PAYLOAD]);
    read("PUBLISH QoS 1", Version::V5, &publish, rumqttc_v5);
    let publish = frame(0x32, &[topic, b"\0\x07", user, PAYLOAD]);
    read("PUBLISH QoS 1, expiry and user property", Version::V5, &publish, rumqttc_v5);
    let subscribe = frame(0x82, &[b"\0\x07", topic, b"\x01\0\x09humidor/#\x01"]);
    read("SUBSCRIBE to 2", Version::V4, &subscribe, rumqttc_v4);
    let subscribe = frame(0x82, &[b"\0\x07\0", topic, b"\x01\0\x09humidor/#\x01"]);
    read("SUBSCRIBE to 2", Version::V5, &subscribe, rumqttc_v5);
    let puback = frame(0x40, &[b"\0\x07"]);
    read("PUBACK", Version::V4, &puback, rumqttc_v4);
    read("PUBACK", Version::V5, &puback, rumqttc_v5);

    let mut message = Message::own("humidor/press-3/sensor/hall", PAYLOAD);
    write("write PUBLISH QoS 1", Version::V4, &message);
    write("write PUBLISH QoS 1", Version::V5, &message);
    let carried = codec::next(Version::V5, &mut BytesMut::from(&publish[..]));
    if let Ok(Some(Packet::Publish(publish))) = carried {
        message.properties = publish.properties;
        message.expires_at_ms = Some(3_600_000);
    }
    assert!(!message.properties.is_empty(), "properties to write");
    write("write PUBLISH QoS 1, expiry and user property", Version::V5, &message);
}

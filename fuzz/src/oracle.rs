//! Each frame judged by the broker's codec and by mqtt-proto: where they disagree without a reason that is in the list
//! of known differences, or read different fields, this panics.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use humidor::mqtt::codec::{
    self, CodecError, Connect, Envelope, Packet, PacketType, Publish, RetainHandling, Version, Will,
};
use humidor::mqtt::{Message, Topic};
use mqtt_proto::{QosPid, v3, v5};

use crate::differences;
use crate::memory;

/// Bytes of memory that a byte of a frame may take.
const MEMORY_PER_BYTE: usize = 10;
/// Bytes of memory that any frame may take besides: what 512 topic filters and 64 user properties, the bounds of one
/// packet, cost more when they have hardly any text.
const MEMORY_BYTES: usize = 16 * 1024;

static MOST: AtomicUsize = AtomicUsize::new(0);

/// Bytes of memory that a frame took beyond [`MEMORY_PER_BYTE`], of all frames so far the most.
pub fn most_memory() -> usize {
    MOST.load(Relaxed)
}

/// What the broker's codec makes of a frame.
#[derive(Debug)]
pub enum Ours {
    Connect(Box<Connect>),
    Packet(Packet),
    Incomplete,
    Refused(CodecError),
}

/// What mqtt-proto makes of it.
#[derive(Debug)]
pub enum Theirs {
    V4(v3::Packet),
    V5(v5::Packet),
    Incomplete,
    RefusedV4(mqtt_proto::Error),
    RefusedV5(v5::ErrorV5),
}

/// How the two came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    BothAccept,
    BothRefuse,
    /// The frame is not whole, so that only the broker's codec has an opinion.
    Incomplete,
    /// They disagree, for this reason.
    Known(&'static str),
}

/// Judges each frame of a stream that begins with a CONNECT.
pub fn stream(bytes: &[u8]) {
    let mut version = Version::V5;
    let mut rest = bytes;
    while let Some(length) = whole(rest) {
        let (first, behind) = rest.split_at(length);
        if first[0] >> 4 == 1 {
            version = version_of(first);
        }
        frame(version, first);
        rest = behind;
    }
    if !rest.is_empty() {
        frame(version, rest);
    }
}

/// Bytes of the first frame, when it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (n, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            let whole = n + 2 + length;
            return (whole <= bytes.len()).then_some(whole);
        }
    }
    None
}

/// The version that a CONNECT says it has, 3.1.1 when none.
fn version_of(frame: &[u8]) -> Version {
    let digits = frame[1..].iter().take(4).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let level = frame.get(1 + digits..).and_then(|body| {
        let name = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
        body.get(2 + name).copied()
    });
    if level == Some(5) { Version::V5 } else { Version::V4 }
}

/// Judges one frame, which is not empty; a CONNECT as the first packet of its connection.
pub fn frame(version: Version, frame: &[u8]) -> Verdict {
    let mut stream = BytesMut::from(frame);
    let is_connect = codec::is_next(PacketType::Connect, frame);
    let version = if is_connect { version_of(frame) } else { version };
    let (ours, peak) = memory::peak_of(|| {
        if is_connect {
            match codec::connect(&mut stream) {
                Ok(Some(connect)) => Ours::Connect(Box::new(connect)),
                Ok(None) => Ours::Incomplete,
                Err(error) => Ours::Refused(error),
            }
        } else {
            match codec::next(version, &mut stream) {
                Ok(Some(packet)) => Ours::Packet(packet),
                Ok(None) => Ours::Incomplete,
                Err(error) => Ours::Refused(error),
            }
        }
    });
    MOST.fetch_max(peak.saturating_sub(MEMORY_PER_BYTE * frame.len()), Relaxed);
    assert!(
        peak <= MEMORY_PER_BYTE * frame.len() + MEMORY_BYTES,
        "{peak} bytes of memory for {} bytes: {frame:02x?}",
        frame.len()
    );
    if whole(frame).is_none() {
        assert!(matches!(ours, Ours::Incomplete | Ours::Refused(_)), "{ours:?} of {frame:02x?}");
        return Verdict::Incomplete;
    }
    let length = frame.len() - stream.len();
    let frame = &frame[..whole(frame).unwrap_or(frame.len())];
    let theirs = decode(version, frame);
    let verdict = match (&ours, &theirs) {
        (Ours::Incomplete, _) => panic!("a whole frame is incomplete: {frame:02x?}"),
        (Ours::Refused(CodecError::Decoder(error)), _) => {
            panic!("the check lets through what rumqttd refuses, {error}: {frame:02x?}")
        }
        (Ours::Refused(error), Theirs::V4(_) | Theirs::V5(_)) => {
            differences::we_refuse(error, &theirs, frame).map(Verdict::Known)
        }
        (Ours::Refused(_), _) => Some(Verdict::BothRefuse),
        (Ours::Connect(connect), Theirs::V4(v3::Packet::Connect(theirs))) => {
            same_connect_v4(connect, theirs);
            Some(Verdict::BothAccept)
        }
        (Ours::Connect(connect), Theirs::V5(v5::Packet::Connect(theirs))) => {
            same_connect_v5(connect, theirs);
            Some(Verdict::BothAccept)
        }
        (Ours::Packet(packet), Theirs::V4(theirs)) => {
            same_v4(packet, theirs).then_some(Verdict::BothAccept)
        }
        (Ours::Packet(packet), Theirs::V5(theirs)) => {
            same_v5(packet, theirs).then_some(Verdict::BothAccept)
        }
        (Ours::Packet(_) | Ours::Connect(_), _) => {
            differences::they_refuse(&ours, &theirs).map(Verdict::Known)
        }
    };
    if matches!(ours, Ours::Packet(_) | Ours::Connect(_)) {
        assert_eq!(length, frame.len(), "{frame:02x?}");
        assert!(all_is_read(&theirs, frame), "bytes that nobody reads: {frame:02x?}");
    }
    verdict.unwrap_or_else(|| {
        panic!("{frame:02x?} in {version:?}\nours: {ours:?}\ntheirs: {theirs:?}")
    })
}

fn decode(version: Version, frame: &[u8]) -> Theirs {
    match version {
        Version::V4 => match v3::Packet::decode(frame) {
            Ok(Some(packet)) => Theirs::V4(packet),
            Ok(None) => Theirs::Incomplete,
            Err(error) => Theirs::RefusedV4(error),
        },
        Version::V5 => match v5::Packet::decode(frame) {
            Ok(Some(packet)) => Theirs::V5(packet),
            Ok(None) => Theirs::Incomplete,
            Err(error) => Theirs::RefusedV5(error),
        },
    }
}

/// Whether a packet that mqtt-proto took has no bytes that it did not read: written again it is as long, except where a
/// reason and properties may be left out.
fn all_is_read(theirs: &Theirs, frame: &[u8]) -> bool {
    let written = match theirs {
        Theirs::V4(packet) => packet.encode(),
        Theirs::V5(packet) if matches!(frame[0] >> 4, 4..=7 | 14) => {
            return packet.encode().is_ok();
        }
        Theirs::V5(packet) => packet.encode(),
        _ => return true,
    };
    written.is_ok_and(|written| body_length(written.as_ref()) == body_length(frame))
}

/// Bytes behind the fixed header of a whole frame.
fn body_length(frame: &[u8]) -> usize {
    frame.len() - 2 - frame[1..].iter().take_while(|byte| **byte & 0x80 != 0).count()
}

fn same_connect_v4(ours: &Connect, theirs: &v3::Connect) {
    assert_eq!(ours.version, Version::V4);
    assert_eq!(ours.client_id, *theirs.client_id);
    assert_eq!(ours.clean_start, theirs.clean_session);
    assert_eq!(ours.session_expiry_s, if theirs.clean_session { 0 } else { u32::MAX });
    assert_eq!(ours.keep_alive_s, theirs.keep_alive);
    assert_eq!(ours.user.as_deref(), theirs.username.as_deref());
    assert_eq!(ours.password, theirs.password);
    assert_eq!(ours.will.is_some(), theirs.last_will.is_some());
    if let (Some(ours), Some(theirs)) = (&ours.will, &theirs.last_will) {
        assert_eq!(*ours.topic, *theirs.topic_name);
        assert_eq!(ours.payload, theirs.message);
        assert_eq!((ours.qos as u8, ours.retain), (theirs.qos as u8, theirs.retain));
        assert_eq!((ours.delay_s, ours.expiry_s, &ours.properties), (0, None, &Bytes::new()));
    }
}

fn same_connect_v5(ours: &Connect, theirs: &v5::Connect) {
    let wishes = &theirs.properties;
    assert_eq!(ours.version, Version::V5);
    assert_eq!(ours.client_id, *theirs.client_id);
    assert_eq!(ours.clean_start, theirs.clean_start);
    assert_eq!(ours.keep_alive_s, theirs.keep_alive);
    assert_eq!(ours.session_expiry_s, wishes.session_expiry_interval.unwrap_or(0));
    assert_eq!(ours.receive_maximum, wishes.receive_max.unwrap_or(u16::MAX));
    assert_eq!(ours.packet_max_bytes, wishes.max_packet_size);
    assert_eq!(ours.topic_alias_maximum, wishes.topic_alias_max.unwrap_or(0));
    assert_eq!(ours.authentication_method.as_deref(), wishes.auth_method.as_deref());
    assert_eq!(ours.user.as_deref(), theirs.username.as_deref());
    assert_eq!(ours.password, theirs.password);
    assert_eq!(ours.will.is_some(), theirs.last_will.is_some());
    if let (Some(ours), Some(theirs)) = (&ours.will, &theirs.last_will) {
        same_will(ours, theirs);
    }
}

fn same_will(ours: &Will, theirs: &v5::LastWill) {
    let wishes = &theirs.properties;
    assert_eq!(*ours.topic, *theirs.topic_name);
    assert_eq!(ours.payload, theirs.payload);
    assert_eq!((ours.qos as u8, ours.retain), (theirs.qos as u8, theirs.retain));
    assert_eq!(ours.delay_s, wishes.delay_interval.unwrap_or(0));
    assert_eq!(ours.expiry_s, wishes.message_expiry_interval);
    // What travels along, as a subscriber of mqtt-proto's reads it.
    let message =
        message(&ours.topic, ours.payload.clone(), ours.expiry_s, ours.properties.clone());
    let written = written_v5(&message, ONCE);
    let carried = written.properties;
    assert_eq!(carried.payload_is_utf8, wishes.payload_is_utf8);
    assert_eq!(carried.message_expiry_interval, wishes.message_expiry_interval);
    assert_eq!(carried.content_type, wishes.content_type);
    assert_eq!(carried.response_topic, wishes.response_topic);
    assert_eq!(carried.correlation_data, wishes.correlation_data);
    assert_eq!(carried.user_properties, wishes.user_properties);
}

const ONCE: Envelope<'_> = Envelope {
    qos: humidor::mqtt::QoS::AtMostOnce,
    packet_id: 0,
    dup: false,
    retain: false,
    identifiers: &[],
    alias: None,
};

fn message(topic: &Topic, payload: Bytes, expiry_s: Option<u32>, properties: Bytes) -> Message {
    Message {
        expires_at_ms: expiry_s.map(|s| i64::from(s) * 1000),
        properties,
        ..Message::own(topic.as_str(), payload)
    }
}

/// The message as the broker writes it and mqtt-proto reads it.
fn written_v5(message: &Message, envelope: Envelope<'_>) -> v5::Publish {
    let mut out = BytesMut::new();
    let bytes = codec::write_publish(Version::V5, message, envelope, 0, &mut out);
    assert_eq!(bytes, out.len());
    match v5::Packet::decode(&out) {
        Ok(Some(v5::Packet::Publish(publish))) => publish,
        other => panic!("{other:?} of {out:02x?}"),
    }
}

fn same_v4(ours: &Packet, theirs: &v3::Packet) -> bool {
    match (ours, theirs) {
        (Packet::Publish(ours), v3::Packet::Publish(theirs)) => {
            assert_eq!(ours.topic.as_deref(), Some(&*theirs.topic_name));
            assert_eq!(ours.payload, theirs.payload);
            assert_eq!((ours.qos as u8, ours.packet_id), qos_and_id(theirs.qos_pid));
            assert_eq!((ours.dup, ours.retain), (theirs.dup, theirs.retain));
            assert_eq!((ours.alias, ours.expiry_s, &ours.properties), (None, None, &Bytes::new()));
            let Some(topic) = &ours.topic else { return false };
            let message = message(topic, ours.payload.clone(), None, Bytes::new());
            let mut out = BytesMut::new();
            codec::write_publish(Version::V4, &message, envelope(ours), 0, &mut out);
            assert_eq!(v3::Packet::decode(&out), Ok(Some(v3::Packet::Publish(theirs.clone()))));
            true
        }
        (Packet::PubAck(ours), v3::Packet::Puback(id))
        | (Packet::PubRec(ours), v3::Packet::Pubrec(id))
        | (Packet::PubRel(ours), v3::Packet::Pubrel(id))
        | (Packet::PubComp(ours), v3::Packet::Pubcomp(id)) => {
            (ours.packet_id, ours.reason) == (id.value(), 0)
        }
        (Packet::Subscribe(ours), v3::Packet::Subscribe(theirs)) => {
            assert_eq!((ours.packet_id, ours.identifier), (theirs.pid.value(), 0));
            let ours = ours.filters.iter().map(|wanted| (wanted.filter.as_str(), wanted.qos as u8));
            ours.eq(theirs.topics.iter().map(|(filter, qos)| (&**filter, *qos as u8)))
        }
        (Packet::Unsubscribe(ours), v3::Packet::Unsubscribe(theirs)) => {
            assert_eq!(ours.packet_id, theirs.pid.value());
            ours.filters.iter().map(String::as_str).eq(theirs.topics.iter().map(|filter| &**filter))
        }
        (Packet::PingReq, v3::Packet::Pingreq) => true,
        (Packet::Disconnect(ours), v3::Packet::Disconnect) => {
            (ours.reason, ours.session_expiry_s) == (0, None)
        }
        _ => false,
    }
}

fn same_v5(ours: &Packet, theirs: &v5::Packet) -> bool {
    match (ours, theirs) {
        (Packet::Publish(ours), v5::Packet::Publish(theirs)) => {
            same_publish(ours, theirs);
            true
        }
        (Packet::PubAck(ours), v5::Packet::Puback(theirs)) => {
            (ours.packet_id, ours.reason) == (theirs.pid.value(), theirs.reason_code as u8)
        }
        (Packet::PubRec(ours), v5::Packet::Pubrec(theirs)) => {
            (ours.packet_id, ours.reason) == (theirs.pid.value(), theirs.reason_code as u8)
        }
        (Packet::PubRel(ours), v5::Packet::Pubrel(theirs)) => {
            (ours.packet_id, ours.reason) == (theirs.pid.value(), theirs.reason_code as u8)
        }
        (Packet::PubComp(ours), v5::Packet::Pubcomp(theirs)) => {
            (ours.packet_id, ours.reason) == (theirs.pid.value(), theirs.reason_code as u8)
        }
        (Packet::Subscribe(ours), v5::Packet::Subscribe(theirs)) => {
            let identifier = theirs.properties.subscription_id.map_or(0, |id| id.value());
            assert_eq!((ours.packet_id, ours.identifier), (theirs.pid.value(), identifier));
            let ours = ours.filters.iter().map(|wanted| {
                let retain_handling = match wanted.retain_handling {
                    RetainHandling::Always => 0,
                    RetainHandling::New => 0x10,
                    RetainHandling::Never => 0x20,
                };
                let no_local = if wanted.no_local { 4 } else { 0 };
                let retain = if wanted.retain_as_published { 8 } else { 0 };
                (wanted.filter.as_str(), wanted.qos as u8 | no_local | retain | retain_handling)
            });
            ours.eq(theirs.topics.iter().map(|(filter, options)| (&**filter, options.to_u8())))
        }
        (Packet::Unsubscribe(ours), v5::Packet::Unsubscribe(theirs)) => {
            assert_eq!(ours.packet_id, theirs.pid.value());
            ours.filters.iter().map(String::as_str).eq(theirs.topics.iter().map(|filter| &**filter))
        }
        (Packet::PingReq, v5::Packet::Pingreq) => true,
        (Packet::Disconnect(ours), v5::Packet::Disconnect(theirs)) => {
            (ours.reason, ours.session_expiry_s)
                == (theirs.reason_code as u8, theirs.properties.session_expiry_interval)
        }
        _ => false,
    }
}

fn same_publish(ours: &Publish, theirs: &v5::Publish) {
    assert_eq!(ours.topic.as_deref().unwrap_or_default(), &*theirs.topic_name);
    assert_eq!(ours.payload, theirs.payload);
    assert_eq!((ours.qos as u8, ours.packet_id), qos_and_id(theirs.qos_pid));
    assert_eq!((ours.dup, ours.retain), (theirs.dup, theirs.retain));
    assert_eq!(ours.alias, theirs.properties.topic_alias);
    assert_eq!(ours.expiry_s, theirs.properties.message_expiry_interval);
    // Written again, mqtt-proto reads the same.
    let topic = ours.topic.clone().unwrap_or_else(|| Topic::known("alias"));
    let message = message(&topic, ours.payload.clone(), ours.expiry_s, ours.properties.clone());
    let known = ours.topic.is_none();
    let alias = ours.alias.map(|alias| (alias, known));
    assert_eq!(written_v5(&message, Envelope { alias, ..envelope(ours) }), *theirs);
    // Without its alias, and with an identifier.
    let written = written_v5(&message, Envelope { identifiers: &[200], ..envelope(ours) });
    assert_eq!(*written.topic_name, *topic);
    assert_eq!(written.properties.topic_alias, None);
    assert_eq!(written.properties.subscription_id.map(|id| id.value()), Some(200));
    assert_eq!(written.properties.user_properties, theirs.properties.user_properties);
}

fn envelope(publish: &Publish) -> Envelope<'static> {
    let Publish { qos, packet_id, dup, retain, .. } = *publish;
    Envelope { qos, packet_id, dup, retain, identifiers: &[], alias: None }
}

fn qos_and_id(theirs: QosPid) -> (u8, u16) {
    (theirs.qos() as u8, theirs.pid().map_or(0, |id| id.value()))
}

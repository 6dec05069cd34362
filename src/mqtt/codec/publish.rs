//! PUBLISH, both ways, without rumqttd: the fields of its type are private. The check decodes while it reads, and the
//! writer encodes without an allocation.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{Cursor, Header, VARINT_MAX, behind_length, put_varint, varint_len};
use super::property::{self, MESSAGE_EXPIRY, Properties, SUBSCRIPTION_IDENTIFIER, TOPIC_ALIAS};
use super::{CodecError, Version, topic};
use crate::mqtt::{Message, QoS, Topic};

const DUP: u8 = 0x08;
const RETAIN: u8 = 0x01;

/// A client's PUBLISH (MQTT 3.1.1 §3.3, 5.0 §3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// It may have been sent before.
    pub dup: bool,
    /// As published.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// 0 at `QoS` 0, and only there.
    pub packet_id: u16,
    /// Where it is published; `None`: the alias stands for it.
    pub topic: Option<Topic>,
    /// Topic alias, not 0. It may exceed the maximum that the client was told.
    pub alias: Option<u16>,
    /// A copy of its own, which keeps no read buffer alive.
    pub payload: Bytes,
    /// Seconds.
    pub expiry_s: Option<u32>,
    /// Properties that travel along unchanged, in the protocol's encoding with their length in front; empty when there
    /// are none.
    pub properties: Bytes,
}

/// The PUBLISH with this header, variable header and payload.
pub(super) fn read(version: Version, header: Header, body: &[u8]) -> Result<Publish, CodecError> {
    let mut rest = Cursor::new(body);
    let name = rest.binary()?;
    // The header's check has refused 3.
    let qos = QoS::from_u8(header.flags >> 1 & 3).unwrap_or_default();
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { rest.packet_id()? };
    let properties = match version {
        Version::V4 => Properties::default(),
        Version::V5 => Properties::read(&mut rest, property::PUBLISH)?,
    };
    if properties.has(SUBSCRIPTION_IDENTIFIER) {
        // [MQTT-3.3.4-6]
        return Err(CodecError::Protocol("a subscription identifier from a client"));
    }
    let topic = if name.is_empty() && version == Version::V5 {
        if properties.alias.is_none() {
            // §3.3.2.1
            return Err(CodecError::Protocol("neither a topic name nor a topic alias"));
        }
        None
    } else {
        Some(topic(name)?)
    };
    Ok(Publish {
        dup: header.flags & DUP != 0,
        qos,
        retain: header.flags & RETAIN != 0,
        packet_id,
        topic,
        alias: properties.alias,
        payload: Bytes::copy_from_slice(rest.rest()),
        expiry_s: properties.expiry_s,
        properties: properties.carried(),
    })
}

/// How one delivery of a message looks on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// As delivered, not as published.
    pub qos: QoS,
    /// Not 0 above `QoS` 0; left out at `QoS` 0.
    pub packet_id: u16,
    /// Whether it was sent before; left out at `QoS` 0.
    pub dup: bool,
    /// Whether it is a retained message (5.0 §3.3.1.3).
    pub retain: bool,
    /// Subscription identifiers, each 1 to 268,435,455 (5.0 §3.3.2.3.8); left out in 3.1.1.
    pub identifiers: &'a [u32],
    /// Topic alias, and whether the client knows the topic it stands for, which is then left out; without effect in
    /// 3.1.1.
    pub alias: Option<(u16, bool)>,
}

/// Writes a PUBLISH to a client and returns its bytes. `now_ms` is Unix ms UTC; the expiry interval that is left is
/// rounded up to whole seconds. A message beyond the protocol's 256 MiB is not written: 0.
pub fn write_publish(
    version: Version,
    message: &Message,
    envelope: Envelope<'_>,
    now_ms: i64,
    out: &mut BytesMut,
) -> usize {
    let Envelope { qos, packet_id, dup, retain, identifiers, alias } = envelope;
    debug_assert!(qos == QoS::AtMostOnce || packet_id > 0, "packet identifier 0");
    let known = version == Version::V5 && alias.is_some_and(|(_, known)| known);
    let topic = if known { "" } else { message.topic.as_str() };
    let Ok(topic_length) = u16::try_from(topic.len()) else { return 0 };
    let mut own = Own::default();
    if version == Version::V5 {
        own = Own {
            carried: behind_length(&message.properties),
            expiry_s: message.expires_at_ms.map(|at_ms| seconds_left(at_ms, now_ms)),
            alias: alias.map(|(alias, _)| alias),
            identifiers,
        };
    }
    let id_length = if qos == QoS::AtMostOnce { 0 } else { 2 };
    let mut length = 2 + topic.len() + id_length + message.payload.len();
    let section = u32::try_from(own.length()).unwrap_or(u32::MAX);
    if version == Version::V5 {
        length += varint_len(section) + own.length();
    }
    let Some(length) = u32::try_from(length).ok().filter(|length| *length <= VARINT_MAX) else {
        return 0;
    };
    let whole = 1 + varint_len(length) + length as usize;
    out.reserve(whole);
    let mut first = 0x30 | (qos as u8) << 1;
    if dup && qos > QoS::AtMostOnce {
        first |= DUP;
    }
    if retain {
        first |= RETAIN;
    }
    out.put_u8(first);
    put_varint(length, out);
    out.put_u16(topic_length);
    out.put_slice(topic.as_bytes());
    if qos > QoS::AtMostOnce {
        out.put_u16(packet_id);
    }
    if version == Version::V5 {
        put_varint(section, out);
        own.put(out);
    }
    out.put_slice(&message.payload);
    whole
}

/// The properties of one delivery.
#[derive(Default)]
struct Own<'a> {
    carried: &'a [u8],
    expiry_s: Option<u32>,
    alias: Option<u16>,
    identifiers: &'a [u32],
}

impl Own<'_> {
    fn length(&self) -> usize {
        let identifiers: usize = self.identifiers.iter().map(|id| 1 + varint_len(*id)).sum();
        let expiry = if self.expiry_s.is_some() { 5 } else { 0 };
        let alias = if self.alias.is_some() { 3 } else { 0 };
        self.carried.len() + expiry + alias + identifiers
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_slice(self.carried);
        if let Some(expiry_s) = self.expiry_s {
            out.put_u8(MESSAGE_EXPIRY);
            out.put_u32(expiry_s);
        }
        if let Some(alias) = self.alias {
            out.put_u8(TOPIC_ALIAS);
            out.put_u16(alias);
        }
        for id in self.identifiers {
            out.put_u8(SUBSCRIPTION_IDENTIFIER);
            put_varint(*id, out);
        }
    }
}

/// What is left of an expiry interval, rounded up: a message that has not expired has at least one second.
fn seconds_left(at_ms: i64, now_ms: i64) -> u32 {
    let left_ms = u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0);
    u32::try_from(left_ms.div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, next};
    use super::*;

    fn publish(version: Version, frame: &[u8]) -> Publish {
        match next(version, &mut BytesMut::from(frame)) {
            Ok(Some(Packet::Publish(publish))) => publish,
            other => panic!("{other:?}"),
        }
    }

    fn message(properties: &'static [u8]) -> Message {
        Message {
            expires_at_ms: Some(10_000),
            properties: Bytes::from_static(properties),
            ..Message::own("a/b", &b"21.5"[..])
        }
    }

    const ONCE: Envelope<'_> = Envelope {
        qos: QoS::AtMostOnce,
        packet_id: 0,
        dup: false,
        retain: false,
        identifiers: &[],
        alias: None,
    };

    #[test]
    fn expiry_and_alias_do_not_travel_along_and_the_rest_does_as_it_stands() {
        let frame = b"\x3d\x22\0\x01a\0\x07\x1a\x26\0\x01k\0\x01v\x02\0\0\0\x09\x26\0\x01k\0\x01u\x23\0\x03\x03\0\x01txy";
        let expected = Publish {
            dup: true,
            qos: QoS::ExactlyOnce,
            retain: true,
            packet_id: 7,
            topic: Some(Topic::known("a")),
            alias: Some(3),
            payload: Bytes::from_static(b"xy"),
            expiry_s: Some(9),
            properties: Bytes::from_static(b"\x12\x26\0\x01k\0\x01v\x26\0\x01k\0\x01u\x03\0\x01t"),
        };
        assert_eq!(publish(Version::V5, frame), expected);
        let only = publish(Version::V5, b"\x30\x0c\0\0\x08\x23\0\x03\x02\0\0\0\x09x");
        assert_eq!((only.topic, only.alias, only.properties), (None, Some(3), Bytes::new()));
        let whole = publish(Version::V5, b"\x30\x08\0\x01a\x04\x03\0\x01t");
        assert_eq!(&whole.properties[..], b"\x04\x03\0\x01t");
    }

    #[test]
    fn a_payload_keeps_no_read_buffer_alive() {
        let mut stream = BytesMut::from(&b"\x30\x05\0\x01axy"[..]);
        let buffer = stream.as_ptr_range();
        let Ok(Some(Packet::Publish(publish))) = next(Version::V4, &mut stream) else {
            panic!("no PUBLISH");
        };
        assert!(!buffer.contains(&publish.payload.as_ptr()));
    }

    #[test]
    fn each_version_gets_its_own_form() {
        let (mut v4, mut v5) = (BytesMut::new(), BytesMut::new());
        let envelope = Envelope {
            qos: QoS::AtLeastOnce,
            packet_id: 0x0102,
            dup: true,
            retain: true,
            identifiers: &[1, 200],
            alias: Some((5, false)),
        };
        let message = message(b"\x04\x03\0\x01t");
        assert_eq!(write_publish(Version::V4, &message, envelope, 0, &mut v4), 13);
        assert_eq!(&v4[..], b"\x3b\x0b\0\x03a/b\x01\x0221.5");
        let known = Envelope { alias: Some((5, true)), ..envelope };
        let bytes = write_publish(Version::V5, &message, known, 8_500, &mut v5);
        assert_eq!(bytes, v5.len());
        assert_eq!(
            &v5[..],
            b"\x3b\x1a\0\0\x01\x02\x11\x03\0\x01t\x02\0\0\0\x02\x23\0\x05\x0b\x01\x0b\xc8\x0121.5"
        );
        v5.clear();
        write_publish(Version::V5, &message, ONCE, 0, &mut v5);
        assert_eq!(&v5[..], b"\x30\x13\0\x03a/b\x09\x03\0\x01t\x02\0\0\0\x0a21.5");
    }

    #[test]
    fn the_expiry_that_is_left_is_rounded_up() {
        for (now_ms, left_s) in [(0, 10), (1, 10), (9_000, 1), (9_999, 1), (10_000, 0), (11_000, 0)]
        {
            let mut out = BytesMut::new();
            write_publish(Version::V5, &message(b""), ONCE, now_ms, &mut out);
            assert_eq!(publish(Version::V5, &out).expiry_s, Some(left_s), "at {now_ms}");
        }
    }

    #[test]
    fn stored_properties_whose_length_is_wrong_are_left_out() {
        for broken in [&b"\x05\x03\0\x01t"[..], b"\x80", b"\0\x03", b"\xff\xff\xff\xff\xff"] {
            let mut out = BytesMut::new();
            write_publish(Version::V5, &message(broken), ONCE, 0, &mut out);
            assert_eq!(publish(Version::V5, &out).properties, Bytes::new(), "{broken:?}");
        }
    }

    #[test]
    fn nothing_is_written_of_what_the_protocol_cannot_carry() {
        let message = Message::own("a", vec![0; VARINT_MAX as usize - 3]);
        let mut out = BytesMut::new();
        assert_eq!(write_publish(Version::V5, &message, ONCE, 0, &mut out), 0);
        assert!(out.is_empty());
    }
}

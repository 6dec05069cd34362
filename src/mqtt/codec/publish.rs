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

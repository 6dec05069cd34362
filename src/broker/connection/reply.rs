//! MQTT packets to the socket, in the client's version.

use crate::mqtt::QoS;
use bytes::{BufMut, Bytes, BytesMut};
use rumqttc::mqttbytes::{self as old, v4};
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};

use crate::broker::connection::packet::{self, PacketError, Version};
use crate::mqtt::Message;

/// How one delivery of a message looks on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// As delivered, not as published.
    pub qos: QoS,
    /// 0 at `QoS` 0.
    pub packet_id: u16,
    pub dup: bool,
    pub retain: bool,
    /// Subscription identifiers (MQTT 5.0 §3.3.2.3.8).
    pub identifiers: &'a [u32],
    /// Topic alias, and whether it stands for the topic already.
    pub alias: Option<(u16, bool)>,
}

/// Writes a PUBLISH to a client.
///
/// # Errors
/// When it cannot be encoded.
pub fn publish(
    version: Version,
    message: &Message,
    envelope: Envelope<'_>,
    now_ms: i64,
    out: &mut BytesMut,
) -> Result<(), PacketError> {
    let Envelope { qos, packet_id, dup, retain, identifiers, alias } = envelope;
    if version == Version::V4 {
        let packet = v4::Publish {
            dup,
            qos: old_qos(qos),
            retain,
            topic: message.topic.to_string(),
            pkid: packet_id,
            payload: message.payload.clone(),
        };
        packet.write(out)?;
        return Ok(());
    }
    let mut properties = message.decoded_properties(now_ms);
    if !identifiers.is_empty() || alias.is_some() {
        let properties = properties.get_or_insert_with(PublishProperties::default);
        properties.subscription_identifiers = identifiers.iter().map(|id| *id as usize).collect();
        properties.topic_alias = alias.map(|(alias, _)| alias);
    }
    let known = alias.is_some_and(|(_, known)| known);
    let packet = Publish {
        dup,
        qos: packet::to_codec(qos),
        retain,
        topic: if known { Bytes::new() } else { Bytes::copy_from_slice(message.topic.as_bytes()) },
        pkid: packet_id,
        payload: message.payload.clone(),
        properties,
    };
    packet.write(out)?;
    Ok(())
}

/// An acknowledgement of one packet id.
#[derive(Debug, Clone, Copy)]
pub enum Ack {
    /// PUBACK
    Acknowledge = 0x40,
    /// PUBREC
    Receive = 0x50,
    /// PUBREL
    Release = 0x62,
    /// PUBCOMP
    Complete = 0x70,
}

/// Writes PUBACK, PUBREC, PUBREL or PUBCOMP; `reason` is for MQTT 5.0 and 0 when all is well.
pub fn ack(version: Version, ack: Ack, packet_id: u16, reason: u8, out: &mut BytesMut) {
    let told = version == Version::V5 && reason != 0;
    out.put_slice(&[ack as u8, if told { 3 } else { 2 }]);
    out.put_u16(packet_id);
    if told {
        out.put_u8(reason);
    }
}

/// Writes SUBACK. `reasons` are those of MQTT 5.0 §3.9.3; 3.1.1 knows one for all failures.
pub fn suback(version: Version, packet_id: u16, reasons: &[u8], out: &mut BytesMut) {
    match version {
        Version::V4 => {
            let codes: Vec<u8> = reasons.iter().map(|reason| (*reason).min(0x80)).collect();
            write_codes(0x90, packet_id, &[], &codes, out);
        }
        Version::V5 => write_codes(0x90, packet_id, &[0], reasons, out),
    }
}

/// Writes UNSUBACK with the reasons of MQTT 5.0 §3.11.3, of which 3.1.1 knows none.
pub fn unsuback(version: Version, packet_id: u16, reasons: &[u8], out: &mut BytesMut) {
    match version {
        Version::V4 => write_codes(0xb0, packet_id, &[], &[], out),
        Version::V5 => write_codes(0xb0, packet_id, &[0], reasons, out),
    }
}

fn write_codes(first: u8, packet_id: u16, properties: &[u8], codes: &[u8], out: &mut BytesMut) {
    out.put_u8(first);
    let mut length = 2 + properties.len() + codes.len();
    while length > 0x7f {
        out.put_u8(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    out.put_u8(length.to_le_bytes()[0]);
    out.put_u16(packet_id);
    out.put_slice(properties);
    out.put_slice(codes);
}

/// Writes PINGRESP.
pub fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// Writes the DISCONNECT that tells an MQTT 5.0 client why its connection ends. The decoder's own `write` gets
/// the length of one without properties wrong.
pub fn disconnect(reason: u8, out: &mut BytesMut) {
    out.put_slice(&[0xe0, 2, reason, 0]);
}

/// A CONNACK that refuses, with the reason in MQTT 5.0's terms (§3.2.2.2).
pub fn refusal(version: Version, reason: u8, out: &mut BytesMut) {
    match version {
        Version::V4 => {
            // MQTT 3.1.1 §3.2.2.3.
            let code = match reason {
                0x84 => 1,
                0x85 => 2,
                0x86 => 4,
                0x87 => 5,
                _ => 3,
            };
            out.put_slice(&[0x20, 2, 0, code]);
        }
        Version::V5 => out.put_slice(&[0x20, 3, 0, reason, 0]),
    }
}

const fn old_qos(qos: QoS) -> old::QoS {
    match qos {
        QoS::AtMostOnce => old::QoS::AtMostOnce,
        QoS::AtLeastOnce => old::QoS::AtLeastOnce,
        QoS::ExactlyOnce => old::QoS::ExactlyOnce,
    }
}

//! MQTT 3.1.1 packets on the socket: framing, and what the decoder leaves unchecked.

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{Connect, Packet};
use rumqttc::mqttbytes::{self, QoS};

/// Largest packet taken from a client, in bytes after the fixed header.
pub const PACKET_MAX_BYTES: usize = 256 * 1024;
/// Protocol level of MQTT 3.1.1 (§3.1.2.2).
const LEVEL_3_1_1: u8 = 4;
/// Protocol level of MQTT 5.0.
const LEVEL_5: u8 = 5;

/// An accepted PUBLISH, without its delivery flags.
#[derive(Debug, Clone)]
pub struct Message {
    /// Topic name, checked.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// Whether it stays for later subscribers.
    pub retain: bool,
}

/// Why a client's bytes end its connection.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The decoder's verdict.
    #[error("malformed packet: {0}")]
    Malformed(#[from] mqttbytes::Error),
    /// [MQTT-2.2.2-2]
    #[error("reserved flags of packet type {0} are not as the specification has them")]
    Flags(u8),
    /// [MQTT-2.3.1-1]
    #[error("a packet that must have a packet id has none")]
    NoPacketId,
    /// A protocol level other than 3.1.1's; answered before the connection is closed.
    #[error("protocol level {0} is not MQTT 3.1.1")]
    Level(u8),
    /// [MQTT-3.1.2-3], [MQTT-3.1.2-14], [MQTT-3.1.2-22] and the like.
    #[error("CONNECT contradicts itself")]
    Connect,
}

/// Takes the next whole packet off `stream`; `None` when it is not complete yet.
///
/// # Errors
/// When the bytes can become no packet. The connection must be closed ([MQTT-4.8.0-1]).
pub fn next(stream: &mut BytesMut) -> Result<Option<Packet>, PacketError> {
    let Some(first) = stream.first().copied() else { return Ok(None) };
    check_flags(first)?;
    match Packet::read(stream, PACKET_MAX_BYTES) {
        Ok(packet) => {
            check_packet_id(&packet)?;
            Ok(Some(packet))
        }
        Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Takes the first packet, which must be a CONNECT; `None` when it is not complete yet.
///
/// # Errors
/// As [`next`]; [`PacketError::Level`] when the client speaks another version.
pub fn first(stream: &mut BytesMut) -> Result<Option<Connect>, PacketError> {
    if let Some((flags, level)) = variable_header(stream) {
        // Looked at before the packet is decoded: the rest of another version's CONNECT has another
        // form.
        if level != LEVEL_3_1_1 {
            return Err(PacketError::Level(level));
        }
        let (will, will_qos, will_retain) =
            (flags & 0x04 != 0, flags >> 3 & 0x03, flags & 0x20 != 0);
        let (password, user) = (flags & 0x40 != 0, flags & 0x80 != 0);
        let contradicts = flags & 0x01 != 0
            || will_qos == 3
            || (!will && (will_qos != 0 || will_retain))
            || (password && !user);
        if contradicts {
            return Err(PacketError::Connect);
        }
    }
    match next(stream)? {
        None => Ok(None),
        Some(Packet::Connect(connect)) => Ok(Some(connect)),
        Some(_) => Err(PacketError::Connect),
    }
}

/// Connect flags and protocol level of a CONNECT, as soon as they have arrived.
fn variable_header(stream: &BytesMut) -> Option<(u8, u8)> {
    let mut bytes = stream.chunk();
    if bytes.first()? >> 4 != 1 {
        return None;
    }
    bytes.advance(1);
    // Remaining length: up to four bytes with a continuation bit (§2.2.3).
    let length = bytes.iter().take(4).position(|byte| byte & 0x80 == 0)?;
    let bytes = bytes.get(length + 1..)?;
    let name = usize::from(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]));
    let bytes = bytes.get(2 + name..)?;
    Some((*bytes.get(1)?, *bytes.first()?))
}

/// The packet id of a whole PUBLISH, `None` at QoS 0. The router's packets do not show theirs until they
/// are written.
#[must_use]
pub fn publish_id(frame: &[u8]) -> Option<u16> {
    let qos = frame.first()? >> 1 & 0x03;
    if qos == 0 {
        return None;
    }
    let length = frame.get(1..)?.iter().take(4).position(|byte| byte & 0x80 == 0)?;
    let rest = frame.get(length + 2..)?;
    let topic = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
    let id = rest.get(2 + topic..)?;
    Some(u16::from_be_bytes([*id.first()?, *id.get(1)?]))
}

/// The CONNACK that tells a client of another protocol version so, in that version's form.
#[must_use]
pub fn refuse_level(level: u8) -> &'static [u8] {
    if level == LEVEL_5 {
        // Reason 0x84, unsupported protocol version, and no properties (MQTT 5.0 §3.2).
        &[0x20, 0x03, 0x00, 0x84, 0x00]
    } else {
        // Return code 1, unacceptable protocol version (MQTT 3.1.1 §3.2.2.3).
        &[0x20, 0x02, 0x00, 0x01]
    }
}

fn check_flags(first: u8) -> Result<(), PacketError> {
    let (kind, flags) = (first >> 4, first & 0x0f);
    let wanted = match kind {
        3 => return Ok(()),
        6 | 8 | 10 => 0x02,
        _ => 0,
    };
    if flags == wanted { Ok(()) } else { Err(PacketError::Flags(kind)) }
}

fn check_packet_id(packet: &Packet) -> Result<(), PacketError> {
    let id = match packet {
        Packet::Publish(publish) if publish.qos == QoS::AtMostOnce => return Ok(()),
        Packet::Publish(publish) => publish.pkid,
        Packet::PubAck(ack) => ack.pkid,
        Packet::PubRec(ack) => ack.pkid,
        Packet::PubRel(ack) => ack.pkid,
        Packet::PubComp(ack) => ack.pkid,
        Packet::Subscribe(subscribe) => subscribe.pkid,
        Packet::Unsubscribe(unsubscribe) => unsubscribe.pkid,
        _ => return Ok(()),
    };
    if id == 0 { Err(PacketError::NoPacketId) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(bytes: &[u8]) -> BytesMut {
        BytesMut::from(bytes)
    }

    #[test]
    fn a_connect_of_another_version_is_told_so_in_its_own_form() {
        let v5 = [0x10, 0x0d, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 0];
        assert!(matches!(first(&mut stream(&v5)), Err(PacketError::Level(5))));
        assert_eq!(refuse_level(5)[3], 0x84);
        let v31 = [0x10, 0x0e, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, 2, 0, 60, 0, 0];
        assert!(matches!(first(&mut stream(&v31)), Err(PacketError::Level(3))));
    }

    #[test]
    fn a_written_publish_shows_its_packet_id() {
        for (qos, id) in
            [(QoS::AtMostOnce, None), (QoS::AtLeastOnce, Some(513)), (QoS::ExactlyOnce, Some(513))]
        {
            let mut publish = rumqttc::mqttbytes::v4::Publish::new("a/b", qos, vec![7; 300]);
            publish.pkid = 513;
            let mut frame = BytesMut::new();
            if qos == QoS::AtMostOnce {
                publish.pkid = 0;
            }
            publish.write(&mut frame).unwrap();
            assert_eq!(publish_id(&frame), id);
        }
    }

    #[test]
    fn an_incomplete_packet_waits_and_a_contradiction_ends() {
        let good = [0x10, 0x0c, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 0];
        for cut in 0..good.len() {
            assert!(first(&mut stream(&good[..cut])).unwrap().is_none(), "cut at {cut}");
        }
        assert!(first(&mut stream(&good)).unwrap().is_some());
        let mut reserved = good;
        reserved[9] |= 1;
        assert!(matches!(first(&mut stream(&reserved)), Err(PacketError::Connect)));
        assert!(matches!(next(&mut stream(&[0x80, 0])), Err(PacketError::Flags(8))));
        assert!(matches!(
            next(&mut stream(&[0x32, 5, 0, 1, b'a', 0, 0])),
            Err(PacketError::Malformed(_))
        ));
    }
}

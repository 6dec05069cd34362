//! MQTT packets from the socket, of both versions: framing, translation, and what the decoders leave unchecked.
//!
//! Past this file there is one kind of packet, that of MQTT 5.0; one of 3.1.1 is the same without properties.

use bytes::BytesMut;
use rumqttc::mqttbytes::{self as old, v4};
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, Filter as SubscribeFilter, LastWill, Login, Packet, PubAck,
    PubComp, PubRec, PubRel, Publish, Subscribe, Unsubscribe,
};
use rumqttc::v5::mqttbytes::{self as new, QoS};

/// Largest packet taken from a client, in bytes after the fixed header.
pub const PACKET_MAX_BYTES: u32 = 256 * 1024;
/// Most properties of the user's that one packet may carry; each costs some dozen bytes of memory.
const USER_PROPERTIES: usize = 64;

/// A protocol version that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V4,
    /// MQTT 5.0.
    V5,
}

/// A client's CONNECT.
#[derive(Debug)]
pub struct Opening {
    pub version: Version,
    pub connect: Connect,
    pub will: Option<LastWill>,
    // Read by `access`.
    #[allow(dead_code)]
    pub login: Option<Login>,
}

/// Why a client's bytes end its connection.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The decoder's verdict on MQTT 3.1.1.
    #[error("malformed packet: {0}")]
    Malformed(#[from] old::Error),
    /// The decoder's verdict on MQTT 5.0.
    #[error("malformed packet: {0}")]
    Malformed5(#[from] new::Error),
    /// More than [`PACKET_MAX_BYTES`].
    #[error("a packet of {0} bytes")]
    TooLarge(usize),
    /// [MQTT-2.2.2-2]
    #[error("reserved flags of packet type {0} are not as the specification has them")]
    Flags(u8),
    /// [MQTT-2.3.1-1]
    #[error("a packet that must have a packet id has none")]
    NoPacketId,
    /// A protocol level that is neither 4 nor 5; answered before the connection is closed.
    #[error("protocol level {0} is neither MQTT 3.1.1 nor 5.0")]
    Level(u8),
    /// [MQTT-3.1.2-3], [MQTT-3.1.2-14], [MQTT-3.1.2-22] and the like.
    #[error("CONNECT contradicts itself")]
    Connect,
    /// A property twice, one that has no business in this packet, or a value out of its range.
    #[error("{0}")]
    Property(&'static str),
    /// Enhanced authentication is not offered (MQTT 5.0 §4.12).
    #[error("AUTH without an authentication method")]
    Auth,
}

impl PacketError {
    /// The reason code that an MQTT 5.0 client is told (§4.13).
    pub const fn reason(&self) -> u8 {
        match self {
            Self::TooLarge(_) => 0x95,
            Self::Property(_) | Self::Connect | Self::Auth => 0x82,
            Self::Level(_) => 0x84,
            _ => 0x81,
        }
    }
}

/// The length of the frame that `stream` begins with, fixed header included; `None` when its header or its body
/// has not arrived.
fn frame(stream: &[u8]) -> Result<Option<usize>, PacketError> {
    let mut length = 0;
    for (n, byte) in stream.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            if length > PACKET_MAX_BYTES as usize {
                return Err(PacketError::TooLarge(length));
            }
            let whole = n + 2 + length;
            return Ok((stream.len() >= whole).then_some(whole));
        }
    }
    if stream.len() > 4 { Err(old::Error::MalformedRemainingLength.into()) } else { Ok(None) }
}

/// Packet types (MQTT 3.1.1 §2.2.1).
pub const SUBSCRIBE: u8 = 8;
/// Whether a packet of that type is what comes next.
pub fn is_next(packet_type: u8, stream: &[u8]) -> bool {
    stream.first().is_some_and(|first| first >> 4 == packet_type)
}

/// Takes the next whole packet off `stream`; `None` when it is not complete yet.
///
/// # Errors
/// When the bytes can become no packet. The connection must be closed ([MQTT-4.8.0-1]).
pub fn next(version: Version, stream: &mut BytesMut) -> Result<Option<Packet>, PacketError> {
    let Some(first) = stream.first().copied() else { return Ok(None) };
    check_flags(first)?;
    let Some(length) = frame(stream)? else { return Ok(None) };
    let mut bytes = stream.split_to(length);
    let packet = match version {
        Version::V4 => translate(v4::Packet::read(&mut bytes, PACKET_MAX_BYTES as usize)?),
        Version::V5 => {
            // The decoder takes neither a DISCONNECT without a reason nor one without properties (§3.14.2).
            let bytes = match bytes.as_ref() {
                [0xe0, 0] => &mut BytesMut::from(&[0xe0, 2, 0, 0][..]),
                [0xe0, 1, reason] => &mut BytesMut::from(&[0xe0, 2, *reason, 0][..]),
                [0xf0, ..] => return Err(PacketError::Auth),
                _ => &mut bytes,
            };
            let length = bytes.len();
            let packet = Packet::read(bytes, Some(PACKET_MAX_BYTES))?;
            check_v5(&packet, length)?;
            packet
        }
    };
    check_packet_id(&packet)?;
    Ok(Some(packet))
}

/// Takes the first packet, which must be a CONNECT; `None` when it is not complete yet.
///
/// # Errors
/// As [`next`]; [`PacketError::Level`] when the client speaks another version.
pub fn first(stream: &mut BytesMut) -> Result<Option<Opening>, PacketError> {
    match stream.first() {
        None => return Ok(None),
        Some(first) if first >> 4 != 1 => return Err(PacketError::Connect),
        Some(_) => {}
    }
    // First of all: a length that cannot be is seen before what follows it has arrived.
    let whole = frame(stream)?;
    let Some((flags, level)) = variable_header(stream) else {
        return whole.map_or(Ok(None), |_| Err(PacketError::Connect));
    };
    // Looked at before the packet is decoded: the rest of another version's CONNECT has another form.
    let version = match level {
        4 => Version::V4,
        5 => Version::V5,
        other => return Err(PacketError::Level(other)),
    };
    let (will, will_qos, will_retain) = (flags & 0x04 != 0, flags >> 3 & 0x03, flags & 0x20 != 0);
    let (password, user) = (flags & 0x40 != 0, flags & 0x80 != 0);
    let contradicts = flags & 0x01 != 0
        || will_qos == 3
        || (!will && (will_qos != 0 || will_retain))
        || (password && !user && version == Version::V4);
    if contradicts {
        return Err(PacketError::Connect);
    }
    match next(version, stream)? {
        None => Ok(None),
        Some(Packet::Connect(connect, will, login)) => {
            Ok(Some(Opening { version, connect, will, login }))
        }
        Some(_) => Err(PacketError::Connect),
    }
}

/// Connect flags and protocol level of a CONNECT, as soon as they have arrived.
fn variable_header(stream: &[u8]) -> Option<(u8, u8)> {
    if stream.first()? >> 4 != 1 {
        return None;
    }
    let bytes = stream.get(1..)?;
    // Remaining length: up to four bytes with a continuation bit (§2.2.3).
    let digits = bytes.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1;
    let (digits, bytes) = bytes.split_at_checked(digits)?;
    let length = digits.iter().rev().fold(0, |sum, digit| sum << 7 | usize::from(digit & 0x7f));
    // What follows the packet is none of it.
    let bytes = &bytes[..length.min(bytes.len())];
    let name = usize::from(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]));
    let bytes = bytes.get(2 + name..)?;
    Some((*bytes.get(1)?, *bytes.first()?))
}

/// A packet of MQTT 3.1.1 as one of 5.0.
fn translate(packet: v4::Packet) -> Packet {
    match packet {
        v4::Packet::Connect(connect) => {
            let mut properties = ConnectProperties::new();
            // §3.1.2.4: a session that is not clean has no end by itself.
            properties.session_expiry_interval =
                Some(if connect.clean_session { 0 } else { u32::MAX });
            let will = connect.last_will.map(|will| LastWill {
                topic: will.topic.into(),
                message: will.message,
                qos: qos(will.qos),
                retain: will.retain,
                properties: None,
            });
            let login = connect.login.map(|login| Login::new(login.username, login.password));
            let connect = Connect {
                keep_alive: connect.keep_alive,
                client_id: connect.client_id,
                clean_start: connect.clean_session,
                properties: Some(properties),
            };
            Packet::Connect(connect, will, login)
        }
        v4::Packet::Publish(publish) => Packet::Publish(Publish {
            dup: publish.dup,
            qos: qos(publish.qos),
            retain: publish.retain,
            topic: publish.topic.into(),
            pkid: publish.pkid,
            payload: publish.payload,
            properties: None,
        }),
        v4::Packet::PubAck(ack) => Packet::PubAck(PubAck::new(ack.pkid, None)),
        v4::Packet::PubRec(ack) => Packet::PubRec(PubRec::new(ack.pkid, None)),
        v4::Packet::PubRel(ack) => Packet::PubRel(PubRel::new(ack.pkid, None)),
        v4::Packet::PubComp(ack) => Packet::PubComp(PubComp::new(ack.pkid, None)),
        v4::Packet::Subscribe(subscribe) => {
            let filters = subscribe.filters.into_iter();
            let filters =
                filters.map(|filter| SubscribeFilter::new(filter.path, qos(filter.qos))).collect();
            Packet::Subscribe(Subscribe { pkid: subscribe.pkid, filters, properties: None })
        }
        v4::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe(Unsubscribe {
            pkid: unsubscribe.pkid,
            filters: unsubscribe.topics,
            properties: None,
        }),
        v4::Packet::PingReq => Packet::PingReq(new::v5::PingReq),
        v4::Packet::Disconnect => Packet::Disconnect(new::v5::Disconnect::new(
            new::v5::DisconnectReasonCode::NormalDisconnection,
        )),
        v4::Packet::ConnAck(_)
        | v4::Packet::SubAck(_)
        | v4::Packet::UnsubAck(_)
        | v4::Packet::PingResp => Packet::PingResp(new::v5::PingResp),
    }
}

/// The codec's word for ours.
pub const fn from_codec(qos: QoS) -> crate::mqtt::QoS {
    match qos {
        QoS::AtMostOnce => crate::mqtt::QoS::AtMostOnce,
        QoS::AtLeastOnce => crate::mqtt::QoS::AtLeastOnce,
        QoS::ExactlyOnce => crate::mqtt::QoS::ExactlyOnce,
    }
}

/// Ours for the codec's.
pub const fn to_codec(qos: crate::mqtt::QoS) -> QoS {
    match qos {
        crate::mqtt::QoS::AtMostOnce => QoS::AtMostOnce,
        crate::mqtt::QoS::AtLeastOnce => QoS::AtLeastOnce,
        crate::mqtt::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

const fn qos(qos: old::QoS) -> QoS {
    match qos {
        old::QoS::AtMostOnce => QoS::AtMostOnce,
        old::QoS::AtLeastOnce => QoS::AtLeastOnce,
        old::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

/// What the decoder of MQTT 5.0 lets through.
fn check_v5(packet: &Packet, length: usize) -> Result<(), PacketError> {
    let property =
        |wrong: bool, what| if wrong { Err(PacketError::Property(what)) } else { Ok(()) };
    let user = |properties: &[(String, String)]| {
        property(properties.len() > USER_PROPERTIES, "more than 64 user properties")
    };
    match packet {
        Packet::Connect(connect, will, _) => {
            if let Some(properties) = &connect.properties {
                user(&properties.user_properties)?;
                property(properties.receive_maximum == Some(0), "Receive Maximum 0")?;
                property(properties.max_packet_size == Some(0), "Maximum Packet Size 0")?;
                let switch = |value: Option<u8>| value.is_some_and(|value| value > 1);
                property(
                    switch(properties.request_problem_info),
                    "Request Problem Information is 0 or 1",
                )?;
                property(
                    switch(properties.request_response_info),
                    "Request Response Information is 0 or 1",
                )?;
            }
            if let Some(properties) = will.as_ref().and_then(|will| will.properties.as_ref()) {
                user(&properties.user_properties)?;
            }
        }
        Packet::Publish(publish) => {
            property(publish.dup && publish.qos == QoS::AtMostOnce, "DUP at QoS 0")?;
            if let Some(properties) = &publish.properties {
                user(&properties.user_properties)?;
                property(
                    properties.payload_format_indicator.is_some_and(|f| f > 1),
                    "Payload Format Indicator is 0 or 1",
                )?;
                property(
                    !properties.subscription_identifiers.is_empty(),
                    "a Subscription Identifier from a client",
                )?;
                // A property that comes twice is decoded once.
                property(publish.size() != length, "a property twice")?;
            }
        }
        Packet::Subscribe(subscribe) => {
            if let Some(properties) = &subscribe.properties {
                user(&properties.user_properties)?;
                property(properties.id == Some(0), "Subscription Identifier 0")?;
                property(subscribe.size() != length, "a property twice")?;
            }
        }
        Packet::Unsubscribe(unsubscribe) => {
            property(unsubscribe.filters.is_empty(), "UNSUBSCRIBE from nothing")?;
        }
        _ => {}
    }
    Ok(())
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
    fn both_versions_open_and_others_are_told_apart() {
        let v5 = [0x10, 0x0d, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 0];
        assert_eq!(first(&mut stream(&v5)).unwrap().unwrap().version, Version::V5);
        let v31 = [0x10, 0x0e, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, 2, 0, 60, 0, 0];
        assert!(matches!(first(&mut stream(&v31)), Err(PacketError::Level(3))));
        let v6 = [0x10, 0x0d, 0, 4, b'M', b'Q', b'T', b'T', 6, 2, 0, 60, 0, 0, 0];
        assert!(matches!(first(&mut stream(&v6)), Err(PacketError::Level(6))));
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
        assert!(matches!(next(Version::V4, &mut stream(&[0x80, 0])), Err(PacketError::Flags(8))));
        for version in [Version::V4, Version::V5] {
            let no_id = [0x32, 6, 0, 1, b'a', 0, 0, 0];
            assert!(next(version, &mut stream(&no_id)).is_err());
        }
    }

    #[test]
    fn what_the_decoder_of_mqtt_5_lets_through_is_caught() {
        let attacks: [(&str, &[u8]); 8] = [
            (
                "receive maximum 0",
                &[0x10, 16, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 3, 33, 0, 0, 0, 0],
            ),
            ("a subscription identifier from a client", &[0x30, 6, 0, 1, b'a', 2, 11, 1]),
            ("an expiry twice", &[0x30, 14, 0, 1, b'a', 10, 2, 0, 0, 0, 1, 2, 0, 0, 0, 1]),
            ("properties longer than the packet", &[0x30, 4, 0, 1, b'a', 0x7f]),
            ("a property length without end", &[0x30, 4, 0, 1, b'a', 0xff]),
            ("subscription identifier 0", &[0x82, 9, 0, 1, 2, 11, 0, 0, 1, b'a', 0]),
            ("UNSUBSCRIBE from nothing", &[0xa2, 3, 0, 1, 0]),
            ("AUTH", &[0xf0, 0]),
        ];
        for (attack, bytes) in attacks {
            assert!(next(Version::V5, &mut stream(bytes)).is_err(), "{attack}");
        }
        for goodbye in [&[0xe0, 0][..], &[0xe0, 1, 4], &[0xe0, 2, 4, 0]] {
            let packet = next(Version::V5, &mut stream(goodbye)).unwrap();
            assert!(matches!(packet, Some(Packet::Disconnect(_))), "{goodbye:?}");
        }
    }
}

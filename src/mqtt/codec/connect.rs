//! CONNECT: the check of its raw frame, and rumqttd's decoder behind it.

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::protocol::{self, LastWill};

use super::frame::{Cursor, put_varint};
use super::property::{self, Properties};
use super::{CodecError, PACKET_MAX_BYTES, Version, decode, topic};
use crate::mqtt::{QoS, Topic};

const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER: u8 = 0x80;
/// Where the flags stand in the variable header: behind the name (2 + 4 bytes) and the level.
const FLAGS_AT: usize = 7;

/// A client's CONNECT (MQTT 3.1.1 §3.1, 5.0 §3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// What the client speaks.
    pub version: Version,
    /// May be empty: then the broker names the client, or refuses it.
    pub client_id: String,
    /// Whether a session that is there is thrown away first; 3.1.1 calls it Clean Session.
    pub clean_start: bool,
    /// Seconds; 0: none.
    pub keep_alive_s: u16,
    /// Seconds that the session outlives the connection; `u32::MAX`: without end. 3.1.1: 0 when clean, else without
    /// end.
    pub session_expiry_s: u32,
    /// `QoS` 1 and 2 messages that the client takes unacknowledged, not 0; 65,535 when it names none.
    pub receive_maximum: u16,
    /// Largest whole packet that the client takes, in bytes, not 0.
    pub packet_max_bytes: Option<u32>,
    /// Highest topic alias that the client takes; 0: none.
    pub topic_alias_maximum: u16,
    /// The client asks for enhanced authentication (5.0 §4.12).
    pub authentication_method: Option<String>,
    /// What is published when the client is gone.
    pub will: Option<Will>,
    /// User name; may be empty.
    pub user: Option<String>,
    /// Password: bytes, not text (5.0 §3.1.3.6). 5.0 allows one without a user name.
    pub password: Option<Bytes>,
}

/// A will (5.0 §3.1.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Where it is published.
    pub topic: Topic,
    /// A copy of its own.
    pub payload: Bytes,
    /// As it is published.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Seconds from the end of the connection.
    pub delay_s: u32,
    /// Seconds from its publication.
    pub expiry_s: Option<u32>,
    /// Properties that travel along unchanged, in the protocol's encoding with their length in front; empty when there
    /// are none.
    pub properties: Bytes,
}

/// The protocol level, as soon as it has arrived; `body` is what there is behind the fixed header.
pub(super) fn level(body: &[u8]) -> Option<u8> {
    let mut body = Cursor::new(body);
    body.binary().ok()?;
    body.u8().ok()
}

/// What the check of a CONNECT finds beside what rumqttd decodes.
struct Checked<'a> {
    flags: u8,
    will: Properties<'a>,
    /// Everything before the password.
    before_password: &'a [u8],
    password: Option<&'a [u8]>,
}

fn check(version: Version, body: &[u8]) -> Result<Checked<'_>, CodecError> {
    let mut rest = Cursor::new(body);
    // [MQTT-3.1.2-1]
    if rest.binary()? != b"MQTT" {
        return Err(CodecError::Malformed("the protocol is not called MQTT"));
    }
    rest.u8()?;
    let flags = rest.u8()?;
    check_flags(version, flags)?;
    rest.u16()?;
    if version == Version::V5 {
        Properties::read(&mut rest, property::CONNECT)?;
    }
    rest.text()?;
    let mut will = Properties::default();
    if flags & WILL != 0 {
        if version == Version::V5 {
            will = Properties::read(&mut rest, property::WILL)?;
        }
        // The topic is checked where it becomes one.
        rest.text()?;
        let payload = rest.binary()?;
        // §3.1.3.2.3: the server may check this. A will that is wrong is refused now: when it is published, its
        // author is no longer there to hear of it.
        if will.is_text && std::str::from_utf8(payload).is_err() {
            return Err(CodecError::PayloadFormat);
        }
    }
    if flags & USER != 0 {
        rest.text()?;
    }
    let before_password = &body[..body.len() - rest.rest().len()];
    let password = if flags & PASSWORD == 0 { None } else { Some(rest.binary()?) };
    rest.end()?;
    Ok(Checked { flags, will, before_password, password })
}

fn check_flags(version: Version, flags: u8) -> Result<(), CodecError> {
    // [MQTT-3.1.2-3]
    if flags & 1 != 0 {
        return Err(CodecError::Malformed("the reserved flag of CONNECT"));
    }
    let will_qos = flags >> 3 & 3;
    // [MQTT-3.1.2-12]
    if will_qos == 3 {
        return Err(CodecError::Malformed("a will with QoS 3"));
    }
    // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    if flags & WILL == 0 && (will_qos != 0 || flags & WILL_RETAIN != 0) {
        return Err(CodecError::Malformed("QoS or retain of a will that is not there"));
    }
    // 3.1.1: [MQTT-3.1.2-22]
    if version == Version::V4 && flags & PASSWORD != 0 && flags & USER == 0 {
        return Err(CodecError::Malformed("a password without a user name"));
    }
    Ok(())
}

/// The CONNECT with this variable header and payload.
pub(super) fn read(version: Version, body: &[u8]) -> Result<Connect, CodecError> {
    let Checked { flags, will: properties, before_password, password } = check(version, body)?;
    // rumqttd takes a password for text: it does not get to see one.
    let mut frame = BytesMut::with_capacity(5 + before_password.len());
    frame.put_u8(0x10);
    put_varint(u32::try_from(before_password.len()).unwrap_or(PACKET_MAX_BYTES), &mut frame);
    let flags_at = frame.len() + FLAGS_AT;
    frame.extend_from_slice(before_password);
    frame[flags_at] = flags & !PASSWORD;
    let protocol::Packet::Connect(connect, wishes, will, will_properties, login) =
        decode(version, &mut frame)?
    else {
        return Err(CodecError::Protocol("the first packet is not a CONNECT"));
    };
    let clean_start = flags & CLEAN_START != 0;
    let mut read = Connect {
        version,
        client_id: connect.client_id,
        clean_start,
        keep_alive_s: connect.keep_alive,
        session_expiry_s: match version {
            // 3.1.1 §3.1.2.4
            Version::V4 if !clean_start => u32::MAX,
            Version::V4 | Version::V5 => 0,
        },
        receive_maximum: u16::MAX,
        packet_max_bytes: None,
        topic_alias_maximum: 0,
        authentication_method: None,
        will: will
            .map(|will| {
                let delay_s = will_properties.and_then(|decoded| decoded.delay_interval);
                self::will(&will, delay_s, &properties)
            })
            .transpose()?,
        // rumqttd does not tell an empty user name from none.
        user: (flags & USER != 0).then(|| login.map(|login| login.username).unwrap_or_default()),
        password: password.map(Bytes::copy_from_slice),
    };
    if let Some(wishes) = wishes {
        read.session_expiry_s = wishes.session_expiry_interval.unwrap_or(0);
        read.receive_maximum = wishes.receive_maximum.unwrap_or(u16::MAX);
        read.packet_max_bytes = wishes.max_packet_size;
        read.topic_alias_maximum = wishes.topic_alias_max.unwrap_or(0);
        read.authentication_method = wishes.authentication_method;
    }
    Ok(read)
}

fn will(
    will: &LastWill,
    delay_s: Option<u32>,
    properties: &Properties<'_>,
) -> Result<Will, CodecError> {
    Ok(Will {
        topic: topic(&will.topic)?,
        // A slice would keep the whole frame alive.
        payload: Bytes::copy_from_slice(&will.message),
        qos: super::packet::qos(will.qos),
        retain: will.retain,
        delay_s: delay_s.unwrap_or(0),
        expiry_s: properties.expiry_s,
        properties: properties.carried(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(body: &[u8]) -> Result<Connect, CodecError> {
        let version = if body[6] == 4 { Version::V4 } else { Version::V5 };
        read(version, body)
    }

    #[test]
    fn every_field_of_mqtt_5_comes_out() {
        let body = [
            b"\0\x04MQTT\x05\xf6\0\x3c",
            &b"\x23\x11\0\0\0\x0a\x21\0\x05\x27\0\0\x01\0\x22\0\x07"[..],
            b"\x26\0\x01k\0\x01v\x15\0\x05SCRAM\x17\x01\x19\0",
            b"\0\x01c",
            b"\x13\x18\0\0\0\x05\x01\x01\x02\0\0\0\x09\x26\0\x01k\0\x01v",
            b"\0\x01w\0\x03off\0\x01u\0\x02\0\xff",
        ]
        .concat();
        let expected = Connect {
            version: Version::V5,
            client_id: "c".to_owned(),
            clean_start: true,
            keep_alive_s: 60,
            session_expiry_s: 10,
            receive_maximum: 5,
            packet_max_bytes: Some(256),
            topic_alias_maximum: 7,
            authentication_method: Some("SCRAM".to_owned()),
            will: Some(Will {
                topic: Topic::known("w"),
                payload: Bytes::from_static(b"off"),
                qos: QoS::ExactlyOnce,
                retain: true,
                delay_s: 5,
                expiry_s: Some(9),
                properties: Bytes::from_static(b"\x09\x01\x01\x26\0\x01k\0\x01v"),
            }),
            user: Some("u".to_owned()),
            password: Some(Bytes::from_static(b"\0\xff")),
        };
        assert_eq!(connect(&body), Ok(expected));
    }

    #[test]
    fn a_session_of_mqtt_3_ends_with_a_clean_connection_and_else_never() {
        for (flags, clean_start, session_expiry_s) in [(0x02, true, 0), (0, false, u32::MAX)] {
            let read = connect(&[b"\0\x04MQTT\x04", &[flags][..], b"\0\0\0\0"].concat()).unwrap();
            assert_eq!((read.clean_start, read.session_expiry_s), (clean_start, session_expiry_s));
            assert_eq!((read.user, read.password, read.will), (None, None, None));
            assert_eq!((read.receive_maximum, read.topic_alias_maximum), (u16::MAX, 0));
        }
    }

    #[test]
    fn an_empty_user_name_is_not_none() {
        let read = connect(b"\0\x04MQTT\x04\xc2\0\0\0\0\0\0\0\0").unwrap();
        assert_eq!((read.user.as_deref(), read.password.as_deref()), (Some(""), Some(&b""[..])));
        let read = connect(b"\0\x04MQTT\x05\x42\0\0\0\0\0\0\x01p").unwrap();
        assert_eq!((read.user, read.password.as_deref()), (None, Some(&b"p"[..])));
    }
}

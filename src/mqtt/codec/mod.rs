//! MQTT 3.1.1 and 5.0 on the wire, from the broker's side: the only user of rumqttd's codec.
//!
//! rumqttd decodes well-formed packets, and takes much that is none; some frames make it panic. So every frame passes
//! a strict check first:
//!
//! ```text
//! bytes → frame (type, flags, length) → check (fields, property) → rumqttd → CONNECT, SUBSCRIBE, UNSUBSCRIBE
//!                                        └ PUBLISH, acknowledgements, DISCONNECT: decoded by the check itself
//! ```
//!
//! A packet of 3.1.1 comes out as one of 5.0 without properties. A frame takes at most ten times its bytes in memory, and
//! 16 KiB.

mod connect;
mod frame;
mod packet;
#[cfg(any(test, fuzzing))]
pub mod probe;
mod property;
mod publish;
mod reason;
#[cfg(test)]
mod tests;
mod write;

use bytes::{Buf, BytesMut};
use rumqttd::protocol::{self, Protocol};

use super::topic::{Topic, TopicError};
use frame::Header;

pub use connect::{Connect, Will};
pub use frame::PacketType;
pub use packet::{Ack, Disconnect, Packet, RetainHandling, Subscribe, Unsubscribe, Wanted};
pub use publish::{Envelope, Publish, write_publish};
pub use reason::Reason;
pub use write::{
    AckKind, ConnAck, write_ack, write_connack, write_disconnect, write_pingresp, write_refusal,
    write_suback, write_unsuback,
};

/// Largest packet taken from a client, in bytes after the fixed header.
pub const PACKET_MAX_BYTES: u32 = 256 * 1024;
/// Most user properties in one property section; each costs 48 bytes and more beside its text.
pub const USER_PROPERTIES_MAX: usize = 64;
/// Most topic filters in one SUBSCRIBE or UNSUBSCRIBE; each costs 32 bytes and more beside its text. Home Assistant
/// sends up to 500.
pub const FILTERS_MAX: usize = 512;

/// A protocol version that the broker supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V4,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// Why a client's bytes end its connection (MQTT 5.0 §4.13.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes are no packet.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// A packet that may not come, or that contradicts itself.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// More than [`PACKET_MAX_BYTES`].
    #[error("a packet of {0} bytes, more than {PACKET_MAX_BYTES}")]
    TooLarge(u32),
    /// A CONNECT of another version.
    #[error("protocol level {0} is neither MQTT 3.1.1 nor 5.0")]
    Level(u8),
    /// The topic of a PUBLISH or of a will is no topic name.
    #[error("not a topic name: {0}")]
    Topic(TopicError),
    /// [MQTT-3.3.2-8]
    #[error("topic alias 0")]
    TopicAlias,
    /// A will whose payload is not the text that its Payload Format Indicator says (§3.1.3.2.3).
    #[error("the will's payload is not the UTF-8 text that it is said to be")]
    PayloadFormat,
    /// More than [`USER_PROPERTIES_MAX`] or [`FILTERS_MAX`].
    #[error("too many {0}")]
    TooMany(&'static str),
    /// rumqttd refuses what the check took for right.
    #[error("malformed packet: {0}")]
    Decoder(protocol::Error),
}

impl CodecError {
    /// What an MQTT 5.0 client is told: in a CONNACK, or in a DISCONNECT after the CONNACK.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Malformed(_) | Self::Decoder(_) => Reason::MalformedPacket,
            Self::Protocol(_) => Reason::ProtocolError,
            Self::TooLarge(_) => Reason::PacketTooLarge,
            Self::Level(_) => Reason::UnsupportedProtocolVersion,
            Self::Topic(_) => Reason::TopicNameInvalid,
            Self::TopicAlias => Reason::TopicAliasInvalid,
            Self::PayloadFormat => Reason::PayloadFormatInvalid,
            Self::TooMany(_) => Reason::QuotaExceeded,
        }
    }
}

/// Takes the first packet off the stream, which must be a CONNECT; `None` while it is incomplete.
///
/// # Errors
/// When the bytes can become no CONNECT of a version that the broker supports: as soon as the bytes that say so are
/// there. The connection must be closed ([MQTT-3.1.0-1], [MQTT-4.13.1-1]).
pub fn connect(stream: &mut BytesMut) -> Result<Option<Connect>, CodecError> {
    if stream.first().is_some_and(|_| !is_next(PacketType::Connect, stream)) {
        return Err(CodecError::Protocol("the first packet is not a CONNECT"));
    }
    let Some(header) = Header::read(stream)? else { return Ok(None) };
    let whole = stream.len() >= header.whole();
    let body = &stream[header.size..header.whole().min(stream.len())];
    let version = match connect::level(body) {
        // First of all: the rest of another version's CONNECT has another form.
        Some(4) => Version::V4,
        Some(5) => Version::V5,
        Some(other) => return Err(CodecError::Level(other)),
        None if whole => return Err(CodecError::Malformed("a CONNECT without a protocol level")),
        None => return Ok(None),
    };
    check_length(version, header)?;
    if !whole {
        return Ok(None);
    }
    let connect = connect::read(version, body)?;
    stream.advance(header.whole());
    Ok(Some(connect))
}

/// The version of a CONNECT that [`connect`] refused, in which it may be answered.
#[must_use]
pub fn version_of(stream: &[u8]) -> Option<Version> {
    let header = Header::read(stream).ok()??;
    match connect::level(&stream[header.size..header.whole().min(stream.len())]) {
        Some(4) => Some(Version::V4),
        Some(5) => Some(Version::V5),
        _ => None,
    }
}

/// Takes the next whole packet off the stream, after a CONNECT; `None` while it is incomplete.
///
/// # Errors
/// When the bytes can become no packet that a client may send. The connection must be closed ([MQTT-4.13.1-1]).
pub fn next(version: Version, stream: &mut BytesMut) -> Result<Option<Packet>, CodecError> {
    let Some(header) = Header::read(stream)? else { return Ok(None) };
    check_length(version, header)?;
    if stream.len() < header.whole() {
        return Ok(None);
    }
    match header.kind {
        PacketType::Connect => {
            stream.advance(header.whole());
            Ok(Some(Packet::Connect))
        }
        PacketType::Publish => {
            let publish = publish::read(version, header, &stream[header.size..header.whole()])?;
            stream.advance(header.whole());
            Ok(Some(Packet::Publish(publish)))
        }
        _ => packet::read(version, header, &mut stream.split_to(header.whole())).map(Some),
    }
}

/// Bytes of the packet that the stream begins with, as far as they are known.
#[must_use]
pub fn next_length(stream: &[u8]) -> Option<usize> {
    Header::read(stream).ok()?.map(|header| header.whole())
}

/// Whether a packet of that type comes next.
#[must_use]
pub fn is_next(kind: PacketType, stream: &[u8]) -> bool {
    stream.first().is_some_and(|first| first >> 4 == kind as u8)
}

const fn check_length(version: Version, header: Header) -> Result<(), CodecError> {
    match version {
        // 3.1.1 §2.2.3 does not ask for the shortest form.
        Version::V4 => Ok(()),
        Version::V5 if header.minimal => Ok(()),
        Version::V5 => Err(CodecError::Malformed("a length takes more bytes than it needs")),
    }
}

/// The topic name of a PUBLISH or of a will. What is no text is malformed (§1.5.4), other names are invalid.
fn topic(bytes: &[u8]) -> Result<Topic, CodecError> {
    Topic::from_bytes(bytes).map_err(|error| match error {
        TopicError::NotText => CodecError::Malformed("a topic is not UTF-8"),
        TopicError::Control if bytes.contains(&0) => CodecError::Malformed("U+0000 in a text"),
        other => CodecError::Topic(other),
    })
}

/// Has rumqttd decode a whole frame that passed the check.
fn decode(version: Version, frame: &mut BytesMut) -> Result<protocol::Packet, CodecError> {
    let max = PACKET_MAX_BYTES as usize;
    match version {
        Version::V4 => protocol::v4::V4.read_mut(frame, max),
        Version::V5 => protocol::v5::V5.read_mut(frame, max),
    }
    .map_err(CodecError::Decoder)
}

//! The frame around every packet: its type, its flags, its length, and a cursor over its bytes.

use bytes::{BufMut, BytesMut};

use super::{CodecError, PACKET_MAX_BYTES};
use crate::mqtt::QoS;

/// Largest number that a Variable Byte Integer holds (MQTT 5.0 §1.5.5).
pub(super) const VARINT_MAX: u32 = 0x0fff_ffff;

/// The packets that a client may send (MQTT 5.0 §2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketType {
    /// Opens the connection.
    Connect = 1,
    /// Publishes a message.
    Publish = 3,
    /// Acknowledges a `QoS` 1 message.
    PubAck = 4,
    /// `QoS` 2: received.
    PubRec = 5,
    /// `QoS` 2: released.
    PubRel = 6,
    /// `QoS` 2: complete.
    PubComp = 7,
    /// Subscribes.
    Subscribe = 8,
    /// Unsubscribes.
    Unsubscribe = 10,
    /// Asks for a PINGRESP.
    PingReq = 12,
    /// Closes the connection.
    Disconnect = 14,
}

impl PacketType {
    /// Type and flags of a packet that begins with this byte.
    fn of(first: u8) -> Result<(Self, u8), CodecError> {
        let flags = first & 0x0f;
        let (kind, reserved) = match first >> 4 {
            1 => (Self::Connect, 0),
            3 => return publish_flags(flags).map(|()| (Self::Publish, flags)),
            4 => (Self::PubAck, 0),
            5 => (Self::PubRec, 0),
            6 => (Self::PubRel, 2),
            7 => (Self::PubComp, 0),
            8 => (Self::Subscribe, 2),
            10 => (Self::Unsubscribe, 2),
            12 => (Self::PingReq, 0),
            14 => (Self::Disconnect, 0),
            0 => return Err(CodecError::Malformed("packet type 0")),
            15 => return Err(CodecError::Protocol("AUTH without an authentication method")),
            _ => return Err(CodecError::Protocol("a packet that only servers send")),
        };
        if flags == reserved {
            Ok((kind, flags))
        } else {
            // [MQTT-2.1.3-1]
            Err(CodecError::Malformed("reserved flags of the fixed header"))
        }
    }
}

fn publish_flags(flags: u8) -> Result<(), CodecError> {
    match QoS::from_u8(flags >> 1 & 3) {
        // [MQTT-3.3.1-4]
        None => Err(CodecError::Malformed("QoS 3")),
        // [MQTT-3.3.1-2]
        Some(QoS::AtMostOnce) if flags & 8 != 0 => Err(CodecError::Malformed("DUP at QoS 0")),
        Some(_) => Ok(()),
    }
}

/// A fixed header (MQTT 5.0 §2.1).
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub kind: PacketType,
    pub flags: u8,
    /// Bytes of the fixed header.
    pub size: usize,
    /// Bytes that follow it.
    pub length: usize,
    /// Whether the length takes no more bytes than it needs; 5.0 demands it ([MQTT-1.5.5-1]).
    pub minimal: bool,
}

impl Header {
    /// The header at the start of `stream`; `None` while it is incomplete.
    pub fn read(stream: &[u8]) -> Result<Option<Self>, CodecError> {
        let Some((first, rest)) = stream.split_first() else { return Ok(None) };
        let (kind, flags) = PacketType::of(*first)?;
        let Some((length, digits)) = varint(rest)? else { return Ok(None) };
        if length > PACKET_MAX_BYTES {
            return Err(CodecError::TooLarge(length));
        }
        let minimal = digits == varint_len(length);
        Ok(Some(Self { kind, flags, size: 1 + digits, length: length as usize, minimal }))
    }

    /// Bytes of the whole packet.
    pub const fn whole(&self) -> usize {
        self.size + self.length
    }
}

/// The Variable Byte Integer that `bytes` begin with, and how many bytes it takes; `None` while it is incomplete.
fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, CodecError> {
    let mut value = 0;
    for (n, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Ok(Some((value, n + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(CodecError::Malformed("a length of 5 bytes")) }
}

/// Bytes that a Variable Byte Integer takes, 1 to 4.
pub(super) const fn varint_len(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Appends a Variable Byte Integer; `value` is at most [`VARINT_MAX`].
pub(super) fn put_varint(mut value: u32, out: &mut BytesMut) {
    debug_assert!(value <= VARINT_MAX, "{value} takes five bytes");
    for _ in 1..varint_len(value) {
        out.put_u8(value.to_le_bytes()[0] & 0x7f | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0] & 0x7f);
}

/// The rest of a property section that stands behind its own length; empty when the length is not that of `bytes`.
pub(super) fn behind_length(bytes: &[u8]) -> &[u8] {
    match varint(bytes) {
        Ok(Some((length, digits))) if bytes.len() - digits == length as usize => &bytes[digits..],
        _ => &[],
    }
}

/// Reads the fields of a packet one after the other; none reaches beyond the packet's end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes that are not read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may stand behind the last field.
    pub const fn end(&self) -> Result<(), CodecError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(CodecError::Malformed("bytes behind the last field"))
        }
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) =
            self.0.split_at_checked(length).ok_or(CodecError::Malformed("a field is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (taken, rest) =
            self.0.split_first_chunk().ok_or(CodecError::Malformed("a field is cut off"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, CodecError> {
        self.array().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A Variable Byte Integer in as few bytes as it needs ([MQTT-1.5.5-1]).
    pub fn varint(&mut self) -> Result<u32, CodecError> {
        let (value, digits) =
            varint(self.0)?.ok_or(CodecError::Malformed("a number is cut off"))?;
        if digits != varint_len(value) {
            return Err(CodecError::Malformed("a number takes more bytes than it needs"));
        }
        self.0 = &self.0[digits..];
        Ok(value)
    }

    /// Binary data behind its length (MQTT 5.0 §1.5.6).
    pub fn binary(&mut self) -> Result<&'a [u8], CodecError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A text behind its length: UTF-8 ([MQTT-1.5.4-1]) without U+0000 ([MQTT-1.5.4-2]).
    pub fn text(&mut self) -> Result<&'a str, CodecError> {
        let bytes = self.binary()?;
        if bytes.contains(&0) {
            return Err(CodecError::Malformed("U+0000 in a text"));
        }
        std::str::from_utf8(bytes).map_err(|_| CodecError::Malformed("a text is not UTF-8"))
    }

    /// A packet identifier, which is never 0 ([MQTT-2.2.1-3]).
    pub fn packet_id(&mut self) -> Result<u16, CodecError> {
        match self.u16()? {
            0 => Err(CodecError::Protocol("packet identifier 0")),
            id => Ok(id),
        }
    }
}

//! The walk through a property section of MQTT 5.0: each property is allowed in its packet, comes once, and has a
//! value that it may have.

use bytes::{Bytes, BytesMut};

use super::frame::{Cursor, put_varint, varint_len};
use super::{CodecError, USER_PROPERTIES_MAX};
use crate::mqtt::topic_name;

// Identifiers (§2.2.2.2, table 2-4) of the properties that a client sends.
const PAYLOAD_FORMAT: u8 = 1;
pub(super) const MESSAGE_EXPIRY: u8 = 2;
const CONTENT_TYPE: u8 = 3;
const RESPONSE_TOPIC: u8 = 8;
const CORRELATION_DATA: u8 = 9;
pub(super) const SUBSCRIPTION_IDENTIFIER: u8 = 11;
const SESSION_EXPIRY: u8 = 17;
const AUTHENTICATION_METHOD: u8 = 21;
const AUTHENTICATION_DATA: u8 = 22;
const REQUEST_PROBLEM_INFORMATION: u8 = 23;
const WILL_DELAY: u8 = 24;
const REQUEST_RESPONSE_INFORMATION: u8 = 25;
const SERVER_REFERENCE: u8 = 28;
const REASON_STRING: u8 = 31;
const RECEIVE_MAXIMUM: u8 = 33;
const TOPIC_ALIAS_MAXIMUM: u8 = 34;
pub(super) const TOPIC_ALIAS: u8 = 35;
const USER_PROPERTY: u8 = 38;
const PACKET_MAXIMUM: u8 = 39;

/// A set of property identifiers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Set(u64);

impl Set {
    const fn of(identifiers: &[u8]) -> Self {
        let (mut set, mut n) = (0, 0);
        while n < identifiers.len() {
            set |= 1 << identifiers[n];
            n += 1;
        }
        Self(set)
    }

    const fn contains(self, identifier: u8) -> bool {
        identifier < 64 && self.0 >> identifier & 1 == 1
    }

    const fn insert(&mut self, identifier: u8) {
        self.0 |= 1 << identifier;
    }
}

/// What a CONNECT may carry (§3.1.2.11).
pub(super) const CONNECT: Set = Set::of(&[
    SESSION_EXPIRY,
    RECEIVE_MAXIMUM,
    PACKET_MAXIMUM,
    TOPIC_ALIAS_MAXIMUM,
    REQUEST_RESPONSE_INFORMATION,
    REQUEST_PROBLEM_INFORMATION,
    USER_PROPERTY,
    AUTHENTICATION_METHOD,
    AUTHENTICATION_DATA,
]);
/// What a will may carry (§3.1.3.2).
pub(super) const WILL: Set = Set::of(&[
    WILL_DELAY,
    PAYLOAD_FORMAT,
    MESSAGE_EXPIRY,
    CONTENT_TYPE,
    RESPONSE_TOPIC,
    CORRELATION_DATA,
    USER_PROPERTY,
]);
/// What a PUBLISH may carry (§3.3.2.3).
pub(super) const PUBLISH: Set = Set::of(&[
    PAYLOAD_FORMAT,
    MESSAGE_EXPIRY,
    TOPIC_ALIAS,
    RESPONSE_TOPIC,
    CORRELATION_DATA,
    USER_PROPERTY,
    SUBSCRIPTION_IDENTIFIER,
    CONTENT_TYPE,
]);
/// What PUBACK, PUBREC, PUBREL and PUBCOMP may carry (§3.4.2.2 and the like).
pub(super) const ACK: Set = Set::of(&[REASON_STRING, USER_PROPERTY]);
/// What a SUBSCRIBE may carry (§3.8.2.1).
pub(super) const SUBSCRIBE: Set = Set::of(&[SUBSCRIPTION_IDENTIFIER, USER_PROPERTY]);
/// What an UNSUBSCRIBE may carry (§3.10.2.1).
pub(super) const UNSUBSCRIBE: Set = Set::of(&[USER_PROPERTY]);
/// What a DISCONNECT may carry (§3.14.2.2).
pub(super) const DISCONNECT: Set =
    Set::of(&[SESSION_EXPIRY, REASON_STRING, USER_PROPERTY, SERVER_REFERENCE]);

/// A property section that was walked through.
#[derive(Debug, Default)]
pub(super) struct Properties<'a> {
    /// With its length in front.
    encoded: &'a [u8],
    /// Without it.
    section: &'a [u8],
    present: Set,
    /// What does not travel along, as ranges of `section` in their order: of a PUBLISH the expiry and the alias, of a
    /// will the expiry and the delay.
    left_out: [(usize, usize); 2],
    /// Whether the payload is said to be UTF-8.
    pub is_text: bool,
    /// Seconds.
    pub expiry_s: Option<u32>,
    /// Not 0.
    pub alias: Option<u16>,
    /// Seconds.
    pub session_expiry_s: Option<u32>,
}

impl<'a> Properties<'a> {
    /// Walks through the section that comes next.
    pub fn read(cursor: &mut Cursor<'a>, allowed: Set) -> Result<Self, CodecError> {
        let encoded = cursor.rest();
        let length = cursor.varint()? as usize;
        let section = cursor
            .take(length)
            .map_err(|_| CodecError::Malformed("a property section longer than its packet"))?;
        let mut found = Self {
            encoded: &encoded[..encoded.len() - cursor.rest().len()],
            section,
            ..Self::default()
        };
        let mut inside = Cursor::new(section);
        let (mut users, mut left_out) = (0, 0);
        while !inside.is_empty() {
            let start = section.len() - inside.rest().len();
            let identifier = inside.u8()?;
            if !allowed.contains(identifier) {
                // §2.2.2.2: malformed, not a protocol error.
                return Err(CodecError::Malformed("a property that this packet does not have"));
            }
            if identifier == USER_PROPERTY {
                users += 1;
                if users > USER_PROPERTIES_MAX {
                    return Err(CodecError::TooMany("user properties"));
                }
            } else if found.present.contains(identifier) {
                return Err(CodecError::Protocol("a property twice"));
            }
            found.present.insert(identifier);
            found.value(identifier, &mut inside)?;
            if matches!(identifier, MESSAGE_EXPIRY | TOPIC_ALIAS | WILL_DELAY) {
                found.left_out[left_out] = (start, section.len() - inside.rest().len());
                left_out += 1;
            }
        }
        if found.has(AUTHENTICATION_DATA) && !found.has(AUTHENTICATION_METHOD) {
            // §3.1.2.11.10
            return Err(CodecError::Protocol("authentication data without a method"));
        }
        Ok(found)
    }

    fn value(&mut self, identifier: u8, inside: &mut Cursor<'a>) -> Result<(), CodecError> {
        match identifier {
            PAYLOAD_FORMAT => self.is_text = switch(inside)?,
            REQUEST_PROBLEM_INFORMATION | REQUEST_RESPONSE_INFORMATION => {
                switch(inside)?;
            }
            MESSAGE_EXPIRY => self.expiry_s = Some(inside.u32()?),
            SESSION_EXPIRY => self.session_expiry_s = Some(inside.u32()?),
            WILL_DELAY => {
                inside.u32()?;
            }
            PACKET_MAXIMUM => nonzero(inside.u32()?)?,
            RECEIVE_MAXIMUM => nonzero(inside.u16()?.into())?,
            TOPIC_ALIAS_MAXIMUM => {
                inside.u16()?;
            }
            TOPIC_ALIAS => match inside.u16()? {
                // [MQTT-3.3.2-8]
                0 => return Err(CodecError::TopicAlias),
                alias => self.alias = Some(alias),
            },
            SUBSCRIPTION_IDENTIFIER => nonzero(inside.varint()?)?,
            RESPONSE_TOPIC => {
                // [MQTT-3.3.2-14]
                topic_name(inside.text()?.as_bytes()).map_err(|_| {
                    CodecError::Protocol("a response topic that is not a topic name")
                })?;
            }
            CORRELATION_DATA | AUTHENTICATION_DATA => {
                inside.binary()?;
            }
            USER_PROPERTY => {
                inside.text()?;
                inside.text()?;
            }
            // Content type, authentication method, server reference, reason string.
            _ => {
                inside.text()?;
            }
        }
        Ok(())
    }

    /// Whether a property is there.
    pub const fn has(&self, identifier: u8) -> bool {
        self.present.contains(identifier)
    }

    /// The properties that travel along with the message, as they stand in the frame, with their length in front;
    /// empty when there are none. The order is kept ([MQTT-3.3.2-18]).
    pub fn carried(&self) -> Bytes {
        let [first, second] = self.left_out;
        let kept = self.section.len() - (first.1 - first.0) - (second.1 - second.0);
        if kept == 0 {
            return Bytes::new();
        }
        if kept == self.section.len() {
            return Bytes::copy_from_slice(self.encoded);
        }
        // Shorter than the section, whose length came in four bytes at most.
        let length = u32::try_from(kept).unwrap_or(u32::MAX);
        let mut carried = BytesMut::with_capacity(varint_len(length) + kept);
        put_varint(length, &mut carried);
        let mut start = 0;
        for (from, to) in self.left_out {
            if from < to {
                carried.extend_from_slice(&self.section[start..from]);
                start = to;
            }
        }
        carried.extend_from_slice(&self.section[start..]);
        carried.freeze()
    }
}

/// A byte that is 0 or 1.
fn switch(inside: &mut Cursor<'_>) -> Result<bool, CodecError> {
    match inside.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::Protocol("a property that is 0 or 1 has another value")),
    }
}

const fn nonzero(value: u32) -> Result<(), CodecError> {
    if value == 0 { Err(CodecError::Protocol("a property that may not be 0")) } else { Ok(()) }
}

//! The packets that a client sends after its CONNECT, and what of them rumqttd decodes: first the check of the raw
//! frame, then rumqttd, then our type.

use bytes::BytesMut;
use rumqttd::protocol::{self, RetainForwardRule};

use super::frame::{Cursor, Header, PacketType};
use super::property::{self, Properties};
use super::publish::Publish;
use super::{CodecError, FILTERS_MAX, Version, decode, reason};
use crate::mqtt::QoS;

/// A packet that a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// A second CONNECT, which is a protocol error ([MQTT-3.1.0-2]); it is not looked into.
    Connect,
    /// Publishes a message.
    Publish(Publish),
    /// Acknowledges a `QoS` 1 message.
    PubAck(Ack),
    /// `QoS` 2: received.
    PubRec(Ack),
    /// `QoS` 2: released.
    PubRel(Ack),
    /// `QoS` 2: complete.
    PubComp(Ack),
    /// Subscribes.
    Subscribe(Subscribe),
    /// Unsubscribes.
    Unsubscribe(Unsubscribe),
    /// Asks for a PINGRESP.
    PingReq,
    /// Closes the connection.
    Disconnect(Disconnect),
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Not 0.
    pub packet_id: u16,
    /// A reason code that the packet may have; 0 in 3.1.1.
    pub reason: u8,
}

/// SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Not 0.
    pub packet_id: u16,
    /// Subscription identifier, 1 to 268,435,455; 0: none.
    pub identifier: u32,
    /// 1 to [`FILTERS_MAX`].
    pub filters: Vec<Wanted>,
}

/// One subscription of a SUBSCRIBE (5.0 §3.8.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Not empty; not checked any further, since a SUBACK answers for each filter.
    pub filter: String,
    /// Highest `QoS`.
    pub qos: QoS,
    /// The client's own messages do not come back to it; never on a shared subscription.
    pub no_local: bool,
    /// Messages keep the retain flag that they were published with.
    pub retain_as_published: bool,
    /// When retained messages follow; always in 3.1.1.
    pub retain_handling: RetainHandling,
}

/// When retained messages follow a SUBSCRIBE (5.0 §3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetainHandling {
    /// At each SUBSCRIBE.
    Always,
    /// When there was no subscription to this filter.
    New,
    /// Never.
    Never,
}

/// UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Not 0.
    pub packet_id: u16,
    /// 1 to [`FILTERS_MAX`], none empty.
    pub filters: Vec<String>,
}

/// DISCONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect {
    /// A reason code that a client may have; 0 in 3.1.1. The will stays behind only at 0 ([MQTT-3.14.4-3]).
    pub reason: u8,
    /// New session expiry interval, seconds.
    pub session_expiry_s: Option<u32>,
}

/// The packet in `frame`, which is no PUBLISH and no CONNECT. The check hands over what it has read anyway; rumqttd
/// decodes the packets with filters.
pub(super) fn read(
    version: Version,
    header: Header,
    frame: &mut BytesMut,
) -> Result<Packet, CodecError> {
    let rest = Cursor::new(&frame[header.size..]);
    match header.kind {
        PacketType::PubAck => return ack(version, rest, reason::PUBACK).map(Packet::PubAck),
        PacketType::PubRec => return ack(version, rest, reason::PUBACK).map(Packet::PubRec),
        PacketType::PubRel => return ack(version, rest, reason::PUBREL).map(Packet::PubRel),
        PacketType::PubComp => return ack(version, rest, reason::PUBREL).map(Packet::PubComp),
        PacketType::Disconnect => return disconnect(version, rest).map(Packet::Disconnect),
        PacketType::PingReq => return rest.end().map(|()| Packet::PingReq),
        PacketType::Subscribe => check_subscribe(version, rest)?,
        PacketType::Unsubscribe => check_unsubscribe(version, rest)?,
        PacketType::Connect | PacketType::Publish => {}
    }
    match decode(version, frame)? {
        protocol::Packet::Subscribe(subscribe, properties) => Ok(Packet::Subscribe(Subscribe {
            packet_id: subscribe.pkid,
            identifier: properties
                .and_then(|properties| properties.id)
                .and_then(|id| u32::try_from(id).ok())
                .unwrap_or(0),
            filters: subscribe.filters.into_iter().map(wanted).collect(),
        })),
        protocol::Packet::Unsubscribe(unsubscribe, _) => Ok(Packet::Unsubscribe(Unsubscribe {
            packet_id: unsubscribe.pkid,
            filters: unsubscribe.filters,
        })),
        _ => Err(CodecError::Protocol("a packet that only servers send")),
    }
}

fn wanted(filter: protocol::Filter) -> Wanted {
    Wanted {
        filter: filter.path,
        qos: qos(filter.qos),
        no_local: filter.nolocal,
        retain_as_published: filter.preserve_retain,
        retain_handling: match filter.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => RetainHandling::Always,
            RetainForwardRule::OnNewSubscribe => RetainHandling::New,
            RetainForwardRule::Never => RetainHandling::Never,
        },
    }
}

/// Ours for rumqttd's.
pub(super) const fn qos(qos: protocol::QoS) -> QoS {
    match qos {
        protocol::QoS::AtMostOnce => QoS::AtMostOnce,
        protocol::QoS::AtLeastOnce => QoS::AtLeastOnce,
        protocol::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP with one of `reasons`.
fn ack(version: Version, mut rest: Cursor<'_>, reasons: &[u8]) -> Result<Ack, CodecError> {
    let mut ack = Ack { packet_id: rest.packet_id()?, reason: 0 };
    if version == Version::V5 {
        // The reason and the properties may be left out (§3.4.2.1, §3.4.2.2.1).
        if !rest.is_empty() {
            ack.reason = rest.u8()?;
            check_reason(ack.reason, reasons)?;
        }
        if !rest.is_empty() {
            Properties::read(&mut rest, property::ACK)?;
        }
    }
    rest.end().map(|()| ack)
}

fn check_reason(reason: u8, reasons: &[u8]) -> Result<(), CodecError> {
    if reasons.contains(&reason) {
        Ok(())
    } else {
        Err(CodecError::Malformed("a reason code that this packet does not have"))
    }
}

fn check_subscribe(version: Version, mut rest: Cursor<'_>) -> Result<(), CodecError> {
    rest.packet_id()?;
    if version == Version::V5 {
        Properties::read(&mut rest, property::SUBSCRIBE)?;
    }
    check_filters(rest, |filter, rest| {
        let options = rest.u8()?;
        let reserved = match version {
            Version::V4 => 0xfc,
            Version::V5 => 0xc0,
        };
        // [MQTT-3.8.3-5]; 3.1.1: [MQTT-3-8.3-4]
        if options & reserved != 0 {
            return Err(CodecError::Malformed("reserved bits of the subscription options"));
        }
        if QoS::from_u8(options & 3).is_none() {
            return Err(CodecError::Malformed("QoS 3"));
        }
        if options >> 4 == 3 {
            return Err(CodecError::Protocol("Retain Handling 3"));
        }
        // [MQTT-3.8.3-4]
        if options & 4 != 0 && filter.starts_with("$share/") {
            return Err(CodecError::Protocol("No Local on a shared subscription"));
        }
        Ok(())
    })
}

fn check_unsubscribe(version: Version, mut rest: Cursor<'_>) -> Result<(), CodecError> {
    rest.packet_id()?;
    if version == Version::V5 {
        Properties::read(&mut rest, property::UNSUBSCRIBE)?;
    }
    check_filters(rest, |_, _| Ok(()))
}

/// Checks the filters of a packet, and with `options` what follows each.
fn check_filters<'a>(
    mut rest: Cursor<'a>,
    options: impl Fn(&'a str, &mut Cursor<'a>) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    if rest.is_empty() {
        // [MQTT-3.8.3-2], [MQTT-3.10.3-2]
        return Err(CodecError::Protocol("no topic filter"));
    }
    let mut count = 0;
    while !rest.is_empty() {
        count += 1;
        if count > FILTERS_MAX {
            return Err(CodecError::TooMany("topic filters"));
        }
        let filter = rest.text()?;
        // [MQTT-4.7.3-1]
        if filter.is_empty() {
            return Err(CodecError::Malformed("an empty topic filter"));
        }
        options(filter, &mut rest)?;
    }
    Ok(())
}

fn disconnect(version: Version, mut rest: Cursor<'_>) -> Result<Disconnect, CodecError> {
    let mut disconnect = Disconnect { reason: 0, session_expiry_s: None };
    if version == Version::V5 {
        // Both may be left out (§3.14.2.1, §3.14.2.2.1).
        if !rest.is_empty() {
            disconnect.reason = rest.u8()?;
            check_reason(disconnect.reason, reason::DISCONNECT)?;
        }
        if !rest.is_empty() {
            let properties = Properties::read(&mut rest, property::DISCONNECT)?;
            disconnect.session_expiry_s = properties.session_expiry_s;
        }
    }
    rest.end().map(|()| disconnect)
}

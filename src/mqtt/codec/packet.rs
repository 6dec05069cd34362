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

/// The packet in `frame`, which is no PUBLISH and no CONNECT.
pub(super) fn read(
    version: Version,
    header: Header,
    frame: &mut BytesMut,
) -> Result<Packet, CodecError> {
    check(version, header.kind, &frame[header.size..])?;
    // rumqttd refuses this form, which §3.14.2.2.1 allows.
    if let [0xe0, 1, reason] = **frame {
        *frame = BytesMut::from(&[0xe0, 2, reason, 0][..]);
    }
    let ack = |packet_id, reason| Ack { packet_id, reason };
    Ok(match decode(version, frame)? {
        protocol::Packet::PubAck(puback, _) => {
            Packet::PubAck(ack(puback.pkid, reason::of_puback(puback.reason)))
        }
        protocol::Packet::PubRec(pubrec, _) => {
            Packet::PubRec(ack(pubrec.pkid, reason::of_pubrec(pubrec.reason)))
        }
        protocol::Packet::PubRel(pubrel, _) => {
            Packet::PubRel(ack(pubrel.pkid, reason::of_pubrel(pubrel.reason)))
        }
        protocol::Packet::PubComp(pubcomp, _) => {
            Packet::PubComp(ack(pubcomp.pkid, reason::of_pubcomp(pubcomp.reason)))
        }
        protocol::Packet::Subscribe(subscribe, properties) => Packet::Subscribe(Subscribe {
            packet_id: subscribe.pkid,
            identifier: properties
                .and_then(|properties| properties.id)
                .and_then(|id| u32::try_from(id).ok())
                .unwrap_or(0),
            filters: subscribe.filters.into_iter().map(wanted).collect(),
        }),
        protocol::Packet::Unsubscribe(unsubscribe, _) => Packet::Unsubscribe(Unsubscribe {
            packet_id: unsubscribe.pkid,
            filters: unsubscribe.filters,
        }),
        protocol::Packet::PingReq(_) => Packet::PingReq,
        protocol::Packet::Disconnect(disconnect, properties) => Packet::Disconnect(Disconnect {
            reason: reason::of_disconnect(disconnect.reason_code),
            session_expiry_s: properties.and_then(|properties| properties.session_expiry_interval),
        }),
        protocol::Packet::Connect(..)
        | protocol::Packet::Publish(..)
        | protocol::Packet::ConnAck(..)
        | protocol::Packet::SubAck(..)
        | protocol::Packet::UnsubAck(..)
        | protocol::Packet::PingResp(_) => {
            return Err(CodecError::Protocol("a packet that only servers send"));
        }
    })
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

/// Checks what stands behind the fixed header: rumqttd takes much for right that is not, and panics on some.
fn check(version: Version, kind: PacketType, body: &[u8]) -> Result<(), CodecError> {
    let rest = Cursor::new(body);
    match kind {
        PacketType::PubAck | PacketType::PubRec => check_ack(version, rest, reason::PUBACK),
        PacketType::PubRel | PacketType::PubComp => check_ack(version, rest, reason::PUBREL),
        PacketType::Subscribe => check_subscribe(version, rest),
        PacketType::Unsubscribe => check_unsubscribe(version, rest),
        PacketType::Disconnect => check_disconnect(version, rest),
        PacketType::PingReq | PacketType::Connect | PacketType::Publish => rest.end(),
    }
}

fn check_ack(version: Version, mut rest: Cursor<'_>, reasons: &[u8]) -> Result<(), CodecError> {
    rest.packet_id()?;
    if version == Version::V5 {
        // The reason and the properties may be left out (§3.4.2.1, §3.4.2.2.1).
        if !rest.is_empty() {
            check_reason(rest.u8()?, reasons)?;
        }
        if !rest.is_empty() {
            Properties::read(&mut rest, property::ACK)?;
        }
    }
    rest.end()
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

fn check_disconnect(version: Version, mut rest: Cursor<'_>) -> Result<(), CodecError> {
    if version == Version::V5 {
        if !rest.is_empty() {
            check_reason(rest.u8()?, reason::DISCONNECT)?;
        }
        if !rest.is_empty() {
            Properties::read(&mut rest, property::DISCONNECT)?;
        }
    }
    rest.end()
}

#[cfg(test)]
mod tests {
    use super::super::next;
    use super::*;

    fn packet(version: Version, frame: &[u8]) -> Packet {
        match next(version, &mut BytesMut::from(frame)) {
            Ok(Some(packet)) => packet,
            other => panic!("{frame:x?}: {other:?}"),
        }
    }

    #[test]
    fn subscriptions_come_out_with_their_options() {
        let wanted = |filter: &str, qos, no_local, retain_as_published, retain_handling| Wanted {
            filter: filter.to_owned(),
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        };
        let frame = b"\x82\x17\0\x07\x0a\x26\0\x01k\0\x01v\x0b\xc8\x01\0\x01a\x2e\0\x03b/#\x11";
        let expected = Packet::Subscribe(Subscribe {
            packet_id: 7,
            identifier: 200,
            filters: vec![
                wanted("a", QoS::ExactlyOnce, true, true, RetainHandling::Never),
                wanted("b/#", QoS::AtLeastOnce, false, false, RetainHandling::New),
            ],
        });
        assert_eq!(packet(Version::V5, frame), expected);
        let expected = Packet::Subscribe(Subscribe {
            packet_id: 7,
            identifier: 0,
            filters: vec![wanted("a", QoS::AtLeastOnce, false, false, RetainHandling::Always)],
        });
        assert_eq!(packet(Version::V4, b"\x82\x06\0\x07\0\x01a\x01"), expected);
        let expected = Packet::Unsubscribe(Unsubscribe {
            packet_id: 7,
            filters: vec!["a".to_owned(), "b/#".to_owned()],
        });
        assert_eq!(packet(Version::V4, b"\xa2\x0a\0\x07\0\x01a\0\x03b/#"), expected);
        assert_eq!(packet(Version::V5, b"\xa2\x0b\0\x07\0\0\x01a\0\x03b/#"), expected);
    }

    #[test]
    fn every_reason_a_client_may_give_comes_out() {
        type Made = fn(Ack) -> Packet;
        let kinds: [(u8, &[u8], Made); 4] = [
            (0x40, reason::PUBACK, Packet::PubAck),
            (0x50, reason::PUBACK, Packet::PubRec),
            (0x62, reason::PUBREL, Packet::PubRel),
            (0x70, reason::PUBREL, Packet::PubComp),
        ];
        for (first, reasons, made) in kinds {
            assert_eq!(
                packet(Version::V4, &[first, 2, 1, 2]),
                made(Ack { packet_id: 0x102, reason: 0 })
            );
            for reason in reasons.iter().copied() {
                let expected = made(Ack { packet_id: 0x102, reason });
                assert_eq!(packet(Version::V5, &[first, 3, 1, 2, reason]), expected);
                assert_eq!(packet(Version::V5, &[first, 4, 1, 2, reason, 0]), expected);
            }
        }
        for reason in reason::DISCONNECT.iter().copied() {
            let expected = Packet::Disconnect(Disconnect { reason, session_expiry_s: None });
            assert_eq!(packet(Version::V5, &[0xe0, 1, reason]), expected);
            assert_eq!(packet(Version::V5, &[0xe0, 2, reason, 0]), expected);
        }
    }

    #[test]
    fn a_goodbye_may_change_the_sessions_expiry() {
        let goodbye =
            |reason, session_expiry_s| Packet::Disconnect(Disconnect { reason, session_expiry_s });
        for version in [Version::V4, Version::V5] {
            assert_eq!(packet(version, &[0xe0, 0]), goodbye(0, None));
            assert_eq!(packet(version, &[0xc0, 0]), Packet::PingReq);
            assert_eq!(packet(version, b"\x10\x02xx"), Packet::Connect);
        }
        assert_eq!(packet(Version::V5, b"\xe0\x07\x04\x05\x11\0\0\0\x09"), goodbye(4, Some(9)));
    }

    #[test]
    fn filters_of_one_packet_are_bounded() {
        for (count, fits) in [(FILTERS_MAX, true), (FILTERS_MAX + 1, false)] {
            for (first, filter) in [(0x82, &b"\0\x01a\0"[..]), (0xa2, b"\0\x01a")] {
                let body = [&b"\0\x01"[..], &filter.repeat(count)].concat();
                let mut stream = BytesMut::from(&[first][..]);
                super::super::frame::put_varint(u32::try_from(body.len()).unwrap(), &mut stream);
                stream.extend_from_slice(&body);
                let taken = next(Version::V4, &mut stream).map(|packet| packet.is_some());
                let expected =
                    if fits { Ok(true) } else { Err(CodecError::TooMany("topic filters")) };
                assert_eq!(taken, expected);
            }
        }
    }
}

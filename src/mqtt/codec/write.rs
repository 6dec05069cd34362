//! The packets that the broker sends, except PUBLISH. CONNACK, SUBACK and UNSUBACK are written by rumqttd.

use bytes::{BufMut, BytesMut};
use rumqttd::protocol::{self, ConnAckProperties, Packet, Protocol, SubAck, UnsubAck};

use super::reason::{Reason, granted};
use super::{FILTERS_MAX, Version};
use crate::mqtt::QoS;

/// A CONNACK that accepts (5.0 §3.2). 3.1.1 knows only the first field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// Whether the session was there before.
    pub session_present: bool,
    /// The client id that the broker gave; at most 65,535 bytes, else it is left out.
    pub assigned_client_id: Option<String>,
    /// Seconds; what the client is to use in place of its own keep-alive.
    pub server_keep_alive_s: Option<u16>,
    /// `QoS` 1 and 2 messages that the broker takes unacknowledged, not 0.
    pub receive_maximum: u16,
    /// Largest whole packet that the broker takes, in bytes, not 0.
    pub packet_max_bytes: u32,
    /// Highest topic alias that the broker takes.
    pub topic_alias_maximum: u16,
}

/// Writes the CONNACK that accepts.
pub fn write_connack(version: Version, connack: &ConnAck, out: &mut BytesMut) {
    // rumqttd does not bound the length of a text.
    let named = |id: &&String| u16::try_from(id.len()).is_ok();
    let properties = ConnAckProperties {
        assigned_client_identifier: connack.assigned_client_id.as_ref().filter(named).cloned(),
        server_keep_alive: connack.server_keep_alive_s,
        receive_max: Some(connack.receive_maximum),
        max_packet_size: Some(connack.packet_max_bytes),
        topic_alias_max: Some(connack.topic_alias_maximum),
        ..ConnAckProperties::default()
    };
    let accepts = protocol::ConnAck {
        session_present: connack.session_present,
        code: Reason::Success.connack(version),
    };
    let properties = (version == Version::V5).then_some(properties);
    write(version, Packet::ConnAck(accepts, properties), out);
}

/// Writes the CONNACK that refuses. A reason that CONNACK does not have becomes "unspecified error", in 3.1.1 "server
/// unavailable".
pub fn write_refusal(version: Version, reason: Reason, out: &mut BytesMut) {
    let code = match reason {
        Reason::Success => Reason::UnspecifiedError,
        other => other,
    };
    let refuses = protocol::ConnAck { session_present: false, code: code.connack(version) };
    write(version, Packet::ConnAck(refuses, None), out);
}

/// An acknowledgement of one packet identifier; the value is the packet's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AckKind {
    /// Acknowledges a `QoS` 1 message.
    PubAck = 0x40,
    /// `QoS` 2: received.
    PubRec = 0x50,
    /// `QoS` 2: released.
    PubRel = 0x62,
    /// `QoS` 2: complete.
    PubComp = 0x70,
}

/// Writes PUBACK, PUBREC, PUBREL or PUBCOMP; 3.1.1 has no reason, 5.0 leaves out that of success.
pub fn write_ack(
    version: Version,
    kind: AckKind,
    packet_id: u16,
    reason: Reason,
    out: &mut BytesMut,
) {
    let told = version == Version::V5 && reason != Reason::Success;
    out.put_slice(&[kind as u8, if told { 3 } else { 2 }]);
    out.put_u16(packet_id);
    if told {
        out.put_u8(reason.v5());
    }
}

/// Writes SUBACK: for each filter of the SUBSCRIBE, at most [`FILTERS_MAX`], what is granted or why not.
pub fn write_suback(
    version: Version,
    packet_id: u16,
    filters: &[Result<QoS, Reason>],
    out: &mut BytesMut,
) {
    let return_codes =
        filters.iter().take(FILTERS_MAX).map(|filter| granted(version, *filter)).collect();
    write(version, Packet::SubAck(SubAck { pkid: packet_id, return_codes }, None), out);
}

/// Writes UNSUBACK: for each filter of the UNSUBSCRIBE, at most [`FILTERS_MAX`], what came of it; 3.1.1 does not say.
pub fn write_unsuback(version: Version, packet_id: u16, filters: &[Reason], out: &mut BytesMut) {
    let reasons = filters.iter().take(FILTERS_MAX).map(|reason| reason.unsuback()).collect();
    write(version, Packet::UnsubAck(UnsubAck { pkid: packet_id, reasons }, None), out);
}

/// Writes PINGRESP.
pub fn write_pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// Writes the DISCONNECT that tells a 5.0 client why its connection ends; 3.1.1 has none from a server. By hand:
/// rumqttd gets the length of one without properties wrong.
pub fn write_disconnect(reason: Reason, out: &mut BytesMut) {
    out.put_slice(&[0xe0, 2, reason.v5(), 0]);
}

/// rumqttd's writer fails only on more than 256 MiB, and panics on codes and properties of the other version, which
/// the callers above rule out.
fn write(version: Version, packet: Packet, out: &mut BytesMut) {
    let written = match version {
        Version::V4 => protocol::v4::V4.write(packet, out),
        Version::V5 => protocol::v5::V5.write(packet, out),
    };
    debug_assert!(written.is_ok(), "{written:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: [Reason; 25] = [
        Reason::Success,
        Reason::NoSubscriptionExisted,
        Reason::UnspecifiedError,
        Reason::MalformedPacket,
        Reason::ProtocolError,
        Reason::ImplementationSpecificError,
        Reason::UnsupportedProtocolVersion,
        Reason::ClientIdentifierNotValid,
        Reason::BadUserNameOrPassword,
        Reason::NotAuthorized,
        Reason::ServerUnavailable,
        Reason::ServerBusy,
        Reason::ServerShuttingDown,
        Reason::BadAuthenticationMethod,
        Reason::KeepAliveTimeout,
        Reason::SessionTakenOver,
        Reason::TopicFilterInvalid,
        Reason::TopicNameInvalid,
        Reason::PacketIdentifierNotFound,
        Reason::ReceiveMaximumExceeded,
        Reason::TopicAliasInvalid,
        Reason::PacketTooLarge,
        Reason::QuotaExceeded,
        Reason::AdministrativeAction,
        Reason::PayloadFormatInvalid,
    ];

    fn written(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut out);
        out.to_vec()
    }

    #[test]
    fn every_reason_can_be_written_in_both_versions() {
        for reason in REASONS {
            let refusal = written(|out| write_refusal(Version::V4, reason, out));
            let code = if reason == Reason::Success { 3 } else { reason.v4() };
            assert_eq!(refusal, [0x20, 2, 0, code], "{reason:?}");
            let refusal = written(|out| write_refusal(Version::V5, reason, out));
            assert_eq!((refusal.len(), &refusal[..3], refusal[4]), (5, &[0x20, 3, 0][..], 0));
            assert!(refusal[3] >= 0x80, "{reason:?}");
            assert_eq!(written(|out| write_disconnect(reason, out)), [0xe0, 2, reason.v5(), 0]);
            for version in [Version::V4, Version::V5] {
                written(|out| write_suback(version, 1, &[Err(reason)], out));
                written(|out| write_unsuback(version, 1, &[reason], out));
                written(|out| write_ack(version, AckKind::PubRel, 1, reason, out));
            }
        }
        let refusal = written(|out| write_refusal(Version::V5, Reason::QuotaExceeded, out));
        assert_eq!(refusal[3], 0x97);
    }

    #[test]
    fn connack_tells_a_client_of_mqtt_5_what_the_broker_takes() {
        let connack = ConnAck {
            session_present: true,
            assigned_client_id: Some("auto".to_owned()),
            server_keep_alive_s: Some(60),
            receive_maximum: 256,
            packet_max_bytes: 0x4_0005,
            topic_alias_maximum: 32,
        };
        let bytes = written(|out| write_connack(Version::V4, &connack, out));
        assert_eq!(bytes, [0x20, 2, 1, 0]);
        let bytes = written(|out| write_connack(Version::V5, &connack, out));
        let expected = [
            &b"\x20\x18\x01\0\x15\x21\x01\0\x27\0\x04\0\x05"[..],
            b"\x12\0\x04auto\x22\0\x20\x13\0\x3c",
        ];
        assert_eq!(bytes, expected.concat());
        let long = ConnAck { assigned_client_id: Some("x".repeat(65_536)), ..connack };
        assert_eq!(written(|out| write_connack(Version::V5, &long, out)).len(), 19);
    }

    #[test]
    fn acknowledgements_have_the_form_of_their_version() {
        let filters = [Ok(QoS::AtMostOnce), Ok(QoS::ExactlyOnce), Err(Reason::NotAuthorized)];
        let suback = |version| written(|out| write_suback(version, 7, &filters, out));
        assert_eq!(suback(Version::V4), [0x90, 5, 0, 7, 0, 2, 0x80]);
        assert_eq!(suback(Version::V5), [0x90, 6, 0, 7, 0, 0, 2, 0x87]);
        let filters = [Reason::Success, Reason::NoSubscriptionExisted];
        let unsuback = |version| written(|out| write_unsuback(version, 7, &filters, out));
        assert_eq!(unsuback(Version::V4), [0xb0, 2, 0, 7]);
        assert_eq!(unsuback(Version::V5), [0xb0, 5, 0, 7, 0, 0, 0x11]);
        let refuses = |version| {
            written(|out| write_ack(version, AckKind::PubRec, 7, Reason::NotAuthorized, out))
        };
        assert_eq!(refuses(Version::V4), [0x50, 2, 0, 7]);
        assert_eq!(refuses(Version::V5), [0x50, 3, 0, 7, 0x87]);
        let releases =
            written(|out| write_ack(Version::V5, AckKind::PubRel, 7, Reason::Success, out));
        assert_eq!(releases, [0x62, 2, 0, 7]);
        assert_eq!(written(write_pingresp), [0xd0, 0]);
    }
}

//! Why the broker refuses or ends something, as one closed list, and the words that each version and rumqttd have
//! for it.

use rumqttd::protocol::{ConnectReturnCode, SubscribeReasonCode, UnsubAckReason};

use super::Version;
use crate::mqtt::QoS;

/// A reason code that the broker sends (MQTT 5.0 §2.4, table 2-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The operation succeeded.
    Success = 0x00,
    /// UNSUBACK: there was no such subscription.
    NoSubscriptionExisted = 0x11,
    /// No other reason fits.
    UnspecifiedError = 0x80,
    /// A packet cannot be parsed.
    MalformedPacket = 0x81,
    /// A packet is out of order or contradicts the specification.
    ProtocolError = 0x82,
    /// The packet is valid, and the broker cannot process it.
    ImplementationSpecificError = 0x83,
    /// Neither 3.1.1 nor 5.0.
    UnsupportedProtocolVersion = 0x84,
    /// The client id is not allowed.
    ClientIdentifierNotValid = 0x85,
    /// Wrong user name or password.
    BadUserNameOrPassword = 0x86,
    /// The user may not do this.
    NotAuthorized = 0x87,
    /// The broker does not work.
    ServerUnavailable = 0x88,
    /// The broker has too much to do.
    ServerBusy = 0x89,
    /// The broker stops.
    ServerShuttingDown = 0x8b,
    /// Enhanced authentication is not offered.
    BadAuthenticationMethod = 0x8c,
    /// No packet for 1.5 times the keep-alive.
    KeepAliveTimeout = 0x8d,
    /// Another connection uses the same client id.
    SessionTakenOver = 0x8e,
    /// The topic filter is not accepted.
    TopicFilterInvalid = 0x8f,
    /// The topic name is not accepted.
    TopicNameInvalid = 0x90,
    /// PUBREL or PUBCOMP: no such exchange.
    PacketIdentifierNotFound = 0x92,
    /// More unacknowledged messages than the Receive Maximum.
    ReceiveMaximumExceeded = 0x93,
    /// The topic alias is 0, above the maximum, or stands for no topic.
    TopicAliasInvalid = 0x94,
    /// Larger than the Maximum Packet Size.
    PacketTooLarge = 0x95,
    /// A limit of the broker's own is exceeded.
    QuotaExceeded = 0x97,
    /// An operator ended the connection.
    AdministrativeAction = 0x98,
    /// The payload is not what its Payload Format Indicator says.
    PayloadFormatInvalid = 0x99,
}

impl Reason {
    /// The reason code of MQTT 5.0.
    #[must_use]
    pub const fn v5(self) -> u8 {
        self as u8
    }

    /// The CONNACK return code of MQTT 3.1.1 (§3.2.2.3), 0 to 5; 3, "server unavailable", where it has no better
    /// one. A CONNECT that is malformed gets no CONNACK in 3.1.1 ([MQTT-3.1.4-1]).
    #[must_use]
    pub const fn v4(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized => 5,
            _ => 3,
        }
    }

    /// rumqttd's code for a CONNACK. Each version has its own list, and rumqttd's writer panics on a code of the
    /// other one.
    pub(super) const fn connack(self, version: Version) -> ConnectReturnCode {
        use ConnectReturnCode as Code;
        match version {
            Version::V4 => match self {
                Self::Success => Code::Success,
                Self::UnsupportedProtocolVersion => Code::RefusedProtocolVersion,
                Self::ClientIdentifierNotValid => Code::ClientIdentifierNotValid,
                Self::BadUserNameOrPassword => Code::BadUserNamePassword,
                Self::NotAuthorized => Code::NotAuthorized,
                _ => Code::ServiceUnavailable,
            },
            Version::V5 => match self {
                Self::Success => Code::Success,
                Self::MalformedPacket => Code::MalformedPacket,
                Self::ProtocolError => Code::ProtocolError,
                Self::ImplementationSpecificError => Code::ImplementationSpecificError,
                Self::UnsupportedProtocolVersion => Code::UnsupportedProtocolVersion,
                Self::ClientIdentifierNotValid => Code::ClientIdentifierNotValid,
                Self::BadUserNameOrPassword => Code::BadUserNamePassword,
                Self::NotAuthorized => Code::NotAuthorized,
                // §3.2.2.2 has no "server shutting down".
                Self::ServerUnavailable | Self::ServerShuttingDown => Code::ServerUnavailable,
                Self::ServerBusy => Code::ServerBusy,
                Self::BadAuthenticationMethod => Code::BadAuthenticationMethod,
                Self::TopicNameInvalid => Code::TopicNameInvalid,
                Self::PacketTooLarge => Code::PacketTooLarge,
                Self::QuotaExceeded => Code::QuotaExceeded,
                Self::PayloadFormatInvalid => Code::PayloadFormatInvalid,
                _ => Code::UnspecifiedError,
            },
        }
    }

    /// rumqttd's code for one filter of a SUBACK (§3.9.3); 3.1.1 has one code for all failures.
    pub(super) const fn suback(self, version: Version) -> SubscribeReasonCode {
        use SubscribeReasonCode as Code;
        match (version, self) {
            (Version::V4, _) => Code::Failure,
            (Version::V5, Self::ImplementationSpecificError) => Code::ImplementationSpecific,
            (Version::V5, Self::NotAuthorized) => Code::NotAuthorized,
            (Version::V5, Self::TopicFilterInvalid) => Code::TopicFilterInvalid,
            (Version::V5, Self::QuotaExceeded) => Code::QuotaExceeded,
            (Version::V5, _) => Code::Unspecified,
        }
    }

    /// rumqttd's code for one filter of an UNSUBACK (§3.11.3).
    pub(super) const fn unsuback(self) -> UnsubAckReason {
        use UnsubAckReason as Code;
        match self {
            Self::Success => Code::Success,
            Self::NoSubscriptionExisted => Code::NoSubscriptionExisted,
            Self::ImplementationSpecificError => Code::ImplementationSpecificError,
            Self::NotAuthorized => Code::NotAuthorized,
            Self::TopicFilterInvalid => Code::TopicFilterInvalid,
            _ => Code::UnspecifiedError,
        }
    }
}

/// What a SUBACK says of one filter.
pub(super) const fn granted(version: Version, granted: Result<QoS, Reason>) -> SubscribeReasonCode {
    match granted {
        Ok(QoS::AtMostOnce) => SubscribeReasonCode::QoS0,
        Ok(QoS::AtLeastOnce) => SubscribeReasonCode::QoS1,
        Ok(QoS::ExactlyOnce) => SubscribeReasonCode::QoS2,
        Err(reason) => reason.suback(version),
    }
}

/// Reason codes that a client may put into a PUBACK or PUBREC (§3.4.2.1, §3.5.2.1). "No matching subscribers" is
/// meant for servers; a server that bridges to this one sends it as a client.
pub(super) const PUBACK: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// The same for a PUBREL or PUBCOMP (§3.6.2.1, §3.7.2.1).
pub(super) const PUBREL: &[u8] = &[0x00, 0x92];
/// The same for a DISCONNECT, without those that only a server sends (§3.14.2.1).
pub(super) const DISCONNECT: &[u8] =
    &[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];

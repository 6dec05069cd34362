//! Quality of service.

/// How often a message reaches a subscriber (MQTT 5.0 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    /// `QoS` 0: once or never; no acknowledgement.
    #[default]
    AtMostOnce = 0,
    /// `QoS` 1: PUBACK, repeated until then.
    AtLeastOnce = 1,
    /// `QoS` 2: PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl QoS {
    /// The two bits of a packet or the number of a row; `None` for 3 and above.
    #[must_use]
    pub const fn from_u8(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

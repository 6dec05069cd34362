//! Refusals: why a client was not admitted, and how many were refused.

use std::sync::atomic::AtomicU64;

use crate::broker::access::acl::UnfitName;
use crate::mqtt::codec::Reason;

/// Counts of refusals since the start.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Refused logins.
    pub logins: AtomicU64,
    /// Messages to topics that their publisher may not write.
    pub publishes: AtomicU64,
}

/// Why a client was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The name or the password is wrong, or a login is missing.
    #[error("not authorized")]
    NotAuthorized,
    /// Its client id or its user's name would change a rule's meaning.
    #[error(transparent)]
    Name(#[from] UnfitName),
    /// The client can try again later.
    #[error("too many logins wait or have failed; try again later")]
    Busy,
}

impl NotAdmitted {
    /// The reason code of MQTT 5.0 §3.2.2.2. As in other brokers, a wrong password is "not authorized": the code does
    /// not tell whether the user exists.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Name(UnfitName::ClientId | UnfitName::Node) => Reason::ClientIdentifierNotValid,
            Self::NotAuthorized | Self::Name(UnfitName::User | UnfitName::Rule) => {
                Reason::NotAuthorized
            }
            Self::Busy => Reason::ServerBusy,
        }
    }
}

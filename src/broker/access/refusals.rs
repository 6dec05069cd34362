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
    /// Its password was not looked at. Its client is told what one with a wrong password is told.
    #[error(
        "not looked at: too many wrong passwords for this user from this address, or from many addresses; wait a minute"
    )]
    NoGuessLeft,
    /// Too many logins wait. The client has logged in before, so it may know, and can try again later.
    #[error("too many logins wait; try again later")]
    Busy,
    /// Too many logins wait, of clients that have not logged in before. Its client is told what one with a wrong password
    /// is told: only a name that there is has a password to look at.
    #[error(
        "not looked at: too many logins of clients that have not logged in before wait; try again"
    )]
    Crowded,
}

impl NotAdmitted {
    /// The reason code of MQTT 5.0 §3.2.2.2. As in other brokers, a wrong password is "not authorized": the code does
    /// not tell whether the user exists, nor whether the password was looked at.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Name(UnfitName::ClientId | UnfitName::Node) => Reason::ClientIdentifierNotValid,
            Self::NotAuthorized
            | Self::NoGuessLeft
            | Self::Crowded
            | Self::Name(UnfitName::User | UnfitName::Rule) => Reason::NotAuthorized,
            Self::Busy => Reason::ServerBusy,
        }
    }
}

/// What the operator has to mend, so that a client is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It sent no user.
    NoLogin,
    /// The user exists, with another password.
    WrongPassword,
    /// There is no such user.
    UnknownUser,
    /// The login is right, and the user is another board's.
    WrongNode,
    /// A rule cannot be applied to its client id or its user's name.
    UnfitName,
}

impl Cause {
    /// A short name to tell it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoLogin => "no-login",
            Self::WrongPassword => "wrong-password",
            Self::UnknownUser => "unknown-user",
            Self::WrongNode => "wrong-node",
            Self::UnfitName => "unfit-name",
        }
    }

    /// For the log; `None` where the refusal says it.
    pub(super) const fn advice(self) -> Option<&'static str> {
        match self {
            Self::NoLogin => Some(
                "no user and password were sent; on a board write mqtt://USER@HOST into HUMIDOR_BROKER",
            ),
            Self::WrongPassword => Some("wrong password"),
            Self::UnknownUser => Some("unknown user; `humidor user list` shows the users"),
            Self::WrongNode => Some(
                "the password is right, but this user may not publish as this node; set HUMIDOR_NODE to the user's name on the board, or add a user for all boards with --role fleet",
            ),
            Self::UnfitName => None,
        }
    }
}

//! Who may connect and subscribe to what: today the checks that keep the router alive and the
//! memory bounded.

use crate::wire::{Filter, FilterError};

/// Longest client id in bytes. The protocol asks for at least 23.
const CLIENT_ID_MAX_BYTES: usize = 256;
/// Topic filters that one session may hold.
pub const SESSION_FILTERS: usize = 200;

/// Why a filter was not granted; the client sees it in its SUBACK.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// Not a filter, or a reserved one.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// More than [`SESSION_FILTERS`].
    #[error("more than {SESSION_FILTERS} subscriptions in one session")]
    TooMany,
}

impl NotGranted {
    /// The reason code of MQTT 5.0 §3.9.3.
    pub const fn reason(&self) -> u8 {
        match self {
            Self::Filter(_) => 0x8f,
            Self::TooMany => 0x97,
        }
    }
}

/// Whether a client id can be taken: 1 to 256 bytes without control characters. What it contains
/// else does not matter; it never becomes a name inside the router.
#[must_use]
pub fn client_id(id: &str) -> bool {
    (1..=CLIENT_ID_MAX_BYTES).contains(&id.len()) && !id.chars().any(char::is_control)
}

/// Checks one filter of a SUBSCRIBE for a session that holds `held`; `known` tells whether it is one of these.
///
/// # Errors
/// Why it is not granted.
pub fn subscription(
    filter: &str,
    held: usize,
    known: impl Fn(&Filter) -> bool,
) -> Result<Filter, NotGranted> {
    let filter: Filter = filter.parse()?;
    if held >= SESSION_FILTERS && !known(&filter) {
        return Err(NotGranted::TooMany);
    }
    Ok(filter)
}

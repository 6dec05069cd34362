//! The nouns every part shares: ids, a sensor's model, a measurement, and a reading with its time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest id in characters: a DNS label, so that a host name can be a node id (RFC 1035 §2.3.4).
pub const ID_MAX_CHARS: usize = 63;

/// A name on the wire: node, sensor, boot. `[a-z0-9-]`, 1 to [`ID_MAX_CHARS`] characters, so that it
/// is one level of a topic, a part of a client id and a file name without any escaping.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

/// The text is not an [`Id`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: use 1 to {ID_MAX_CHARS} of a-z, 0-9 and -{}", near_id(.text))]
pub struct IdError {
    text: String,
}

/// The id that was probably meant; empty when there is none.
fn near_id(text: &str) -> String {
    let near = text.trim().to_ascii_lowercase().replace(['_', ' ', '.'], "-");
    near.parse::<Id>().map_or_else(|_| String::new(), |near| format!("; did you mean `{near}`?"))
}

impl Id {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = (1..=ID_MAX_CHARS).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            // A hostile id may be huge; the message shows enough of it to be found.
            Err(IdError { text: text.chars().take(ID_MAX_CHARS + 1).collect() })
        }
    }
}

impl TryFrom<String> for Id {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a sensor measured: tenths, exactly as the sensor sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurement {
    /// Temperature in tenths of a degree Celsius.
    pub temperature_dc: i16,
    /// Relative humidity in tenths of a per cent.
    pub humidity_dp: i16,
}

impl Measurement {
    /// Temperature in °C.
    #[must_use]
    pub fn temperature(self) -> f64 {
        f64::from(self.temperature_dc) / 10.0
    }

    /// Relative humidity in %.
    #[must_use]
    pub fn humidity(self) -> f64 {
        f64::from(self.humidity_dp) / 10.0
    }
}

/// Whether the clock that stamped a reading was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockState {
    /// The kernel says that a time source disciplines the clock.
    Synced,
    /// The board has no clock of its own and none was heard yet.
    Unsynced,
}

impl ClockState {
    /// The word on the wire and in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Unsynced => "unsynced",
        }
    }
}

/// When something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Unix time in milliseconds UTC, as the board's clock had it.
    pub at_ms: i64,
    /// Whether that clock was set.
    pub clock: ClockState,
    /// Milliseconds since the node started, from a clock that never jumps.
    pub mono_ms: u64,
}

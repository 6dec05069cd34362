//! Where Home Assistant looks for descriptions of devices, and says that it has started.

use std::str::FromStr;

use crate::mqtt::{TopicError, topic_name};

/// Longest prefix in bytes: with the longest id behind it a topic stays short.
const PREFIX_MAX_BYTES: usize = 128;

/// The prefix of Home Assistant's discovery topics, `homeassistant` where nobody changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    prefix: String,
}

/// The text is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Not the beginning of a topic.
    #[error("`{0}` is not the beginning of a topic ({1}): write homeassistant, or off")]
    Topic(String, TopicError),
    /// A form that Home Assistant does not take.
    #[error(
        "`{0}` is not a discovery prefix: at most {PREFIX_MAX_BYTES} bytes, no `$` in front, no `/` at either end; or off"
    )]
    Form(String),
}

impl Discovery {
    /// The topic of one device's description. `device` is of `[a-zA-Z0-9_-]`.
    #[must_use]
    pub fn device(&self, device: &str) -> String {
        format!("{}/device/{device}/config", self.prefix)
    }

    /// Where Home Assistant says `online` when it has started.
    #[must_use]
    pub fn birth(&self) -> String {
        format!("{}/status", self.prefix)
    }
}

impl FromStr for Discovery {
    type Err = DiscoveryError;

    fn from_str(prefix: &str) -> Result<Self, DiscoveryError> {
        topic_name(prefix.as_bytes())
            .map_err(|error| DiscoveryError::Topic(prefix.to_owned(), error))?;
        if prefix.len() > PREFIX_MAX_BYTES
            || prefix.starts_with(['$', '/'])
            || prefix.ends_with('/')
        {
            return Err(DiscoveryError::Form(prefix.chars().take(PREFIX_MAX_BYTES).collect()));
        }
        Ok(Self { prefix: prefix.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_beginning_of_a_topic() {
        let plant: Discovery = "plant/ha".parse().unwrap();
        assert_eq!(plant.device("humidor_a"), "plant/ha/device/humidor_a/config");
        assert_eq!(plant.birth(), "plant/ha/status");
        let long = "x".repeat(PREFIX_MAX_BYTES + 1);
        for wrong in ["", "home/#", "a+b", "$SYS", "/ha", "ha/", long.as_str()] {
            assert!(wrong.parse::<Discovery>().is_err(), "{wrong}");
        }
    }
}

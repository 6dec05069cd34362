//! Topic names, checked once when they are parsed.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

/// Longest topic name or filter in bytes. The protocol allows 65,535; no sensor needs more than
/// this, and every stored topic costs memory on a small board.
pub const TOPIC_MAX_BYTES: usize = 1024;

/// Why a text is no topic name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// [MQTT-4.7.3-1]
    #[error("a topic has at least one character")]
    Empty,
    /// More than [`TOPIC_MAX_BYTES`].
    #[error("a topic has at most {TOPIC_MAX_BYTES} bytes here")]
    Long,
    /// [MQTT-1.5.3-1]
    #[error("a topic is UTF-8 text")]
    NotText,
    /// [MQTT-3.3.2-2]
    #[error("a topic to publish to has no wildcard (`+`, `#`)")]
    Wildcard,
    /// [MQTT-4.7.3-2], and the controls that §1.5.3 allows a server to refuse.
    #[error("a topic has no control characters")]
    Control,
}

/// Checks the bytes of a PUBLISH packet's topic name: UTF-8, no wildcard, no control character
/// (MQTT 3.1.1 §4.7).
///
/// # Errors
/// [`TopicError`], with the violated rule.
pub fn topic_name(bytes: &[u8]) -> Result<&str, TopicError> {
    let text = text(bytes)?;
    if text.contains(['+', '#']) {
        return Err(TopicError::Wildcard);
    }
    Ok(text)
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, TopicError> {
    if bytes.is_empty() {
        return Err(TopicError::Empty);
    }
    if bytes.len() > TOPIC_MAX_BYTES {
        return Err(TopicError::Long);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| TopicError::NotText)?;
    if text.chars().any(char::is_control) {
        return Err(TopicError::Control);
    }
    Ok(text)
}

/// A topic name: text of 1 to [`TOPIC_MAX_BYTES`] bytes without wildcards and control characters
/// (MQTT 5.0 §4.7). A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// A topic of the broker's own, made of checked names.
    #[must_use]
    pub fn known(topic: impl Into<Arc<str>>) -> Self {
        let topic = topic.into();
        debug_assert!(topic_name(topic.as_bytes()).is_ok(), "{topic}");
        Self(topic)
    }

    /// The topic name in these bytes.
    ///
    /// # Errors
    /// As [`topic_name`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TopicError> {
        topic_name(bytes).map(|topic| Self(topic.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Topic {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(topic: &str) -> Result<Self, TopicError> {
        Self::from_bytes(topic.as_bytes())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

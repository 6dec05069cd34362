//! What a switch says and is told: `ON`, `OFF`, `TOGGLE`, or JSON with a time.

use std::time::Duration;

use serde::Deserialize;

/// Largest command in bytes.
const COMMAND_MAX_BYTES: usize = 256;
/// Longest time for which an output may be told to hold, in ms: a day.
pub const FOR_MAX_MS: u64 = 86_400_000;

/// State of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Off.
    Off,
    /// On.
    On,
}

impl Switch {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::On => "ON",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn inverse(self) -> Self {
        match self {
            Self::Off => Self::On,
            Self::On => Self::Off,
        }
    }
}

/// What a command wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// This state.
    Be(Switch),
    /// The other one.
    Toggle,
}

/// What an output is told on `…/output/<name>/set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// To what.
    pub to: Wanted,
    /// For how long, before it goes to the other state by itself.
    pub hold: Option<Duration>,
}

/// Why a payload is no command.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// None of the words, and no JSON object of the form.
    #[error("a command is ON, OFF, TOGGLE or {{\"state\":\"ON\",\"for_ms\":500}}: {0}")]
    Form(String),
    /// A time out of range.
    #[error("`for_ms` is {0}; it can be 1 to {FOR_MAX_MS}")]
    Time(u64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Timed {
    state: String,
    for_ms: Option<u64>,
}

impl Command {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn parse(payload: &[u8]) -> Result<Self, CommandError> {
        let form = |text: &str| CommandError::Form(text.to_owned());
        if payload.len() > COMMAND_MAX_BYTES {
            return Err(form("it is too long"));
        }
        let text = std::str::from_utf8(payload).map_err(|_| form("it is not text"))?.trim();
        if let Some(to) = word(text) {
            return Ok(Self { to, hold: None });
        }
        let timed: Timed =
            serde_json::from_str(text).map_err(|error| CommandError::Form(error.to_string()))?;
        let to = word(&timed.state).ok_or_else(|| form("`state` is none of the words"))?;
        let hold = match timed.for_ms {
            None => None,
            Some(ms @ 1..=FOR_MAX_MS) => Some(Duration::from_millis(ms)),
            Some(ms) => return Err(CommandError::Time(ms)),
        };
        Ok(Self { to, hold })
    }
}

fn word(text: &str) -> Option<Wanted> {
    match text {
        "ON" => Some(Wanted::Be(Switch::On)),
        "OFF" => Some(Wanted::Be(Switch::Off)),
        "TOGGLE" => Some(Wanted::Toggle),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_command_is_read() {
        let command = |text: &str| Command::parse(text.as_bytes()).unwrap();
        assert_eq!(command("ON"), Command { to: Wanted::Be(Switch::On), hold: None });
        assert_eq!(command(" TOGGLE\n"), Command { to: Wanted::Toggle, hold: None });
        assert_eq!(
            command(r#"{"state":"OFF"}"#),
            Command { to: Wanted::Be(Switch::Off), hold: None }
        );
        let pulse = command(r#"{"state":"ON","for_ms":500}"#);
        assert_eq!(pulse.hold, Some(Duration::from_millis(500)));
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for wrong in ["", "on", "1", "[]", r#"{"state":1}"#, r#"{"state":"ON","for":5}"#, "{}"] {
            let error = Command::parse(wrong.as_bytes());
            assert!(matches!(error, Err(CommandError::Form(_))), "{wrong}: {error:?}");
        }
        for ms in ["0", "86400001", "18446744073709551615"] {
            let timed = format!(r#"{{"state":"ON","for_ms":{ms}}}"#);
            let error = Command::parse(timed.as_bytes());
            assert!(matches!(error, Err(CommandError::Time(_))), "{ms}: {error:?}");
        }
        assert!(Command::parse(&[0xff]).is_err());
        assert!(Command::parse(&[b' '; COMMAND_MAX_BYTES + 1]).is_err());
    }
}

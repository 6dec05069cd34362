//! How the program logs, which is a setting of every command.

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::parse::choice;

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person.
    Human,
    /// One JSON object a line.
    Json,
}

/// How the program logs.
#[derive(Debug, Clone)]
pub struct Logging {
    /// Levels by module.
    pub filter: Targets,
    /// Form of a line.
    pub format: LogFormat,
    /// Whether the user set no filter.
    pub(super) is_default: bool,
}

impl Logging {
    /// For a command whose output is the result: it logs from warnings on, unless the user set a filter.
    #[must_use]
    pub fn quiet(self) -> Self {
        if self.is_default {
            Self { filter: Targets::new().with_target("humidor", LevelFilter::WARN), ..self }
        } else {
            self
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        let filter = Targets::new().with_default(LevelFilter::ERROR);
        Self { filter, format: LogFormat::Human, is_default: true }
    }
}

/// Levels by module. Not `EnvFilter`, whose patterns for fields bring a regular expression engine.
pub(super) fn filter(text: &str) -> Result<Targets, String> {
    text.parse().map_err(|error| {
        format!("`{text}` is not a log filter ({error}); try debug or humidor=debug")
    })
}

pub(super) fn format(text: &str) -> Result<LogFormat, String> {
    choice(text, &[("human", LogFormat::Human), ("json", LogFormat::Json)])
}

//! How the program logs, which is a setting of every command.

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::parse::{choice, not_one_of};

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person.
    Human,
    /// One JSON object a line.
    Json,
}

/// The levels, by their names.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Crates that log, whose names are filters too: everything that they say.
const CRATES: [&str; 12] = [
    "humidor",
    "axum",
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "rppal",
    "rustls",
    "tokio",
    "tokio_postgres",
    "tower",
    "tower_http",
];

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

    /// As [`Logging::quiet`], with both changes of an alarm.
    #[must_use]
    pub fn quiet_with_alarms(self) -> Self {
        let is_default = self.is_default;
        let quiet = self.quiet();
        if is_default {
            let filter =
                quiet.filter.with_target("humidor::broker::alarm::watch", LevelFilter::INFO);
            Self { filter, ..quiet }
        } else {
            quiet
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
/// A word that is neither a level nor a crate would be the name of one that does not exist, and silence all others.
pub(super) fn filter(text: &str) -> Result<Targets, String> {
    for item in text.split(',').map(str::trim) {
        let level = item.rsplit_once('=').map_or(item, |(_, level)| level.trim());
        let is_crate = !item.contains('=') && (item.contains(['[', ':']) || CRATES.contains(&item));
        if !is_crate && level.parse::<LevelFilter>().is_err() {
            return Err(not_one_of(level, &LEVELS));
        }
    }
    text.parse().map_err(|error| {
        format!("`{text}` is not a log filter ({error}); try debug or humidor=debug")
    })
}

pub(super) fn format(text: &str) -> Result<LogFormat, String> {
    choice(text, &[("human", LogFormat::Human), ("json", LogFormat::Json)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_tells_both_changes_of_an_alarm_unless_another_level_is_set() {
        let tells = |logging: Logging, target: &str| {
            logging.quiet_with_alarms().filter.would_enable(target, &tracing::Level::INFO)
        };
        assert!(tells(Logging::default(), "humidor::broker::alarm::watch"));
        assert!(!tells(Logging::default(), "humidor::broker::run"));
        let set = Targets::new().with_default(LevelFilter::WARN);
        let set = Logging { filter: set, is_default: false, ..Logging::default() };
        assert!(!tells(set, "humidor::broker::alarm::watch"));
    }

    #[test]
    fn a_word_that_is_no_level_is_a_mistake() {
        for right in [
            "debug",
            "INFO",
            "off",
            "humidor",
            "humidor=debug",
            "warn,humidor::web=trace",
            "humidor::web",
            "info, rustls",
        ] {
            assert!(filter(right).is_ok(), "{right}");
        }
        for (wrong, meant) in [
            ("debgu", "debug"),
            ("warning", "warn"),
            ("humidor=inof", "info"),
            ("info,verbose", "debug"),
        ] {
            let error = filter(wrong).unwrap_err();
            assert!(error.ends_with(&format!("did you mean `{meant}`?")), "{wrong}: {error}");
        }
    }
}

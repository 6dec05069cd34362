//! Flags over environment over file over default, each value with its origin.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::key::{Key, PREFIX, Setting};
use super::logging::Logging;
use super::parse::nearest;
use super::problem::{Problem, Problems};
use super::settings::{ANONYMOUS, CONFIG, HTTP_GUESTS, LOG, LOG_FORMAT, SETTINGS};
use super::stray::{without_quotes, without_traces};
use crate::bounded_file;
use crate::visible_text::visible;

/// Ending of a variable that names a file holding a secret.
const FILE_SUFFIX: &str = "_FILE";
/// Largest settings file, in bytes: the longest lists that are taken fill a tenth of it.
const FILE_MAX_BYTES: u64 = 1024 * 1024;
/// Largest secret file, in bytes.
const SECRET_MAX_BYTES: u64 = 4096;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// A variable.
    Environment(String),
    /// The TOML file.
    File(PathBuf),
    /// The table of settings.
    Default,
    /// Another setting's value, by its variable.
    Follows(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
            Self::Follows(other) => write!(f, "follows from {other}"),
        }
    }
}

/// A setting as it takes effect, for `humidor config`.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The setting.
    pub setting: &'static Setting,
    /// Its value and where that came from; `None` when it is not set and has no default. Never a secret.
    pub value: Option<(String, Origin)>,
}

/// The layered values, and the mistakes found so far.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    values: BTreeMap<&'static str, (String, Origin)>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    logging: Logging,
    /// The settings file could not be read: what seems to be missing may be in it.
    lacks_file: bool,
}

impl Layers {
    /// Layers `flags` (keys of settings, and values) over `environment` over the TOML file that either names.
    #[must_use]
    pub fn new(
        flags: &[(&'static str, String)],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut layers = Self::default();
        layers.read_environment(environment);
        for (key, value) in flags {
            if by_key(key).is_none() {
                layers.problem(unknown("flag", key, nearest(key, keys())));
            }
            layers.values.insert(key, (value.clone(), Origin::Flag));
        }
        if let Some(file) = layers.take(&CONFIG) {
            layers.read_file(&file);
        }
        layers.follow();
        layers.read_logging();
        layers
    }

    /// Where anyone may do anything over MQTT, anyone may see the page too, unless a setting says otherwise: to a broker
    /// in a container every client is on another machine.
    fn follow(&mut self) {
        let anonymous = &ANONYMOUS.setting;
        let open = self.value(anonymous).is_some_and(|(value, _)| value == "yes");
        if open && !self.is_set(&HTTP_GUESTS) {
            let origin = Origin::Follows(format!("{}=yes", anonymous.variable()));
            self.values.insert(HTTP_GUESTS.setting.key, ("read".to_owned(), origin));
        }
    }

    /// A mistake in it is noted, and costs no more than the level of what is logged until it is reported.
    fn read_logging(&mut self) {
        let filter = self.need(&LOG);
        let format = self.need(&LOG_FORMAT);
        let fallback = Logging::default();
        self.logging = Logging {
            filter: filter.unwrap_or(fallback.filter),
            format: format.unwrap_or(fallback.format),
            is_default: !self.is_set(&LOG),
        };
    }

    fn read_environment(&mut self, environment: impl IntoIterator<Item = (OsString, OsString)>) {
        let known: BTreeMap<String, &Setting> =
            SETTINGS.iter().map(|setting| (setting.variable(), setting)).collect();
        let mut variables: Vec<_> = environment.into_iter().collect();
        variables.sort();
        for (variable, value) in variables {
            let Some(variable) = variable.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let Ok(value) = value.into_string() else {
                self.problem(format!("{variable} is not UTF-8 text"));
                continue;
            };
            let value = without_traces(&value);
            if let Some(setting) = known.get(variable) {
                // An empty variable is how compose files say "not set".
                if !value.is_empty() {
                    self.warn_of_quotes(setting, variable, value);
                    let origin = Origin::Environment(variable.to_owned());
                    self.values.insert(setting.key, (value.to_owned(), origin));
                }
            } else if let Some(setting) = variable
                .strip_suffix(FILE_SUFFIX)
                .and_then(|name| known.get(name))
                .filter(|s| s.secret)
            {
                match read_secret(Path::new(value)) {
                    Ok(secret) => {
                        self.warn_of_quotes(setting, variable, &secret);
                        // The variable itself sorts before its `_FILE`; both at once is a mistake.
                        let origin = Origin::Environment(variable.to_owned());
                        if self.values.insert(setting.key, (secret, origin)).is_some() {
                            self.problem(format!(
                                "both {} and {variable} are set; set only one of them",
                                setting.variable()
                            ));
                        }
                    }
                    Err(error) => self.problem(format!("{variable}={value}: {error}")),
                }
            } else {
                let near = near_variable(variable, &known);
                self.problem(unknown("variable", variable, near));
            }
        }
    }

    /// A secret in quotes may be meant so. A shell takes them away; `docker run --env-file` and a file of a secret keep
    /// them.
    fn warn_of_quotes(&mut self, setting: &Setting, variable: &str, value: &str) {
        if setting.secret && without_quotes(value).is_some() {
            self.warnings.push(format!(
                "{variable} begins and ends with a quote, which counts as a part of it; `docker run --env-file` and files keep quotes: leave them out if they are not meant"
            ));
        } else if setting.secret && value.trim() != value {
            self.warnings.push(format!(
                "{variable} begins or ends with a space, which counts as a part of it"
            ));
        }
    }

    /// What may be a mistake, as sentences for the user.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn read_file(&mut self, path: &Path) {
        let text = bounded_file::read_text(path, FILE_MAX_BYTES).map_err(|error| error.to_string());
        let table = match text.and_then(|text| {
            text.parse::<toml::Table>().map_err(|error| error.to_string().trim_end().to_owned())
        }) {
            Ok(table) => table,
            Err(error) => {
                self.problem(format!("{}: {error}", path.display()));
                self.lacks_file = true;
                return;
            }
        };
        for (key, value) in table {
            let Some(setting) = by_key(&key).filter(|setting| setting.key != CONFIG.setting.key)
            else {
                let near = nearest(&key, keys());
                self.problem(format!("{}: {}", path.display(), unknown("key", &key, near)));
                continue;
            };
            let Some(value) = flat(&value) else {
                self.problem(format!(
                    "{}: `{key}` must be a text, a number, a list of texts or a table of texts",
                    path.display()
                ));
                continue;
            };
            self.values.entry(setting.key).or_insert((value, Origin::File(path.to_owned())));
        }
    }

    /// How the program logs.
    #[must_use]
    pub fn logging(&self) -> Logging {
        self.logging.clone()
    }

    /// Every setting as it takes effect, in the order of the table.
    pub fn effective(&self) -> impl Iterator<Item = Effective> {
        SETTINGS.iter().map(|setting| {
            let value = self.value(setting).map(|(value, origin)| {
                let shown = match setting {
                    Setting { secret: true, .. } => "(secret)".to_owned(),
                    Setting { form: "URL", .. } => without_password(value),
                    _ => value.to_owned(),
                };
                (shown, origin)
            });
            Effective { setting, value }
        })
    }

    /// The text of a setting and where it came from; `None` when it is not set and has no default.
    fn value(&self, setting: &Setting) -> Option<(&str, Origin)> {
        match self.values.get(setting.key) {
            Some((value, origin)) => Some((value, origin.clone())),
            None => setting.default.map(|default| (default, Origin::Default)),
        }
    }

    /// Whether a flag, a variable or the file sets it.
    pub(super) fn is_set<T>(&self, key: &Key<T>) -> bool {
        self.values.contains_key(key.setting.key)
    }

    /// The value of a setting; `None` when there is none, or when it has a mistake, which is noted.
    pub(super) fn take<T>(&mut self, key: &Key<T>) -> Option<T> {
        let setting = &key.setting;
        let (value, origin) = self.value(setting)?;
        match (key.parse)(value) {
            Ok(typed) => Some(typed),
            Err(error) => {
                let is_bare_right =
                    without_quotes(value).is_some_and(|bare| (key.parse)(bare).is_ok());
                let quotes = if is_bare_right { "; write it without the quotes" } else { "" };
                let name = match origin {
                    Origin::Flag => format!("--{}", setting.flag()),
                    Origin::Environment(variable) => variable,
                    Origin::File(path) => format!("{}: {}", path.display(), setting.key),
                    Origin::Default | Origin::Follows(_) => setting.variable(),
                };
                for mistake in error.lines() {
                    self.problem(format!("{name}: {mistake}{quotes}"));
                }
                None
            }
        }
    }

    /// The right items of a list that has mistakes, each by itself, which [`Layers::take`] notes.
    pub(super) fn right_items<T>(&self, key: &Key<Vec<T>>) -> Vec<T> {
        let Some((value, _)) = self.value(&key.setting) else { return Vec::new() };
        let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.filter_map(|item| (key.parse)(item).ok()).flatten().collect()
    }

    /// As [`Layers::take`], and no value is a mistake too.
    pub(super) fn need<T>(&mut self, key: &Key<T>) -> Option<T> {
        let setting = &key.setting;
        if self.value(setting).is_none() {
            self.missing(format!("{} is not set: {}", setting.variable(), setting.help));
        }
        self.take(key)
    }

    /// Notes a mistake, once: a setting of both roles is looked at twice.
    pub(super) fn problem(&mut self, text: String) {
        // Lines of a list stay lines.
        let problem = Problem(match visible(&text, Some('\n')) {
            Cow::Owned(escaped) => escaped,
            Cow::Borrowed(_) => text,
        });
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Notes a mistake that is one because a setting is not there, unless it may be in a file that could not be read.
    pub(super) fn missing(&mut self, text: String) {
        if !self.lacks_file {
            self.problem(text);
        }
    }

    /// `value` when there was no mistake at all.
    ///
    /// # Errors
    /// All mistakes.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(Problems(self.problems)),
        }
    }

    /// The mistakes so far.
    #[must_use]
    pub fn problems(&self) -> Problems {
        Problems(self.problems.clone())
    }
}

/// The variable that is meant, by what follows the prefix that all have.
fn near_variable<'a>(variable: &str, known: &'a BTreeMap<String, &Setting>) -> Option<&'a str> {
    let ends = || known.keys().filter_map(|name| name.strip_prefix(PREFIX));
    let end = variable.strip_prefix(PREFIX)?;
    // `MQTT_BROKER` is `BROKER`.
    let near = nearest(end, ends()).or_else(|| ends().find(|known| end.ends_with(known)))?;
    known.keys().map(String::as_str).find(|name| name.strip_prefix(PREFIX) == Some(near))
}

/// The setting with this key.
fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

fn keys() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.key)
}

fn unknown(kind: &str, name: &str, near: Option<&str>) -> String {
    match near {
        Some(near) => format!("unknown {kind} `{name}`; did you mean `{near}`?"),
        None => format!("unknown {kind} `{name}`; `humidor config` lists the known ones"),
    }
}

fn flat(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            items.map(|items| items.join(","))
        }
        // `[sensors]` with `hall = "dht22@7"` is the list `hall=dht22@7`.
        toml::Value::Table(items) => {
            let items: Option<Vec<String>> = items
                .iter()
                .map(|(name, value)| Some(format!("{name}={}", value.as_str()?)))
                .collect();
            items.map(|items| items.join(","))
        }
        _ => None,
    }
}

/// Addresses without what stands between the first `:` after the scheme and the last `@` of each: a password, which is refused
/// there and must not be shown all the same.
fn without_password(addresses: &str) -> String {
    let one = |address: &str| {
        let scheme = address.find("://").map_or(0, |at| at + 3);
        let (before, rest) = address.split_at(scheme);
        match (rest.find(':'), rest.rfind('@')) {
            (Some(colon), Some(at)) if colon < at => {
                format!("{before}{}:…{}", &rest[..colon], &rest[at..])
            }
            _ => address.to_owned(),
        }
    };
    // A password may have a comma: what follows it has no scheme.
    if addresses.split(',').all(|item| item.contains("://")) {
        addresses.split(',').map(one).collect::<Vec<_>>().join(",")
    } else {
        one(addresses)
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    let secret =
        bounded_file::read_text(path, SECRET_MAX_BYTES).map_err(|error| error.to_string())?;
    let secret = without_traces(&secret);
    if secret.is_empty() { Err("the file is empty".to_owned()) } else { Ok(secret.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::super::logging::LogFormat;
    use super::super::settings::{ALARMS, BROKER, GPIO, INTERVAL, MQTT_LISTEN, PASSWORD, SENSORS};
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("humidor.toml");
        std::fs::write(
            &file,
            "interval = \"30s\"\ngpio = \"sim\"\nsensors = [\"a=dht11@7\", \"b=dht22@8\"]\n",
        )
        .unwrap();
        let layers = Layers::new(
            &[("config", file.to_string_lossy().into_owned())],
            env(&[("HUMIDOR_INTERVAL", "20s"), ("HUMIDOR_BROKER", ""), ("PATH", "/bin")]),
        );
        assert_eq!(layers.problems(), Problems::default());
        assert_eq!(layers.value(&INTERVAL.setting).unwrap().0, "20s");
        assert_eq!(layers.value(&GPIO.setting), Some(("sim", Origin::File(file))));
        assert_eq!(layers.value(&SENSORS.setting).unwrap().0, "a=dht11@7,b=dht22@8");
        assert_eq!(layers.value(&MQTT_LISTEN.setting).unwrap().1, Origin::Default);
        assert_eq!(layers.value(&BROKER.setting), None);
    }

    #[test]
    fn a_table_in_the_file_is_a_list_of_named_items() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("humidor.toml");
        let text = "[alarms]\nhot = \"press/hall:temperature>30:delay=1m\"\ndry = \"press/hall:humidity<20\"\n";
        std::fs::write(&file, text).unwrap();
        let mut layers = Layers::new(&[("config", file.to_string_lossy().into_owned())], []);
        let alarms = layers.take(&ALARMS).unwrap();
        let names: Vec<&str> = alarms.iter().map(|alarm| alarm.name.as_str()).collect();
        assert_eq!(names, ["dry", "hot"]);
        assert_eq!(layers.problems(), Problems::default());

        std::fs::write(&file, "[alarms]\nhot = \"press/hall:temperatur>30\"\ncold = 3\n").unwrap();
        let layers = Layers::new(&[("config", file.to_string_lossy().into_owned())], []);
        let problems = layers.problems().to_string();
        assert!(problems.contains("`alarms` must be"), "{problems}");
    }

    #[test]
    fn a_key_that_no_setting_has_is_a_mistake_as_a_flag_too() {
        let layers = Layers::new(&[("intervall", "10s".to_owned())], []);
        let problems = layers.problems().to_string();
        assert!(problems.contains("did you mean `interval`"), "{problems}");
    }

    #[test]
    fn a_wrong_log_setting_is_a_mistake_of_every_command() {
        let layers = Layers::new(&[("log_format", "jsn".to_owned())], []);
        assert_eq!(layers.logging().format, LogFormat::Human);
        let problems = crate::config::data(layers).unwrap_err().to_string();
        assert!(problems.contains("--log-format: `jsn` is none of human, json"), "{problems}");
    }

    #[test]
    fn what_nobody_means_around_a_secret_is_taken_away_and_quotes_are_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let secret = |variable: &str, value: &str| {
            let mut layers = Layers::new(&[], env(&[(variable, value)]));
            let warned = layers.warnings().join("|");
            (layers.take(&PASSWORD), warned)
        };
        let name = "HUMIDOR_PASSWORD";
        for value in ["hush", "\u{feff}hush", "hush\r", "\u{feff}hush\r\n"] {
            assert_eq!(secret(name, value), (Some("hush".to_owned()), String::new()), "{value:?}");
            std::fs::write(&file, value).unwrap();
            let of_file = secret("HUMIDOR_PASSWORD_FILE", file.to_str().unwrap());
            assert_eq!(of_file, (Some("hush".to_owned()), String::new()), "{value:?}");
        }
        for value in ["\"hush\"", "'hush'", " hush"] {
            let (kept, warned) = secret(name, value);
            assert_eq!(kept.as_deref(), Some(value));
            assert!(warned.contains(name) && !warned.contains("hush"), "{warned}");
        }
        let mut layers =
            Layers::new(&[], env(&[("HUMIDOR_INTERVAL", "\"10s\""), ("HUMIDOR_GPIO", "c\rdev")]));
        assert_eq!((layers.take(&INTERVAL), layers.take(&GPIO)), (None, None));
        let problems = layers.problems().to_string();
        assert!(problems.contains("without the quotes"), "{problems}");
        assert!(problems.contains("`c\\rdev`") && !problems.contains('\r'), "{problems}");
    }

    #[test]
    fn of_a_file_that_cannot_be_read_nothing_is_said_to_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.toml");
        let problems = |more: &[(&str, &str)]| {
            let layers = Layers::new(
                &[("config", file.to_string_lossy().into_owned()), ("node", "box".to_owned())],
                env(more),
            );
            crate::config::node(layers).unwrap_err().0
        };
        let tls = [("HUMIDOR_BROKER", "mqtts://hall"), ("HUMIDOR_TLS_CERT", "c.pem")];
        assert_eq!(problems(&[]).len(), 1, "{:?}", problems(&[]));
        assert_eq!(problems(&tls).len(), 1, "{:?}", problems(&tls));
        assert_eq!(problems(&[("HUMIDOR_INTERVAL", "soon")]).len(), 2, "one that is there counts");
        std::fs::write(&file, "sensors = ").unwrap();
        assert_eq!(problems(&[]).len(), 1, "{:?}", problems(&[]));
        std::fs::write(&file, "").unwrap();
        assert_eq!(problems(&[]).len(), 2, "broker and sensors");
        assert_eq!(problems(&tls).len(), 2, "key and sensors");
    }

    #[test]
    fn every_mistake_is_reported_with_the_nearest_known_name() {
        let mut layers = Layers::new(
            &[("config", "/nonexistent/humidor.toml".into())],
            env(&[
                ("HUMIDOR_SENSOR", "x"),
                ("HUMIDOR_INTERVAL", "soon"),
                ("HUMIDOR_PASSWORD_FILE", "/nonexistent/p"),
            ]),
        );
        let none = layers.take(&INTERVAL);
        let problems = layers.finish(none).unwrap_err().to_string();
        for expected in [
            "4 mistakes",
            "did you mean `HUMIDOR_SENSORS`",
            "HUMIDOR_INTERVAL: `soon` is not a time",
            "HUMIDOR_PASSWORD_FILE=/nonexistent/p",
            "/nonexistent/humidor.toml",
        ] {
            assert!(problems.contains(expected), "{expected} in {problems}");
        }
    }
}

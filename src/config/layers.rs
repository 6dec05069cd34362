//! Flags over environment over file over default, each value with its origin.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::parse::nearest;
use super::settings::{FILE_SUFFIX, PREFIX, SETTINGS, Setting, by_key};
use crate::bounded_file;

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
    /// Nobody said.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One mistake, ready to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(pub String);

/// All mistakes of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [Problem(only)] => write!(f, "the configuration is wrong: {only}"),
            many => {
                write!(f, "the configuration has {} mistakes:", many.len())?;
                many.iter().try_for_each(|Problem(text)| write!(f, "\n  - {text}"))
            }
        }
    }
}

/// The layered values, and the mistakes found so far.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    values: BTreeMap<&'static str, (String, Origin)>,
    problems: Vec<Problem>,
}

impl Layers {
    /// Layers `flags` (key and value) over `environment` over the TOML file that either names.
    #[must_use]
    pub fn new(
        flags: &[(&'static str, String)],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut layers = Self::default();
        layers.read_environment(environment);
        for (key, value) in flags {
            layers.values.insert(key, (value.clone(), Origin::Flag));
        }
        if let Some((file, _)) = layers.values.get("config").cloned() {
            layers.read_file(Path::new(&file));
        }
        layers
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
            if let Some(setting) = known.get(variable) {
                // An empty variable is how compose files say "not set".
                if !value.is_empty() {
                    self.values
                        .insert(setting.key, (value, Origin::Environment(variable.to_owned())));
                }
            } else if let Some(setting) = variable
                .strip_suffix(FILE_SUFFIX)
                .and_then(|name| known.get(name))
                .filter(|s| s.secret)
            {
                match read_secret(Path::new(&value)) {
                    Ok(secret) => {
                        // The variable itself sorts before its `_FILE`; both at once is a mistake.
                        let origin = Origin::Environment(variable.to_owned());
                        if self.values.insert(setting.key, (secret, origin)).is_some() {
                            self.problem(format!(
                                "both {} and {variable} are set; keep one",
                                setting.variable()
                            ));
                        }
                    }
                    Err(error) => self.problem(format!("{variable}={value}: {error}")),
                }
            } else {
                let near = nearest(variable, known.keys().map(String::as_str));
                self.problem(unknown("variable", variable, near));
            }
        }
    }

    fn read_file(&mut self, path: &Path) {
        let text = bounded_file::read_text(path, FILE_MAX_BYTES).map_err(|error| error.to_string());
        let table = match text.and_then(|text| {
            text.parse::<toml::Table>().map_err(|error| error.to_string().trim_end().to_owned())
        }) {
            Ok(table) => table,
            Err(error) => {
                self.problem(format!("{}: {error}", path.display()));
                return;
            }
        };
        for (key, value) in table {
            let Some(setting) = by_key(&key).filter(|setting| setting.key != "config") else {
                let near = nearest(&key, SETTINGS.iter().map(|setting| setting.key));
                self.problem(format!("{}: {}", path.display(), unknown("key", &key, near)));
                continue;
            };
            let Some(value) = flat(&value) else {
                self.problem(format!(
                    "{}: `{key}` takes a text, a number, a list of texts or a table of them",
                    path.display()
                ));
                continue;
            };
            self.values.entry(setting.key).or_insert((value, Origin::File(path.to_owned())));
        }
    }

    /// The value of a setting and where it came from; `None` when nobody said and there is no default.
    #[must_use]
    pub fn get(&self, key: &'static str) -> Option<(String, Origin)> {
        let default = || {
            by_key(key)
                .and_then(|setting| setting.default)
                .map(|default| (default.to_owned(), Origin::Default))
        };
        self.values.get(key).cloned().or_else(default)
    }

    /// Turns a setting into its type; a mistake is noted and gives `None`, and so does no value.
    pub fn take<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (value, origin) = self.get(key)?;
        match parse(&value) {
            Ok(typed) => Some(typed),
            Err(error) => {
                let name = by_key(key).map_or_else(
                    || key.to_owned(),
                    |setting| match &origin {
                        Origin::Flag => format!("--{}", setting.flag()),
                        Origin::Environment(variable) => variable.clone(),
                        Origin::File(path) => format!("{}: {key}", path.display()),
                        Origin::Default => setting.variable(),
                    },
                );
                self.problem(format!("{name}: {error}"));
                None
            }
        }
    }

    /// As [`Layers::take`], and no value is a mistake too.
    pub fn need<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if self.get(key).is_none()
            && let Some(setting) = by_key(key)
        {
            self.problem(format!("{} is not set: {}", setting.variable(), setting.help));
        }
        self.take(key, parse)
    }

    /// Notes a mistake.
    pub fn problem(&mut self, text: String) {
        self.problems.push(Problem(text));
    }

    /// `value` when there was no mistake at all.
    ///
    /// # Errors
    /// All mistakes.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Problems> {
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

fn read_secret(path: &Path) -> Result<String, String> {
    let secret =
        bounded_file::read_text(path, SECRET_MAX_BYTES).map_err(|error| error.to_string())?;
    // Editors end a file with a newline that nobody means.
    let secret = secret.trim_end_matches(['\r', '\n']);
    if secret.is_empty() { Err("the file is empty".to_owned()) } else { Ok(secret.to_owned()) }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(layers.get("interval").unwrap().0, "20s");
        assert_eq!(layers.get("gpio").unwrap(), ("sim".into(), Origin::File(file)));
        assert_eq!(layers.get("sensors").unwrap().0, "a=dht11@7,b=dht22@8");
        assert_eq!(layers.get("mqtt_listen").unwrap().1, Origin::Default);
        assert_eq!(layers.get("broker"), None);
    }

    #[test]
    fn a_table_in_the_file_is_a_list_of_named_items() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("humidor.toml");
        let text = "[alarms]\nhot = \"press/hall:temperature>30:delay=1m\"\ndry = \"press/hall:humidity<20\"\n";
        std::fs::write(&file, text).unwrap();
        let mut layers = Layers::new(&[("config", file.to_string_lossy().into_owned())], []);
        let alarms = layers.take("alarms", crate::config::alarms::alarms).unwrap();
        let names: Vec<&str> = alarms.iter().map(|alarm| alarm.name.as_str()).collect();
        assert_eq!(names, ["dry", "hot"]);
        assert_eq!(layers.problems(), Problems::default());

        std::fs::write(&file, "[alarms]\nhot = \"press/hall:temperatur>30\"\ncold = 3\n").unwrap();
        let layers = Layers::new(&[("config", file.to_string_lossy().into_owned())], []);
        let problems = layers.problems().to_string();
        assert!(problems.contains("`alarms` takes"), "{problems}");
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
        let none: Option<()> = layers.take("interval", |_| Err("not a time"));
        let problems = layers.finish(none).unwrap_err().to_string();
        for expected in [
            "4 mistakes",
            "did you mean `HUMIDOR_SENSORS`",
            "HUMIDOR_INTERVAL: not a time",
            "HUMIDOR_PASSWORD_FILE=/nonexistent/p",
            "/nonexistent/humidor.toml",
        ] {
            assert!(problems.contains(expected), "{expected} in {problems}");
        }
    }
}

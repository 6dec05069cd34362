//! A setting: its names, its scope, and the type of its value. A key that is misspelt does not compile.

/// Prefix of every variable.
pub const PREFIX: &str = "HUMIDOR_";

/// The commands that take a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every command.
    All,
    /// Commands that read or write the data folder.
    Data,
    /// The broker's role.
    Broker,
    /// The broker's role, and commands on its log.
    Log,
    /// The broker's role, and commands on the upstream database.
    Upstream,
    /// The broker's role and commands on its users.
    Users,
    /// The broker's role, but not the demo, whose ports are open.
    Access,
    /// Both roles: what one needs to log in.
    Login,
    /// The board's role.
    Node,
    /// Both roles.
    Roles,
    /// The board's role, and every other command on its lines.
    Lines,
}

/// One row of the table of settings.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Key in the TOML file, in `snake_case`; the flag and the variable are made from it.
    pub key: &'static str,
    /// The commands that take it.
    pub scope: Scope,
    /// The value when none is set.
    pub default: Option<&'static str>,
    /// Never shown, and may come from a file.
    pub secret: bool,
    /// Form of the value, for the help.
    pub form: &'static str,
    /// What it is for, for the help.
    pub help: &'static str,
}

impl Setting {
    /// The environment's name for it: `HUMIDOR_MQTT_LISTEN`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key.to_ascii_uppercase())
    }

    /// The command line's name for it, without dashes: `mqtt-listen`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }
}

/// A setting with the type of its value.
pub(super) struct Key<T> {
    pub setting: Setting,
    /// From the text to the value, or to the mistake in it.
    pub parse: fn(&str) -> Result<T, String>,
}

//! The table of settings: the one truth for flags, variables, TOML keys, defaults and help.

/// Prefix of every variable.
pub const PREFIX: &str = "HUMIDOR_";
/// Ending of a variable that names a file holding a secret.
pub const FILE_SUFFIX: &str = "_FILE";

/// Which commands take a setting.
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
    /// The broker's role and commands on its users.
    Users,
    /// The broker's role, but not the demo, whose doors are open.
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

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// TOML key; the flag and the variable are made from it.
    pub key: &'static str,
    /// Who takes it.
    pub scope: Scope,
    /// Its value where nobody says otherwise.
    pub default: Option<&'static str>,
    /// Not shown, and may come from a file.
    pub secret: bool,
    /// Form of the value, for the help.
    pub form: &'static str,
    /// What it is.
    pub help: &'static str,
}

impl Setting {
    /// `HUMIDOR_MQTT_LISTEN`
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key.to_ascii_uppercase())
    }

    /// `mqtt-listen`
    #[must_use]
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }
}

const fn setting(
    key: &'static str,
    scope: Scope,
    default: Option<&'static str>,
    form: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, scope, default, secret: false, form, help }
}

/// All settings, in the order they are shown.
pub const SETTINGS: &[Setting] = &[
    setting(
        "config",
        Scope::All,
        None,
        "FILE",
        "TOML file with these settings, keys in snake_case",
    ),
    setting(
        "log",
        Scope::All,
        Some("humidor=info,rumqttd=off,rumqttc=off"),
        "FILTER",
        "What is logged, levels by module: debug, warn,humidor::broker=debug, …",
    ),
    setting("log_format", Scope::All, Some("human"), "FORMAT", "human or json"),
    setting(
        "data",
        Scope::Data,
        Some("./data"),
        "DIR",
        "Folder of the log (humidor.db) or of the outbox (outbox.db)",
    ),
    setting(
        "mqtt_listen",
        Scope::Broker,
        Some("0.0.0.0:1883"),
        "ADDR",
        "Where MQTT clients connect",
    ),
    setting(
        "http_listen",
        Scope::Broker,
        Some("0.0.0.0:8080"),
        "ADDR",
        "Where browsers and other HTTP clients connect, or off",
    ),
    setting(
        "http_guests",
        Scope::Broker,
        Some("local"),
        "WHO",
        "Without a login: none; local (who is on this machine looks and switches outputs); read (everybody looks); switch (everybody switches too)",
    ),
    setting(
        "http_hosts",
        Scope::Broker,
        Some(""),
        "NAMES",
        "Names that browsers call this broker by, besides its addresses and host name: plant.example.org",
    ),
    setting(
        "mqtts_listen",
        Scope::Access,
        None,
        "ADDR",
        "Where MQTT clients connect over TLS, e.g. 0.0.0.0:8883; needs --tls-cert and --tls-key",
    ),
    setting(
        "logged_filters",
        Scope::Broker,
        Some(""),
        "FILTERS",
        "Topic filters of foreign publishers to log too: plant/#,tele/+/SENSOR",
    ),
    setting(
        "commit_window",
        Scope::Broker,
        Some("0ms"),
        "TIME",
        "How long a commit waits for company, up to 1s: fewer writes to an SD card, later acknowledgements",
    ),
    setting(
        "alarms",
        Scope::Broker,
        Some(""),
        "LIST",
        "Alarms: hot=press/hall:temperature>30:hysteresis=2:delay=1m:output=roof/fan, dry=press/hall:humidity<20, quiet=press/hall:silent>5m, lost=press:gap:clear=1h, time=press:clock:delay=5m",
    ),
    setting(
        "users_file",
        Scope::Users,
        None,
        "FILE",
        "Who may connect, written by `humidor user` [default: users.toml in the data folder]",
    ),
    setting(
        "user",
        Scope::Access,
        None,
        "NAME",
        "One user who may do everything, beside or instead of the users file; its password is HUMIDOR_PASSWORD_FILE",
    ),
    setting(
        "anonymous",
        Scope::Access,
        Some("auto"),
        "WHEN",
        "Whether clients may connect without a name, and then do everything: yes, no, or auto (while there is no user and only this machine reaches the port)",
    ),
    setting(
        "connections",
        Scope::Access,
        Some("2000"),
        "N",
        "MQTT clients at once, from 1 to 100000",
    ),
    setting(
        "connections_per_address",
        Scope::Access,
        Some("1500"),
        "N",
        "MQTT clients at once from one address; those behind an address translation count as one",
    ),
    setting(
        "message_rate",
        Scope::Access,
        Some("0"),
        "N",
        "Messages a second that are read from one client, the rest waits on its side; 0 is no limit",
    ),
    setting(
        "byte_rate",
        Scope::Access,
        Some("0"),
        "BYTES",
        "Bytes a second that are read from one client, at least 1024; 0 is no limit",
    ),
    setting(
        "tls_cert",
        Scope::Login,
        None,
        "FILE",
        "PEM file: on the broker its certificate with what stands above it, on a node the one it shows a broker that asks",
    ),
    setting("tls_key", Scope::Login, None, "FILE", "PEM file of the key to --tls-cert"),
    setting(
        "tls_ca",
        Scope::Login,
        None,
        "FILE",
        "PEM file: on a node of who signed the broker's certificate [default: whom the system trusts], on the broker of who signs certificates that clients must have [default: they need none]",
    ),
    setting(
        "discovery",
        Scope::Roles,
        Some("homeassistant"),
        "PREFIX",
        "Where Home Assistant looks for devices; off tells it nothing",
    ),
    setting(
        "keep_raw",
        Scope::Log,
        Some("90d"),
        "AGE",
        "How long single readings are kept, from 1d: 90d, 36h, forever; their minutes, quarters and hours stay",
    ),
    setting(
        "max_db",
        Scope::Log,
        Some("1GiB"),
        "SIZE",
        "Largest size of the log's file, from 16MiB; beyond it the oldest of the finest goes",
    ),
    setting("node", Scope::Lines, None, "ID", "Node id, a-z 0-9 and - [default: the host name]"),
    setting(
        "broker",
        Scope::Node,
        None,
        "URL",
        "The broker: mqtt://[user@]host[:1883], or mqtts://[user@]host[:8883]",
    ),
    Setting {
        secret: true,
        ..setting(
            "password",
            Scope::Login,
            None,
            "TEXT",
            "Password: on a node for the user in the broker's address, on the broker for its --user; better by HUMIDOR_PASSWORD_FILE",
        )
    },
    setting(
        "sensors",
        Scope::Lines,
        None,
        "LIST",
        "Sensors as name=model@pin: hall=dht22@7,press=dht11@PA6",
    ),
    setting(
        "inputs",
        Scope::Lines,
        None,
        "LIST",
        "Inputs as name=pin, with options: door=GPIO22:debounce=50ms:active=low",
    ),
    setting(
        "outputs",
        Scope::Lines,
        None,
        "LIST",
        "Outputs as name=pin, with options: fan=GPIO27:safe=off:away=60s:active=low; safe is taken at start, at the end, and when the broker is away for longer than away",
    ),
    setting(
        "interval",
        Scope::Node,
        Some("10s"),
        "TIME",
        "Between two readings of one sensor; DHT11 from 1s, DHT22 from 2s",
    ),
    setting(
        "gpio",
        Scope::Lines,
        Some("auto"),
        "BACKEND",
        "How pins are reached: auto, cdev (character device), rppal (Raspberry Pi's registers), iio (the kernel's dht11 driver), sim (simulated sensors)",
    ),
    setting(
        "board",
        Scope::Lines,
        None,
        "BOARD",
        "raspberry-pi-3, -4, -5, orange-pi-zero, -zero-2, -zero-3 [default: recognised from the device tree]",
    ),
    setting(
        "clock",
        Scope::Node,
        Some("kernel"),
        "TRUST",
        "Whose word is taken for the clock being set: kernel, or always where no time source tells the kernel",
    ),
    // Three weeks of one sensor at 10 s, about 40 MB.
    setting(
        "outbox_capacity",
        Scope::Node,
        Some("200000"),
        "READINGS",
        "Readings kept while the broker is away; beyond it the oldest go",
    ),
    setting(
        "sim_faults",
        Scope::Lines,
        Some("0.02"),
        "SHARE",
        "Share of a simulated sensor's answers that are garbled or missing, 0 to 1",
    ),
];

/// The setting with this key.
#[must_use]
pub fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

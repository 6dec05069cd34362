//! The table of settings: the one truth for flags, variables, TOML keys, defaults, types and help.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::filter::Targets;

use super::key::{Key, Scope, Setting};
use super::logging::{self, LogFormat};
use super::parse::{
    age, duration, host_names, interval, listen, listen_or_off, number, number_or_none, plain,
    share,
};
use super::values::{
    anonymous, backend, board, clock, discovery, guests, logged_filters, max_db, node, user,
};
use super::{alarms, pins};
use crate::board::Board;
use crate::broker::{AlarmConfig, Anonymous};
use crate::clock::ClockTrust;
use crate::mqtt::Filter;
use crate::node::{Backend, BrokerAddress, InputConfig, OutputConfig, SensorConfig};
use crate::reading::Id;
use crate::web::Guests;
use crate::wire::Discovery;

/// Longest time that a commit may wait for further readings.
const COMMIT_WINDOW_MAX: Duration = Duration::from_secs(1);
/// Most MQTT clients at once that can be set.
const CONNECTIONS_MAX: usize = 100_000;
/// Least limit of a client's bytes a second: below it a packet takes minutes.
const BYTE_RATE_MIN: u32 = 1024;
/// Most readings that an outbox may be told to hold, about 2 GB.
const OUTBOX_CAPACITY_MAX: u64 = 10_000_000;

/// A constant for each row, and the table of all of them.
macro_rules! settings {
    ($($name:ident: $type:ty = {
        key: $key:literal, scope: $scope:ident, default: $default:expr, form: $form:literal
        $(, secret: $secret:literal)?,
        parse: $parse:expr,
        help: $help:literal,
    })*) => {
        $(
            pub(super) const $name: Key<$type> = Key {
                setting: Setting {
                    key: $key,
                    scope: Scope::$scope,
                    default: $default,
                    secret: false $(|| $secret)?,
                    form: $form,
                    help: $help,
                },
                parse: $parse,
            };
        )*

        /// All settings, in the order they are shown.
        pub const SETTINGS: &[Setting] = &[$($name.setting),*];
    };
}

settings! {
    CONFIG: PathBuf = {
        key: "config", scope: All, default: None, form: "FILE",
        parse: plain,
        help: "TOML file with these settings, keys in snake_case",
    }
    LOG: Targets = {
        key: "log", scope: All, default: Some("humidor=info,rumqttd=off,rumqttc=off"), form: "FILTER",
        parse: logging::filter,
        help: "What is logged, levels by module: debug, warn,humidor::broker=debug, …",
    }
    LOG_FORMAT: LogFormat = {
        key: "log_format", scope: All, default: Some("human"), form: "FORMAT",
        parse: logging::format,
        help: "human or json",
    }
    DATA: PathBuf = {
        key: "data", scope: Data, default: Some("./data"), form: "DIR",
        parse: plain,
        help: "Folder of the log (humidor.db) or of the outbox (outbox.db)",
    }
    MQTT_LISTEN: SocketAddr = {
        key: "mqtt_listen", scope: Broker, default: Some("0.0.0.0:1883"), form: "ADDR",
        parse: |text| listen(text, 1883),
        help: "Where MQTT clients connect",
    }
    HTTP_LISTEN: Option<SocketAddr> = {
        key: "http_listen", scope: Broker, default: Some("0.0.0.0:8080"), form: "ADDR",
        parse: |text| listen_or_off(text, 8080),
        help: "Where browsers and other HTTP clients connect, or off",
    }
    HTTP_GUESTS: Guests = {
        key: "http_guests", scope: Broker, default: Some("local"), form: "WHO",
        parse: guests,
        help: "Without a login: none; local (who is on this machine looks and switches outputs); read (everybody looks); switch (everybody switches too)",
    }
    HTTP_HOSTS: Vec<String> = {
        key: "http_hosts", scope: Broker, default: Some(""), form: "NAMES",
        parse: host_names,
        help: "Names that browsers call this broker by, besides its addresses and host name: plant.example.org",
    }
    MQTTS_LISTEN: SocketAddr = {
        key: "mqtts_listen", scope: Access, default: None, form: "ADDR",
        parse: |text| listen(text, 8883),
        help: "Where MQTT clients connect over TLS, e.g. 0.0.0.0:8883; needs --tls-cert and --tls-key",
    }
    LOGGED_FILTERS: Vec<Filter> = {
        key: "logged_filters", scope: Broker, default: Some(""), form: "FILTERS",
        parse: logged_filters,
        help: "Topic filters of foreign publishers to log too: plant/#,tele/+/SENSOR",
    }
    COMMIT_WINDOW: Duration = {
        key: "commit_window", scope: Broker, default: Some("0ms"), form: "TIME",
        parse: |text| duration(text, Duration::ZERO..=COMMIT_WINDOW_MAX),
        help: "How long a commit waits for company, up to 1s: fewer writes to an SD card, later acknowledgements",
    }
    ALARMS: Vec<AlarmConfig> = {
        key: "alarms", scope: Broker, default: Some(""), form: "LIST",
        parse: alarms::alarms,
        help: "Alarms: hot=press/hall:temperature>30:hysteresis=2:delay=1m:output=roof/fan, dry=press/hall:humidity<20, quiet=press/hall:silent>5m, lost=press:gap:clear=1h, time=press:clock:delay=5m",
    }
    USERS_FILE: PathBuf = {
        key: "users_file", scope: Users, default: None, form: "FILE",
        parse: plain,
        help: "Who may connect, written by `humidor user` [default: users.toml in the data folder]",
    }
    USER: String = {
        key: "user", scope: Access, default: None, form: "NAME",
        parse: user,
        help: "One user who may do everything, beside or instead of the users file; its password is HUMIDOR_PASSWORD_FILE",
    }
    ANONYMOUS: Anonymous = {
        key: "anonymous", scope: Access, default: Some("auto"), form: "WHEN",
        parse: anonymous,
        help: "Whether clients may connect without a name, and then do everything: yes, no, or auto (while there is no user and only this machine reaches the port)",
    }
    CONNECTIONS: usize = {
        key: "connections", scope: Access, default: Some("2000"), form: "N",
        parse: |text| number(text, 1..=CONNECTIONS_MAX),
        help: "MQTT clients at once, from 1 to 100000",
    }
    CONNECTIONS_PER_ADDRESS: usize = {
        key: "connections_per_address", scope: Access, default: Some("1500"), form: "N",
        parse: |text| number(text, 1..=CONNECTIONS_MAX),
        help: "MQTT clients at once from one address; those behind an address translation count as one",
    }
    MESSAGE_RATE: u32 = {
        key: "message_rate", scope: Access, default: Some("0"), form: "N",
        parse: |text| number_or_none(text, 1..=u32::MAX),
        help: "Messages a second that are read from one client, the rest waits on its side; 0 is no limit",
    }
    BYTE_RATE: u32 = {
        key: "byte_rate", scope: Access, default: Some("0"), form: "BYTES",
        parse: |text| number_or_none(text, BYTE_RATE_MIN..=u32::MAX),
        help: "Bytes a second that are read from one client, at least 1024; 0 is no limit",
    }
    TLS_CERT: PathBuf = {
        key: "tls_cert", scope: Login, default: None, form: "FILE",
        parse: plain,
        help: "PEM file: on the broker its certificate with what stands above it, on a node the one it shows a broker that asks",
    }
    TLS_KEY: PathBuf = {
        key: "tls_key", scope: Login, default: None, form: "FILE",
        parse: plain,
        help: "PEM file of the key to --tls-cert",
    }
    TLS_CA: PathBuf = {
        key: "tls_ca", scope: Login, default: None, form: "FILE",
        parse: plain,
        help: "PEM file: on a node of who signed the broker's certificate [default: whom the system trusts], on the broker of who signs certificates that clients must have [default: they need none]",
    }
    DISCOVERY: Option<Discovery> = {
        key: "discovery", scope: Roles, default: Some("homeassistant"), form: "PREFIX",
        parse: discovery,
        help: "Where Home Assistant looks for devices; off tells it nothing",
    }
    KEEP_RAW: Option<Duration> = {
        key: "keep_raw", scope: Log, default: Some("90d"), form: "AGE",
        parse: age,
        help: "How long single readings are kept, from 1d: 90d, 36h, forever; their minutes, quarters and hours stay",
    }
    MAX_DB: u64 = {
        key: "max_db", scope: Log, default: Some("1GiB"), form: "SIZE",
        parse: max_db,
        help: "Largest size of the log's file, from 16MiB; beyond it the oldest of the finest goes",
    }
    NODE: Id = {
        key: "node", scope: Lines, default: None, form: "ID",
        parse: node,
        help: "Node id, a-z 0-9 and - [default: the host name]",
    }
    BROKER: BrokerAddress = {
        key: "broker", scope: Node, default: None, form: "URL",
        parse: plain,
        help: "The broker: mqtt://[user@]host[:1883], or mqtts://[user@]host[:8883]",
    }
    PASSWORD: String = {
        key: "password", scope: Login, default: None, form: "TEXT", secret: true,
        parse: plain,
        help: "Password: on a node for the user in the broker's address, on the broker for its --user; better by HUMIDOR_PASSWORD_FILE",
    }
    SENSORS: Vec<SensorConfig> = {
        key: "sensors", scope: Lines, default: None, form: "LIST",
        parse: pins::sensors,
        help: "Sensors as name=model@pin: hall=dht22@7,press=dht11@PA6",
    }
    INPUTS: Vec<InputConfig> = {
        key: "inputs", scope: Lines, default: None, form: "LIST",
        parse: pins::inputs,
        help: "Inputs as name=pin, with options: door=GPIO22:debounce=50ms:active=low",
    }
    OUTPUTS: Vec<OutputConfig> = {
        key: "outputs", scope: Lines, default: None, form: "LIST",
        parse: pins::outputs,
        help: "Outputs as name=pin, with options: fan=GPIO27:safe=off:away=60s:active=low; safe is taken at start, at the end, and when the broker is away for longer than away",
    }
    INTERVAL: Duration = {
        key: "interval", scope: Node, default: Some("10s"), form: "TIME",
        parse: interval,
        help: "Between two readings of one sensor; DHT11 from 1s, DHT22 from 2s",
    }
    GPIO: Backend = {
        key: "gpio", scope: Lines, default: Some("auto"), form: "BACKEND",
        parse: backend,
        help: "How pins are reached: auto, cdev (character device), rppal (Raspberry Pi's registers), iio (the kernel's dht11 driver), sim (simulated sensors)",
    }
    BOARD: &'static Board = {
        key: "board", scope: Lines, default: None, form: "BOARD",
        parse: board,
        help: "raspberry-pi-3, -4, -5, orange-pi-zero, -zero-2, -zero-3 [default: recognised from the device tree]",
    }
    CLOCK: ClockTrust = {
        key: "clock", scope: Node, default: Some("kernel"), form: "TRUST",
        parse: clock,
        help: "Whose word is taken for the clock being set: kernel, or always where no time source tells the kernel",
    }
    OUTBOX_CAPACITY: u64 = {
        key: "outbox_capacity", scope: Node, default: Some("200000"), form: "READINGS",
        // Three weeks of one sensor at 10 s, about 40 MB.
        parse: |text| number(text, 1..=OUTBOX_CAPACITY_MAX),
        help: "Readings kept while the broker is away; beyond it the oldest go",
    }
    SIM_FAULTS: f64 = {
        key: "sim_faults", scope: Lines, default: Some("0.02"), form: "SHARE",
        parse: share,
        help: "Share of a simulated sensor's answers that are garbled or missing, 0 to 1",
    }
}

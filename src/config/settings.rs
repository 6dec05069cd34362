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
    acknowledge, anonymous, backend, backlog, board, clock, discovery, guests, logged_filters,
    max_db, node, user, when,
};
use super::{alarms, pins};
use crate::board::Board;
use crate::broker::{AlarmConfig, Anonymous};
use crate::clock::ClockTrust;
use crate::mqtt::Filter;
use crate::node::{Backend, Brokers, InputConfig, OutputConfig, SensorConfig};
use crate::reading::Id;
use crate::upstream::{Acknowledge, UpstreamAddress};
use crate::web::Guests;
use crate::wire::Discovery;

/// Longest time that a commit may wait for further readings.
const COMMIT_WINDOW_MAX: Duration = Duration::from_secs(1);
/// Most MQTT clients at once that can be set.
const CONNECTIONS_MAX: usize = 100_000;
/// Most levels of a topic filter: as many as the longest one has.
const FILTER_LEVELS_MAX: usize = 512;
/// Most series of one user that can be set.
const SERIES_MAX: usize = 1_000_000;
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
        help: "TOML file with these settings; its keys are the flags in snake_case",
    }
    LOG: Targets = {
        key: "log", scope: All, default: Some("humidor=info,rumqttd=off,rumqttc=off"), form: "FILTER",
        parse: logging::filter,
        help: "Log level, or levels by module: debug, or warn,humidor::broker=debug",
    }
    LOG_FORMAT: LogFormat = {
        key: "log_format", scope: All, default: Some("human"), form: "FORMAT",
        parse: logging::format,
        help: "Format of log lines: human or json",
    }
    DATA: PathBuf = {
        key: "data", scope: Data, default: Some("./data"), form: "DIR",
        parse: plain,
        help: "Folder of the database: humidor.db on the broker, outbox.db on a node",
    }
    MQTT_LISTEN: SocketAddr = {
        key: "mqtt_listen", scope: Broker, default: Some("0.0.0.0:1883"), form: "ADDR",
        parse: |text| listen(text, 1883),
        help: "Address and port for MQTT clients",
    }
    HTTP_LISTEN: Option<SocketAddr> = {
        key: "http_listen", scope: Broker, default: Some("0.0.0.0:8080"), form: "ADDR",
        parse: |text| listen_or_off(text, 8080),
        help: "Address and port for browsers and other HTTP clients, or off",
    }
    HTTP_GUESTS: Guests = {
        key: "http_guests", scope: Broker, default: Some("local"), form: "ACCESS",
        parse: guests,
        help: "Access over HTTP without a login: none; local (see the page, on the broker's own \
            machine only); read (see the page, from any machine; the default with --anonymous \
            yes); switch (see the page and switch outputs, from any machine). With local and \
            read, the broker's own machine may also switch outputs while MQTT needs no login",
    }
    HTTP_HOSTS: Vec<String> = {
        key: "http_hosts", scope: Broker, default: Some(""), form: "NAMES",
        parse: host_names,
        help: "Additional host names in the page's address, besides IP addresses, the broker's \
            own host name, and names of the local network (box, box.local, box.lan): \
            plant.example.org; also those whose pages may connect with MQTT over WebSocket",
    }
    MQTTS_LISTEN: SocketAddr = {
        key: "mqtts_listen", scope: Access, default: None, form: "ADDR",
        parse: |text| listen(text, 8883),
        help: "Address and port for MQTT clients over TLS, for example 0.0.0.0:8883; needs \
            --tls-cert and --tls-key",
    }
    LOGGED_FILTERS: Vec<Filter> = {
        key: "logged_filters", scope: Broker, default: Some(""), form: "FILTERS",
        parse: logged_filters,
        help: "Topic filters of other publishers, whose numbers are logged too: \
            plant/#,tele/+/SENSOR",
    }
    COMMIT_WINDOW: Duration = {
        key: "commit_window", scope: Broker, default: Some("0ms"), form: "TIME",
        parse: |text| duration(text, Duration::ZERO..=COMMIT_WINDOW_MAX),
        help: "Maximum wait to batch readings into one disk write, up to 1s. A longer wait \
            spares an SD card and delays acknowledgements",
    }
    ALARMS: Vec<AlarmConfig> = {
        key: "alarms", scope: Broker, default: Some(""), form: "LIST",
        parse: alarms::alarms,
        help: "Alarms as name=node/sensor:condition with options, or name=node:condition: \
            hot=press/hall:temperature>30:hysteresis=2:delay=1m:output=roof/fan, \
            dry=press/hall:humidity<20, quiet=press/hall:silent>5m, lost=press:gap:clear=1h, \
            time=press:clock:delay=5m",
    }
    USERS_FILE: PathBuf = {
        key: "users_file", scope: Users, default: None, form: "FILE",
        parse: plain,
        help: "File of users and password hashes; `humidor user` writes it [default: users.toml \
            in the data folder]",
    }
    USER: String = {
        key: "user", scope: Access, default: None, form: "NAME",
        parse: user,
        help: "Name of one user with all rights, in addition to the users file or instead of it; \
            needs HUMIDOR_PASSWORD_FILE",
    }
    ANONYMOUS: Anonymous = {
        key: "anonymous", scope: Access, default: Some("auto"), form: "WHEN",
        parse: anonymous,
        help: "MQTT clients without a user name: yes (lets anyone on the network do anything; \
            for a first try only), no, or auto (yes while no user exists and only this machine \
            can reach the port)",
    }
    CONNECTIONS: usize = {
        key: "connections", scope: Access, default: Some("2000"), form: "N",
        parse: |text| number(text, 1..=CONNECTIONS_MAX),
        help: "Maximum number of MQTT clients, 1 to 100000",
    }
    CONNECTIONS_PER_ADDRESS: usize = {
        key: "connections_per_address", scope: Access, default: Some("1500"), form: "N",
        parse: |text| number(text, 1..=CONNECTIONS_MAX),
        help: "Maximum number of MQTT clients from one IP address, 1 to 100000. Clients behind \
            one address translation (NAT, container engine) have the same address",
    }
    CONNECTIONS_PER_USER: usize = {
        key: "connections_per_user", scope: Access, default: Some("1500"), form: "N",
        parse: |text| number(text, 1..=CONNECTIONS_MAX),
        help: "Maximum number of MQTT clients of one user, 1 to 100000",
    }
    FILTER_LEVELS: usize = {
        key: "filter_levels", scope: Access, default: Some("32"), form: "N",
        parse: |text| number(text, 1..=FILTER_LEVELS_MAX),
        help: "Maximum number of levels of a topic filter that an MQTT client subscribes to, 1 to \
            512; a/b/# has three",
    }
    MESSAGE_RATE: u32 = {
        key: "message_rate", scope: Access, default: Some("0"), form: "N",
        parse: |text| number_or_none(text, 1..=u32::MAX),
        help: "Maximum number of messages per second from one client; a faster client is slowed \
            down. 0: no limit",
    }
    BYTE_RATE: u32 = {
        key: "byte_rate", scope: Access, default: Some("0"), form: "BYTES",
        parse: |text| number_or_none(text, BYTE_RATE_MIN..=u32::MAX),
        help: "Maximum number of bytes per second from one client, at least 1024; a faster \
            client is slowed down. 0: no limit",
    }
    SERIES: usize = {
        key: "series", scope: Access, default: Some("5000"), form: "N",
        parse: |text| number(text, 1..=SERIES_MAX),
        help: "Maximum number of series (sensors, and fields of logged topics) that the clients \
            of one user may begin, 1 to 1000000; all users together four times as many",
    }
    TLS_CERT: PathBuf = {
        key: "tls_cert", scope: Login, default: None, form: "FILE",
        parse: plain,
        help: "Certificate as a PEM file. Broker: certificate chain; node: client certificate",
    }
    TLS_KEY: PathBuf = {
        key: "tls_key", scope: Login, default: None, form: "FILE",
        parse: plain,
        help: "Private key of --tls-cert as a PEM file",
    }
    TLS_CA: PathBuf = {
        key: "tls_ca", scope: Login, default: None, form: "FILE",
        parse: plain,
        help: "Certificate authorities as a PEM file. Node: the authorities that sign the \
            broker's certificate [default: the system's]. Broker: the authorities that sign \
            client certificates [default: clients need no certificate]",
    }
    DISCOVERY: Option<Discovery> = {
        key: "discovery", scope: Roles, default: Some("homeassistant"), form: "PREFIX",
        parse: discovery,
        help: "Topic prefix of Home Assistant's device discovery, or off",
    }
    KEEP_RAW: Option<Duration> = {
        key: "keep_raw", scope: Log, default: Some("90d"), form: "AGE",
        parse: age,
        help: "Maximum age of single readings, from 1d: 90d, 36h, forever. Aggregates by minute, \
            quarter of an hour and hour stay",
    }
    MAX_DB: u64 = {
        key: "max_db", scope: Log, default: Some("1GiB"), form: "SIZE",
        parse: max_db,
        help: "Maximum size of the database file, from 16MiB; beyond it the oldest detailed data \
            is deleted first",
    }
    UPSTREAM: UpstreamAddress = {
        key: "upstream", scope: Upstream, default: None, form: "URL",
        parse: plain,
        help: "PostgreSQL database that gets a copy of the log: \
            postgres://user@host[,host...][:port]/database. Of several servers the one that can \
            be written is used",
    }
    UPSTREAM_PASSWORD: String = {
        key: "upstream_password", scope: Upstream, default: None, form: "TEXT", secret: true,
        parse: plain,
        help: "Password of the user in --upstream. HUMIDOR_UPSTREAM_PASSWORD_FILE keeps it out of \
            the process list",
    }
    UPSTREAM_TLS: Option<bool> = {
        key: "upstream_tls", scope: Upstream, default: Some("auto"), form: "WHEN",
        parse: when,
        help: "TLS to PostgreSQL: yes, no (everybody on the network can read and change what is \
            sent), or auto (yes, unless every server is this machine and --upstream-ca is not \
            set)",
    }
    UPSTREAM_CA: PathBuf = {
        key: "upstream_ca", scope: Upstream, default: None, form: "FILE",
        parse: plain,
        help: "Certificate authorities that sign PostgreSQL's certificates, as a PEM file \
            [default: the system's]",
    }
    UPSTREAM_BACKLOG: u64 = {
        key: "upstream_backlog", scope: Upstream, default: None, form: "SIZE",
        parse: backlog,
        help: "Maximum size of what waits in the log for PostgreSQL, from 1MiB, at most half of \
            --max-db; about 50 bytes a reading [default: 256MiB, or a quarter of --max-db where \
            that is less]",
    }
    ACK: Acknowledge = {
        key: "ack", scope: Upstream, default: Some("stored"), form: "WHEN",
        parse: acknowledge,
        help: "When a reading is acknowledged: stored (it is in the broker's log), or upstream \
            (PostgreSQL has it, too; while that is away nothing is acknowledged, and boards \
            keep their readings)",
    }
    NODE: Id = {
        key: "node", scope: Lines, default: None, form: "ID",
        parse: node,
        help: "Node id of this board: a-z, 0-9 and - [default: the host name]",
    }
    BROKER: Brokers = {
        key: "broker", scope: Node, default: None, form: "URL",
        parse: plain,
        help: "Address of the broker: mqtt://[user@]host[:1883], or mqtts://[user@]host[:8883] \
            for TLS. Several, separated by commas: the next one serves while one is away",
    }
    PASSWORD: String = {
        key: "password", scope: Login, default: None, form: "TEXT", secret: true,
        parse: plain,
        help: "Password. Node: for the user in --broker; broker: for --user. \
            HUMIDOR_PASSWORD_FILE keeps it out of the process list",
    }
    SENSORS: Vec<SensorConfig> = {
        key: "sensors", scope: Lines, default: None, form: "LIST",
        parse: pins::sensors,
        help: "Sensors as name=model@pin: hall=dht22@7,press=dht11@11",
    }
    INPUTS: Vec<InputConfig> = {
        key: "inputs", scope: Lines, default: None, form: "LIST",
        parse: pins::inputs,
        help: "Inputs as name=pin with options: door=15:debounce=50ms:active=low",
    }
    OUTPUTS: Vec<OutputConfig> = {
        key: "outputs", scope: Lines, default: None, form: "LIST",
        parse: pins::outputs,
        help: "Outputs as name=pin with options: fan=13:safe=off:away=60s:active=low. An output \
            takes its safe level at start, at exit, and after the broker has been away for \
            longer than away",
    }
    INTERVAL: Duration = {
        key: "interval", scope: Node, default: Some("10s"), form: "TIME",
        parse: interval,
        help: "Time between two readings of a sensor. DHT11: from 1s; DHT22: from 2s",
    }
    GPIO: Backend = {
        key: "gpio", scope: Lines, default: Some("auto"), form: "BACKEND",
        parse: backend,
        help: "Access to the pins: auto, cdev (character device), rppal (Raspberry Pi \
            registers), iio (the kernel's dht11 driver), sim (simulated sensors)",
    }
    BOARD: &'static Board = {
        key: "board", scope: Lines, default: None, form: "BOARD",
        parse: board,
        help: "Board model: raspberry-pi-3, -4, -5, orange-pi-zero, -zero-2, -zero-3 [default: \
            recognised from the device tree]",
    }
    CLOCK: ClockTrust = {
        key: "clock", scope: Node, default: Some("kernel"), form: "WHEN",
        parse: clock,
        help: "When to trust this machine's clock: kernel (while a time source synchronises it), \
            or always",
    }
    OUTBOX_CAPACITY: u64 = {
        key: "outbox_capacity", scope: Node, default: Some("200000"), form: "READINGS",
        // Three weeks of one sensor at 10 s, about 40 MB.
        parse: |text| number(text, 1..=OUTBOX_CAPACITY_MAX),
        help: "Maximum number of readings to keep while the broker is away; beyond it the oldest \
            are deleted",
    }
    SIM_FAULTS: f64 = {
        key: "sim_faults", scope: Lines, default: Some("0.02"), form: "SHARE",
        parse: share,
        help: "Share of a simulated sensor's answers that are damaged or missing, 0 to 1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::BOARDS;
    use crate::gpio::Pin;

    /// The first word of the help that is a list of `name=…`.
    fn example(setting: &Setting, start: &str) -> &'static str {
        let mut words = setting.help.split_whitespace();
        let found = words.find(|word| word.starts_with(start)).expect("the help has an example");
        found.trim_end_matches('.')
    }

    #[test]
    fn the_examples_of_pins_are_right_on_every_board() {
        let sensors = (SENSORS.parse)(example(&SENSORS.setting, "hall=")).unwrap();
        let inputs = (INPUTS.parse)(example(&INPUTS.setting, "door=")).unwrap();
        let outputs = (OUTPUTS.parse)(example(&OUTPUTS.setting, "fan=")).unwrap();
        let pins: Vec<&Pin> = sensors
            .iter()
            .map(|sensor| &sensor.pin)
            .chain(inputs.iter().map(|input| &input.pin))
            .chain(outputs.iter().map(|output| &output.pin))
            .collect();
        for board in BOARDS {
            let mut lines = std::collections::HashSet::new();
            for pin in &pins {
                let (line, known) = board.resolve(pin).unwrap();
                assert!(lines.insert(line), "{}: {pin} is there twice", board.id);
                assert!(known.is_some_and(|known| known.reserved.is_none()), "{} {pin}", board.id);
            }
        }
    }

    #[test]
    fn every_default_is_a_value() {
        let problems = crate::config::validate_all(&crate::config::Layers::new(&[], []));
        let wrong: Vec<_> = problems.0.iter().filter(|p| !p.0.contains("host name")).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

//! The node's typed settings, below every file that takes them.

use std::path::PathBuf;
use std::time::Duration;

use super::brokers::Brokers;
use crate::board::Recognised;
use crate::clock::ClockTrust;
use crate::dht::{Level, Model};
use crate::gpio::Pin;
use crate::reading::Id;
use crate::wire::{Discovery, Switch};

/// Most sensors of one node; as many inputs; as many outputs. No header has more pins.
pub const LINES_PER_KIND_MAX: usize = 40;

/// Time between two health messages. Home Assistant's expiry of what they carry follows from it.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(30);

/// One sensor: `hall=dht22@7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensorConfig {
    /// Its id, the last level of its topic.
    pub name: Id,
    /// Its model.
    pub model: Model,
    /// Its data pin.
    pub pin: Pin,
}

/// One input: `door=GPIO22:debounce=50ms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputConfig {
    /// Its id, the last level of its topic.
    pub name: Id,
    /// Its pin.
    pub pin: Pin,
    /// The level that means on.
    pub active: Level,
    /// A level counts after this long without a change.
    pub debounce: Duration,
}

/// One output: `fan=GPIO27:safe=off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputConfig {
    /// Its id, a level of its topics.
    pub name: Id,
    /// Its pin.
    pub pin: Pin,
    /// The level that means on.
    pub active: Level,
    /// Its state without commands.
    pub safety: Safety,
}

/// The state of an output without commands, and how long the last command stays valid without the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Safety {
    /// Its safe state.
    pub safe: Switch,
    /// The output takes its safe state after this long without a packet from the broker.
    pub away: Duration,
}

/// How lines are reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Backend {
    /// The character device, or the kernel's dht11 driver where that has the line.
    Auto,
    /// The character device.
    Cdev,
    /// The Raspberry Pi's registers.
    Rppal,
    /// The kernel's dht11 driver.
    Iio,
    /// Simulated sensors, inputs and outputs.
    Sim {
        /// Share of the sensors' exchanges that go wrong, 0 to 1.
        faults: f64,
    },
}

/// The files of a node's TLS. They are read at each connection: a renewed certificate needs no restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authority that signed the broker's; `None` for those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The node's own certificate chain and its key, for a broker that asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Times of the delivery. The role runs with the default ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryTimes {
    /// A publish that is not acknowledged for this long is sent again, on a new connection.
    pub acknowledged_within: Duration,
    /// A connection that stood this long, with something acknowledged, has proved itself: the next wait is short again.
    pub proved_after: Duration,
    /// Messages may keep the broker's answers from arriving for this long; then their subscription is left out.
    pub held_up_within: Duration,
    /// A refused or unanswered subscription is asked for again after this long: the first time, and at most.
    pub subscribe_again: (Duration, Duration),
    /// Away from its preferred broker, a node looks after this long, and up to twice that, whether it is back.
    pub return_after: Duration,
    /// Pause between two discovery messages on one connection, however often they are asked for.
    pub discovery_pause: Duration,
}

impl Default for DeliveryTimes {
    fn default() -> Self {
        Self {
            acknowledged_within: Duration::from_secs(30),
            proved_after: Duration::from_secs(10),
            held_up_within: Duration::from_mins(2),
            subscribe_again: (Duration::from_secs(30), Duration::from_mins(5)),
            return_after: Duration::from_mins(5),
            discovery_pause: Duration::from_secs(10),
        }
    }
}

/// Everything the node role is configured with.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Node id.
    pub node: Id,
    /// Its brokers.
    pub brokers: Brokers,
    /// Password for the broker, where the address names a user.
    pub password: Option<String>,
    /// Where an address asks for TLS.
    pub tls: Option<TlsFiles>,
    /// Its sensors.
    pub sensors: Vec<SensorConfig>,
    /// Its inputs.
    pub inputs: Vec<InputConfig>,
    /// Its outputs.
    pub outputs: Vec<OutputConfig>,
    /// Time between two readings of one sensor.
    pub interval: Duration,
    /// Folder of the outbox.
    pub data: PathBuf,
    /// Readings the outbox holds.
    pub outbox_capacity: u64,
    /// Where Home Assistant looks for devices; `None` publishes nothing there.
    pub discovery: Option<Discovery>,
    /// How lines are reached.
    pub backend: Backend,
    /// The board, which says which line a pin is.
    pub board: Recognised,
    /// When to trust this machine's clock.
    pub clock: ClockTrust,
    /// Times of the delivery.
    pub times: DeliveryTimes,
}

/// A simulated node with so many sensors, inputs and outputs, each with an id of this length.
#[cfg(test)]
pub(super) fn example(per_kind: usize, id_chars: usize) -> NodeConfig {
    let id = |kind: &str, number: usize| -> Id {
        format!("{kind}{number:0>width$}", width = id_chars - kind.len()).parse().unwrap()
    };
    let pin = |number: usize| -> Pin { format!("chip:{number}").parse().unwrap() };
    let numbers = || 0..per_kind;
    let sensors = numbers()
        .map(|n| SensorConfig { name: id("s", n), model: Model::Dht22, pin: pin(n) })
        .collect();
    let inputs = numbers()
        .map(|n| InputConfig {
            name: id("i", n),
            pin: pin(100 + n),
            active: Level::High,
            debounce: Duration::from_millis(50),
        })
        .collect();
    let safety = Safety { safe: Switch::Off, away: Duration::from_mins(1) };
    let outputs = numbers()
        .map(|n| OutputConfig { name: id("o", n), pin: pin(200 + n), active: Level::High, safety })
        .collect();
    NodeConfig {
        node: id("n", 0),
        brokers: "mqtt://hall".parse().unwrap(),
        password: None,
        tls: None,
        sensors,
        inputs,
        outputs,
        interval: Duration::from_secs(10),
        data: PathBuf::from("data"),
        outbox_capacity: 1_000,
        discovery: None,
        backend: Backend::Sim { faults: 0.0 },
        board: Recognised { board: None, reason: "a test's".to_owned() },
        clock: ClockTrust::Kernel,
        times: DeliveryTimes::default(),
    }
}

//! A board inside the test process, on simulated lines and with times of its own.

use std::collections::BTreeSet;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use humidor::board::Recognised;
use humidor::clock::ClockTrust;
use humidor::gpio::{Level, Pin};
use humidor::health::State;
use humidor::node::{
    Backend, BrokerAddress, DeliveryTimes, Node, NodeConfig, Outbox, OutputConfig, Safety,
};
use humidor::reading::{ClockState, Measurement, Stamp};
use humidor::shutdown::{self, Trigger};
use humidor::wire::Switch;
use tokio::runtime::Runtime;

use super::fake_broker::FakeBroker;

/// Output `fan`, off without the broker for `away`, and no sensor.
pub fn config(name: &str, data: &Path, broker: SocketAddr, away: Duration) -> NodeConfig {
    let safety = Safety { safe: Switch::Off, away };
    let fan = OutputConfig {
        name: "fan".parse().unwrap(),
        pin: Pin::Header(11),
        active: Level::High,
        safety,
    };
    NodeConfig {
        node: name.parse().unwrap(),
        brokers: BrokerAddress::new(broker.ip().to_string(), broker.port()).into(),
        password: None,
        tls: None,
        sensors: Vec::new(),
        inputs: Vec::new(),
        outputs: vec![fan],
        interval: Duration::from_secs(1),
        data: data.to_owned(),
        outbox_capacity: 100_000,
        discovery: Some("homeassistant".parse().unwrap()),
        backend: Backend::Sim { faults: 0.0 },
        board: Recognised { board: None, reason: "a test's".to_owned() },
        clock: ClockTrust::Kernel,
        times: DeliveryTimes::default(),
    }
}

/// A running board. It lives as long as the test process, as its broker does.
pub struct Board {
    _running: ManuallyDrop<(Runtime, Trigger)>,
    node: Node,
}

impl Board {
    pub fn start(config: NodeConfig) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let (trigger, stopped) = shutdown::channel();
        let node = runtime.block_on(async { Node::start(config, stopped) }).unwrap();
        Self { _running: ManuallyDrop::new((runtime, trigger)), node }
    }

    /// Its state, and the text that explains it.
    pub fn health(&self) -> (State, String) {
        self.node.health().assess()
    }
}

/// Readings of an earlier run in the outbox of `data`.
pub fn fill(data: &Path, count: u64) {
    let outbox = Outbox::open(data, "earlier".parse().unwrap(), 200_000).unwrap();
    for n in 0..count {
        let at_ms = 1_760_000_000_000 + i64::try_from(n).unwrap() * 1000;
        let stamp = Stamp { at_ms, clock: ClockState::Synced, mono_ms: n * 1000 };
        let measurement = Measurement { temperature_dc: 215, humidity_dp: 571 };
        outbox.push(&"hall".parse().unwrap(), stamp, measurement);
    }
}

/// How many of the earlier run's readings the broker has acknowledged.
pub fn earlier(broker: &FakeBroker) -> usize {
    let stored = broker.stored();
    stored.iter().filter(|(boot, _)| boot == "earlier").collect::<BTreeSet<_>>().len()
}

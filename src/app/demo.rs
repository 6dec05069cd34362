//! `humidor demo`: a small factory in one process. Its boards play edge trains through the decoder,
//! the outbox and the MQTT session that real boards use.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use super::demo_history::{self, Past};
use super::failure::Failure;
use super::own_address::own_address;
use super::server::Server;
use super::{block_on, print, roles, start_log};
use crate::board::Recognised;
use crate::broker::{AlarmConfig, AlarmRule, BrokerError, LocalClient, Quantity, Side};
use crate::clock::{self, ClockTrust};
use crate::config::{self, Demo, Layers};
use crate::dht::{Level, Model};
use crate::exit::Code;
use crate::gpio::Pin;
use crate::mqtt::Filter;
use crate::node::{
    Backend, BrokerAddress, DeliveryTimes, Node, NodeConfig, OutputConfig, Safety, SensorConfig,
};
use crate::reading::IdError;
use crate::shutdown;
use crate::wire::{Discovery, Switch};

/// A simulated board.
struct DemoBoard {
    node: &'static str,
    /// Name, model and header pin of each sensor.
    sensors: &'static [(&'static str, Model, u8)],
    interval: Duration,
    /// Share of the sensors' answers that go wrong, 0 to 1.
    faults: f64,
}

/// The boards: one without faults, one with some, one with many.
const BOARDS: [DemoBoard; 3] = [
    DemoBoard {
        node: "press",
        sensors: &[("hall", Model::Dht22, 7), ("oil", Model::Dht22, 11)],
        interval: Duration::from_secs(2),
        faults: 0.0,
    },
    DemoBoard {
        node: "store",
        sensors: &[("door", Model::Dht11, 7)],
        interval: Duration::from_secs(2),
        faults: 0.05,
    },
    DemoBoard {
        node: "roof",
        sensors: &[("shade", Model::Dht22, 7), ("sun", Model::Dht22, 11)],
        interval: Duration::from_secs(2),
        faults: 0.1,
    },
];
/// The foreign sensor: no board of humidor, but a program of somebody who publishes the same topics.
const BOILER: (&str, &str) = ("yard", "boiler");
const BOILER_INTERVAL: Duration = Duration::from_secs(2);
/// Its temperature in °C: around this, by this much, in a wave of this many seconds.
const BOILER_WAVE: (f64, f64, f64) = (70.0, 15.0, 60.0);
/// Another publisher: a plug with Tasmota's topic and payload. Its filter, its topic, and the power of the boiler's pump in
/// W while it is warm.
const PLUG: (&str, &str, f64) = ("tele/+/SENSOR", "tele/boiler-pump/SENSOR", 42.0);
/// The alarm of the demo: raised and cleared once in each wave.
const BOILER_LIMIT_C: f64 = 80.0;
/// Board and name of the output that the page can switch, and that the alarm switches.
const FAN: (&str, &str) = ("press", "fan");
/// The output switches off after this long without the broker.
const FAN_AWAY: Duration = Duration::from_mins(1);
/// Readings that each board's outbox holds.
const OUTBOX_CAPACITY: u64 = 10_000;

/// Runs until Ctrl-C or for `seconds`.
pub fn run(seconds: Option<u64>, layers: Layers) -> Result<(), Failure> {
    start_log(&layers.logging().quiet_with_alarms());
    let mut demo = config::demo(layers)?;
    // Unless the user names a folder, the demo leaves nothing behind.
    let scratch = (!demo.data_is_set)
        .then(|| std::env::temp_dir().join(format!("humidor-demo-{}", std::process::id())));
    if let Some(folder) = &scratch {
        demo.server.broker.data.clone_from(folder);
        let past = past().map_err(|error| Failure::new(Code::Internal, error))?;
        std::fs::create_dir_all(folder)?;
        demo_history::fill(folder, &past, clock::unix_ms())?;
    }
    if demo.server.broker.alarms.is_empty() {
        let alarm = alarm().map_err(|error| Failure::new(Code::Internal, error))?;
        demo.server.broker.alarms.push(alarm);
    }
    if demo.server.broker.logged.is_empty() {
        demo.server.broker.logged.extend(PLUG.0.parse::<Filter>());
    }
    let outcome = block_on(play(demo, seconds));
    if let Some(folder) = scratch {
        let _ = std::fs::remove_dir_all(folder);
    }
    outcome
}

async fn play(demo: Demo, seconds: Option<u64>) -> Result<(), Failure> {
    let mut signals = roles::signals()?;
    let (stop_broker, broker_stopped) = shutdown::channel();
    let mut config = demo.server;
    let (data, discovery) = (config.broker.data.clone(), config.broker.discovery.clone());
    let server = match Server::start(config.clone(), broker_stopped.clone()).await {
        // Another program has a default port: the demo takes any other rather than fail.
        Err(BrokerError::Listen(_)) if !(demo.mqtt_is_set && demo.http_is_set) => {
            if !demo.mqtt_is_set {
                config.broker.mqtt_listen.set_port(0);
            }
            if !demo.http_is_set {
                config.http_listen.iter_mut().for_each(|address| address.set_port(0));
            }
            Server::start(config, broker_stopped).await?
        }
        other => other?,
    };
    introduce(&server, &data)?;
    let broker = &server.broker;
    let live = broker.live();
    let printing = tokio::task::spawn_blocking(move || print::follow(live));

    let (stop_boards, boards_stopped) = shutdown::channel();
    let mut boards = Vec::new();
    for board in BOARDS {
        let config = node(&board, broker.address(), &data, discovery.clone())
            .map_err(|error| Failure::new(Code::Internal, error))?;
        boards.push(Node::start(config, boards_stopped.clone())?);
    }

    let time = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let boiler = tokio::spawn(fire(broker.local_client()));
    let counters = broker.counters();
    let ended = server.ended();
    tokio::pin!(ended);
    let lost = tokio::select! {
        () = time => None,
        () = signals.received() => None,
        outcome = &mut ended => Some(outcome),
    };
    boiler.abort();
    // Boards first: the broker still takes their last readings.
    stop_boards.throw();
    for board in boards {
        board.ended().await?;
    }
    stop_broker.throw();
    match lost {
        Some(outcome) => outcome?,
        None => ended.await?,
    }
    // A stopped terminal does not delay the exit.
    let _ = tokio::time::timeout(Duration::from_secs(2), printing).await;
    let (recorded, commits) = counters.totals();
    writeln!(
        io::stdout(),
        "\nStored {} readings in {commits} commits; {} repeats were acknowledged and not stored again.",
        recorded.readings,
        recorded.repeats
    )?;
    Ok(())
}

/// Prints where everything is.
fn introduce(server: &Server, data: &Path) -> io::Result<()> {
    let (address, mut out) = (server.broker.address(), io::stdout().lock());
    writeln!(
        out,
        "The broker listens on {address}. A real board would use HUMIDOR_BROKER={}",
        outside(address)
    )?;
    writeln!(
        out,
        "The database is {}; `humidor tail --data {}` follows it.",
        data.join(crate::store::LOG_FILE).display(),
        data.display()
    )?;
    if let Some(http) = server.http_address() {
        let here = SocketAddr::new(reachable(http.ip()), http.port());
        writeln!(out, "The page is http://{here}/.")?;
    }
    writeln!(out, "Readings of three simulated boards follow; stop with Ctrl-C.\n")
}

/// The sensors of the boards, for their past.
fn past() -> Result<Vec<Past>, IdError> {
    let sensors = BOARDS.iter().enumerate().flat_map(|(index, board)| {
        board.sensors.iter().map(move |(name, ..)| (index == 0, board.node, *name))
    });
    sensors
        .map(|(had_power_cut, node, sensor)| {
            Ok(Past { node: node.parse()?, sensor: sensor.parse()?, had_power_cut })
        })
        .collect()
}

fn alarm() -> Result<AlarmConfig, IdError> {
    Ok(AlarmConfig {
        name: "hot".parse()?,
        node: BOILER.0.parse()?,
        rule: AlarmRule::Threshold {
            sensor: BOILER.1.parse()?,
            quantity: Quantity::Temperature,
            side: Side::Above,
            limit: BOILER_LIMIT_C,
            hysteresis: 2.0,
            delay: Duration::ZERO,
        },
        output: Some((FAN.0.parse()?, FAN.1.parse()?)),
    })
}

fn outputs(node: &str) -> Result<Vec<OutputConfig>, IdError> {
    if node != FAN.0 {
        return Ok(Vec::new());
    }
    let safety = Safety { safe: Switch::Off, away: FAN_AWAY };
    let (name, pin) = (FAN.1.parse()?, Pin::Header(13));
    Ok(vec![OutputConfig { name, pin, active: Level::High, safety }])
}

/// Publishes the readings of the foreign sensor, and those of the plug, until the broker stops.
async fn fire(broker: LocalClient) {
    let (node, sensor) = BOILER;
    let started = Instant::now();
    let boot = format!("{:x}", clock::unix_ms());
    let (mean, amplitude, period) = BOILER_WAVE;
    let mut ticks = tokio::time::interval(BOILER_INTERVAL);
    for seq in 1_u64.. {
        ticks.tick().await;
        let past = started.elapsed();
        let temperature =
            mean + amplitude * (past.as_secs_f64() / period * std::f64::consts::TAU).sin();
        let reading = serde_json::json!({
            "boot": boot, "seq": seq, "at": clock::unix_ms(), "clock": "synced",
            "mono": u64::try_from(past.as_millis()).unwrap_or(u64::MAX),
            "temperature": (temperature * 10.0).round() / 10.0,
        });
        let topic = format!("humidor/{node}/sensor/{sensor}");
        let is_warm = temperature > mean;
        let plug = serde_json::json!({ "ENERGY": {
            "Power": if is_warm { (PLUG.2 + temperature - mean).round() } else { 0.0 },
            "Voltage": 230.0 + (temperature - mean).round() / 10.0,
        } });
        let publications = [(topic, reading), (PLUG.1.to_owned(), plug)];
        for (topic, payload) in publications {
            if broker.publish(topic, payload.to_string().into()).await.is_err() {
                return;
            }
        }
    }
}

fn node(
    board: &DemoBoard,
    broker: SocketAddr,
    data: &Path,
    discovery: Option<Discovery>,
) -> Result<NodeConfig, IdError> {
    let sensor = |&(name, model, pin): &(&str, Model, u8)| {
        Ok(SensorConfig { name: name.parse()?, model, pin: Pin::Header(pin) })
    };
    Ok(NodeConfig {
        node: board.node.parse()?,
        brokers: BrokerAddress::new(reachable(broker.ip()).to_string(), broker.port()).into(),
        password: None,
        tls: None,
        sensors: board.sensors.iter().map(sensor).collect::<Result<_, _>>()?,
        inputs: Vec::new(),
        outputs: outputs(board.node)?,
        interval: board.interval,
        data: data.join(format!("board-{}", board.node)),
        outbox_capacity: OUTBOX_CAPACITY,
        discovery,
        backend: Backend::Sim { faults: board.faults },
        // Simulated lines need no board.
        board: Recognised { board: None, reason: "simulated".to_owned() },
        // They run on the broker's own machine, whose clock is the one that counts.
        clock: ClockTrust::Always,
        times: DeliveryTimes::default(),
    })
}

/// The address at which this machine reaches a listener; loopback for one on every address.
fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { ip }
}

/// The broker's address for another machine.
fn outside(address: SocketAddr) -> String {
    let ip = if address.ip().is_unspecified() {
        own_address().unwrap_or(Ipv4Addr::LOCALHOST.into())
    } else {
        address.ip()
    };
    BrokerAddress::new(ip.to_string(), address.port()).to_string()
}

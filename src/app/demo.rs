//! `humidor demo`: a small factory in one process. Its boards play edge trains through the decoder,
//! the outbox and the MQTT session that real boards use.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use super::failure::Failure;
use super::{block_on, print, quiet, roles, start_log};
use crate::broker::{AccessConfig, Anonymous, Broker, BrokerError};
use crate::clock::ClockTrust;
use crate::config::{self, Layers, Origin};
use crate::node::{Backend, BrokerAddress, Node, NodeConfig};
use crate::shutdown;
use crate::web::Guests;

/// The boards: id, sensors, seconds between readings, share of answers that go wrong.
const BOARDS: [(&str, &str, u64, f64); 3] = [
    ("press", "hall=dht22@7,oil=dht22@11", 2, 0.0),
    ("store", "door=dht11@PA6", 1, 0.05),
    ("roof", "shade=dht22@GPIO4,sun=dht22@GPIO17", 2, 0.1),
];
/// Readings that each board's outbox holds.
const OUTBOX_CAPACITY: u64 = 10_000;

/// Which ports nobody asked for by number.
#[derive(Debug, Clone, Copy)]
struct Movable {
    mqtt: bool,
    http: bool,
}

/// Runs until Ctrl-C or for `seconds`.
pub fn run(seconds: Option<u64>, layers: Layers) -> Result<(), Failure> {
    start_log(&quiet(&layers));
    let data = layers.get("data");
    let by_default = |key| matches!(layers.get(key), Some((_, Origin::Default)));
    let movable = Movable { mqtt: by_default("mqtt_listen"), http: by_default("http_listen") };
    let by_default_guests = by_default("http_guests");
    let mut config = config::broker(layers)?;
    // Its boards have no passwords, and one that is at hand may join.
    config.access = AccessConfig { anonymous: Anonymous::Yes, ..AccessConfig::default() };
    // A phone may look too; there is nothing real behind it.
    if by_default_guests {
        config.web.guests = Guests::Read;
    }
    // Without a folder of the user's the demo leaves nothing behind.
    let scratch = match data {
        Some((_, Origin::Default)) | None => {
            let folder = std::env::temp_dir().join(format!("humidor-demo-{}", std::process::id()));
            config.data.clone_from(&folder);
            Some(folder)
        }
        Some(_) => None,
    };
    let outcome = block_on(play(config.clone(), movable, seconds));
    if let Some(folder) = scratch {
        let _ = std::fs::remove_dir_all(folder);
    }
    outcome
}

async fn play(
    mut config: crate::broker::BrokerConfig,
    movable: Movable,
    seconds: Option<u64>,
) -> Result<(), Failure> {
    let mut signals = roles::signals()?;
    let (stop_broker, broker_stopped) = shutdown::channel();
    let data = config.data.clone();
    let broker = match Broker::start(config.clone(), broker_stopped.clone()).await {
        // A default port is another's: the demo takes any other rather than fail.
        Err(BrokerError::Listen { .. }) if movable.mqtt || movable.http => {
            if movable.mqtt {
                config.mqtt_listen.set_port(0);
            }
            if movable.http {
                config.http_listen.iter_mut().for_each(|address| address.set_port(0));
            }
            Broker::start(config, broker_stopped).await?
        }
        other => other?,
    };
    let address = broker.address();
    println!(
        "The broker listens on {address}. A real board would use HUMIDOR_BROKER={}",
        outside(address)
    );
    println!(
        "The log is {}; `humidor tail --data {}` follows it.",
        data.join(crate::store::LOG_FILE).display(),
        data.display()
    );
    if let Some(http) = broker.http_address() {
        let here = SocketAddr::new(reachable(http.ip()), http.port());
        println!("The page is http://{here}/.");
    }
    println!("Three simulated boards report below; end with Ctrl-C.\n");
    let live = broker.live();
    let printing = tokio::task::spawn_blocking(move || print::follow(live));

    let (stop_boards, boards_stopped) = shutdown::channel();
    let mut boards = Vec::new();
    for (name, sensors, interval, faults) in BOARDS {
        let config = board(name, sensors, interval, faults, address, &data)?;
        boards.push(Node::start(config, boards_stopped.clone())?);
    }

    let time = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let counters = broker.counters();
    let ended = broker.ended();
    tokio::pin!(ended);
    let lost = tokio::select! {
        () = time => None,
        () = signals.received() => None,
        outcome = &mut ended => Some(outcome),
    };
    // Boards first: their last readings still find a broker.
    stop_boards.throw();
    for board in boards {
        board.ended().await?;
    }
    stop_broker.throw();
    match lost {
        Some(outcome) => outcome?,
        None => ended.await?,
    }
    // A stopped terminal does not hold up the end.
    let _ = tokio::time::timeout(Duration::from_secs(2), printing).await;
    let (recorded, commits) = counters.totals();
    println!(
        "\n{} readings stored in {commits} commits, {} of them sent twice.",
        recorded.readings, recorded.repeats
    );
    Ok(())
}

fn board(
    name: &str,
    sensors: &str,
    interval: u64,
    faults: f64,
    broker: SocketAddr,
    data: &Path,
) -> Result<NodeConfig, Failure> {
    let flags =
        [("node", name.to_owned()), ("sensors", sensors.to_owned()), ("gpio", "sim".to_owned())];
    let flags: Vec<_> = flags
        .into_iter()
        .chain([
            ("interval", format!("{interval}s")),
            ("broker", format!("mqtt://127.0.0.1:{}", broker.port())),
        ])
        .collect();
    let mut config = config::node(Layers::new(&flags, []))?;
    config.broker = BrokerAddress::new(reachable(broker.ip()).to_string(), broker.port());
    config.data = data.join(format!("board-{name}"));
    config.outbox_capacity = OUTBOX_CAPACITY;
    config.backend = Backend::Sim { faults };
    config.clock = ClockTrust::Kernel;
    Ok(config)
}

/// Where a listener on every address is reached from this machine.
fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { ip }
}

/// The broker's address as another machine would write it.
fn outside(address: SocketAddr) -> String {
    let ip = if address.ip().is_unspecified() {
        own_address().unwrap_or(Ipv4Addr::LOCALHOST.into())
    } else {
        address.ip()
    };
    BrokerAddress::new(ip.to_string(), address.port()).to_string()
}

/// The address that this machine sends from. Connecting a datagram socket sends nothing; the target is
/// from the block that is reserved for documentation (RFC 5737).
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

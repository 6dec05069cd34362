//! A node delivers to rumqttd's stock broker at `QoS` 1: nothing in its session needs humidor's own broker.

mod support;

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use humidor::wire::Telemetry;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, Packet, PubAck, Publish, SubscribeReasonCode};
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use support::{Client, Process, humidor, outbox, wait_until};

/// Readings that a subscriber waits for.
const READINGS: usize = 4;

/// The stock broker of this test process. It has no shutdown, so it lives as long as the process.
fn stock_broker() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let server = ServerSettings {
            name: "stock".to_owned(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            tls: None,
            next_connection_delay_ms: 0,
            connections: ConnectionSettings {
                connection_timeout_ms: 60_000,
                max_payload_size: 20 * 1024,
                max_inflight_count: 100,
                auth: None,
                external_auth: None,
                dynamic_filters: true,
            },
        };
        let router = RouterConfig {
            max_connections: 100,
            max_outgoing_packet_count: 200,
            max_segment_size: 1024 * 1024,
            max_segment_count: 10,
            ..RouterConfig::default()
        };
        let v4 = Some(HashMap::from([("stock".to_owned(), server)]));
        let mut broker = Broker::new(Config { router, v4, ..Config::default() });
        std::thread::spawn(move || broker.start().expect("the stock broker starts"));
        let mut address = None;
        wait_until("the stock broker listens", || {
            address = listening();
            address.is_some()
        });
        address.expect("it listens")
    })
}

/// The address at which this process listens: the broker takes port 0 and does not tell which one it got.
fn listening() -> Option<SocketAddr> {
    let own: HashSet<String> = std::fs::read_dir("/proc/self/fd")
        .ok()?
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| {
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").ok()?;
    sockets.lines().find_map(|line| {
        // proc(5): sl, local_address, rem_address, st, …, inode in the tenth column. State 0A is LISTEN.
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
        if *state != "0A" || !own.contains(*inode) {
            return None;
        }
        let port = u16::from_str_radix(local.split_once(':')?.1, 16).ok()?;
        Some((Ipv4Addr::LOCALHOST, port).into())
    })
}

/// A client with a keep-alive, without which the stock broker refuses it.
fn client(id: &str) -> Client {
    Client::connect_with(stock_broker(), &Connect { keep_alive: 60, ..Connect::new(id) }).0
}

fn subscriber(id: &str, filter: &str) -> Client {
    let mut client = client(id);
    assert_eq!(
        client.subscribe(filter, QoS::AtLeastOnce),
        SubscribeReasonCode::Success(QoS::AtLeastOnce)
    );
    client
}

/// The next message, acknowledged.
fn next(client: &mut Client) -> Publish {
    loop {
        match client.receive() {
            Some(Packet::Publish(publish)) => {
                if publish.qos == QoS::AtLeastOnce {
                    client.send(&Packet::PubAck(PubAck::new(publish.pkid)));
                }
                return publish;
            }
            Some(_) => {}
            None => panic!("the broker closed the connection"),
        }
    }
}

/// The number of the next reading.
fn reading(client: &mut Client) -> u64 {
    let publish = next(client);
    assert_eq!((publish.qos, publish.retain), (QoS::AtLeastOnce, false));
    let telemetry = Telemetry::parse(&publish.payload).unwrap();
    assert!(telemetry.temperature.is_some() && telemetry.humidity.is_some());
    telemetry.seq
}

fn node(name: &str, data: &Path) -> Command {
    let mut command = humidor();
    command
        .args(["node", "--node", name, "--gpio", "sim", "--sim-faults", "0", "--interval", "1s"])
        .args(["--sensors", "hall=dht11@7", "--outputs", "fan=11"])
        .args(["--broker", &format!("mqtt://{}", stock_broker()), "--data"])
        .arg(data);
    command
}

/// Waits for the message `payload` on the only topic that `client` subscribed to.
fn until(client: &mut Client, payload: &str) {
    while next(client).payload != payload {}
}

#[test]
fn a_subscriber_gets_every_reading_at_qos_1_and_the_outbox_empties() {
    let data = tempfile::tempdir().unwrap();
    let mut plant = subscriber("plant", "humidor/stock/sensor/hall");
    let running = Process::start(node("stock", data.path()));
    running.said("connected");
    let mut seqs: Vec<u64> = (0..READINGS).map(|_| reading(&mut plant)).collect();
    // Each reading leaves the outbox on its PUBACK.
    wait_until("the outbox is empty", || outbox(data.path()).1 == 0);
    assert_eq!(running.terminate(), Some(0));
    let (taken, queued) = outbox(data.path());
    assert_eq!(queued, 0, "the end drained the outbox");
    let taken = u64::try_from(taken).unwrap();
    while seqs.len() as u64 != taken {
        seqs.push(reading(&mut plant));
    }
    assert!(seqs.into_iter().eq(1..=taken), "each once, in order");

    // The stock broker retained the status; the node's DISCONNECT came after it.
    until(&mut subscriber("late", "humidor/stock/status"), "offline");
}

#[test]
fn an_output_follows_commands() {
    let data = tempfile::tempdir().unwrap();
    let mut states = subscriber("states", "humidor/fans/output/fan");
    let running = Process::start(node("fans", data.path()));
    until(&mut states, "OFF");
    client("hand").publish("humidor/fans/output/fan/set", QoS::AtLeastOnce, 1, b"ON");
    until(&mut states, "ON");
    assert_eq!(running.terminate(), Some(0));
    until(&mut states, "OFF");
}

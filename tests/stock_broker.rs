//! A node delivers to rumqttd's stock broker at `QoS` 1: nothing in its session needs humidor's own broker.

mod support;

use std::path::Path;
use std::process::Command;

use humidor::wire::Telemetry;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, Packet, PubAck, Publish, SubscribeReasonCode};
use support::stock::stock_broker;
use support::{Client, Process, humidor, outbox, wait_until};

/// Readings that a subscriber waits for.
const READINGS: usize = 4;

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

/// `HUMIDOR_STOCK_BROKER` is the address of another broker, Mosquitto say; `HUMIDOR_STOCK_SECONDS` another time.
#[test]
#[ignore = "takes ten minutes"]
fn a_short_limit_of_an_output_costs_no_reconnect() {
    let set = |name: &str| std::env::var(name).ok();
    let address = set("HUMIDOR_STOCK_BROKER").unwrap_or_else(|| stock_broker().to_string());
    let seconds = set("HUMIDOR_STOCK_SECONDS").map_or(600, |it| it.parse().unwrap());
    let data = tempfile::tempdir().unwrap();
    let mut command = humidor();
    command
        .args(["node", "--node", "short", "--gpio", "sim", "--sim-faults", "0"])
        .args(["--sensors", "hall=dht11@7", "--outputs", "fan=11:safe=off:away=5s"])
        .args(["--broker", &format!("mqtt://{address}"), "--data"])
        .arg(data.path())
        .env("NO_COLOR", "1");
    let running = Process::start(command);
    running.said("connected");
    std::thread::sleep(std::time::Duration::from_secs(seconds));
    let said = running.last_words();
    let unwanted = ["connected", "wait in the outbox", "safe state"];
    assert!(!unwanted.iter().any(|it| said.contains(it)), "{said}");
}

//! Alarms of a running broker: told on MQTT, kept across a restart, carried out by a node's output; and an output whose
//! line fails is one.

mod support;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use humidor::gpio::digital::Output as Line;
use humidor::gpio::{Level, LineError};
use humidor::node::{Node, NodeConfig, OpenLines, Output};
use humidor::shutdown::{self, Trigger};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish};
use support::packets;
use support::{Client, PATIENCE, Process, board, broker, http, humidor};

const HOT: &str = "humidor/alarm/hot";
const FAN: &str = "humidor/roof/output/fan";

/// Waits for `payload` on `topic`; what else comes is acknowledged and passed by.
fn expect(client: &mut Client, topic: &str, payload: &str) {
    expect_all(client, &[(topic, payload)]);
}

/// As [`expect`], for several messages in whichever order they come.
fn expect_all(client: &mut Client, expected: &[(&str, &str)]) {
    let mut missing = expected.to_vec();
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "missing: {missing:?}");
        match client.receive() {
            Some(Packet::Publish(publish)) => {
                if publish.pkid > 0 {
                    client.send(&Packet::PubAck(rumqttc::mqttbytes::v4::PubAck::new(publish.pkid)));
                }
                missing.retain(|(topic, payload)| {
                    publish.topic != *topic || publish.payload != payload.as_bytes()
                });
            }
            Some(_) => {}
            None => panic!("the broker closed the connection"),
        }
    }
}

fn measure(client: &mut Client, seq: u64, temperature: f64) {
    let telemetry = format!(
        r#"{{"boot":"b","seq":{seq},"at":1760000000123,"clock":"synced","mono":{seq},"temperature":{temperature}}}"#
    );
    client.publish("humidor/press/sensor/hall", QoS::AtMostOnce, 0, telemetry.as_bytes());
}

fn roof(data: &Path, broker: std::net::SocketAddr) -> Process {
    let mut command = humidor();
    command
        .args([
            "node",
            "--node",
            "roof",
            "--gpio",
            "sim",
            "--outputs",
            "fan=11",
            "--discovery",
            "off",
        ])
        .args(["--broker", &format!("mqtt://{broker}"), "--data"])
        .arg(data);
    Process::start(command)
}

fn history(data: &Path) -> Vec<(String, String)> {
    let log = rusqlite::Connection::open(data.join(humidor::store::LOG_FILE)).unwrap();
    let mut rows = log.prepare("SELECT name, state FROM alarms ORDER BY at").unwrap();
    rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

#[test]
fn an_alarm_is_told_switches_its_output_and_outlives_a_restart() {
    let (data, outbox) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let alarms = ["--alarms", "hot=press/hall:temperature>30:hysteresis=2:output=roof/fan"];
    let (first, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let mut client = Client::connect(address, "plant");
    client.subscribe("homeassistant/#", QoS::AtMostOnce);
    client.subscribe("humidor/#", QoS::AtLeastOnce);
    expect(&mut client, HOT, "OFF");

    measure(&mut client, 1, 31.0);
    expect(&mut client, HOT, "ON");
    // Told again when the node comes, which could not hear it before.
    let node = roof(outbox.path(), address);
    expect(&mut client, FAN, "ON");
    measure(&mut client, 2, 29.0);
    measure(&mut client, 3, 28.0);
    expect(&mut client, HOT, "OFF");
    expect(&mut client, FAN, "OFF");
    measure(&mut client, 4, 30.5);
    expect(&mut client, HOT, "ON");
    expect(&mut client, FAN, "ON");
    client.send(&Packet::Disconnect);
    assert_eq!(first.terminate(), Some(0));
    assert_eq!(node.terminate(), Some(0));
    let raised = ["ON", "OFF", "ON"].map(|state| ("hot".to_owned(), state.to_owned()));
    assert_eq!(history(data.path()), raised);

    // The value is inside the hysteresis now: only memory can say that it is raised.
    let (second, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let mut client = Client::connect(address, "plant");
    client.subscribe("humidor/#", QoS::AtLeastOnce);
    expect(&mut client, HOT, "ON");
    let node = roof(outbox.path(), address);
    expect(&mut client, FAN, "ON");
    measure(&mut client, 5, 29.0);
    measure(&mut client, 6, 20.0);
    expect(&mut client, HOT, "OFF");
    expect(&mut client, FAN, "OFF");
    assert_eq!(second.terminate(), Some(0));
    drop(node);
}

#[test]
fn a_sensor_that_falls_silent_is_told_without_any_message() {
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) =
        broker(data.path(), "127.0.0.1:0", &["--alarms", "quiet=press/hall:silent>1s"]);
    let mut client = Client::connect(address, "plant");
    client.subscribe("humidor/alarm/#", QoS::AtMostOnce);
    expect(&mut client, "humidor/alarm/quiet", "ON");
    measure(&mut client, 1, 20.0);
    expect(&mut client, "humidor/alarm/quiet", "OFF");
    expect(&mut client, "humidor/alarm/quiet", "ON");
}

/// A line that keeps its level while it is broken, with the error of a driver that lost it.
#[derive(Clone)]
struct Wire {
    level: Arc<Mutex<Level>>,
    broken: Arc<AtomicBool>,
}

impl Line for Wire {
    fn set(&mut self, level: Level) -> Result<(), LineError> {
        if self.broken.load(Relaxed) {
            let cause = io::Error::from_raw_os_error(libc::EIO);
            return Err(LineError::Io { line: "GPIO17".to_owned(), cause });
        }
        *self.level.lock().unwrap() = level;
        Ok(())
    }

    fn level(&self) -> Result<Level, LineError> {
        Ok(*self.level.lock().unwrap())
    }
}

/// The node of `config`, with its outputs on `wire`.
fn node_on(wire: &Wire, config: NodeConfig) -> (tokio::runtime::Runtime, Trigger, Node) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (trigger, stopped) = shutdown::channel();
    let open = |_: humidor::node::Lines<'_>, config: &NodeConfig| {
        let outputs = config.outputs.iter().map(|output| {
            Output::new(output.name.clone(), Box::new(wire.clone()), output.active, output.safety)
        });
        Ok(OpenLines { sensors: Vec::new(), inputs: Vec::new(), outputs: outputs.collect() })
    };
    let node = runtime.block_on(async { Node::start_with(config, stopped, open) }).unwrap();
    (runtime, trigger, node)
}

fn alarm(http: SocketAddr) -> serde_json::Value {
    http::get(http, "/api/v1/alarms").json()[0].take()
}

#[test]
fn an_output_whose_line_fails_raises_an_alarm_until_it_follows() {
    let (data, outbox) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let alarms = ["--alarms", "stuck=press/fan:fault:output=roof/horn"];
    let (broker_process, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let http = broker_process.said("listening for HTTP");
    let http: SocketAddr = http.rsplit("address=").next().unwrap().trim().parse().unwrap();
    let mut client = Client::connect(address, "plant");
    client.subscribe("humidor/#", QoS::AtMostOnce);
    let (told, horn) = ("humidor/alarm/stuck", "humidor/roof/output/horn/set");
    expect(&mut client, told, "OFF");

    let wire = Wire { level: Arc::new(Mutex::new(Level::Low)), broken: Arc::default() };
    let config = board::config("press", outbox.path(), address, Duration::from_mins(1));
    let (runtime, trigger, node) = node_on(&wire, config);
    expect(&mut client, "humidor/press/output/fan", "OFF");
    client.publish("humidor/press/output/fan/set", QoS::AtMostOnce, 0, b"ON");
    expect(&mut client, "humidor/press/output/fan", "ON");
    assert_eq!(alarm(http)["raised"], false);

    wire.broken.store(true, Relaxed);
    client.publish("humidor/press/output/fan/set", QoS::AtMostOnce, 0, b"OFF");
    expect(&mut client, told, "ON");
    expect(&mut client, horn, "ON");
    let raised = alarm(http);
    assert_eq!((&raised["raised"], &raised["kind"]), (&true.into(), &"fault".into()), "{raised}");
    assert_eq!((&raised["node"], &raised["output"]), (&"press".into(), &"fan".into()), "{raised}");
    let why = raised["detail"].as_str().unwrap();
    assert!(why.contains("fan: could not be switched OFF") && why.contains("GPIO17"), "{why}");
    let metrics = http::get(http, "/metrics");
    assert!(metrics.text().contains("\nhumidor_alarm_raised{alarm=\"stuck\"} 1"), "{metrics:?}");

    wire.broken.store(false, Relaxed);
    expect(&mut client, told, "OFF");
    expect(&mut client, horn, "OFF");
    assert_eq!(*wire.level.lock().unwrap(), Level::Low);
    assert_eq!(alarm(http)["detail"], "fan follows again");

    // It fails as the node ends, and the broker is killed: the next one knows what the board said last.
    client.publish("humidor/press/output/fan/set", QoS::AtMostOnce, 0, b"ON");
    expect(&mut client, "humidor/press/output/fan", "ON");
    wire.broken.store(true, Relaxed);
    trigger.throw();
    runtime.block_on(node.ended()).unwrap();
    expect(&mut client, told, "ON");
    broker_process.kill_9();
    let alarms = ["--alarms", "late=press/fan:fault,stuck=press/fan:fault"];
    let (_second, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let mut client = Client::connect(address, "plant");
    client.subscribe("humidor/#", QoS::AtMostOnce);
    // One is retained, the other may be raised only now.
    expect_all(&mut client, &[("humidor/alarm/late", "ON"), ("humidor/alarm/stuck", "ON")]);
    // The board is forgotten.
    let health = Publish::new("humidor/press/health", QoS::AtMostOnce, "");
    client.send(&Packet::Publish(Publish { retain: true, ..health }));
    expect(&mut client, "humidor/alarm/late", "OFF");
    expect(&mut client, "humidor/alarm/stuck", "OFF");
}

const STUCK: &str = "humidor/alarm/stuck";
const HEALTH: &str = "humidor/press/health";

/// A health that says of each of `outputs` that its line fails.
fn faulty(outputs: &[&str]) -> Vec<u8> {
    let faults: Vec<_> = outputs.iter().map(|output| format!(r#""{output}":"EIO""#)).collect();
    format!(
        r#"{{"version":"0","boot":"b","at":0,"clock":"synced","taken":0,"outbox":0,"dropped":0,"outbox_kind":"disk","failures":{{}},"output_faults":{{{}}}}}"#,
        faults.join(",")
    )
    .into_bytes()
}

fn retain(client: &mut Client, topic: &str, payload: &[u8]) {
    let message = Publish::new(topic, QoS::AtLeastOnce, payload);
    client.send(&Packet::Publish(Publish { retain: true, pkid: 9, ..message }));
    while !matches!(client.receive(), Some(Packet::PubAck(ack)) if ack.pkid == 9) {}
}

/// The last state of each alarm, and the number of its changes.
fn outcome(data: &Path) -> std::collections::BTreeMap<String, (String, usize)> {
    let log = rusqlite::Connection::open(data.join(humidor::store::LOG_FILE)).unwrap();
    let mut rows = log.prepare("SELECT name, raised FROM alarm ORDER BY id").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get::<_, bool>(1)?))).unwrap();
    let mut last = std::collections::BTreeMap::new();
    for (name, raised) in rows.map(Result::unwrap) {
        let (state, changes): &mut (String, usize) = last.entry(name).or_default();
        (*state, *changes) = (if raised { "ON" } else { "OFF" }.to_owned(), *changes + 1);
    }
    last
}

#[test]
fn an_output_that_flaps_as_fast_as_its_client_can_hides_no_other_alarm() {
    const FLAPS: usize = 6_000;
    const GAPS: usize = 10;
    let data = tempfile::tempdir().unwrap();
    let mut alarms: Vec<_> = (0..GAPS).map(|n| format!("lost{n}=oven{n}:gap:clear=24h")).collect();
    alarms.push("stuck=press/fan:fault".to_owned());
    let alarms = alarms.join(",");
    let (first, address) = broker(data.path(), "127.0.0.1:0", &["--alarms", &alarms]);
    let mut client = Client::connect(address, "plant");
    let (on, off) = (faulty(&["fan"]), faulty(&[]));
    for n in 0..FLAPS {
        client.publish(HEALTH, QoS::AtMostOnce, 0, if n % 2 == 0 { &on } else { &off });
        if let Some(oven) = n.checked_sub(FLAPS / 2).filter(|n| n % (FLAPS / 4 / GAPS) == 0)
            && oven / (FLAPS / 4 / GAPS) < GAPS
        {
            let topic = format!("humidor/oven{}/sensor/air", oven / (FLAPS / 4 / GAPS));
            for seq in [1, 5] {
                client.publish(&topic, QoS::AtMostOnce, 0, &support::telemetry("b", seq));
            }
        }
    }
    retain(&mut client, HEALTH, &on);
    client.send(&Packet::Disconnect);
    let lines = first.last_words();
    let lines = lines.lines().filter(|line| line.contains("alarm=stuck")).count();
    let last = outcome(data.path());
    for n in 0..GAPS {
        assert_eq!(last.get(&format!("lost{n}")), Some(&("ON".to_owned(), 1)), "{n}: {last:?}");
    }
    assert_eq!(last["stuck"].0, "ON", "{last:?}");
    assert!(lines < 100, "{lines} lines of {} changes", last["stuck"].1);
}

#[test]
fn an_alarm_is_cleared_when_the_health_that_raised_it_was_deleted_while_no_broker_ran() {
    let data = tempfile::tempdir().unwrap();
    let alarms = ["--alarms", "stuck=press/fan:fault"];
    let (first, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let mut client = Client::connect(address, "plant");
    retain(&mut client, "humidor/press/status", b"offline");
    retain(&mut client, HEALTH, &faulty(&["fan"]));
    client.subscribe(STUCK, QoS::AtMostOnce);
    expect(&mut client, STUCK, "ON");
    client.send(&Packet::Disconnect);
    assert_eq!(first.terminate(), Some(0));
    let mut forget = humidor();
    forget.args(["db", "forget", "press", "--yes", "--data"]).arg(data.path());
    assert!(forget.status().unwrap().success());

    let (second, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let mut client = Client::connect(address, "plant");
    client.subscribe(STUCK, QoS::AtMostOnce);
    expect(&mut client, STUCK, "OFF");
    assert_eq!(second.terminate(), Some(0));
    assert_eq!(outcome(data.path())["stuck"], ("OFF".to_owned(), 2));
}

/// Publishes a health with a fault of output `fan` that expires (MQTT 5.0 §3.3.2.3.3) after `seconds`.
fn expiring_health(address: SocketAddr, seconds: u32) -> packets::Wire {
    let text = |text: &str| {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        [&length[..], text.as_bytes()].concat()
    };
    let connect = [&text("MQTT")[..], &[5, 2, 0, 0, 0], &text("board")].concat();
    let (mut board, _) = packets::Wire::open(address, &packets::packet(0x10, &connect));
    let expiry = [&[5, 2][..], &seconds.to_be_bytes()].concat();
    let publish = [text(HEALTH), expiry, faulty(&["fan"])].concat();
    board.send(&packets::packet(0x31, &publish));
    board
}

#[test]
fn an_alarm_is_cleared_when_the_health_that_raised_it_expires_also_over_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let alarms = ["--alarms", "stuck=press/fan:fault"];
    let (first, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let mut client = Client::connect(address, "plant");
    client.subscribe(STUCK, QoS::AtMostOnce);
    let board = expiring_health(address, 1);
    expect(&mut client, STUCK, "ON");
    expect(&mut client, STUCK, "OFF");
    drop(board);

    let board = expiring_health(address, 2);
    expect(&mut client, STUCK, "ON");
    drop((client, board));
    assert_eq!(first.terminate(), Some(0));
    let (_second, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let mut client = Client::connect(address, "plant");
    client.subscribe(STUCK, QoS::AtMostOnce);
    expect(&mut client, STUCK, "OFF");
}

#[test]
fn an_alarm_on_an_output_that_its_board_does_not_have_is_told_once() {
    let data = tempfile::tempdir().unwrap();
    let alarms = [
        "--alarms",
        "real=press/fan:fault,failing=press/lamp:fault,typo=press/fam:fault,away=oven/fan:fault",
    ];
    let (process, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let mut client = Client::connect(address, "plant");
    retain(&mut client, "humidor/press/output/fan", b"OFF");
    for _ in 0..5 {
        retain(&mut client, HEALTH, &faulty(&["lamp"]));
    }
    let told = process.said("watches an output that its board does not have");
    assert!(told.contains("alarm=typo") && told.contains("node=press"), "{told}");
    let words = process.last_words();
    assert_eq!(words.matches("does not have").count(), 0, "no other alarm, and once: {words}");
}

#[test]
fn an_empty_health_that_deletes_nothing_clears_no_alarm() {
    let data = tempfile::tempdir().unwrap();
    let alarms = ["--alarms", "stuck=press/fan:fault,other=press/lamp:fault"];
    let (broker, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let mut client = Client::connect(address, "plant");
    client.subscribe("humidor/alarm/#", QoS::AtMostOnce);
    retain(&mut client, HEALTH, &faulty(&["fan"]));
    client.publish(HEALTH, QoS::AtMostOnce, 0, b"");
    client.publish(HEALTH, QoS::AtMostOnce, 0, &faulty(&["fan", "lamp"]));
    expect(&mut client, "humidor/alarm/other", "ON");
    assert_eq!(broker.terminate(), Some(0));
    let raised = ["stuck", "other"].map(|name| (name.to_owned(), "ON".to_owned()));
    assert_eq!(history(data.path()), raised);
}

/// A health of a board that runs `version`.
fn running(version: &str) -> Vec<u8> {
    format!(
        r#"{{"version":"{version}","revision":"abc","boot":"b","at":0,"clock":"synced","taken":0,"outbox":0,"dropped":0,"outbox_kind":"disk","failures":{{}}}}"#
    )
    .into_bytes()
}

fn http_of(broker: &Process) -> SocketAddr {
    let line = broker.said("listening for HTTP");
    line.rsplit("address=").next().unwrap().trim().parse().unwrap()
}

#[test]
fn a_board_that_runs_another_version_than_most_raises_an_alarm() {
    let data = tempfile::tempdir().unwrap();
    let alarms =
        ["--alarms", "odd=broker:version:delay=0s,old=c:version:delay=0s,new=a:version:delay=0s"];
    let (first, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let mut client = Client::connect(address, "plant");
    client.subscribe("humidor/alarm/#", QoS::AtMostOnce);
    let says = |client: &mut Client, node: &str, health: &[u8]| {
        let message = Publish::new(format!("humidor/{node}/health"), QoS::AtMostOnce, health);
        client.send(&Packet::Publish(Publish { retain: true, ..message }));
    };
    for node in ["a", "b"] {
        says(&mut client, node, &running("1.0"));
    }
    says(&mut client, "c", &running("0.9"));
    expect(&mut client, "humidor/alarm/odd", "ON");
    expect(&mut client, "humidor/alarm/old", "ON");
    let told = http::get(http_of(&first), "/api/v1/alarms").json();
    assert_eq!((&told[0]["kind"], &told[0]["node"]), (&"version".into(), &"broker".into()));
    for alarm in [&told[0], &told[1]] {
        assert_eq!(alarm["detail"], "c runs 0.9 (abc); most run 1.0 (abc)");
    }
    assert_eq!(told[2]["raised"], false);
    first.kill_9();

    // The boards' retained health says so at once, and nothing flaps.
    let (second, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let mut client = Client::connect(address, "plant");
    client.subscribe("humidor/alarm/#", QoS::AtMostOnce);
    expect(&mut client, "humidor/alarm/odd", "ON");
    says(&mut client, "c", &running("1.0"));
    expect(&mut client, "humidor/alarm/odd", "OFF");
    // One that is forgotten counts no more.
    says(&mut client, "c", &running("0.9"));
    expect(&mut client, "humidor/alarm/odd", "ON");
    says(&mut client, "c", b"");
    expect(&mut client, "humidor/alarm/odd", "OFF");
    client.send(&Packet::Disconnect);
    assert_eq!(second.terminate(), Some(0));
    let odd: Vec<String> = history(data.path())
        .into_iter()
        .filter_map(|(name, state)| (name == "odd").then_some(state))
        .collect();
    assert_eq!(odd, ["ON", "OFF", "ON", "OFF"]);
}

#[test]
fn postgresql_that_is_away_raises_an_alarm_and_is_told_over_http() {
    let data = tempfile::tempdir().unwrap();
    // Nothing listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let upstream = format!("postgres://humidor@{closed}/humidor");
    let alarms = ["--alarms", "copy=broker:upstream:delay=0s", "--upstream", &upstream];
    let (process, address) = broker(data.path(), "127.0.0.1:0", &alarms);
    let mut client = Client::connect(address, "plant");
    client.subscribe("humidor/alarm/#", QoS::AtMostOnce);
    expect(&mut client, "humidor/alarm/copy", "ON");
    client.subscribe("humidor/press/sensor/hall", QoS::AtMostOnce);
    measure(&mut client, 1, 20.0);
    while !matches!(client.receive(), Some(Packet::Publish(publish)) if publish.topic.ends_with("/hall"))
    {
    }

    let http = http_of(&process);
    assert_eq!(http::get(http, "/api/v1/about").json()["upstream"], true);
    let told = || http::get(http, "/api/v1/upstream").json();
    support::wait_until("the reading has waited", || told()["lag_ms"].as_u64() > Some(0));
    let told = told();
    assert_eq!((&told["connected"], &told["failing"]), (&false.into(), &true.into()), "{told}");
    // The alarm's own change is one, too.
    assert_eq!((&told["lag"], &told["acknowledge"]), (&2.into(), &"stored".into()), "{told}");
    assert!(told["error"].as_str().unwrap().contains(&closed.to_string()), "{told}");
    let alarm = alarm(http);
    assert_eq!(alarm["kind"], "upstream");
    assert!(alarm["detail"].as_str().unwrap().contains(&closed.to_string()), "{alarm}");
    assert_eq!(process.terminate(), Some(0));
}

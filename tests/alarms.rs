//! Alarms of a running broker: told on MQTT, kept across a restart, carried out by a node's output.

mod support;

use std::path::Path;
use std::time::Instant;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Packet;
use support::{Client, PATIENCE, Process, broker, humidor};

const HOT: &str = "humidor/alarm/hot";
const FAN: &str = "humidor/roof/output/fan";

/// Waits for `payload` on `topic`; what else comes is acknowledged and passed by.
fn expect(client: &mut Client, topic: &str, payload: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no {payload} on {topic}");
        match client.receive() {
            Some(Packet::Publish(publish)) => {
                if publish.pkid > 0 {
                    client.send(&Packet::PubAck(rumqttc::mqttbytes::v4::PubAck::new(publish.pkid)));
                }
                if publish.topic == topic && publish.payload == payload.as_bytes() {
                    return;
                }
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

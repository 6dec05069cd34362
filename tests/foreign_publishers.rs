//! Other publishers' messages are stored as they come: numbers up to two levels down, each under the name that its owner
//! knows. A member that is no number costs itself, and is counted.

mod support;

use std::collections::BTreeMap;

use rumqttc::mqttbytes::QoS;
use support::http::get;
use support::{Client, Process, broker, log};

fn start(data: &std::path::Path) -> (Process, Client, std::net::SocketAddr) {
    let filters = "tele/+/SENSOR,zigbee2mqtt/+,esphome/#,shellies/#,homeassistant/#";
    let (process, mqtt) = broker(data, "127.0.0.1:0", &["--logged-filters", filters]);
    let line = process.said("listening for HTTP");
    let http = line.rsplit("address=").next().and_then(|address| address.trim().parse().ok());
    (process, Client::connect(mqtt, "publisher"), http.expect("an address"))
}

#[test]
fn each_number_of_a_usual_publisher_is_stored_under_a_name_that_its_owner_knows() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client, _) = start(folder.path());
    for (pkid, (topic, payload)) in (1..).zip([
        (
            "tele/hall/SENSOR",
            r#"{"Time":"2026-02-11T07:31:04","AM2301":{"Temperature":21.4,"Humidity":48.0},"TempUnit":"C"}"#,
        ),
        ("zigbee2mqtt/door", r#"{"temperature":18.7,"update":{"installed_version":7}}"#),
        ("esphome/press/sensor/oil/state", "61.25"),
        ("shellies/plug/status/switch:0", r#"{"id":0,"aenergy":{"total":7.31,"by_minute":[51.2,49.8]}}"#),
        ("homeassistant/sensor/roof/state", "-3.5"),
    ]) {
        client.publish(topic, QoS::AtLeastOnce, pkid, payload.as_bytes());
        client.expect_puback(pkid);
    }
    let mut found = BTreeMap::new();
    log(folder.path())
        .export_samples(&humidor::store::Selection::default(), |sample| {
            found.insert(format!("{} {}", sample.topic, sample.field), sample.value);
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
    let expected = [
        ("esphome/press/sensor/oil/state ", 61.25),
        ("homeassistant/sensor/roof/state ", -3.5),
        ("shellies/plug/status/switch:0 aenergy.by_minute.0", 51.2),
        ("shellies/plug/status/switch:0 aenergy.by_minute.1", 49.8),
        ("shellies/plug/status/switch:0 aenergy.total", 7.31),
        ("shellies/plug/status/switch:0 id", 0.0),
        ("tele/hall/SENSOR AM2301.Humidity", 48.0),
        ("tele/hall/SENSOR AM2301.Temperature", 21.4),
        ("zigbee2mqtt/door temperature", 18.7),
        ("zigbee2mqtt/door update.installed_version", 7.0),
    ];
    let found: Vec<(&str, f64)> =
        found.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(found, expected);
    assert_eq!(broker.terminate(), Some(0));
}

#[test]
fn a_member_that_is_no_number_costs_itself_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mut client, http) = start(folder.path());
    let payload =
        r#"{"Time":"07:31","DS18B20":{"Temperature":NaN},"ANALOG":{"A0":1e400,"A1":512}}"#;
    client.publish("tele/hall/SENSOR", QoS::AtLeastOnce, 1, payload.as_bytes());
    client.expect_puback(1);
    let metrics = get(http, "/metrics");
    for line in [
        "humidor_samples_stored_total 1",
        "humidor_members_not_stored_total{cause=\"left-out\"} 2",
        "humidor_members_not_stored_total{cause=\"text\"} 1",
    ] {
        assert!(metrics.text().lines().any(|found| found == line), "{line} in {}", metrics.text());
    }
}

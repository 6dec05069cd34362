//! Other publishers' messages are stored as they come: numbers up to two levels down, each under the name that its owner
//! knows. A member that is no number costs itself, and is counted.

mod support;

use std::collections::BTreeMap;

use humidor::broker::{Role, hash};
use rumqttc::mqttbytes::QoS;
use support::http::{get, request, send};
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
fn a_text_that_was_meant_as_a_number_is_told_with_what_would_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client, http) = start(folder.path());
    for (pkid, (topic, payload)) in (1..).zip([
        ("esphome/oven/state", "21,5"),
        ("esphome/oven/state", "22,5"),
        ("esphome/hall/state", r#""21.5 °C""#),
        (
            "tele/hall/SENSOR",
            r#"{"Time":"07:31","AM2301":{"Temperature":"21,5 °C","Humidity":48}}"#,
        ),
        ("zigbee2mqtt/door", r#"{"state":"ON","last_seen":"2026-02-11T07:31:04Z"}"#),
    ]) {
        client.publish(topic, QoS::AtLeastOnce, pkid, payload.as_bytes());
        client.expect_puback(pkid);
    }
    let lost = get(http, "/api/v1/sources/lost").json();
    let told: Vec<_> = lost
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            assert!(it["at"].is_i64(), "{it}");
            let text = |member: &str| it[member].as_str().unwrap().to_owned();
            (
                text("topic"),
                text("field"),
                text("came"),
                text("meant"),
                it["count"].as_u64().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("esphome/hall/state", "", "\"21.5 °C\"", "21.5", 1),
        ("esphome/oven/state", "", "22,5", "22.5", 2),
        ("tele/hall/SENSOR", "AM2301.Temperature", "\"21,5 °C\"", "21.5", 1),
    ];
    let expected = expected.map(|(topic, field, came, meant, count)| {
        (topic.to_owned(), field.to_owned(), came.to_owned(), meant.to_owned(), count)
    });
    assert_eq!(told, expected);
    let line = broker.said("a text is not kept");
    assert!(line.contains("esphome/oven/state") && line.contains("meant=\"21.5\""), "{line}");
    let rest = broker.last_words();
    assert!(!rest.contains("22,5"), "each topic is said once: {rest}");
}

#[test]
fn a_member_that_is_no_number_costs_itself_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client, http) = start(folder.path());
    let payload =
        r#"{"Time":"07:31","DS18B20":{"Temperature":NaN},"ANALOG":{"A0":1e400,"A1":512}}"#;
    client.publish("tele/hall/SENSOR", QoS::AtLeastOnce, 1, payload.as_bytes());
    client.expect_puback(1);
    let metrics = get(http, "/metrics");
    for line in [
        "humidor_samples_stored_total 1",
        "humidor_members_not_stored_total{cause=\"left-out\"} 2",
        "humidor_members_not_stored_total{cause=\"text\"} 1",
        "humidor_source_numbers_left_out_total{topic=\"tele/hall/SENSOR\"} 2",
    ] {
        assert!(metrics.text().lines().any(|found| found == line), "{line} in {}", metrics.text());
    }
    let line = broker.said("numbers in a message cannot be kept");
    assert!(line.contains("tele/hall/SENSOR"), "{line}");
}

#[test]
fn what_describes_a_device_is_no_sample() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mut client, http) = start(folder.path());
    for (pkid, (topic, payload)) in (1..).zip([
        ("homeassistant/device/humidor_press/config", r#"{"cmps":{"hall":{"exp_aft":25}}}"#),
        ("homeassistant/sensor/0x00158d/temperature/config", r#"{"qos":1}"#),
        ("homeassistant/sensor/hall/state", "21.5"),
    ]) {
        client.publish(topic, QoS::AtLeastOnce, pkid, payload.as_bytes());
        client.expect_puback(pkid);
    }
    let sources = get(http, "/api/v1/sources").json();
    let topics: Vec<_> = sources.as_array().unwrap().iter().map(|it| &it["topic"]).collect();
    assert_eq!(topics, ["homeassistant/sensor/hall/state"]);
}

#[test]
fn a_meter_moves_in_steps_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mut client, http) = start(folder.path());
    for pkid in 1..=3 {
        let total = 12_345_677 + u32::from(pkid);
        client.publish(
            "shellies/meter/total",
            QoS::AtLeastOnce,
            pkid,
            total.to_string().as_bytes(),
        );
        client.expect_puback(pkid);
    }
    let series = get(http, "/api/v1/sources/series?topic=shellies/meter/total").json();
    let totals = serde_json::json!([12_345_678.0, 12_345_679.0, 12_345_680.0]);
    assert_eq!(series["value"]["mean"], totals);
    assert_eq!(series["value"]["max"], totals);
}

#[test]
fn a_publisher_that_is_closed_for_its_topic_is_told_to_the_operator() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mut client, _) = start(folder.path());
    let topic = format!("tele/{}/SENSOR", "x".repeat(1100));
    client.publish(&topic, QoS::AtLeastOnce, 1, b"1");
    let line = broker.said("connection closed");
    for part in ["client=\"publisher\"", "at most 1024 bytes", "let it publish to a shorter topic"]
    {
        assert!(line.contains(part), "{part} in {line}");
    }
}

/// Basic credentials of a user whose password is the name.
fn login(name: &str) -> String {
    use base64::Engine;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{name}"));
    format!("Basic {pair}")
}

#[test]
fn the_page_lists_and_charts_them_for_those_who_may_read_the_topic() {
    let folder = tempfile::tempdir().unwrap();
    let users = [("kim", Role::Admin, ""), ("lee", Role::None, "\"allow read tele/#\"")];
    let users = users.map(|(name, role, rule)| {
        let hash = hash(name.as_bytes()).unwrap();
        format!("[user.{name}]\npassword = \"{hash}\"\nrole = \"{role}\"\nrules = [{rule}]\n")
    });
    std::fs::write(folder.path().join("users.toml"), users.concat()).unwrap();
    let filters = "tele/+/SENSOR,zigbee2mqtt/+";
    let (broker, mqtt) =
        broker(folder.path(), "127.0.0.1:0", &["--logged-filters", filters, "--anonymous", "yes"]);
    let line = broker.said("listening for HTTP");
    let http = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    let ask =
        |who: &str, path: &str| request(http, "GET", path, &[("authorization", &login(who))], "");
    let head = format!(
        "GET /api/v1/events HTTP/1.1\r\nhost: {http}\r\nauthorization: {}\r\n\r\n",
        login("kim")
    );
    let mut events = send(http, head.as_bytes());
    let mut text = String::new();
    let mut more = |text: &mut String| {
        let mut chunk = [0; 4096];
        let count = std::io::Read::read(&mut events, &mut chunk).expect("the stream goes on");
        assert!(count > 0, "closed after: {text}");
        *text += &String::from_utf8_lossy(&chunk[..count]);
    };
    // It follows from its answer on.
    while !text.contains("\r\n\r\n") {
        more(&mut text);
    }

    let mut client = Client::connect(mqtt, "publisher");
    for pkid in 1..=5 {
        let payload = format!(r#"{{"AM2301":{{"Temperature":{}.5}}}}"#, 20 + pkid);
        client.publish("tele/온실/SENSOR", QoS::AtLeastOnce, pkid, payload.as_bytes());
        client.expect_puback(pkid);
    }
    client.publish("zigbee2mqtt/door", QoS::AtLeastOnce, 6, br#"{"temperature":18.75}"#);
    client.expect_puback(6);

    let all = ask("kim", "/api/v1/sources").json();
    let names: Vec<_> =
        all.as_array().unwrap().iter().map(|s| (&s["topic"], &s["field"])).collect();
    assert_eq!(
        names,
        [
            (&"tele/온실/SENSOR".into(), &"AM2301.Temperature".into()),
            (&"zigbee2mqtt/door".into(), &"temperature".into()),
        ]
    );
    assert_eq!(all[0]["latest"]["value"], 25.5);
    assert!(all[0]["interval_ms"].is_u64(), "{all}");
    assert_eq!(ask("lee", "/api/v1/sources").status, 403, "lee reads nothing of humidor");

    let topic = "topic=tele%2F%EC%98%A8%EC%8B%A4%2FSENSOR&field=AM2301.Temperature";
    let series = ask("kim", &format!("/api/v1/sources/series?{topic}")).json();
    assert_eq!(series["value"]["mean"], serde_json::json!([21.5, 22.5, 23.5, 24.5, 25.5]));
    let none = ask("kim", "/api/v1/sources/series?topic=%F0%9F%8F%A0").json();
    assert_eq!(none["at"], serde_json::json!([]));
    assert_eq!(ask("kim", "/api/v1/sources/series").status, 400);

    while !text.contains("zigbee2mqtt/door") {
        more(&mut text);
    }
    assert!(text.contains("event: samples") && text.contains(r#""value":18.75"#), "{text}");
    assert_eq!(broker.terminate(), Some(0));
}

//! Nobody gets in where they do not belong: rules mean the same over HTTP as over MQTT, a client id widens none of them,
//! only the broker speaks as the broker, a user who is withdrawn is gone wholly, and users that are lost open nothing.

mod support;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    Connect, ConnectReturnCode, LastWill, Login, Packet, PubAck, Publish, SubscribeReasonCode,
};
use serde_json::json;
use support::http::{Answer, request, send};
use support::users::{add, answer, user};
use support::{Client, Process, humidor, telemetry, wait_until};

/// Puts these lines in front of the users file: rules for all users.
fn rules_for_all(data: &Path, rules: &str) {
    let file = data.join("users.toml");
    let users = std::fs::read_to_string(&file).unwrap_or_default();
    std::fs::write(&file, format!("rules = [{rules}]\n{users}")).unwrap();
}

/// Puts these lines at the end of the users file: rules of the user who was added last.
fn rules_of_last(data: &Path, rules: &str) {
    let file = data.join("users.toml");
    let users = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{users}rules = [{rules}]\n")).unwrap();
}

fn start(data: &Path, more: &[&str]) -> (Process, SocketAddr, SocketAddr) {
    let (process, mqtt) = support::broker(data, "127.0.0.1:0", more);
    let line = process.said("listening for HTTP");
    let http = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    (process, mqtt, http)
}

fn connect(id: &str, user: &str) -> Connect {
    let mut connect = Connect { keep_alive: 0, ..Connect::new(id) };
    connect.login = Some(Login::new(user, format!("{user}-secret")));
    connect
}

fn login(address: SocketAddr, id: &str, user: &str) -> Client {
    Client::connect_with(address, &connect(id, user)).0
}

fn retain(client: &mut Client, topic: &str, payload: &str) {
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
    (publish.pkid, publish.retain) = (9, true);
    client.send(&Packet::Publish(publish));
    client.expect_puback(9);
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{user}-secret")))
}

/// A request of a user, or of a guest for an empty name.
fn ask(http: SocketAddr, user: &str, method: &str, path: &str, body: &str) -> Answer {
    let login = basic(user);
    let mut headers = vec![("content-type", "application/json")];
    if !user.is_empty() {
        headers.push(("authorization", &login));
    }
    request(http, method, path, &headers, body)
}

/// An open event stream of a user.
struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    fn open(http: SocketAddr, user: &str) -> Self {
        let head = format!(
            "GET /api/v1/events HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\nauthorization: {}\r\n\r\n",
            basic(user)
        );
        let mut events = Self { stream: send(http, head.as_bytes()), text: String::new() };
        events.until("event: hello");
        events
    }

    /// Reads on; returns whether the stream goes on.
    fn read(&mut self) -> bool {
        let mut chunk = [0; 4096];
        let count = self.stream.read(&mut chunk).expect("the stream goes on, or ends");
        self.text += std::str::from_utf8(&chunk[..count]).unwrap();
        count > 0
    }

    /// Reads until there is this text, and returns all.
    fn until(&mut self, wanted: &str) -> &str {
        while !self.text.contains(wanted) {
            assert!(self.read(), "closed after: {}", self.text);
        }
        &self.text
    }
}

#[test]
fn what_a_rule_denies_over_mqtt_is_not_there_over_http() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "root", "admin");
    add(data.path(), "kim", "none");
    rules_of_last(data.path(), "'deny read humidor/secret/#', 'allow read humidor/#'");
    let (_broker, mqtt, http) = start(
        data.path(),
        &["--alarms", "hot=secret/hall:temperature>20,warm=press/hall:silent>1h"],
    );
    let mut root = login(mqtt, "root", "root");
    let mut events = Events::open(http, "kim");
    for node in ["secret", "press"] {
        retain(&mut root, &format!("humidor/{node}/status"), "online");
        retain(&mut root, &format!("humidor/{node}/output/fan"), "ON");
        let topic = format!("humidor/{node}/sensor/hall");
        root.publish(&topic, QoS::AtLeastOnce, 1, &telemetry(node, 1));
        root.expect_puback(1);
    }
    let page = |path: &str| ask(http, "kim", "GET", path, "");
    for path in ["latest", "sensors", "nodes", "outputs", "export", "export?format=jsonl"] {
        wait_until("the other board is there", || {
            page(&format!("/api/v1/{path}")).text().contains("press")
        });
        let found = page(&format!("/api/v1/{path}"));
        assert!(!found.text().contains("secret"), "{path}: {}", found.text());
    }
    let metrics = page("/metrics");
    assert!(metrics.text().contains("node=\"press\""));
    assert!(!metrics.text().contains("node=\"secret\""), "{}", metrics.text());
    // Numbers of the broker itself are in `$SYS`.
    assert!(!metrics.text().contains("humidor_clients"), "{}", metrics.text());
    assert_eq!(page("/api/v1/series?node=press&sensor=hall").status, 200);
    assert_eq!(page("/api/v1/series?node=secret&sensor=hall").status, 403);
    assert_eq!(page("/api/v1/export?node=secret&sensor=hall").status, 403);
    wait_until("the alarm is raised", || {
        ask(http, "root", "GET", "/api/v1/alarms", "").json()[0]["raised"] == true
    });
    let whole = ask(http, "root", "GET", "/api/v1/alarms", "").json();
    assert_ne!(whole[0]["detail"], "");
    let alarms = page("/api/v1/alarms").json();
    assert_eq!((&alarms[0]["raised"], &alarms[0]["detail"]), (&json!(true), &json!("")));
    // Both kinds of events come in the order of the messages.
    events.until(r#""boot":"press""#);
    let told = events.until(r#""node":"press","status":"online""#);
    assert!(!told.contains("secret"), "{told}");
    // A whole page for the one who may see all of it.
    assert!(ask(http, "root", "GET", "/api/v1/latest", "").text().contains("secret"));
}

#[test]
fn a_rule_for_all_binds_the_guests_of_http() {
    let data = tempfile::tempdir().unwrap();
    rules_for_all(
        data.path(),
        "'deny write humidor/+/output/heater/set', 'deny read humidor/secret/#'",
    );
    let (broker, mqtt, http) = start(data.path(), &[]);
    let mut oven = Client::connect(mqtt, "humidor-oven");
    for topic in
        ["humidor/oven/output/heater", "humidor/oven/output/fan", "humidor/secret/output/x"]
    {
        retain(&mut oven, topic, "OFF");
    }
    oven.subscribe("humidor/oven/output/+/set", QoS::AtMostOnce);
    let guest = |method: &str, path: &str, body: &str| ask(http, "", method, path, body);
    wait_until("the outputs are known", || {
        guest("GET", "/api/v1/outputs", "").json().as_array().unwrap().len() >= 2
    });
    let switch =
        |output: &str| guest("POST", &format!("/api/v1/outputs/{output}"), r#"{"on":true}"#).status;
    assert_eq!(switch("oven/heater"), 401);
    assert_eq!(switch("oven/fan"), 202);
    match oven.receive() {
        Some(Packet::Publish(command)) => assert_eq!(command.topic, "humidor/oven/output/fan/set"),
        other => panic!("no command but {other:?}"),
    }
    assert!(!guest("GET", "/api/v1/outputs", "").text().contains("secret"));
    assert!(!guest("GET", "/api/v1/nodes", "").text().contains("secret"));
    let line = broker.said("publish refused");
    assert!(line.contains("humidor/oven/output/heater/set"), "{line}");
}

#[test]
fn a_user_of_one_board_sees_that_board() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "root", "admin");
    add(data.path(), "press", "node");
    let (_broker, mqtt, http) = start(data.path(), &[]);
    let mut root = login(mqtt, "root", "root");
    for node in ["press", "oven"] {
        let topic = format!("humidor/{node}/sensor/hall");
        root.publish(&topic, QoS::AtLeastOnce, 1, &telemetry("b", 1));
        root.expect_puback(1);
    }
    let latest = ask(http, "press", "GET", "/api/v1/latest", "").json();
    assert_eq!(latest.as_array().unwrap().len(), 1);
    assert_eq!(latest[0]["node"], "press");
    let about = ask(http, "press", "GET", "/api/v1/about", "").json();
    assert_eq!(about["may"], json!({ "read": true, "switch": true, "forget": false }));
    assert_eq!(ask(http, "press", "POST", "/api/v1/outputs/oven/fan", "{\"on\":true}").status, 403);
}

#[test]
fn a_client_id_widens_no_rule() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "kim", "none");
    rules_of_last(data.path(), "'allow all %c/up/#'");
    let (broker, address, _) = start(data.path(), &[]);
    for id in ["$share", "$SYS", "$x", "broker", "alarm", "humidor", "+", "a/b"] {
        let code = answer(address, &connect(id, "kim"));
        assert_eq!(code, ConnectReturnCode::BadClientId, "{id}");
    }
    let line = broker.said("login refused");
    assert!(line.contains("%c"), "{line}");
    let mut good = login(address, "gate-1", "kim");
    for (filter, granted) in [("#", false), ("x/up/#", false), ("gate-1/up/#", true)] {
        let code = good.subscribe(filter, QoS::AtMostOnce);
        assert_eq!(code != SubscribeReasonCode::Failure, granted, "{filter}");
    }
}

#[test]
fn nobody_speaks_as_the_broker() {
    let data = tempfile::tempdir().unwrap();
    let reserved = user(data.path(), &["add", "broker", "--role", "node"], "x\n");
    let error = String::from_utf8_lossy(&reserved.stderr).into_owned();
    assert!(!reserved.status.success() && error.contains("broker's own"), "{error}");
    assert!(!user(data.path(), &["add", "alarm"], "x\n").status.success());
    for (name, role) in [("root", "admin"), ("boards", "fleet"), ("old", "node"), ("ha", "reader")]
    {
        add(data.path(), name, role);
    }
    // A file of an earlier version.
    let file = data.path().join("users.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("[user.old]", "[user.broker]");
    std::fs::write(&file, text).unwrap();
    let (_broker, address, http) =
        start(data.path(), &["--alarms", "hot=press/hall:temperature>30", "--logged-filters", "#"]);
    let fleet = |id: &str| answer(address, &connect(id, "boards"));
    assert_eq!(fleet("humidor-broker"), ConnectReturnCode::BadClientId);
    assert_eq!(fleet("humidor-alarm"), ConnectReturnCode::BadClientId);
    assert_eq!(fleet("humidor-press"), ConnectReturnCode::Success);
    let mut named = connect("c", "old");
    named.login.as_mut().unwrap().username = "broker".to_owned();
    assert_eq!(answer(address, &named), ConnectReturnCode::NotAuthorized);

    let mut watcher = login(address, "ha", "ha");
    let mut root = login(address, "root", "root");
    let own = [
        "humidor/broker/status",
        "humidor/broker/sensor/hall",
        "humidor/alarm/hot",
        "humidor/alarm/other",
        "homeassistant/device/humidor_broker/config",
    ];
    for topic in own {
        retain(&mut root, topic, "forged");
    }
    retain(&mut root, "humidor/press/status", "online");
    let mut will = connect("w", "root");
    will.last_will = Some(LastWill::new("humidor/broker/status", "offline", QoS::AtMostOnce, true));
    assert_eq!(answer(address, &will), ConnectReturnCode::NotAuthorized);
    watcher.subscribe("#", QoS::AtMostOnce);
    loop {
        match watcher.receive() {
            Some(Packet::Publish(publish)) => {
                assert_ne!(&publish.payload[..], b"forged", "{}", publish.topic);
                if publish.topic == "humidor/press/status" {
                    break;
                }
            }
            other => panic!("no message but {other:?}"),
        }
    }
    watcher.ping();
    assert!(!ask(http, "ha", "GET", "/api/v1/nodes", "").text().contains("alarm"));
    assert_eq!(support::log(data.path()).stats().unwrap().samples, 0);
}

#[test]
fn an_event_stream_ends_with_the_permission_to_see_it() {
    let data = tempfile::tempdir().unwrap();
    for (name, role) in [("root", "admin"), ("kim", "reader"), ("lee", "reader")] {
        add(data.path(), name, role);
    }
    let (broker, mqtt, http) = start(data.path(), &[]);
    let mut root = login(mqtt, "root", "root");
    let (mut removed, mut other) = (Events::open(http, "kim"), Events::open(http, "lee"));
    assert!(user(data.path(), &["remove", "kim"], "").status.success());
    broker.said("users read again");
    removed.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    while removed.read() {}
    root.publish("humidor/press/sensor/hall", QoS::AtLeastOnce, 1, &telemetry("b", 1));
    root.expect_puback(1);
    other.until("event: readings");
    assert!(!removed.text.contains("event: readings"), "{}", removed.text);
}

#[test]
fn the_will_of_a_removed_user_is_not_published() {
    let data = tempfile::tempdir().unwrap();
    for (name, role) in [("root", "admin"), ("press", "node"), ("oven", "node")] {
        add(data.path(), name, role);
    }
    let (broker, address, _) = start(data.path(), &[]);
    let with_will = |name: &str| {
        let mut connect = connect("c", name);
        let topic = format!("humidor/{name}/output/heater/set");
        connect.last_will = Some(LastWill::new(topic, "ON", QoS::AtLeastOnce, false));
        Client::connect_with(address, &connect).0
    };
    let (mut press, mut oven) = (with_will("press"), with_will("oven"));
    let mut root = login(address, "root", "root");
    root.subscribe("humidor/+/output/+/set", QoS::AtMostOnce);
    assert!(user(data.path(), &["remove", "press"], "").status.success());
    assert!(press.receive().is_none(), "the user was removed");
    let line = broker.said("a will is not published");
    assert!(line.contains("client=\"press/c\""), "{line}");
    // One who may still write it.
    assert!(user(data.path(), &["passwd", "oven"], "another\n").status.success());
    assert!(oven.receive().is_none(), "the password was changed");
    match root.receive() {
        Some(Packet::Publish(will)) => assert_eq!(will.topic, "humidor/oven/output/heater/set"),
        other => panic!("no will but {other:?}"),
    }
}

#[test]
fn a_new_person_does_not_get_what_waited_for_an_earlier_one_of_that_name() {
    let data = tempfile::tempdir().unwrap();
    for (name, role) in [("root", "admin"), ("kim", "reader")] {
        add(data.path(), name, role);
    }
    let (broker, address, _) = start(data.path(), &[]);
    let session = || Connect { clean_session: false, ..connect("tablet", "kim") };
    let publish = |payload: &[u8]| {
        let mut root = login(address, "root", "root");
        root.publish("plant/secret", QoS::AtLeastOnce, 1, payload);
        root.expect_puback(1);
    };
    let (mut kim, _) = Client::connect_with(address, &session());
    kim.subscribe("plant/#", QoS::AtLeastOnce);
    drop(kim);
    publish(b"for the first");
    // The same person with a new password gets it.
    assert!(user(data.path(), &["passwd", "kim"], "kim-secret\n").status.success());
    broker.said("users read again");
    let (mut kim, present) = Client::connect_with(address, &session());
    assert!(present, "a new password is no new person");
    match kim.receive() {
        Some(Packet::Publish(publish)) => kim.send(&Packet::PubAck(PubAck::new(publish.pkid))),
        other => panic!("no message but {other:?}"),
    }
    kim.ping();
    drop(kim);
    publish(b"for the first, again");
    // Removed and added between two looks at the file.
    assert!(user(data.path(), &["remove", "kim"], "").status.success());
    add(data.path(), "kim", "reader");
    broker.said("users read again");
    let accepted = || answer(address, &connect("probe", "kim")) == ConnectReturnCode::Success;
    wait_until("the new person can log in", accepted);
    let (mut new, present) = Client::connect_with(address, &session());
    assert!(!present);
    new.ping();
    assert!(new.is_silent());
    drop(new);
    let left = || {
        let log = rusqlite::Connection::open(data.path().join("humidor.db")).unwrap();
        log.query_row("SELECT count(*) FROM session", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    wait_until("the session of the first has ended", || left() == 1);
}

#[test]
fn sessions_of_users_who_were_removed_while_the_broker_was_down_end() {
    let data = tempfile::tempdir().unwrap();
    for (name, role) in [("root", "admin"), ("kim", "reader")] {
        add(data.path(), name, role);
    }
    // As a file of an earlier version, without the ids of users.
    let file = data.path().join("users.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with("id = ")).collect();
    std::fs::write(&file, text.join("\n") + "\n").unwrap();
    let (broker, address, _) = start(data.path(), &[]);
    let session = |name: &str| Connect { clean_session: false, ..connect("tablet", name) };
    for name in ["kim", "root"] {
        let (mut client, _) = Client::connect_with(address, &session(name));
        client.subscribe("plant/#", QoS::AtLeastOnce);
    }
    assert_eq!(broker.terminate(), Some(0));
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(user(data.path(), &["remove", "kim"], "").status.success());
    let (broker, address, _) = start(data.path(), &[]);
    std::fs::write(&file, kept).unwrap();
    broker.said("users read again");
    assert!(!Client::connect_with(address, &session("kim")).1);
    assert!(Client::connect_with(address, &session("root")).1);
}

#[test]
fn a_member_that_may_no_longer_read_takes_no_messages_from_its_group() {
    let data = tempfile::tempdir().unwrap();
    for (name, role) in [("root", "admin"), ("good", "reader"), ("kim", "none")] {
        add(data.path(), name, role);
    }
    rules_of_last(data.path(), "'allow read plant/#'");
    let (broker, address, _) = start(data.path(), &[]);
    let member = |name: &str| Connect { clean_session: false, ..connect("member", name) };
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    for (name, connected) in [("kim", true), ("kim", false)] {
        let (mut kim, _) = Client::connect_with(address, &member(name));
        assert_eq!(kim.subscribe("$share/g/plant/#", QoS::AtLeastOnce), granted);
        if !connected {
            drop(kim);
            wait_until("the member is away", || {
                let log = rusqlite::Connection::open(data.path().join("humidor.db")).unwrap();
                let away = "SELECT count(*) FROM session WHERE left_at IS NOT NULL";
                log.query_row(away, [], |row| row.get::<_, i64>(0)).unwrap() == 1
            });
        }
        let file = data.path().join("users.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("allow read plant/#", "allow read office/#")).unwrap();
        broker.said("users read again");
        // It connects again with its session, where it was connected.
        let _kim = connected.then(|| Client::connect_with(address, &member(name)));
        let (mut good, _) = Client::connect_with(address, &connect("good", "good"));
        // Alone in the group, or it would wait for the one that is away.
        let mut root = login(address, "root", "root");
        assert_eq!(good.subscribe("$share/g/plant/#", QoS::AtLeastOnce), granted);
        for n in 1..=4 {
            root.publish("plant/x", QoS::AtLeastOnce, n, b"1");
            root.expect_puback(n);
            match good.receive() {
                Some(Packet::Publish(publish)) => {
                    good.send(&Packet::PubAck(PubAck::new(publish.pkid)));
                }
                other => panic!("no message but {other:?}"),
            }
        }
        drop(good);
        wait_until("the log forgets the subscription", || {
            let log = rusqlite::Connection::open(data.path().join("humidor.db")).unwrap();
            let held = "SELECT count(*) FROM subscription";
            log.query_row(held, [], |row| row.get::<_, i64>(0)).unwrap() == 0
        });
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("allow read office/#", "allow read plant/#")).unwrap();
        broker.said("users read again");
    }
}

#[test]
fn users_that_are_lost_open_nothing() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "press", "node");
    let file = data.path().join("users.toml");
    let (broker, address, http) = start(data.path(), &[]);
    let mut press = login(address, "c", "press");
    let nobody = Connect::new("nobody");
    let closed = |why: &str| {
        let code = answer(address, &nobody);
        assert_eq!(code, ConnectReturnCode::NotAuthorized, "{why}");
        let switch = ask(http, "", "POST", "/api/v1/outputs/press/fan", r#"{"on":true}"#);
        assert_eq!(switch.status, 401, "{why}");
    };
    closed("there are users");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let line = broker.said("the users stay as they were");
    assert!(line.contains("users.toml") && line.contains("gone"), "{line}");
    closed("the file is gone");
    std::fs::write(&file, "").unwrap();
    broker.said("the users stay as they were");
    closed("the file is empty");
    press.ping();
    std::fs::write(&file, &text).unwrap();
    broker.said("users read again");
    press.ping();
    // The last user is removed on purpose: that opens nothing either.
    assert!(user(data.path(), &["remove", "press"], "").status.success());
    assert!(press.receive().is_none());
    closed("the last user was removed");
    assert_eq!(broker.terminate(), Some(0));

    let start_again = |more: &[&str]| {
        let mut command = humidor();
        command.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(data.path());
        Process::start({
            command.args(more);
            command
        })
    };
    for gone in [false, true] {
        if gone {
            std::fs::remove_file(&file).unwrap();
        }
        let (code, said) = start_again(&[]).end();
        assert_eq!(code, Some(78), "{said}");
        for remedy in ["users.toml", "humidor user add", "HUMIDOR_ANONYMOUS=yes"] {
            assert!(said.contains(remedy), "{remedy} in {said}");
        }
    }
    start_again(&["--anonymous", "yes"]).said("listening for MQTT");
    // A user of variables counts, too.
    let other = tempfile::tempdir().unwrap();
    let secret = other.path().join("password");
    std::fs::write(&secret, "plant-secret").unwrap();
    let broker = |user: bool| {
        let mut command = humidor();
        command.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(other.path());
        if user {
            command.env("HUMIDOR_USER", "plant").env("HUMIDOR_PASSWORD_FILE", &secret);
        }
        Process::start(command)
    };
    let first = broker(true);
    first.said("listening for MQTT");
    first.terminate();
    assert_eq!(broker(false).end().0, Some(78));
}

#[test]
fn a_named_users_file_that_vanishes_opens_nothing() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "press", "node");
    let named = data.path().join("named.toml");
    std::fs::rename(data.path().join("users.toml"), &named).unwrap();
    let (broker, address, _) =
        start(&data.path().join("data"), &["--users-file", named.to_str().unwrap()]);
    std::fs::remove_file(&named).unwrap();
    broker.said("the users stay as they were");
    assert_eq!(answer(address, &Connect::new("c")), ConnectReturnCode::NotAuthorized);
    login(address, "c", "press").ping();
}

#[test]
fn a_cheap_hash_is_replaced_when_its_user_logs_in() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "press", "node");
    add(data.path(), "costly", "node");
    let file = data.path().join("users.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (press, costly) = text.split_at(text.find("[user.costly]").unwrap());
    let replaced = |text: &str, hash: String| {
        let start = text.find("$argon2id").unwrap();
        let end = start + text[start..].find('"').unwrap();
        format!("{}{hash}{}", &text[..start], &text[end..])
    };
    let hash = |user: &str, memory, passes| {
        use argon2::password_hash::PasswordHasher;
        let params = argon2::Params::new(memory, passes, 1, None).unwrap();
        let argon2 =
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let password = format!("{user}-secret");
        argon2.hash_password_with_salt(password.as_bytes(), b"saltsalt").unwrap().to_string()
    };
    // A comment that was written by hand stays, and a hash that costs more than ours is the operator's choice.
    let text = format!(
        "{}# by hand\n{}",
        replaced(press, hash("press", 8, 1)),
        replaced(costly, hash("costly", 16_384, 3))
    );
    std::fs::write(&file, &text).unwrap();
    let mut command = humidor();
    command.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(data.path());
    command.env("NO_COLOR", "1");
    let broker = Process::start(command);
    assert!(broker.said("cheap to guess at").contains("press"), "the log names such users");
    let line = broker.said("listening for MQTT");
    let address = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    let mut press = login(address, "c", "press");
    let mut costly = login(address, "c", "costly");
    broker.said("the password has a new hash");
    broker.said("users read again");
    let now = std::fs::read_to_string(&file).unwrap();
    assert!(!now.contains("m=8,t=1") && now.contains("m=7168,t=5,p=1$"), "{now}");
    assert!(now.contains("# by hand") && now.contains("m=16384,t=3"), "{now}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    // Nobody is disconnected for it, and the password is the same.
    press.ping();
    costly.ping();
    login(address, "d", "press").ping();
    let wrong = Connect { login: Some(Login::new("press", "guess")), ..connect("e", "press") };
    assert_eq!(answer(address, &wrong), ConnectReturnCode::NotAuthorized);
    assert!(user(data.path(), &["passwd", "press"], "other\n").status.success());
    assert!(press.receive().is_none(), "a new password withdraws");
}

/// Modes of the files in a folder.
fn modes(folder: &Path) -> Vec<(String, u32)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mode = |entry: &std::fs::DirEntry| entry.metadata().unwrap().permissions().mode() & 0o777;
    entries.map(|entry| (entry.file_name().into_string().unwrap(), mode(&entry))).collect()
}

#[test]
fn other_users_of_the_machine_read_neither_the_log_nor_a_backup() {
    let data = tempfile::tempdir().unwrap();
    let copies = tempfile::tempdir().unwrap();
    add(data.path(), "press", "node");
    let (_broker, mqtt, _) = start(data.path(), &[]);
    let mut press = login(mqtt, "c", "press");
    press.publish("humidor/press/sensor/hall", QoS::AtLeastOnce, 1, &telemetry("b", 1));
    press.expect_puback(1);
    let target = copies.path().join("copy.db");
    let backup = || {
        let mut command = humidor();
        command.args(["db", "backup"]).arg(&target).arg("--data").arg(data.path());
        command.output().unwrap()
    };
    assert!(backup().status.success());
    let found = [modes(data.path()), modes(copies.path())].concat();
    assert!(found.iter().any(|(name, _)| name == "humidor.db-wal"), "{found:?}");
    for (name, mode) in found {
        assert_eq!(mode & 0o027, 0, "{name}: {mode:o}");
    }
    // No second one over it, nor over a link that leads nowhere.
    let text = std::fs::read(&target).unwrap();
    assert_eq!(backup().status.code(), Some(64));
    assert_eq!(std::fs::read(&target).unwrap(), text);
    std::fs::remove_file(&target).unwrap();
    let elsewhere = copies.path().join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, &target).unwrap();
    assert_eq!(backup().status.code(), Some(64));
    assert!(!elsewhere.exists());
    assert_eq!(modes(copies.path()).len(), 1, "nothing is left beside it");
}

#[test]
fn a_session_of_a_page_behind_tls_has_a_cookie_for_tls_only() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "kim", "reader");
    let (_broker, _, http) = start(data.path(), &["--http-hosts", "plant.example"]);
    let log_in = |headers: &[(&str, &str)]| {
        let body = json!({ "name": "kim", "password": "kim-secret" }).to_string();
        let headers = [&[("content-type", "application/json")], headers].concat();
        let answer = request(http, "POST", "/api/v1/session", &headers, &body);
        assert_eq!(answer.status, 204);
        answer.header("set-cookie").unwrap().to_owned()
    };
    assert!(!log_in(&[]).contains("Secure"));
    let host = ("host", "plant.example");
    assert!(log_in(&[host, ("origin", "https://plant.example")]).contains("; Secure"));
    assert!(log_in(&[host, ("x-forwarded-proto", "https")]).contains("; Secure"));
    assert!(!log_in(&[host, ("origin", "http://plant.example")]).contains("Secure"));
}

#[test]
fn a_proxy_on_this_machine_makes_no_stranger_a_guest_of_this_machine() {
    let data = tempfile::tempdir().unwrap();
    let (_broker, mqtt, http) = start(data.path(), &["--http-hosts", "plant.example"]);
    let mut oven = Client::connect(mqtt, "oven");
    retain(&mut oven, "humidor/oven/output/fan", "OFF");
    let nodes = |request: &str| {
        let mut stream = send(http, request.replace("HERE", &http.to_string()).as_bytes());
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8(status[9..].to_vec()).unwrap()
    };
    let path = "GET /api/v1/nodes";
    for own in [
        format!("{path} HTTP/1.1\r\nhost: HERE\r\n\r\n"),
        format!("{path} HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: same-origin\r\n\r\n"),
        format!("{path} HTTP/1.1\r\nhost: HERE\r\nreferer: http://HERE/\r\n\r\n"),
        format!("{path} HTTP/1.1\r\nhost: [::1]:8080\r\nconnection: close\r\n\r\n"),
    ] {
        assert_eq!(nodes(&own), "200", "{own}");
    }
    for proxied in [
        // `proxy_set_header Host $host`, and HAProxy.
        format!("{path} HTTP/1.1\r\nhost: plant.example\r\n\r\n"),
        format!("{path} HTTP/1.1\r\nhost: 192.168.1.20\r\n\r\n"),
        // nginx's plain `proxy_pass http://127.0.0.1:8080;`.
        format!("{path} HTTP/1.0\r\nhost: HERE\r\nconnection: close\r\n\r\n"),
        // The page of such a proxy with HTTP/1.1, as browsers ask.
        format!("{path} HTTP/1.1\r\nhost: HERE\r\nreferer: http://plant.example/\r\n\r\n"),
        format!("{path} HTTP/1.1\r\nhost: HERE\r\norigin: http://plant.example\r\n\r\n"),
        format!("{path} HTTP/1.1\r\nhost: HERE\r\nx-forwarded-proto: https\r\n\r\n"),
        format!("{path} HTTP/1.1\r\nhost: HERE\r\ncf-connecting-ip: 192.0.2.7\r\n\r\n"),
        // Another site's page in a browser of this machine.
        format!("{path} HTTP/1.1\r\nhost: HERE\r\nsec-fetch-site: cross-site\r\n\r\n"),
    ] {
        assert_eq!(nodes(&proxied), "401", "{proxied}");
    }
    let upgrade = "GET /mqtt HTTP/1.1\r\nhost: plant.example\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: mqtt\r\n\r\n";
    assert_eq!(nodes(upgrade), "403");
    assert_eq!(nodes(&upgrade.replace("plant.example", "localhost")), "101");
}

//! Who may connect, and what they may do: refusals, each seen from the client, the log and the store.

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use humidor::broker::{Access, AccessConfig, Anonymous};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    Connect, ConnectReturnCode, LastWill, Login, Packet, PubAck, Publish, SubscribeReasonCode,
};
use support::users::{add, answer, user};
use support::{Client, Process, broker, humidor, stored, telemetry, wait_until};

fn connect(id: &str, login: Option<(&str, &str)>) -> Connect {
    let mut connect = Connect::new(id);
    connect.login = login.map(|(name, password)| Login::new(name, password));
    connect
}

/// Connects as `name` with the password that [`add`] gave.
fn login(address: SocketAddr, name: &str) -> Client {
    let password = format!("{name}-secret");
    Client::connect_with(address, &connect(&format!("humidor-{name}"), Some((name, &password)))).0
}

#[test]
fn a_port_that_others_reach_needs_users_or_a_word() {
    let data = tempfile::tempdir().unwrap();
    let start = |arguments: &[&str]| {
        let mut command = humidor();
        command.args(["broker", "--mqtt-listen", "0.0.0.0:0", "--data"]).arg(data.path());
        command.args(arguments);
        Process::start(command).end()
    };
    let (code, said) = start(&[]);
    assert_eq!(code, Some(78));
    for remedy in ["humidor user add", "HUMIDOR_USER", "HUMIDOR_ANONYMOUS=yes", "127.0.0.1"] {
        assert!(said.contains(remedy), "{remedy} in {said}");
    }
    assert_eq!(start(&["--users-file", "/nonexistent"]).0, Some(78));
    assert_eq!(start(&["--user", "plant"]).0, Some(78), "without a password");

    let (_open, address) = broker(data.path(), "0.0.0.0:0", &["--anonymous", "yes"]);
    Client::connect(([127, 0, 0, 1], address.port()).into(), "anybody").ping();
}

#[tokio::test]
async fn without_users_and_without_a_word_only_this_machine_comes_in() {
    // The ports of MQTT are on loopback; HTTP, which carries MQTT too, may be reached from further.
    let loopback = "127.0.0.1:1883".parse().unwrap();
    let (here, elsewhere) =
        ("127.0.0.1:50000".parse().unwrap(), "192.0.2.7:50000".parse().unwrap());
    let access = Access::open(AccessConfig::default(), &[loopback]).unwrap();
    assert!(access.admit(here, "c", None).await.is_ok());
    assert!(access.admit(elsewhere, "c", None).await.is_err());
    assert!(access.admit(elsewhere, "c", Some(("any", b"any"))).await.is_err());
    let open = AccessConfig { anonymous: Anonymous::Yes, ..AccessConfig::default() };
    let access = Access::open(open, &[loopback]).unwrap();
    assert!(access.admit(elsewhere, "c", None).await.is_ok());
}

#[test]
fn a_wrong_password_is_refused_with_5_and_logged() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "press", "node");
    let (broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let refused = ConnectReturnCode::NotAuthorized;
    for attempt in
        [Some(("press", "guess")), Some(("press", "")), Some(("nobody", "press-secret")), None]
    {
        assert_eq!(answer(address, &connect("c", attempt)), refused, "{attempt:?}");
    }
    let line = broker.said("login refused");
    assert!(line.contains("user=\"press\"") && !line.contains("guess"), "{line}");
    login(address, "press").ping();
    let said = broker.last_words();
    let lines = said.lines().filter(|line| line.contains("login refused"));
    assert!(!lines.clone().any(|line| line.contains("user=\"press\"")), "again: {said}");
    assert_eq!(lines.count(), 2, "one for each other name: {said}");
}

#[test]
fn the_one_user_of_a_small_plant_comes_from_variables() {
    let data = tempfile::tempdir().unwrap();
    let secret = data.path().join("password");
    std::fs::write(&secret, "plant-secret\n").unwrap();
    let mut command = humidor();
    command.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(data.path());
    command.env("HUMIDOR_USER", "plant").env("HUMIDOR_PASSWORD_FILE", &secret);
    command.env("NO_COLOR", "1");
    let broker = Process::start(command);
    let line = broker.said("listening for MQTT");
    let address: SocketAddr = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    assert_eq!(answer(address, &connect("c", None)), ConnectReturnCode::NotAuthorized);

    // A node with the same two words delivers.
    let (port, node_data) = (address.port(), data.path().join("node"));
    let mut command = humidor();
    command.args(["node", "--node", "press", "--gpio", "sim", "--sensors", "hall=dht11@7"]);
    command.args(["--interval", "1s", "--broker", &format!("mqtt://plant@127.0.0.1:{port}")]);
    command.arg("--data").arg(node_data).env("HUMIDOR_PASSWORD_FILE", &secret);
    let _node = Process::start(command);
    wait_until("a reading is stored", || stored(data.path()) > 0);
}

#[test]
fn a_node_publishes_to_its_own_topics_only() {
    let data = tempfile::tempdir().unwrap();
    for (name, role) in [("press", "node"), ("oven", "node"), ("watcher", "reader")] {
        add(data.path(), name, role);
    }
    let (broker, address) = broker(data.path(), "127.0.0.1:0", &["--logged-filters", "plant/#"]);
    let mut watcher = login(address, "watcher");
    watcher.subscribe("#", QoS::AtMostOnce);
    let mut press = login(address, "press");
    // Acknowledged, since MQTT 3.1.1 cannot say no; and that is all.
    for topic in ["humidor/oven/sensor/hall", "plant/press", "humidor/oven/status"] {
        press.publish(topic, QoS::AtLeastOnce, 1, &telemetry("b", 1));
        press.expect_puback(1);
    }
    let line = broker.said("publish refused");
    assert!(line.contains("user=\"press\"") && line.contains("humidor/oven/sensor/hall"), "{line}");
    press.publish("humidor/press/sensor/hall", QoS::AtLeastOnce, 2, &telemetry("b", 2));
    press.expect_puback(2);
    loop {
        match watcher.receive() {
            Some(Packet::Publish(publish)) if publish.topic == "humidor/broker/status" => {}
            Some(Packet::Publish(publish)) => {
                assert_eq!(publish.topic, "humidor/press/sensor/hall");
                break;
            }
            other => panic!("no message but {other:?}"),
        }
    }
    assert_eq!(stored(data.path()), 1);
    assert_eq!(support::log(data.path()).stats().unwrap().samples, 0);

    let own = press.subscribe("humidor/press/output/+/set", QoS::AtLeastOnce);
    assert_eq!(own, SubscribeReasonCode::Success(QoS::AtLeastOnce));
    for filter in ["#", "humidor/oven/output/+/set", "humidor/+/output/+/set"] {
        assert_eq!(press.subscribe(filter, QoS::AtMostOnce), SubscribeReasonCode::Failure);
    }
    watcher.publish("humidor/press/output/fan/set", QoS::AtLeastOnce, 3, b"ON");
    watcher.expect_puback(3);
    press.ping();
    assert!(press.is_silent(), "a reader commands nothing");
}

#[test]
fn a_will_to_anothers_topic_is_refused_at_connect() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "press", "node");
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let mut with_will = connect("c", Some(("press", "press-secret")));
    let will = |topic| Some(LastWill::new(topic, "gone", QoS::AtLeastOnce, true));
    with_will.last_will = will("humidor/oven/status");
    assert_eq!(answer(address, &with_will), ConnectReturnCode::NotAuthorized);
    with_will.last_will = will("humidor/press/status");
    assert_eq!(answer(address, &with_will), ConnectReturnCode::Success);
}

#[test]
fn users_change_while_the_broker_runs() {
    let data = tempfile::tempdir().unwrap();
    let (broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let mut anonymous = Client::connect(address, "anonymous");
    anonymous.ping();

    add(data.path(), "press", "node");
    broker.said("users read again");
    assert!(anonymous.receive().is_none(), "names are asked for now");
    let mut press = login(address, "press");
    press.ping();

    assert!(user(data.path(), &["passwd", "press"], "another\n").status.success());
    assert!(press.receive().is_none(), "the password was changed");
    let old = connect("c", Some(("press", "press-secret")));
    assert_eq!(answer(address, &old), ConnectReturnCode::NotAuthorized);
    let new = connect("c", Some(("press", "another")));
    let (mut press, _) = Client::connect_with(address, &new);

    // A file that is broken leaves everybody as they are.
    let file = data.path().join("users.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, "nonsense").unwrap();
    broker.said("the users stay as they were");
    press.ping();
    std::fs::write(&file, good).unwrap();
    broker.said("users read again");
    press.ping();

    assert!(user(data.path(), &["remove", "press"], "").status.success());
    assert!(press.receive().is_none(), "the user was removed");
}

#[test]
fn a_session_belongs_to_its_user() {
    let data = tempfile::tempdir().unwrap();
    for (name, role) in [("good", "admin"), ("bad", "admin")] {
        add(data.path(), name, role);
    }
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let session = |name: &str| {
        let mut connect = connect("the-id", Some((name, &format!("{name}-secret"))));
        connect.clean_session = false;
        Client::connect_with(address, &connect)
    };
    let (mut good, _) = session("good");
    good.subscribe("x", QoS::AtLeastOnce);
    let (mut bad, present) = session("bad");
    assert!(!present, "another user's subscriptions are not to be had by its client id");
    bad.ping();
    good.ping();
}

#[test]
fn a_rule_denies_one_subscription_to_everybody() {
    let data = tempfile::tempdir().unwrap();
    let users = data.path().join("users.toml");
    std::fs::write(&users, "rules = [\"deny read test/nosubscribe\"]\n").unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let mut client = Client::connect(address, "c");
    let denied = client.subscribe("test/nosubscribe", QoS::AtLeastOnce);
    assert_eq!(denied, SubscribeReasonCode::Failure);
    let other = client.subscribe("test/other", QoS::AtLeastOnce);
    assert_eq!(other, SubscribeReasonCode::Success(QoS::AtLeastOnce));
}

#[test]
fn a_users_file_that_everybody_can_read_is_warned_of() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "press", "node");
    let file = data.path().join("users.toml");
    let mode = file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let mut command = humidor();
    command.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(data.path());
    command.env("NO_COLOR", "1");
    let broker = Process::start(command);
    let line = broker.said("every user of this machine can read");
    assert!(line.contains("users.toml") && line.contains("chmod 640"), "{line}");
}

#[test]
fn the_users_file_keeps_what_was_written_by_hand() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "press", "node");
    let file = data.path().join("users.toml");
    let rule = "rules = [\"allow read plant/#\"] # by hand\n";
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("secret"), "{text}");
    std::fs::write(&file, text + rule).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();

    add(data.path(), "oven", "operator");
    let list = user(data.path(), &["list"], "");
    let list = String::from_utf8(list.stdout).unwrap();
    let words: Vec<Vec<_>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words, [["oven", "operator", "0", "rules"], ["press", "node", "1", "rules"]]);
    assert!(std::fs::read_to_string(&file).unwrap().contains(rule));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);

    for (arguments, password, code, said) in [
        (&["add", "press"][..], "x\n", 65, "user press exists already"),
        (&["passwd", "nobody"][..], "x\n", 65, "there is no user nobody"),
        (&["remove", "nobody"][..], "", 65, "there is no user nobody"),
        (&["add", "a/b"][..], "x\n", 64, "is no user name"),
        (&["add", "c"][..], "\n", 65, "a password has 1 to"),
        (&["add", "c", "--role", "king"][..], "x\n", 64, "invalid value 'king'"),
    ] {
        let output = user(data.path(), arguments, password);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(said), "{said} in {error}");
    }
    assert!(user(data.path(), &["remove", "oven"], "").status.success());
    assert!(!std::fs::read_to_string(&file).unwrap().contains("oven"));
}

#[test]
fn what_a_rule_denies_is_held_back_from_a_wider_filter() {
    let data = tempfile::tempdir().unwrap();
    let users = data.path().join("users.toml");
    std::fs::write(&users, "rules = [\"deny read secret/#\"]\n").unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let mut publisher = Client::connect(address, "publisher");
    let mut say = |retain: bool| {
        for (pkid, topic) in [(1, "secret/recipe"), (2, "open/recipe")] {
            let mut publish = Publish::new(topic, QoS::AtLeastOnce, "1");
            (publish.pkid, publish.retain) = (pkid, retain);
            publisher.send(&Packet::Publish(publish));
            publisher.expect_puback(pkid);
        }
    };
    say(true);
    // Retained, live, and what waited in the log for a persistent session.
    let mut session = Connect::new("watcher");
    session.clean_session = false;
    let (mut watcher, _) = Client::connect_with(address, &session);
    assert_eq!(
        watcher.subscribe("+/recipe", QoS::AtLeastOnce),
        SubscribeReasonCode::Success(QoS::AtLeastOnce)
    );
    let next = |watcher: &mut Client| match watcher.receive() {
        Some(Packet::Publish(publish)) => {
            watcher.send(&Packet::PubAck(PubAck::new(publish.pkid)));
            assert_eq!(publish.topic, "open/recipe");
        }
        other => panic!("no message but {other:?}"),
    };
    next(&mut watcher);
    say(false);
    next(&mut watcher);
    watcher.ping();
    drop(watcher);
    say(false);
    let (mut watcher, present) = Client::connect_with(address, &session);
    assert!(present);
    next(&mut watcher);
    watcher.ping();
    assert!(watcher.is_silent());
    assert_eq!(
        watcher.subscribe("$share/g/+/recipe", QoS::AtMostOnce),
        SubscribeReasonCode::Failure
    );
}

#[test]
fn mqtt_5_is_told_why() {
    let data = tempfile::tempdir().unwrap();
    add(data.path(), "press", "node");
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    // CONNECT with user and password, as MQTT 5.0 §3.1 has it: no properties, keep-alive 60 s.
    let opening = |password: &str| {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 0xc2, 0, 60, 0];
        for text in ["five", "press", password] {
            body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            body.extend(text.as_bytes());
        }
        let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
        packet.extend(body);
        packet
    };
    let mut refused = Client::open(address);
    refused.stream.write_all(&opening("guess")).unwrap();
    let mut answer = Vec::new();
    refused.stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer[..4], [0x20, 3, 0, 0x87]);

    let mut press = Client::open(address);
    press.stream.write_all(&opening("press-secret")).unwrap();
    let mut header = [0; 2];
    press.stream.read_exact(&mut header).unwrap();
    let mut connack = vec![0; usize::from(header[1])];
    press.stream.read_exact(&mut connack).unwrap();
    assert_eq!((header[0], connack[1]), (0x20, 0));
    // PUBLISH at QoS 1 to another's topic, packet id 9; then SUBSCRIBE to everything, packet id 10.
    press.stream.write_all(b"\x32\x13\0\x0ehumidor/oven/x\0\x09\0").ok();
    press.stream.write_all(b"\x82\x07\0\x0a\0\0\x01#\0").unwrap();
    let mut answers = [0; 11];
    press.stream.read_exact(&mut answers).unwrap();
    assert_eq!(answers[..5], [0x40, 3, 0, 9, 0x87], "PUBACK");
    assert_eq!(answers[5..], [0x90, 4, 0, 10, 0, 0x87], "SUBACK");
}

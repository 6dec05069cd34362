//! A real broker whose clock starts in 1970 and is stepped to the ends of what clocks can say: what expires does so by the time
//! that passed, and what came before the clock was set is at its true time. The clients are bytes on sockets.

#[path = "support/clock.rs"]
mod clock;
mod support;

use std::net::SocketAddr;
use std::path::Path;

use clock::Clock;
use humidor::clock::unix_ms;
use humidor::store::LOG_FILE;
use support::packets::{Message, Packet, SUBACK, Wire, disconnect, packet};
use support::{Process, http, humidor, wait_until};

const DAY_MS: i64 = 86_400_000;
/// A second after a signed, and an unsigned count of 32 bits ends, and a ms after a signed one of 64 bits of ns.
const END_OF_I32_MS: i64 = 2_147_483_648_000;
const END_OF_U32_MS: i64 = 4_294_967_296_000;
const END_OF_I64_NS_MS: i64 = 9_223_372_036_855;
/// Seconds, so that no busy machine reaches it.
const LONG_S: u32 = 3_600;

struct Broker {
    process: Process,
    mqtt: SocketAddr,
    http: SocketAddr,
}

fn start(data: &Path, clock: &Clock) -> Broker {
    let address = |line: &str| line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    let mut command = humidor();
    clock.preload(&mut command);
    command
        .args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .env("NO_COLOR", "1")
        .env("HUMIDOR_LOGGED_FILTERS", "plant")
        .env("HUMIDOR_ALARMS", "hot=press/hall:temperature>30");
    let process = Process::start(command);
    let mqtt = address(&process.said("listening for MQTT"));
    let http = address(&process.said("listening for HTTP"));
    Broker { process, mqtt, http }
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

/// CONNECT of MQTT 5.0 whose session lasts `expiry_s`. With a will, which is delayed by [`LONG_S`].
fn connect(client_id: &str, clean_start: bool, expiry_s: u32, will: Option<&str>) -> Vec<u8> {
    let mut body = text("MQTT");
    let flags = if clean_start { 2 } else { 0 } | if will.is_some() { 0x0c } else { 0 };
    body.extend([5, flags, 0, 0, 5, 0x11]);
    body.extend(expiry_s.to_be_bytes());
    body.extend(text(client_id));
    if let Some(topic) = will {
        body.extend([5, 0x18]);
        body.extend(LONG_S.to_be_bytes());
        body.extend([text(topic), text("gone")].concat());
    }
    packet(0x10, &body)
}

/// PUBLISH at `QoS` 1 with a message expiry.
fn publish(topic: &str, retain: bool, expiry_s: Option<u32>, payload: &str) -> Vec<u8> {
    let mut body = [&text(topic)[..], &[0, 1]].concat();
    match expiry_s {
        Some(expiry_s) => {
            body.extend([5, 2]);
            body.extend(expiry_s.to_be_bytes());
        }
        None => body.push(0),
    }
    body.extend(payload.as_bytes());
    packet(0x32 | u8::from(retain), &body)
}

fn subscribe(wire: &mut Wire, filter: &str) {
    let body = [&[0, 1, 0][..], &text(filter), &[1]].concat();
    wire.send(&packet(0x82, &body));
    // The SUBACK: packet id, no properties, granted.
    loop {
        match wire.receive() {
            Packet::Answer(SUBACK, body) => return assert_eq!(body, [0, 1, 0, 1]),
            Packet::Message(_) => {}
            other @ Packet::Answer(..) => panic!("no SUBACK but {other:?}"),
        }
    }
}

/// What is left of a message's expiry, and its payload.
fn read(message: &Message) -> (Option<u32>, String) {
    let (length, rest) = (usize::from(message.payload[0]), &message.payload[1..]);
    let (properties, payload) = rest.split_at(length);
    let left = match properties {
        [] => None,
        [2, left @ ..] => Some(u32::from_be_bytes(left.try_into().unwrap())),
        other => panic!("{other:?}"),
    };
    (left, String::from_utf8(payload.to_vec()).unwrap())
}

fn assert_long(left: Option<u32>, what: &str) {
    assert!(left.is_some_and(|left| (LONG_S - 600..=LONG_S).contains(&left)), "{what}: {left:?}");
}

fn send(broker: SocketAddr, bytes: &[u8]) {
    let (mut wire, connack) = Wire::open(broker, &connect("publisher", true, 0, None));
    assert_eq!(connack[1], 0);
    wire.send(bytes);
    // The PUBACK: it is committed.
    assert!(matches!(wire.receive(), Packet::Answer(4, _)));
    wire.send(&disconnect());
}

/// The retained messages below `r/`, with what is left of their expiry.
fn retained(broker: SocketAddr) -> Vec<(String, Option<u32>)> {
    let (mut wire, _) = Wire::open(broker, &connect("reader", true, 0, None));
    subscribe(&mut wire, "end");
    wire.send(&packet(0x82, &[&[0, 2, 0][..], &text("r/#"), &[1]].concat()));
    wire.send(&publish("end", false, None, ""));
    let mut found = Vec::new();
    loop {
        let message = wire.message();
        if message.topic == "end" {
            return found;
        }
        found.push((message.topic.clone(), read(&message).0));
    }
}

/// Client `sleeper` comes back to its session and takes what waits there.
fn wake(broker: SocketAddr, expected: &[String]) {
    let (mut wire, connack) = Wire::open(broker, &connect("sleeper", false, LONG_S, None));
    assert_eq!(connack[..2], [1, 0], "its session is there");
    for expected in expected {
        let (left, payload) = read(&wire.message());
        assert_eq!(payload, *expected);
        assert_long(left, expected);
    }
    wire.send(&disconnect());
    // The broker has read the DISCONNECT when it closes, and the acknowledgements before it.
    while wire.try_receive().is_some() {}
}

fn hot(broker: SocketAddr, seq: u32, temperature: u32) {
    let telemetry = format!(
        r#"{{"boot":"b","seq":{seq},"at":{},"clock":"synced","mono":{seq},"temperature":{temperature}}}"#,
        unix_ms()
    );
    send(broker, &publish("humidor/press/sensor/hall", false, None, &telemetry));
}

/// The times of the alarm's changes by the API, the newest first.
fn changes(broker: &Broker) -> Vec<i64> {
    let found = http::get(broker.http, "/api/v1/alarms/changes").json();
    found.as_array().unwrap().iter().map(|change| change["at"].as_i64().unwrap()).collect()
}

/// The same by the log's view.
fn changes_in(data: &Path) -> Vec<i64> {
    let log = rusqlite::Connection::open(data.join(LOG_FILE)).unwrap();
    let mut rows = log.prepare("SELECT at FROM alarms").unwrap();
    let mut found: Vec<i64> =
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    found.reverse();
    found
}

fn since(broker: &Broker) -> i64 {
    http::get(broker.http, "/api/v1/alarms").json()[0]["since"].as_i64().unwrap()
}

#[test]
fn what_expires_goes_by_the_time_that_passed_and_what_came_early_is_at_its_true_time() {
    let data = tempfile::tempdir().unwrap();
    let began = unix_ms();
    let clock = Clock::new(5_000);
    let broker = start(data.path(), &clock);

    let (mut sleeper, _) = Wire::open(broker.mqtt, &connect("sleeper", true, LONG_S, None));
    subscribe(&mut sleeper, "x");
    sleeper.send(&disconnect());
    while sleeper.try_receive().is_some() {}
    send(broker.mqtt, &publish("r/long", true, Some(LONG_S), "1"));
    send(broker.mqtt, &publish("r/always", true, None, "1"));
    send(broker.mqtt, &publish("plant", false, None, "1"));
    let mut waiting = vec!["1970".to_owned()];
    send(broker.mqtt, &publish("x", false, Some(LONG_S), "1970"));
    let (dying, _) = Wire::open(broker.mqtt, &connect("dying", true, LONG_S, Some("will")));
    drop(dying);
    hot(broker.mqtt, 1, 31);
    wait_until("the alarm is in the log", || changes(&broker).len() == 1);
    assert!(since(&broker) < DAY_MS, "it is 1970");

    // The broker alone is restarted, in the same run of the kernel.
    broker.process.kill_9();
    let broker = start(data.path(), &clock);
    assert!(since(&broker) < DAY_MS, "it is still 1970");
    let (mut watcher, _) = Wire::open(broker.mqtt, &connect("watcher", true, 0, None));
    subscribe(&mut watcher, "will");

    clock.step(unix_ms(), true);
    send(broker.mqtt, &publish("x", false, Some(LONG_S), "set"));
    waiting.push("set".to_owned());
    let is_true = |at: i64, from: i64| (from - 1_000..=unix_ms() + 1_000).contains(&at);
    let corrected = || changes(&broker).iter().all(|at| is_true(*at, began));
    wait_until("the alarm's time is corrected", corrected);
    wait_until("so is the alarm's own", || is_true(since(&broker), began));
    let first = changes(&broker);
    assert_eq!(changes_in(data.path()), first);
    let sampled = || {
        let log = rusqlite::Connection::open(data.path().join(LOG_FILE)).unwrap();
        log.query_row("SELECT at FROM samples", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    wait_until("the sample's time is corrected", || is_true(sampled(), began));

    let steps = [
        ("a day back", unix_ms() - DAY_MS),
        ("2038", END_OF_I32_MS),
        ("2106", END_OF_U32_MS),
        ("2262", END_OF_I64_NS_MS),
        ("0", 0),
        ("2023", 19_500 * DAY_MS),
    ];
    for (n, (name, at_ms)) in steps.into_iter().enumerate() {
        clock.step(at_ms, false);
        send(broker.mqtt, &publish("x", false, Some(LONG_S), name));
        waiting.push(name.to_owned());
        let found = retained(broker.mqtt);
        assert_eq!(found.len(), 2, "{name}: {found:?}");
        for (topic, left) in found {
            match &*topic {
                "r/long" => assert_long(left, name),
                topic => assert_eq!((topic, left), ("r/always", None), "{name}"),
            }
        }
        if n % 2 == 1 {
            wake(broker.mqtt, &waiting);
            waiting.clear();
        }
        let health = http::get(broker.http, "/healthz");
        assert_eq!(health.status, 200, "{name}");
    }
    // Cleared at a time that is none. Then the clock is set, and only that is corrected.
    let cleared = unix_ms();
    hot(broker.mqtt, 2, 20);
    wait_until("it is cleared", || changes(&broker).len() == 2);
    let shown = since(&broker);
    assert!(!is_true(shown, cleared), "{shown}");

    // What is short expires all the same, whatever the clock says: the message is there for longer than the session.
    let (mut short, _) = Wire::open(broker.mqtt, &connect("short", true, 1, None));
    subscribe(&mut short, "x");
    short.send(&disconnect());
    while short.try_receive().is_some() {}
    send(broker.mqtt, &publish("r/short", true, Some(2), "1"));
    clock.step(unix_ms() - DAY_MS, false);
    wait_until("it has expired", || retained(broker.mqtt).len() == 2);
    let (_, connack) = Wire::open(broker.mqtt, &connect("short", false, 1, None));
    assert_eq!(connack[..2], [0, 0], "its session is over");

    clock.step(unix_ms(), true);
    send(broker.mqtt, &publish("x", false, Some(LONG_S), "again"));
    waiting.push("again".to_owned());
    wait_until("the second time is corrected", || is_true(changes(&broker)[0], cleared));
    assert_eq!(changes(&broker)[1..], first, "settled");
    wait_until("so is the alarm's own", || is_true(since(&broker), cleared));
    assert_eq!(changes_in(data.path()), changes(&broker));

    // After a restart in 1970, too; and no delay of a will was over.
    watcher.send(&publish("will", false, None, "none before this"));
    assert_eq!(read(&watcher.message()).1, "none before this");
    broker.process.kill_9();
    clock.step(7_000, false);
    let broker = start(data.path(), &clock);
    wake(broker.mqtt, &waiting);
    assert_eq!(retained(broker.mqtt).len(), 2);
    assert!(is_true(sampled(), began), "{}", sampled());
    assert!(is_true(since(&broker), cleared));
}

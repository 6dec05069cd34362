//! A disk that fails: nothing is acknowledged that it does not have, the user is told, and the broker ends when it fails
//! for good.

#[path = "support/power.rs"]
mod power;
mod support;

use std::net::SocketAddr;
use std::process::Command;

use humidor::store::{LOG_FILE, Store};
use power::{Disk, library};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Packet;
use support::http;
use support::{Client, Process, humidor, readings, telemetry};

const TOPIC: &str = "humidor/n/sensor/s";

struct Broker {
    process: Process,
    mqtt: SocketAddr,
    http: SocketAddr,
}

fn address(line: &str) -> SocketAddr {
    line.rsplit("address=").next().unwrap().trim().parse().unwrap()
}

fn command(disk: &Disk, library: &std::path::Path) -> Command {
    let mut command = humidor();
    disk.preload(library, &mut command);
    command
        .args(["broker", "--mqtt-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data"])
        .arg(disk.live())
        .env("NO_COLOR", "1")
        .env("HUMIDOR_KEEP_RAW", "forever")
        .env("HUMIDOR_ALARMS", "card=broker:disk");
    command
}

fn start(disk: &Disk, library: &std::path::Path) -> Broker {
    let process = Process::start(command(disk, library));
    let mqtt = address(&process.said("listening for MQTT"));
    let http = address(&process.said("listening for HTTP"));
    Broker { process, mqtt, http }
}

fn publish(client: &mut Client, seq: u64) {
    let pkid = u16::try_from(seq).unwrap();
    client.publish(TOPIC, QoS::AtLeastOnce, pkid, &telemetry("b", seq));
}

fn health(address: SocketAddr) -> (Option<i32>, String) {
    let output = humidor()
        .args(["health", "--node", "none", "--mqtt-listen", &address.to_string()])
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn after_a_failed_fsync_all_is_brought_to_the_disk_and_the_user_is_told() {
    let library = library();
    let disk = Disk::new();
    let broker = start(&disk, &library);
    let mut client = Client::connect(broker.mqtt, "n");
    let mut watcher = Client::connect(broker.mqtt, "watcher");
    watcher.subscribe("humidor/alarm/card", QoS::AtMostOnce);
    let mut seq = 0;
    let mut acknowledge = |until: u64| {
        while seq < until {
            seq += 1;
            publish(&mut client, seq);
            client.expect_puback(u16::try_from(seq).unwrap());
        }
    };
    acknowledge(50);
    assert_eq!(health(broker.mqtt).0, Some(0));
    disk.fail("EIO 1 -wal");
    acknowledge(100);
    while !matches!(
        watcher.receive().expect("connected"),
        Packet::Publish(publish) if publish.payload == b"ON"[..]
    ) {}
    let (code, text) = health(broker.mqtt);
    assert_eq!(code, Some(75), "{text}");
    assert!(text.contains("degraded: disk error: disk I/O error"), "{text}");
    let metrics = http::get(broker.http, "/metrics");
    assert!(metrics.text().contains("\nhumidor_disk_errors_total 1\n"), "{}", metrics.text());
    broker.process.kill_9();
    assert_eq!(readings(&disk.after_a_cut()).len(), 100, "after a power cut");
    let _ = std::fs::remove_file(library);
}

#[test]
fn a_disk_that_fails_for_good_ends_the_broker_and_nothing_was_acknowledged() {
    let library = library();
    let disk = Disk::new();
    let broker = start(&disk, &library);
    let mut client = Client::connect(broker.mqtt, "n");
    publish(&mut client, 1);
    client.expect_puback(1);
    disk.fail("EIO -1 -wal");
    publish(&mut client, 2);
    broker.process.said("cannot commit: nothing is acknowledged until it works; the disk failed");
    let (code, text) = health(broker.mqtt);
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains("disk error"), "{text}");
    assert!(client.receive().is_none(), "closed without an acknowledgement");
    let (code, words) = broker.process.end();
    assert_eq!(code, Some(74), "{words}");
    assert!(words.contains("copy the folder of"), "{words}");
    assert_eq!(readings(&disk.after_a_cut()).len(), 1);
    // A start finds the disk as it is.
    let (code, words) = Process::start(command(&disk, &library)).end();
    assert_eq!(code, Some(74), "{words}");
    // And works when the disk does.
    disk.recover();
    let broker = start(&disk, &library);
    let mut client = Client::connect(broker.mqtt, "n");
    publish(&mut client, 2);
    client.expect_puback(2);
    broker.process.kill_9();
    assert_eq!(readings(&disk.after_a_cut()).len(), 2);
    let _ = std::fs::remove_file(library);
}

#[test]
fn a_disk_that_does_not_answer_makes_the_broker_not_ready_until_it_does() {
    let library = library();
    let disk = Disk::new();
    let broker = start(&disk, &library);
    let mut client = Client::connect(broker.mqtt, "n");
    publish(&mut client, 1);
    client.expect_puback(1);
    disk.fail("HANG 1 -wal");
    publish(&mut client, 2);
    let ready = || http::get(broker.http, "/readyz");
    support::wait_until("the broker is not ready", || ready().status == 503);
    let said = ready().text().to_owned();
    let cause = "cannot commit: the log has not committed for ";
    assert!(said.starts_with(cause), "{said}");
    let (code, text) = health(broker.mqtt);
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains(cause), "{text}");
    let metrics = http::get(broker.http, "/metrics");
    assert!(metrics.text().contains("\nhumidor_acknowledging 0.0\n"), "{}", metrics.text());
    assert_eq!(http::get(broker.http, "/healthz").text(), "ok\n", "a restart would not help");
    disk.recover();
    client.expect_puback(2);
    support::wait_until("the broker is ready", || ready().status == 200);
    assert_eq!(health(broker.mqtt).0, Some(0));
    broker.process.kill_9();
    assert_eq!(readings(&disk.after_a_cut()).len(), 2);
    let _ = std::fs::remove_file(library);
}

/// The repeat of a reading is acknowledged without a commit of its own.
#[test]
fn what_a_killed_broker_left_unsynced_is_synced_at_the_next_start() {
    let library = library();
    let disk = Disk::new();
    let broker = start(&disk, &library);
    let mut client = Client::connect(broker.mqtt, "n");
    publish(&mut client, 1);
    client.expect_puback(1);
    disk.fail("EIO -1 -wal");
    publish(&mut client, 2);
    broker.process.said("cannot commit");
    broker.process.kill_9();
    disk.recover();
    let broker = start(&disk, &library);
    let mut client = Client::connect(broker.mqtt, "n");
    for seq in 1..=2 {
        publish(&mut client, seq);
        client.expect_puback(u16::try_from(seq).unwrap());
    }
    broker.process.kill_9();
    assert_eq!(readings(&disk.after_a_cut()).len(), 2);
    let _ = std::fs::remove_file(library);
}

#[test]
fn a_lock_of_another_program_is_waited_for_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    drop(Store::open(&data.path().join(LOG_FILE)).unwrap());
    let other = rusqlite::Connection::open(data.path().join(LOG_FILE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut broker = humidor();
    broker.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(data.path());
    let process = Process::start(broker);
    let line = process.said("cannot open the log");
    assert!(line.contains("another process holds the lock"), "{line}");
    other.execute_batch("ROLLBACK").unwrap();
    let mut client = Client::connect(address(&process.said("listening for MQTT")), "n");
    publish(&mut client, 1);
    client.expect_puback(1);
    assert_eq!(process.terminate(), Some(0));
}

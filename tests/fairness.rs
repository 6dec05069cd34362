//! Back-pressure and fairness: who floods, does not read or vanishes costs nobody else their acknowledgements,
//! and the broker no more memory than its bounds.
//!
//! `HUMIDOR_FLOOD_SECONDS=60 cargo test --release --test fairness -- --nocapture` looks for longer.

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish, SubscribeReasonCode};
use support::{Client, telemetry, wait_until};

/// Longest that a well-behaved node may wait for its acknowledgement: a second as promised; more where the broker
/// is not optimised and shares two processors with other tests.
const ACKNOWLEDGED: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });
/// Memory of a flooded broker: compose's limit.
const RESIDENT_MAX_KIB: u64 = 128 * 1024;

/// Publishes at full speed until told to stop.
fn flood(address: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) {
    let mut client = Client::connect(address, "flooder");
    let mut burst = BytesMut::new();
    for payload in [vec![b'x'; 100], vec![b'x'; 10_000], vec![b'x'; 250_000]] {
        Publish::new("flood/x", QoS::AtMostOnce, payload).write(&mut burst).unwrap();
    }
    while !stop.load(Relaxed) {
        client.stream.write_all(&burst).expect("a flooder is slowed down, not closed");
        sent.fetch_add(3, Relaxed);
    }
}

#[test]
fn a_flood_to_who_never_reads_delays_nobody_and_memory_stays_bounded() {
    let seconds = std::env::var("HUMIDOR_FLOOD_SECONDS").map_or(5, |text| text.parse().unwrap());
    let data = tempfile::tempdir().unwrap();
    let (process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
    // They subscribe and never read again.
    let _deaf: Vec<Client> = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .into_iter()
        .map(|qos| {
            let mut client = Client::connect(address, &format!("deaf-{}", qos as u8));
            client.subscribe("flood/#", qos);
            client.subscribe("+/x", qos);
            client
        })
        .collect();
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flooding = {
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        std::thread::spawn(move || flood(address, &stop, &sent))
    };
    let mut node = Client::connect(address, "node");
    let (mut slowest, mut resident, mut readings) = (Duration::ZERO, 0, 0);
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        readings += 1;
        let asked = Instant::now();
        node.publish("humidor/node/sensor/s", QoS::AtLeastOnce, 1, &telemetry("b", readings));
        node.expect_puback(1);
        slowest = slowest.max(asked.elapsed());
        resident = resident.max(process.resident_kib());
        std::thread::sleep(Duration::from_millis(20)); // a node's pace, not a condition
    }
    stop.store(true, Relaxed);
    flooding.join().unwrap();
    let sent = sent.load(Relaxed);
    println!(
        "{seconds} s: {sent} flooded, {readings} readings, slowest {slowest:?}, {resident} KiB"
    );
    assert!(sent > 100, "it was a flood");
    assert!(slowest <= ACKNOWLEDGED, "acknowledged after {slowest:?}");
    assert!(resident <= RESIDENT_MAX_KIB, "{resident} KiB resident");
    assert_eq!(support::stored(data.path()), i64::try_from(readings).unwrap());
}

#[test]
fn a_thousand_that_connect_subscribe_and_vanish_leave_nothing_behind() {
    /// As many at once as the usual limit of open files lets this process have.
    const AT_ONCE: usize = 250;
    let data = tempfile::tempdir().unwrap();
    let (process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
    let health = format!("@humidor-broker-{}", address.port());
    let answers = || std::fs::read_to_string("/proc/net/unix").unwrap().contains(&health);
    wait_until("the broker answers for its health", answers);
    let mut node = Client::connect(address, "node");
    // From the first acknowledgement on all that stays open is there.
    node.publish("humidor/node/sensor/s", QoS::AtLeastOnce, 1, &telemetry("a", 1));
    node.expect_puback(1);
    let before = process.sockets();
    for round in 0..4 {
        let all: Vec<Client> = (0..AT_ONCE)
            .map(|n| {
                let mut client = Client::connect(address, &format!("c-{round}-{n}"));
                let granted = client.subscribe(&format!("vanish/{round}/{n}/#"), QoS::AtLeastOnce);
                assert_eq!(granted, SubscribeReasonCode::Success(QoS::AtLeastOnce));
                client
            })
            .collect();
        let mut last = Client::connect(address, "last");
        last.subscribe(&format!("vanish/{round}/7/x"), QoS::AtLeastOnce);
        node.publish(&format!("vanish/{round}/7/x"), QoS::AtLeastOnce, 1, b"1");
        node.expect_puback(1);
        assert!(matches!(last.receive(), Some(Packet::Publish(_))));
        drop((all, last));
        wait_until("the broker has let them go", || process.sockets() <= before);
    }
    let asked = Instant::now();
    node.publish("humidor/node/sensor/s", QoS::AtLeastOnce, 1, &telemetry("b", 1));
    node.expect_puback(1);
    let (waited, resident) = (asked.elapsed(), process.resident_kib());
    println!("acknowledged after {waited:?}, {resident} KiB");
    assert!(waited <= ACKNOWLEDGED);
    assert!(resident <= RESIDENT_MAX_KIB, "{resident} KiB resident");
}

#[test]
fn who_sends_faster_than_allowed_is_read_later() {
    for (rate, payload) in [(["--message-rate", "40"], 10), (["--byte-rate", "10240"], 256)] {
        let data = tempfile::tempdir().unwrap();
        let (_process, address) = support::broker(data.path(), "127.0.0.1:0", &rate);
        let mut fast = Client::connect(address, "fast");
        // Three seconds' worth at once, of which one is free.
        let started = Instant::now();
        for pkid in 1..=120 {
            fast.publish("x", QoS::AtLeastOnce, pkid, &vec![b'x'; payload]);
        }
        for pkid in 1..=120 {
            fast.expect_puback(pkid);
        }
        fast.ping();
        let waited = started.elapsed();
        // No more than that: how soon it is read again is the machine's business.
        assert!(waited >= Duration::from_millis(1500), "{rate:?}: read again after {waited:?}");
    }
}

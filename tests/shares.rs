//! Shared pools: a client that fills one takes its own share of it. Another user's publishes are acknowledged meanwhile,
//! nothing of another user's that was acknowledged goes, and the broker's memory stays below half of a small board's
//! container.
//!
//! Each attack is made by `mallory`, a user of role `node`, with plain sockets. `alice`, of the same role, publishes beside
//! it. `cargo test --release --test shares -- --nocapture --test-threads=1` prints memory and times of each.

mod support;

use std::collections::{BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use socket2::{Domain, Socket, Type};
use support::frames::{BINARY, FIN, frame};
use support::packets::{self, Message, PUBACK, Packet, Wire};
use support::users::add;
use support::{Process, telemetry, wait_until};

/// Memory of the shipped binary when it has started. One that is not optimised has up to four times as much.
const IDLE_KIB: u64 = 8 * 1024;
/// Most memory that an attack adds: with [`IDLE_KIB`] half of what `docker/compose.yaml` gives the broker.
const ADDED_MAX_KIB: u64 = 64 * 1024 - IDLE_KIB;
/// Most memory that all full pools add: with [`IDLE_KIB`] all of it.
const ALL_ADDED_MAX_KIB: u64 = 128 * 1024 - IDLE_KIB;
/// Topics that mallory may use.
const OWN: &str = "humidor/mallory/";
/// Reason code of MQTT 5.0 for a share that is used up.
const QUOTA_EXCEEDED: u8 = 0x97;

/// A broker with the users alice and mallory, of role `node`, and nobody, of role `none`.
struct Hall {
    /// Several threads use the hall.
    process: Mutex<Process>,
    mqtt: SocketAddr,
    http: SocketAddr,
    data: tempfile::TempDir,
    /// Its memory at the start.
    idle_kib: u64,
}

impl Hall {
    fn open() -> Self {
        Self::open_with(&[])
    }

    /// A hall whose broker has `more` arguments.
    fn open_with(more: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        for (name, role) in [("alice", "node"), ("mallory", "node"), ("nobody", "none")] {
            add(data.path(), name, role);
        }
        let (process, mqtt) = support::broker(data.path(), "127.0.0.1:0", more);
        let line = process.said("listening for HTTP");
        let http = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
        let idle_kib = process.peak_kib();
        Self { process: Mutex::new(process), mqtt, http, data, idle_kib }
    }

    /// A connection of `user`, with a clean session.
    fn login(&self, user: &str, client_id: &str) -> Wire {
        let (wire, connack) = Wire::open(self.mqtt, &connect_v4(user, client_id, true));
        assert_eq!(connack[1], 0, "{user} is accepted");
        wire
    }

    /// A connection of `user` by MQTT 5.0; the session lasts `expiry_s`. Returns the CONNACK's body.
    fn login_v5(&self, user: &str, client_id: &str, expiry_s: u32) -> (Wire, Vec<u8>) {
        Wire::open(self.mqtt, &connect_v5(user, client_id, expiry_s, None))
    }

    /// As [`Hall::login_v5`], to the session that is there.
    fn login_v5_present(&self, user: &str, client_id: &str, expiry_s: u32) -> (Wire, Vec<u8>) {
        let mut connect = connect_v5(user, client_id, expiry_s, None);
        let flags = connect.iter().position(|byte| *byte == 0xc2).expect("the flags");
        connect[flags] = 0xc0;
        Wire::open(self.mqtt, &connect)
    }

    /// alice publishes at a board's pace from now on.
    fn watch(&self) -> Watch {
        Watch::start(self.login("alice", "bystander"))
    }

    /// The attack is over: alice has all her acknowledgements, and all of her readings are stored.
    fn close(self, attack: &str, watch: Watch) {
        self.close_within(ADDED_MAX_KIB, attack, watch);
    }

    fn close_within(self, most_kib: u64, attack: &str, watch: Watch) {
        let (readings, slowest) = watch.end();
        let peak = self.process.lock().unwrap().peak_kib();
        let added = peak - self.idle_kib;
        println!(
            "{attack}: {added} KiB added to {}, {readings} publishes, slowest {slowest:?}",
            self.idle_kib
        );
        let stored = support::readings(self.data.path());
        let stored = stored.iter().filter(|reading| reading.node == "alice").count();
        assert_eq!(u64::try_from(stored).unwrap(), readings, "acknowledged is stored");
        assert!(added <= most_kib, "{added} KiB more, {peak} in all");
    }
}

/// A client that publishes readings, one after the other.
struct Watch {
    over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    publishing: JoinHandle<Duration>,
}

impl Watch {
    fn start(mut wire: Wire) -> Self {
        let (over, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (until, count) = (Arc::clone(&over), Arc::clone(&acknowledged));
        let publishing = std::thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            while !until.load(Relaxed) {
                let reading = telemetry("b", count.load(Relaxed) + 1);
                let sent = Instant::now();
                wire.send(&packets::publish("humidor/alice/sensor/s", 1, false, 1, &reading));
                let answer = wire.receive();
                assert!(matches!(answer, Packet::Answer(PUBACK, _)), "no PUBACK but {answer:?}");
                slowest = slowest.max(sent.elapsed());
                count.fetch_add(1, Relaxed);
                std::thread::sleep(Duration::from_millis(10)); // a board's pace, not a condition
            }
            slowest
        });
        let watch = Self { over, acknowledged, publishing };
        watch.more(3);
        watch
    }

    /// Waits until alice has so many more acknowledgements.
    fn more(&self, count: u64) {
        let before = self.acknowledged.load(Relaxed);
        wait_until("alice is acknowledged", || {
            self.publishing.is_finished() || self.acknowledged.load(Relaxed) >= before + count
        });
    }

    fn end(self) -> (u64, Duration) {
        self.more(5);
        self.over.store(true, Relaxed);
        let slowest = self.publishing.join().expect("alice is served");
        (self.acknowledged.load(Relaxed), slowest)
    }
}

fn text(body: &mut Vec<u8>, text: &[u8]) {
    body.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes());
    body.extend_from_slice(text);
}

fn connect_v4(user: &str, client_id: &str, clean: bool) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, b"MQTT");
    body.extend([4, if clean { 0xc2 } else { 0xc0 }, 0, 0]);
    for part in [client_id, user, &format!("{user}-secret")] {
        text(&mut body, part.as_bytes());
    }
    packets::packet(0x10, &body)
}

/// A length as a Variable Byte Integer.
fn varint(length: usize) -> Vec<u8> {
    let whole = packets::packet(0, &vec![0; length]);
    whole[1..whole.len() - length].to_vec()
}

fn section(properties: &[u8]) -> Vec<u8> {
    [varint(properties.len()), properties.to_vec()].concat()
}

/// A will: its properties, its topic, its payload.
type Will<'a> = (&'a [u8], &'a str, &'a [u8]);

fn connect_v5(user: &str, client_id: &str, expiry_s: u32, will: Option<Will<'_>>) -> Vec<u8> {
    connect_v5_with(user, client_id, &[&[0x11][..], &expiry_s.to_be_bytes()].concat(), will)
}

fn connect_v5_with(
    user: &str,
    client_id: &str,
    properties: &[u8],
    will: Option<Will<'_>>,
) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, b"MQTT");
    body.extend([5, if will.is_some() { 0xc6 } else { 0xc2 }, 0, 0]);
    body.extend(section(properties));
    text(&mut body, client_id.as_bytes());
    if let Some((properties, topic, payload)) = will {
        body.extend(section(properties));
        text(&mut body, topic.as_bytes());
        text(&mut body, payload);
    }
    text(&mut body, user.as_bytes());
    text(&mut body, format!("{user}-secret").as_bytes());
    packets::packet(0x10, &body)
}

fn publish_v5(topic: &str, retain: bool, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic.as_bytes());
    body.extend(packet_id.to_be_bytes());
    body.push(0);
    body.extend_from_slice(payload);
    packets::packet(0x32 | u8::from(retain), &body)
}

fn subscribe_v5(filters: &[String]) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    for filter in filters {
        text(&mut body, filter.as_bytes());
        body.push(0);
    }
    packets::packet(0x82, &body)
}

/// A payload.
fn large(bytes: usize) -> Vec<u8> {
    vec![b'x'; bytes]
}

/// The reason code of a PUBACK of MQTT 5.0.
fn reason(answer: &Packet) -> u8 {
    match answer {
        Packet::Answer(PUBACK, body) => body.get(2).copied().unwrap_or(0),
        other => panic!("no PUBACK but {other:?}"),
    }
}

/// Publishes each payload at QoS 1 over MQTT 5.0; returns how many were taken, and how many refused with 0x97.
fn publish_all(
    wire: &mut Wire,
    retain: bool,
    messages: impl Iterator<Item = (String, Vec<u8>)>,
) -> (usize, usize) {
    let (mut taken, mut refused) = (0, 0);
    let messages: Vec<_> = messages.collect();
    for chunk in messages.chunks(100) {
        for (id, (topic, payload)) in (1..).zip(chunk) {
            wire.send(&publish_v5(topic, retain, id, payload));
        }
        for _ in chunk {
            match reason(&wire.receive()) {
                0 => taken += 1,
                QUOTA_EXCEEDED => refused += 1,
                other => panic!("reason {other:#x}"),
            }
        }
    }
    (taken, refused)
}

#[test]
fn every_message_of_one_write_is_delivered_without_more_bytes() {
    let hall = Hall::open();
    let watch = hall.watch();
    let mut wire = hall.login("mallory", "both");
    assert_eq!(wire.subscribe(&[("humidor/mallory/burst", 0)]), [0]);
    let burst: Vec<u8> = (0..1000_u32)
        .flat_map(|n| packets::publish("humidor/mallory/burst", 0, false, 0, &n.to_be_bytes()))
        .collect();
    wire.send(&burst);
    for n in 0..1000_u32 {
        assert_eq!(wire.message().payload, n.to_be_bytes());
    }
    hall.close("a burst at QoS 0", watch);
}

#[test]
fn a_flood_at_qos_0_is_taken_as_it_comes() {
    let hall = Hall::open();
    let watch = hall.watch();
    for topic in ["humidor/mallory/flood", "denied/flood"] {
        let mut wire = hall.login("mallory", "flood");
        let burst = packets::publish(topic, 0, false, 0, &[b'x'; 100]).repeat(10_000);
        for _ in 0..20 {
            wire.send(&burst);
        }
        wire.send(&packets::pingreq());
        assert!(matches!(wire.receive(), Packet::Answer(packets::PINGRESP, _)));
    }
    hall.close("24 MB at QoS 0, half of it denied", watch);
}

#[test]
fn filters_of_many_levels_are_refused_and_many_filters_are_a_users_share() {
    let hall = Hall::open();
    let watch = hall.watch();
    let (mut wire, _) = hall.login_v5("mallory", "levels", 0);
    let levels = |count: usize, last: &str| OWN.to_owned() + &"x/".repeat(count - 3) + last;
    wire.send(&subscribe_v5(&[
        levels(500, "x"),
        levels(33, "#"),
        levels(32, "x"),
        levels(32, "#"),
    ]));
    let Packet::Answer(packets::SUBACK, body) = wire.receive() else { panic!("no SUBACK") };
    assert_eq!(body[3..], [QUOTA_EXCEEDED, QUOTA_EXCEEDED, 0, 0]);
    let mut refused = 0;
    let wires: Vec<Wire> = (0..60)
        .map(|session| {
            let (mut wire, connack) = hall.login_v5("mallory", &format!("s{session}"), 3600);
            assert_eq!(connack[1], 0);
            // 200 filters that branch at each level, and end beyond the topic.
            let filters = (0..200).map(|n: u32| {
                let bits = n + session * 200;
                let levels = (0..14).map(|bit| if bits >> bit & 1 == 0 { "a/" } else { "+/" });
                OWN.to_owned() + &levels.collect::<String>() + &"a/".repeat(15) + "end"
            });
            wire.send(&subscribe_v5(&filters.collect::<Vec<_>>()));
            let Packet::Answer(packets::SUBACK, body) = wire.receive() else { panic!("no SUBACK") };
            refused +=
                body[3..].iter().map(|code| usize::from(*code == QUOTA_EXCEEDED)).sum::<usize>();
            wire
        })
        .collect();
    assert!(refused > 0, "a share is bounded");
    let mut other = hall.login("alice", "other");
    assert_eq!(other.subscribe(&[("humidor/alice/#", 1)]), [1], "another user's share is left");
    // Each of these is looked up in all of them.
    let (mut wire, _) = hall.login_v5("mallory", "publisher", 0);
    let topic = OWN.to_owned() + &"a/".repeat(29) + "a";
    for _ in 0..4 {
        wire.send(&packets::publish(&topic, 0, false, 0, b"").repeat(64));
    }
    watch.more(20);
    drop(wires);
    hall.close("filters of 32 levels that branch", watch);
}

#[test]
fn a_new_topic_has_its_commands_however_many_there_were() {
    let hall = Hall::open();
    let watch = hall.watch();
    let (mut wire, _) = hall.login_v5("mallory", "topics", 0);
    let topics = (0..20_000).map(|n| (format!("humidor/mallory/t/{n}"), b"1".to_vec()));
    assert_eq!(publish_all(&mut wire, false, topics), (20_000, 0));
    let mut board = hall.login("mallory", "board");
    assert_eq!(board.subscribe(&[("humidor/mallory/output/new/set", 1)]), [1]);
    wire.send(&publish_v5("humidor/mallory/output/new/set", false, 1, b"ON"));
    assert_eq!(board.message().payload, b"ON");
    hall.close("20,000 topics", watch);
}

#[test]
fn retained_messages_beyond_a_share_are_refused_and_others_have_room() {
    let hall = Hall::open();
    let watch = hall.watch();
    let (mut wire, _) = hall.login_v5("mallory", "retainer", 0);
    let many = (0..21_000).map(|n| (format!("humidor/mallory/r/{n}"), b"1".to_vec()));
    let (taken, refused) = publish_all(&mut wire, true, many);
    assert!(taken >= 1_000 && refused > 0, "{taken} taken, {refused} refused");
    // One of them again, and without one.
    let again = [("humidor/mallory/r/0", &b"2"[..]), ("humidor/mallory/r/1", b"")];
    let again = again.into_iter().map(|(topic, payload)| (topic.to_owned(), payload.to_vec()));
    assert_eq!(publish_all(&mut wire, true, again), (2, 0));
    // A client of 3.1.1 gets no acknowledgement for what is not retained.
    let mut old = hall.login("mallory", "old");
    for n in 0..100_u16 {
        let topic = format!("humidor/mallory/old/{n}");
        if old.try_send(&packets::publish(&topic, 1, true, n + 1, b"1")).is_err() {
            break;
        }
    }
    assert_eq!(acknowledged_until_closed(old), 1, "the place of the deleted one");
    // Commands have room of their own, and alice has hers.
    let command = [("humidor/mallory/output/fan/set".to_owned(), b"ON".to_vec())];
    assert_eq!(publish_all(&mut wire, true, command.into_iter()), (1, 0));
    let (mut other, _) = hall.login_v5("alice", "other", 0);
    let hers = (0..1_000).map(|n| (format!("humidor/alice/r/{n}"), b"1".to_vec()));
    assert_eq!(publish_all(&mut other, true, hers), (1_000, 0));
    // Large ones: a share of the bytes.
    let longer = (0..100).map(|n| (format!("humidor/mallory/r/{n}"), large(200_000)));
    let (taken, refused) = publish_all(&mut wire, true, longer);
    assert!(taken >= 5 && refused > 0, "{taken} large ones taken, {refused} refused");
    let hers = (0..5).map(|n| (format!("humidor/alice/r/{n}"), large(200_000)));
    assert_eq!(publish_all(&mut other, true, hers), (5, 0));
    hall.close("21,000 retained messages", watch);
}

/// How many PUBACKs come before the broker closes.
fn acknowledged_until_closed(mut wire: Wire) -> usize {
    let mut count = 0;
    while let Some(packet) = wire.try_receive() {
        count += usize::from(matches!(packet, Packet::Answer(PUBACK, _)));
    }
    count
}

#[test]
fn the_sessions_of_one_user_end_for_its_own() {
    let hall = Hall::open();
    let watch = hall.watch();
    let (mut hers, _) = hall.login_v5("alice", "kept", 3600);
    hers.send(&subscribe_v5(&["humidor/alice/kept".to_owned()]));
    assert!(matches!(hers.receive(), Packet::Answer(packets::SUBACK, _)));
    drop(hers);
    for n in 0..1_001 {
        let (mut wire, connack) = hall.login_v5("mallory", &format!("s{n}"), 3600);
        assert_eq!(connack[1], 0, "an idle one of its own ends for it");
        wire.send(&packets::disconnect());
    }
    let (_wire, connack) = hall.login_v5_present("alice", "kept", 3600);
    assert_eq!(connack[..2], [1, 0], "her session is present");
    hall.close("1,001 sessions", watch);
}

#[test]
fn connected_sessions_of_one_user_leave_room_for_others() {
    let hall = Hall::open();
    let watch = hall.watch();
    let (mut wires, mut refused) = (Vec::new(), 0);
    for n in 0..1_100 {
        let (wire, connack) = hall.login_v5("mallory", &format!("s{n}"), 3600);
        if connack[1] == QUOTA_EXCEEDED {
            refused += 1;
        } else {
            wires.push(wire);
        }
    }
    assert!(refused > 0 && wires.len() >= 900, "{refused} refused");
    let (_wire, connack) = hall.login_v5("alice", "new", 3600);
    assert_eq!(connack[1], 0, "another user has room");
    drop(wires);
    hall.close("1,100 connected sessions", watch);
}

#[test]
fn delayed_wills_are_a_users_share() {
    let hall = Hall::open();
    let watch = hall.watch();
    // A will delay of an hour, and user properties of 120 KB.
    let pair = [&[0x26][..], &[0, 1, b'k'], &60_000_u16.to_be_bytes(), &large(60_000)].concat();
    let properties = [&[0x18, 0, 0, 0x0e, 0x10][..], &pair, &pair].concat();
    let will = (&properties[..], "humidor/mallory/will", &large(65_000)[..]);
    let mut refused = 0;
    for n in 0..300 {
        let connect = connect_v5("mallory", &format!("w{n}"), 3600, Some(will));
        // Closed without a DISCONNECT: the will is due in an hour.
        let (_, connack) = Wire::open(hall.mqtt, &connect);
        refused += usize::from(connack[1] == QUOTA_EXCEEDED);
    }
    assert!(refused > 0, "a share is bounded");
    let hers = (&[0x18, 0, 0, 0x0e, 0x10][..], "humidor/alice/will", &b"gone"[..]);
    let (_, connack) = Wire::open(hall.mqtt, &connect_v5("alice", "w", 3600, Some(hers)));
    assert_eq!(connack[1], 0, "another user has room");
    hall.close("300 delayed wills of 185 KB", watch);
}

/// A reading of alice's history.
fn reading_at(seq: u64, at_ms: u64) -> (String, Vec<u8>) {
    let mono = seq * 1000;
    let json = format!(
        r#"{{"boot":"b","seq":{seq},"at":{at_ms},"clock":"synced","mono":{mono},"temperature":21.5,"humidity":57.1}}"#
    );
    ("humidor/alice/sensor/s".to_owned(), json.into_bytes())
}

#[test]
fn what_waits_in_a_small_log_takes_no_reading_of_another_user() {
    const READINGS: u64 = 10_000;
    const EVERY_MS: u64 = 120_000;
    const LATER: u64 = 20;
    const MAX_DB: u64 = 16 * 1024 * 1024;
    let hall = Hall::open_with(&["--max-db", "16MiB"]);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let first_ms = u64::try_from(now_ms).unwrap() - (READINGS + LATER) * EVERY_MS;
    let history = |seq: u64| reading_at(seq, first_ms + seq * EVERY_MS);
    let (mut hers, _) = hall.login_v5("alice", "board", 0);
    let taken = publish_all(&mut hers, false, (1..=READINGS).map(history));
    assert_eq!(taken, (usize::try_from(READINGS).unwrap(), 0));

    for n in 0..4 {
        let (mut wire, _) = hall.login_v5("mallory", &format!("away{n}"), u32::MAX);
        let mut body = vec![0, 1, 0];
        text(&mut body, b"humidor/mallory/x");
        body.push(1);
        wire.send(&packets::packet(0x82, &body));
        assert!(matches!(wire.receive(), Packet::Answer(packets::SUBACK, _)));
        wire.send(&packets::disconnect());
    }
    let (mut wire, _) = hall.login_v5("mallory", "sender", 0);
    let waiting = (0..25).map(|_| ("humidor/mallory/x".to_owned(), large(200_000)));
    assert_eq!(publish_all(&mut wire, false, waiting), (25, 0));
    let kept = (0..25).map(|n| (format!("humidor/mallory/r/{n}"), large(200_000)));
    let (kept, refused) = publish_all(&mut wire, true, kept);
    let mut wills_refused = 0;
    let will = (&[0x18, 0, 0, 0x0e, 0x10][..], "humidor/mallory/will", &large(16_000)[..]);
    for n in 0..100 {
        let connect = connect_v5("mallory", &format!("w{n}"), 3600, Some(will));
        let (_, connack) = Wire::open(hall.mqtt, &connect);
        wills_refused += usize::from(connack[1] == QUOTA_EXCEEDED);
    }

    // Before each commit the broker makes room in a log that is too large.
    for seq in READINGS + 1..=READINGS + LATER {
        assert_eq!(publish_all(&mut hers, false, [history(seq)].into_iter()), (1, 0));
    }
    let stored = support::readings(hall.data.path());
    let stored = stored.iter().filter(|reading| reading.node == "alice").count();
    let log = rusqlite::Connection::open(hall.data.path().join(humidor::store::LOG_FILE)).unwrap();
    let bytes: u64 = log
        .query_row(
            "SELECT (SELECT coalesce(sum(length(payload)), 0) FROM queued)
             + (SELECT coalesce(sum(length(payload)), 0) FROM message)
             + (SELECT coalesce(sum(length(payload)), 0) FROM retained)
             + (SELECT coalesce(sum(length(payload)), 0) FROM will)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    println!("{stored} readings kept; {bytes} bytes of messages, {kept} retained");
    assert_eq!(u64::try_from(stored).unwrap(), READINGS + LATER, "alice keeps hers");
    assert!(bytes > MAX_DB / 16 && bytes <= MAX_DB / 4, "{bytes} bytes of messages");
    assert!(kept >= 1 && refused > 0, "{kept} retained");
    assert!(wills_refused > 0, "wills are bounded, too");
}

#[test]
fn sessions_have_a_part_of_a_small_log() {
    const PART: usize = 16 * 1024 * 1024 / 64;
    let hall = Hall::open_with(&["--max-db", "16MiB"]);
    let watch = hall.watch();
    let granted = |wire: &mut Wire, filters: &[String]| {
        wire.send(&subscribe_v5(filters));
        let Packet::Answer(packets::SUBACK, body) = wire.receive() else { panic!("no SUBACK") };
        assert!(body[3..].iter().all(|code| [0, QUOTA_EXCEEDED].contains(code)), "{body:?}");
        body[3..].iter().map(|code| usize::from(*code == 0)).sum::<usize>()
    };
    let filters: Vec<String> = (0..190).map(|n| format!("{OWN}{n}/{}", "x".repeat(900))).collect();
    let (mut live, _) = hall.login_v5("mallory", "live", 0);
    assert_eq!(granted(&mut live, &filters), 190, "of a session that is not in the log");
    let (mut wire, _) = hall.login_v5("mallory", "subscriber", 3600);
    let (first, second) = filters.split_at(95);
    let count = granted(&mut wire, first) + granted(&mut wire, second);
    let bytes: usize = filters[..count].iter().map(|filter| 64 + filter.len()).sum();
    assert!((PART / 2 - 1_200..PART / 2).contains(&bytes), "{count} take {bytes} bytes");
    assert_eq!(granted(&mut wire, &filters[..10]), 10, "it has them already");
    wire.send(&packets::packet(0xa2, &{
        let mut body = vec![0, 1, 0];
        text(&mut body, filters[0].as_bytes());
        body
    }));
    assert!(matches!(wire.receive(), Packet::Answer(packets::UNSUBACK, _)));
    assert_eq!(granted(&mut wire, &filters[185..]), 1, "there is room for one again");

    // Exchanges take the rest.
    let mut open = 0;
    let closed = loop {
        let mut body = Vec::new();
        text(&mut body, b"humidor/mallory/x");
        body.extend([0, 1 + open, 0]);
        wire.send(&packets::packet(0x34, &body));
        match wire.receive() {
            Packet::Answer(5, _) => open += 1,
            other => break other,
        }
    };
    assert!(
        matches!(closed, Packet::Answer(14, ref body) if body[0] == QUOTA_EXCEEDED),
        "{closed:?}"
    );
    assert!(open < 100, "{open} exchanges");

    let (mut hers, connack) = hall.login_v5("alice", "other", 3600);
    assert_eq!(connack[1], 0);
    assert_eq!(granted(&mut hers, &["humidor/alice/#".to_owned()]), 1, "another user has room");
    // A new session of hers makes room by the end of the one that is away.
    drop(wire);
    let mut anew = None;
    wait_until("the broker has seen that it is away", || {
        let (wire, connack) = hall.login_v5("mallory", &"n".repeat(250), 3600);
        anew = (connack[1] == 0).then_some(wire);
        anew.is_some()
    });
    assert_eq!(granted(&mut anew.unwrap(), &filters[..50]), 50);
    hall.close("subscriptions and exchanges of sessions", watch);
}

/// Each of these rows stays in the log until PUBCOMP.
#[test]
fn deliveries_whose_pubcomp_never_comes_have_a_part_of_a_small_log() {
    const MESSAGES: u16 = 60;
    let hall = Hall::open_with(&["--max-db", "16MiB"]);
    let watch = hall.watch();
    let topic = OWN.to_owned() + "q";
    let connect = connect_v4("mallory", "taker", false);
    let (mut wire, _) = Wire::open(hall.mqtt, &connect);
    assert_eq!(wire.subscribe(&[(&topic, 2)]), [2]);
    // Subscriptions take nearly all of the share.
    let filters: Vec<String> = (0..190).map(|n| format!("{OWN}{n}/{}", "x".repeat(900))).collect();
    let refused = filters.iter().filter(|filter| wire.subscribe(&[(filter, 0)]) == [0x80]).count();
    assert!(refused > 0);
    let mut publisher = hall.login("mallory", "publisher");
    for id in 1..=MESSAGES {
        publisher.send(&packets::publish(&topic, 2, false, id, b"1"));
        assert!(matches!(publisher.receive(), Packet::Answer(5, _)), "PUBREC");
    }
    let mut released = 0;
    while let Some(packet) = wire.try_receive() {
        match packet {
            // It may be closed by now.
            Packet::Message(message) => drop(wire.try_send(&pubrec(message.packet_id))),
            Packet::Answer(packets::PUBREL, _) => released += 1,
            other @ Packet::Answer(..) => panic!("{other:?}"),
        }
    }
    assert!((1..40).contains(&released), "{released} of {MESSAGES} wait for PUBCOMP");
    // With them there is room again: a client that goes on gets all.
    let (mut taken, mut connections) = (BTreeSet::new(), 0);
    while taken.len() < usize::from(MESSAGES) {
        connections += 1;
        assert!(connections <= MESSAGES, "{taken:?} after {connections} connections");
        let (mut wire, connack) = Wire::open(hall.mqtt, &connect);
        assert_eq!(connack, [1, 0]);
        while taken.len() < usize::from(MESSAGES)
            && let Some(packet) = wire.try_receive()
        {
            match packet {
                Packet::Message(message) => drop(wire.try_send(&pubrec(message.packet_id))),
                Packet::Answer(packets::PUBREL, body) => {
                    drop(wire.try_send(&packets::packet(0x70, &body)));
                    taken.insert(body);
                }
                other @ Packet::Answer(..) => panic!("{other:?}"),
            }
        }
    }
    hall.close("deliveries without PUBCOMP", watch);
}

fn pubrec(packet_id: u16) -> Vec<u8> {
    packets::packet(0x50, &packet_id.to_be_bytes())
}

/// As many runs as a 16 MiB log took for two minutes of another user's time once.
#[test]
fn a_board_that_makes_up_runs_costs_others_no_more_than_its_readings() {
    let runs = std::env::var("HUMIDOR_MADE_UP_RUNS").map_or(3_000, |runs| runs.parse().unwrap());
    let hall = Hall::open_with(&["--max-db", "16MiB"]);
    let watch = hall.watch();
    let (mut wire, _) = hall.login_v5("mallory", "board", 0);
    let reading = |run: u64| {
        let (topic, payload) = reading_at(1, 1_760_000_000_000 + run * 1_000);
        let payload = String::from_utf8(payload).unwrap();
        let payload = payload.replace(r#""boot":"b""#, &format!(r#""boot":"b{run}""#));
        (topic.replace("/alice/", "/mallory/"), payload.into_bytes())
    };
    let taken = publish_all(&mut wire, false, (1..=runs).map(reading));
    assert_eq!(taken, (usize::try_from(runs).unwrap(), 0));
    let asked = Instant::now();
    assert_eq!(ask(hall.http, "alice", "/api/v1/latest"), 200);
    println!("the latest readings beside {runs} runs: {:?}", asked.elapsed());
    watch.more(20);
    hall.close(&format!("{runs} made-up runs"), watch);
}

#[test]
fn half_sent_packets_are_a_users_share() {
    let hall = Hall::open();
    let watch = hall.watch();
    let whole = packets::publish("humidor/mallory/large", 1, false, 1, &large(255 * 1024));
    let senders: Vec<_> = (0..300)
        .map(|n| {
            let mut wire = hall.login("mallory", &format!("h{n}"));
            wire.dont_wait();
            // As much as the broker and the system take.
            let _ = wire.try_send(&whole[..whole.len() - 1]);
            wire
        })
        .collect();
    watch.more(20);
    let mut other = hall.login("alice", "large");
    other.send(&packets::publish("humidor/alice/large", 1, false, 1, &large(255 * 1024)));
    assert!(matches!(other.receive(), Packet::Answer(PUBACK, _)), "a large one of another user");
    drop(senders);
    hall.close("300 half-sent packets of 255 KiB", watch);
}

#[test]
fn half_sent_connects_keep_nobody_out() {
    let hall = Hall::open();
    let watch = hall.watch();
    let whole = connect_v5("mallory", "c", 0, Some((&[], "humidor/mallory/w", &large(65_000))));
    let _senders: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(hall.mqtt).unwrap();
            let _ = stream.write_all(&whole[..whole.len() - 1]);
            stream
        })
        .collect();
    hall.login("alice", "late");
    hall.close("300 half-sent CONNECTs of 65 KB", watch);
}

/// A GET whose answer is awaited no longer than the harness waits; the status.
#[test]
fn half_sent_connects_that_make_way_for_others_give_their_memory_back_at_once() {
    let hall = Hall::open();
    let watch = hall.watch();
    let mut whole = connect_v4(&"u".repeat(65_000), &"c".repeat(200), true);
    whole.pop();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut open = VecDeque::new();
                for _ in 0..2_000 {
                    let mut stream = TcpStream::connect(hall.mqtt).unwrap();
                    stream.set_nonblocking(true).unwrap();
                    // As much as the system takes.
                    let _ = stream.write(&whole);
                    open.push_back(stream);
                    if open.len() > 300 {
                        open.pop_front();
                    }
                }
            });
        }
    });
    watch.more(20);
    hall.login("alice", "late");
    hall.close("4,000 half-sent CONNECTs of 130 KB, one after the other", watch);
}

fn get(http: SocketAddr, path: &str) -> u16 {
    support::http::get(http, path).status
}

#[test]
fn half_sent_http_requests_keep_nobody_out() {
    let hall = Hall::open();
    let watch = hall.watch();
    for half in [
        &b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n"[..],
        b"POST /api/v1/session HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{",
    ] {
        let senders: Vec<TcpStream> = (0..600)
            .map(|_| {
                let mut stream = TcpStream::connect(hall.http).unwrap();
                let _ = stream.write_all(half);
                stream
            })
            .collect();
        assert_eq!(get(hall.http, "/healthz"), 200);
        assert_eq!(get(hall.http, "/"), 200);
        drop(senders);
    }
    hall.close("600 half-sent HTTP requests", watch);
}

/// Logs in over HTTP; returns the cookie.
fn session(http: SocketAddr, user: &str) -> String {
    let body = format!(r#"{{"name":"{user}","password":"{user}-secret"}}"#);
    let headers = [("content-type", "application/json")];
    let answer = support::http::request(http, "POST", "/api/v1/session", &headers, &body);
    assert_eq!(answer.status, 204, "{answer:?}");
    answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

#[test]
fn the_logins_of_one_user_end_its_own_page_sessions() {
    let hall = Hall::open();
    let watch = hall.watch();
    let hers = session(hall.http, "alice");
    let asks = |cookie: &str| {
        let answer =
            support::http::request(hall.http, "GET", "/api/v1/about", &[("cookie", cookie)], "");
        answer.text().contains("alice")
    };
    assert!(asks(&hers), "the page knows her");
    for _ in 0..300 {
        session(hall.http, "nobody");
    }
    assert!(asks(&hers), "and still does");
    hall.close("300 logins of a user without rights", watch);
}

#[test]
fn large_messages_to_clients_that_do_not_read_are_a_users_share() {
    let hall = Hall::open();
    let watch = hall.watch();
    let deaf: Vec<Wire> = (0..150)
        .map(|n| {
            let clean = n % 10 > 0;
            let connect = connect_v4("mallory", &format!("deaf{n}"), clean);
            let (mut wire, _) = Wire::open(hall.mqtt, &connect);
            assert_eq!(wire.subscribe(&[("humidor/mallory/large", 1)]), [1]);
            wire
        })
        .collect();
    let mut wire = hall.login("mallory", "sender");
    for _ in 0..12 {
        wire.send(&packets::publish("humidor/mallory/large", 1, false, 1, &large(250_000)));
        assert!(matches!(wire.receive(), Packet::Answer(PUBACK, _)));
    }
    watch.more(20);
    drop(deaf);
    hall.close("150 that do not read messages of 250 KB", watch);
}

/// Clients of `user` that subscribe and do not read, and `each` small messages for each of them. Ends when the broker has
/// taken all.
fn deafen(hall: &Hall, user: &str, clients: usize, each: u16) -> Vec<Wire> {
    let deaf = (0..clients).map(|n| {
        // One message is on its way to it, and none is acknowledged.
        let connect = connect_v5_with(user, &format!("deaf{n}"), &[0x21, 0, 1], None);
        let (mut wire, connack) = Wire::open(hall.mqtt, &connect);
        assert_eq!(connack[1], 0);
        let filter = format!("humidor/{user}/deaf/{n}");
        let mut body = vec![0, 1, 0];
        text(&mut body, filter.as_bytes());
        body.push(1);
        wire.send(&packets::packet(0x82, &body));
        assert!(matches!(wire.receive(), Packet::Answer(packets::SUBACK, _)));
        wire
    });
    let deaf: Vec<Wire> = deaf.collect();
    let mut sender = hall.login(user, "sender");
    for n in 0..clients {
        let topic = format!("humidor/{user}/deaf/{n}");
        for id in 1..=each {
            sender.send(&packets::publish(&topic, 1, false, id, b"21.5"));
        }
        for _ in 0..each {
            assert!(matches!(sender.receive(), Packet::Answer(PUBACK, _)));
        }
    }
    deaf
}

#[test]
fn small_messages_for_clients_that_do_not_read_are_counted_with_what_they_take() {
    let hall = Hall::open();
    let watch = hall.watch();
    let deaf = deafen(&hall, "mallory", 40, 5_000);
    watch.more(20);
    drop(deaf);
    hall.close("40 that do not read 5,000 small messages each", watch);
}

#[test]
fn idle_clients_keep_no_buffers() {
    let hall = Hall::open();
    let watch = hall.watch();
    let message = packets::publish("humidor/mallory/echo", 0, false, 0, &large(15 * 1024));
    let wires: Vec<Wire> = (0..500)
        .map(|n| {
            let mut wire = hall.login("mallory", &format!("idle{n}"));
            assert_eq!(wire.subscribe(&[("humidor/mallory/echo", 0)]), [0]);
            wire.send(&message);
            assert_eq!(wire.message().payload.len(), 15 * 1024);
            wire.send(&packets::unsubscribe(2, "humidor/mallory/echo"));
            assert!(matches!(wire.receive(), Packet::Answer(packets::UNSUBACK, _)));
            wire
        })
        .collect();
    watch.more(5);
    drop(wires);
    hall.close("500 clients that have sent and received 15 KiB", watch);
}

#[test]
fn packets_that_wait_for_their_commit_are_a_users_share() {
    let hall = Hall::open();
    let watch = hall.watch();
    let mut wires: Vec<Wire> = (0..500).map(|n| hall.login("mallory", &format!("c{n}"))).collect();
    let burst: Vec<u8> = (1..=256)
        .flat_map(|id| packets::publish("humidor/mallory/sensor/s", 1, false, id, b"1"))
        .collect();
    for _ in 0..3 {
        for wire in &mut wires {
            wire.dont_wait();
            let _ = wire.try_send(&burst);
        }
    }
    watch.more(20);
    drop(wires);
    hall.close("500 clients with 768 packets each at once", watch);
}

/// A WebSocket after its handshake; `None` when the broker had no place for it.
#[test]
fn messages_for_many_sessions_that_are_away_leave_others_their_turn() {
    const SESSIONS: usize = 400;
    const PUBLISHERS: usize = 20;
    const MESSAGES: u16 = 500;
    let hall = Hall::open();
    for n in 0..SESSIONS {
        let (mut away, _) = hall.login_v5("mallory", &format!("away-{n}"), u32::MAX);
        away.send(&subscribe_v5(&["humidor/mallory/x".to_owned()]));
        away.receive();
    }
    let watch = hall.watch();
    let burst: Vec<u8> = (1..=MESSAGES)
        .flat_map(|id| packets::publish("humidor/mallory/x", 1, false, id, b"x"))
        .collect();
    let publishers: Vec<Wire> = (0..PUBLISHERS)
        .map(|n| {
            let mut publisher = hall.login("mallory", &format!("publisher-{n}"));
            publisher.send(&burst);
            publisher
        })
        .collect();
    watch.more(10);
    drop(publishers);
    hall.close("4,000,000 messages for sessions that are away", watch);
}

fn web_socket(http: SocketAddr) -> Option<TcpStream> {
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nhost: {http}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\
         sec-websocket-protocol: mqtt\r\n\r\n"
    );
    let mut stream = support::http::send(http, request.as_bytes());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    head.starts_with(b"HTTP/1.1 101 ").then_some(stream)
}

#[test]
fn half_sent_frames_of_websockets_without_a_login_keep_nobody_out() {
    let hall = Hall::open();
    let watch = hall.watch();
    let pair = [&[0x26][..], &[0, 1, b'k'], &60_000_u16.to_be_bytes(), &large(60_000)].concat();
    let will = (&pair.repeat(3)[..], "humidor/mallory/w", &large(65_000)[..]);
    let whole = frame(FIN | BINARY, &connect_v5("mallory", "c", 0, Some(will)));
    let senders: Vec<Option<TcpStream>> = std::thread::scope(|scope| {
        let attack = || {
            let sockets = (0..100).map(|_| {
                let mut stream = web_socket(hall.http)?;
                stream.set_nonblocking(true).unwrap();
                // As much as the broker and the system take.
                let mut rest = &whole[..whole.len() - 1];
                while let Ok(count @ 1..) = stream.write(rest) {
                    rest = &rest[count..];
                }
                Some(stream)
            });
            sockets.collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..7).map(|_| scope.spawn(attack)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    watch.more(20);
    hall.login("alice", "late");
    assert!(senders.iter().flatten().count() > 300, "they had a place");
    hall.close("700 half-sent frames of 245 KB without a login", watch);
}

#[test]
fn half_sent_frames_of_websockets_are_a_users_share() {
    let hall = Hall::open();
    let watch = hall.watch();
    let connects =
        (0..300).map(|n| frame(FIN | BINARY, &connect_v4("mallory", &format!("f{n}"), true)));
    let whole = packets::publish("humidor/mallory/large", 1, false, 1, &large(255 * 1024));
    let whole = frame(FIN | BINARY, &whole);
    let senders: Vec<TcpStream> = connects
        .map(|connect| {
            let mut stream = web_socket(hall.http).expect("a place");
            stream.write_all(&connect).unwrap();
            let mut connack = [0; 6];
            stream.read_exact(&mut connack).unwrap();
            assert_eq!(connack, [0x82, 4, 0x20, 2, 0, 0], "mallory is accepted");
            stream.set_nonblocking(true).unwrap();
            let mut rest = &whole[..whole.len() - 1];
            while let Ok(count @ 1..) = stream.write(rest) {
                rest = &rest[count..];
            }
            stream
        })
        .collect();
    watch.more(20);
    let mut other = hall.login("alice", "large");
    other.send(&packets::publish("humidor/alice/large", 1, false, 1, &large(255 * 1024)));
    assert!(matches!(other.receive(), Packet::Answer(PUBACK, _)), "a large one of another user");
    drop(senders);
    hall.close("300 half-sent frames of 255 KiB", watch);
}

#[test]
fn all_pools_at_once_fit_into_the_container() {
    let attackers = ["mallory", "trudy", "oscar"];
    let hall = Hall::open();
    for name in &attackers[1..] {
        add(hall.data.path(), name, "node");
    }
    hall.process.lock().unwrap().said("users read again");
    let watch = hall.watch();
    let half_http: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(hall.http).unwrap();
            let long = format!("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: {}", "x".repeat(12_000));
            let _ = stream.write_all(long.as_bytes());
            stream
        })
        .collect();
    let attack = |user: &str| {
        let mut held = deafen(&hall, user, 40, 3_000);
        for session in 0..60_u32 {
            let (mut wire, connack) = hall.login_v5(user, &format!("s{session}"), 3600);
            assert_eq!(connack[1], 0);
            let filters = (0..200).map(|n: u32| {
                let bits = n + session * 200;
                let levels = (0..14).map(|bit| if bits >> bit & 1 == 0 { "a/" } else { "+/" });
                format!("humidor/{user}/") + &levels.collect::<String>() + &"a/".repeat(15) + "end"
            });
            wire.send(&subscribe_v5(&filters.collect::<Vec<_>>()));
            assert!(matches!(wire.receive(), Packet::Answer(packets::SUBACK, _)));
            held.push(wire);
        }
        let (mut wire, _) = hall.login_v5(user, "retainer", 0);
        let many = (0..8_000).map(|n| (format!("humidor/{user}/r/{n}"), large(200)));
        publish_all(&mut wire, true, many);
        let pair = [&[0x26][..], &[0, 1, b'k'], &60_000_u16.to_be_bytes(), &large(60_000)].concat();
        let properties = [&[0x18, 0, 0, 0x0e, 0x10][..], &pair, &pair].concat();
        let topic = format!("humidor/{user}/will");
        let will = (&properties[..], &topic[..], &large(65_000)[..]);
        for n in 0..30 {
            Wire::open(hall.mqtt, &connect_v5(user, &format!("w{n}"), 3600, Some(will)));
        }
        let topic = format!("humidor/{user}/large");
        let whole = packets::publish(&topic, 1, false, 1, &large(255 * 1024));
        for n in 0..250 {
            let mut wire = hall.login(user, &format!("h{n}"));
            wire.dont_wait();
            let _ = wire.try_send(&whole[..whole.len() - 1]);
            held.push(wire);
        }
        held
    };
    let held: Vec<Wire> = std::thread::scope(|scope| {
        let attack = &attack;
        let started = attackers.map(|user| scope.spawn(move || attack(user)));
        started.into_iter().flat_map(|attack| attack.join().unwrap()).collect()
    });
    let connect = connect_v5("mallory", "c", 0, Some((&[], "humidor/mallory/w", &large(65_000))));
    let half_connects: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(hall.mqtt).unwrap();
            let _ = stream.write_all(&connect[..connect.len() - 1]);
            stream
        })
        .collect();
    watch.more(20);
    hall.login("alice", "late");
    drop((held, half_connects, half_http));
    hall.close_within(ALL_ADDED_MAX_KIB, "all pools at once", watch);
}

#[test]
fn retained_messages_for_clients_that_do_not_read_are_looked_up_page_by_page() {
    let hall = Hall::open();
    let watch = hall.watch();
    let (mut wire, _) = hall.login_v5("mallory", "retainer", 0);
    let many = (0..8_000).map(|n| (format!("humidor/mallory/r/{n}"), vec![b'x'; 400]));
    publish_all(&mut wire, true, many);
    let deaf: Vec<Wire> = (0..200)
        .map(|n| {
            let mut wire = hall.login("mallory", &format!("deaf{n}"));
            wire.send(&packets::subscribe(1, &[("humidor/mallory/r/#", 1)]));
            wire
        })
        .collect();
    watch.more(20);
    let mut other = hall.login("mallory", "reads");
    other.send(&packets::subscribe(1, &[("humidor/mallory/r/#", 0)]));
    let mut topics: Vec<String> = Vec::new();
    while topics.len() < 5_000 {
        let Message { topic, retain, .. } = other.message();
        assert!(retain);
        topics.push(topic);
    }
    assert!(topics.is_sorted(), "in the order of their topics");
    drop(deaf);
    hall.close("200 that do not read 8,000 retained messages", watch);
}

#[test]
fn open_exchanges_of_3_1_1_are_bounded() {
    let hall = Hall::open();
    let watch = hall.watch();
    for n in 0..30 {
        let mut wire = hall.login("mallory", &format!("q{n}"));
        let all: Vec<u8> = (1..=u16::MAX)
            .flat_map(|id| packets::publish("humidor/mallory/q", 2, false, id, b""))
            .collect();
        wire.dont_wait();
        let _ = wire.try_send(&all);
        std::mem::forget(wire);
    }
    watch.more(20);
    hall.close("30 times 65,535 open exchanges at QoS 2", watch);
}

#[test]
fn topic_aliases_of_many_clients_stay_small() {
    let hall = Hall::open();
    let watch = hall.watch();
    let wires: Vec<Wire> = (0..400)
        .map(|n| {
            let (mut wire, _) = hall.login_v5("mallory", &format!("a{n}"), 0);
            for alias in 1..=10_u8 {
                let mut body = Vec::new();
                text(&mut body, format!("humidor/mallory/{}", "x".repeat(1000)).as_bytes());
                body.extend([3, 0x23, 0, alias]);
                wire.send(&packets::packet(0x30, &body));
            }
            wire
        })
        .collect();
    watch.more(5);
    drop(wires);
    hall.close("400 clients with topic aliases of 1 KB", watch);
}

/// mallory's board has so many sensors.
fn begin_sensors(hall: &Hall, count: usize) {
    let (mut wire, _) = hall.login_v5("mallory", "sensors", 0);
    let readings = (0..count).map(|n| {
        (format!("humidor/mallory/sensor/s{n}"), telemetry("b", u64::try_from(n).unwrap() + 1))
    });
    assert_eq!(publish_all(&mut wire, false, readings), (count, 0));
}

/// A header with the login of a user.
fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{user}-secret")))
}

/// Asks as `user`; returns the status.
fn ask(http: SocketAddr, user: &str, path: &str) -> u16 {
    let headers = [("authorization", &*basic(user))];
    support::http::request(http, "GET", path, &headers, "").status
}

#[test]
fn the_queries_of_one_user_leave_others_their_turn() {
    const QUERIES: usize = 40;
    let hall = Hall::open();
    let watch = hall.watch();
    begin_sensors(&hall, 2_000);
    let http = hall.http;
    assert_eq!(ask(http, "alice", "/api/v1/latest"), 200);
    assert_eq!(ask(http, "mallory", "/api/v1/sensors"), 200);
    let mut hers = 0;
    std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..QUERIES).map(|_| scope.spawn(|| ask(http, "mallory", "/api/v1/sensors"))).collect();
        let under_way = || asking.iter().filter(|asking| !asking.is_finished()).count();
        wait_until("one is answered", || under_way() < QUERIES);
        while under_way() > 0 {
            assert_eq!(ask(http, "alice", "/api/v1/latest"), 200);
            hers += 1;
        }
        for asking in asking {
            // 504: on a busy machine those at the end of her line.
            let status = asking.join().unwrap();
            assert!([200, 504].contains(&status), "{status}");
        }
    });
    println!("{hers} of her queries were answered beside {QUERIES}");
    // In line behind them it would be one or two.
    assert!(hers > 4, "{hers}");
    hall.close("40 long queries at once", watch);
}

#[test]
fn answers_that_are_not_read_are_bounded_and_others_get_theirs() {
    let hall = Hall::open();
    let watch = hall.watch();
    begin_sensors(&hall, 3_000);
    let http = hall.http;
    let login = basic("mallory");
    let request =
        format!("GET /api/v1/sensors HTTP/1.1\r\nhost: {http}\r\nauthorization: {login}\r\n\r\n");
    let deaf: Vec<TcpStream> = (0..100)
        .map(|n| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            // The system keeps little of an answer for it.
            socket.set_recv_buffer_size(4096).unwrap();
            socket.connect(&http.into()).unwrap();
            let mut stream: TcpStream = socket.into();
            stream.write_all(request.as_bytes()).unwrap();
            // The answer has begun.
            stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
            let mut first = [0];
            assert_eq!(stream.read(&mut first).unwrap(), 1, "answer {n}");
            stream
        })
        .collect();
    assert_eq!(ask(http, "alice", "/api/v1/latest"), 200);
    assert_eq!(get(http, "/healthz"), 200);
    assert_eq!(ask(http, "mallory", "/api/v1/sensors"), 200, "whole for one that reads it");
    drop(deaf);
    hall.close("100 answers of 700 KB that are not read", watch);
}

/// What a constant of the source is: a product of numbers.
fn constant(file: &str, name: &str) -> u64 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file).with_extension("rs");
    let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let between = |start: &str, from: &str, to: &str| {
        let rest = source.split(start).nth(1).unwrap_or_else(|| panic!("{file} has no {name}"));
        rest.split(from).nth(1).unwrap().split(to).next().unwrap().to_owned()
    };
    let value = name.strip_prefix("HUMIDOR_").map_or_else(
        || between(&format!("const {name}: "), " = ", ";"),
        |setting| {
            let key = format!("key: \"{}\"", setting.to_lowercase());
            between(&key, "Some(\"", "\"")
        },
    );
    value.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>().unwrap()).product()
}

/// What a cell of the table says: a number, and a unit of bytes.
fn said(cell: &str) -> u64 {
    let (number, unit) = cell.split_once(' ').unwrap_or((cell, ""));
    let unit = match unit {
        "" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        other => panic!("{other} is no unit"),
    };
    number.replace(',', "").parse::<u64>().unwrap() * unit
}

#[test]
fn the_table_of_pools_is_what_the_code_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap();
    let section = text.split("### Pools").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---"))
        .skip(1)
        .map(|line| {
            line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect()
        })
        .collect();
    assert!(rows.len() > 20, "{} pools", rows.len());
    for row in &rows {
        let [pool, name, file, bound, share, full] = row[..] else { panic!("{row:?}") };
        assert_eq!(said(bound), constant(file, name), "{pool}");
        assert!(!share.is_empty() && !full.is_empty(), "{pool}");
    }
    // Parts of the log's largest size: the series keep three quarters.
    let parts = [
        ("store/mqtt/queue_counts", "ALL_SESSIONS_SHARE", "an eighth"),
        ("broker/delivery/retained_messages", "RETAINED_SHARE", "a 16th"),
        ("broker/delivery/retained_messages", "RETAINED_COMMAND_SHARE", "a 64th"),
        ("broker/session/registry", "WILL_SHARE", "a 32nd"),
        ("broker/session/registry", "SESSION_ROWS_SHARE", "a 64th"),
    ];
    let shares = parts.map(|(file, name, part)| {
        let share = constant(file, name);
        let number = part.trim_matches(|c: char| !c.is_ascii_digit());
        assert_eq!(share, number.parse().unwrap_or(8), "{name}");
        assert!(section.contains(&format!("by {part} (`{name}`)")), "{name}");
        64 / share
    });
    assert!(shares.iter().sum::<u64>() <= 64 / 4, "{shares:?} of 64");
    // Each pool that is shared by the rule of `shares` stands in it.
    for constant in [
        "BUFFER_BYTES",
        "PERSISTENT_SESSIONS",
        "SESSION_ROWS_BYTES",
        "SUBSCRIPTION_BYTES",
        "WILL_BYTES",
    ] {
        assert!(rows.iter().any(|row| row[1] == constant), "{constant}");
    }
}

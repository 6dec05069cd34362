//! Publish → committed → PUBACK beside Debian's mosquitto and rumqttd's stock broker, which store nothing, on the same
//! machine in the same run: `cargo bench --bench ingest`.
//!
//! Prints one line of JSON a figure: acknowledgements a second of both with their ratio, latency at a steady
//! 1,000 messages a second, and memory. Exits with 1 when a reading that was acknowledged is
//! not in the log.
//!
//! `INGEST_SECONDS` (5) and `INGEST_ROUNDS` (3) change how long it looks. Without mosquitto
//! (`docker/setup.sh peer`) the ratio is left out.

mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use load::{CONNECTIONS, Publisher, STEADY_PER_SECOND, latencies, ms, round, wait};
use serde_json::json;
use support::stock::stock_broker;
use support::{Client, broker, stored, wait_until};

/// Unacknowledged messages of each client, for the throughput.
const WINDOW: usize = 20;
/// Connections that are only there, for the memory.
const IDLE_CONNECTIONS: usize = 1000;

/// Acknowledgements a second with full windows, and how many were acknowledged in all, the last ones after the
/// end included.
fn throughput(address: SocketAddr, run: &str, lasting: Duration) -> (f64, u64) {
    let mut publishers: Vec<_> =
        (0..CONNECTIONS).map(|number| Publisher::connect(address, run, number)).collect();
    for publisher in &mut publishers {
        for _ in 0..WINDOW {
            publisher.publish(Instant::now());
        }
        publisher.write();
    }
    let start = Instant::now();
    let (mut acknowledged, mut in_time) = (0, None);
    while publishers.iter().any(|publisher| !publisher.due.is_empty()) {
        wait(&publishers, Duration::from_millis(100));
        let running = start.elapsed() < lasting;
        if !running && in_time.is_none() {
            in_time = Some((acknowledged, start.elapsed()));
        }
        for publisher in &mut publishers {
            let taken = publisher.read(|_| {});
            acknowledged += taken as u64;
            for _ in 0..if running { taken } else { 0 } {
                publisher.publish(start);
            }
            publisher.write();
        }
    }
    let (count, took) = in_time.unwrap_or((acknowledged, start.elapsed()));
    #[allow(clippy::cast_precision_loss)] // below 2^53
    (count as f64 / took.as_secs_f64(), acknowledged)
}

/// Debian's mosquitto on a port from the system, as fast as it goes: nothing logged, no delay before sending.
struct Mosquitto {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    fn start() -> Option<Self> {
        let program = ["mosquitto", "/usr/sbin/mosquitto"]
            .into_iter()
            .find(|program| Command::new(program).arg("-h").output().is_ok())?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?.port();
        let folder = tempfile::tempdir().ok()?;
        let file = folder.path().join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nlog_type none\npersistence false\n"
        );
        std::fs::write(&file, text).ok()?;
        let child =
            Command::new(program).arg("-c").arg(&file).stderr(Stdio::null()).spawn().ok()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        wait_until("mosquitto listens", || std::net::TcpStream::connect(address).is_ok());
        Some(Self { child, address, _folder: folder })
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory of a process in MB.
fn resident_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kb.unwrap_or(f64::NAN) / 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let lasting = Duration::from_secs(setting("INGEST_SECONDS", 5));
    let rounds = setting("INGEST_ROUNDS", 3).max(1);
    let folder = tempfile::tempdir().expect("a folder for the log");
    let (ours, address) = broker(folder.path(), "127.0.0.1:0", &[]);
    let idle_mb = resident_mb(ours.id());
    let mosquitto = Mosquitto::start();

    // In turn, so that what else the machine does meets both.
    let stock = stock_broker();
    let (mut own, mut peer, mut rumqttd, mut acknowledged) = (vec![], vec![], vec![], 0);
    for round in 0..rounds {
        let (rate, count) = throughput(address, &format!("t{round}"), lasting);
        own.push(rate);
        acknowledged += count;
        if let Some(mosquitto) = &mosquitto {
            peer.push(throughput(mosquitto.address, &format!("t{round}"), lasting).0);
        }
        rumqttd.push(throughput(stock, &format!("t{round}"), lasting).0);
    }
    let (own, peer) = (median(own), (!peer.is_empty()).then(|| median(peer)));
    println!(
        "{}",
        json!({
            "bench": "ingest", "connections": CONNECTIONS, "window": WINDOW, "seconds": lasting.as_secs(), "rounds": rounds,
            "humidor_committed_acks_per_s": own.round(), "mosquitto_acks_per_s": peer.map(f64::round),
            "ratio": peer.map(|peer| round(own / peer, 2)),
            // In the process of the load, as it has no program of its own; it acknowledges before it appends in memory.
            "rumqttd_acks_per_s": median(rumqttd).round(),
        })
    );

    let steady = latencies(address, "l", lasting);
    acknowledged += steady.len() as u64;
    let peer = mosquitto.as_ref().map(|mosquitto| latencies(mosquitto.address, "l", lasting));
    for (name, sorted) in [("humidor", Some(&steady)), ("mosquitto", peer.as_ref())]
        .into_iter()
        .filter_map(|(name, sorted)| Some((name, sorted?)))
    {
        println!(
            "{}",
            json!({
                "bench": "latency", "broker": name, "per_s": STEADY_PER_SECOND, "messages": sorted.len(),
                "p50_ms": ms(sorted, 0.5), "p99_ms": ms(sorted, 0.99), "max_ms": ms(sorted, 1.0),
            })
        );
    }

    let before = resident_mb(ours.id());
    let idle: Vec<Client> = (0..IDLE_CONNECTIONS)
        .map(|number| Client::connect(address, &format!("idle-{number}")))
        .collect();
    let crowded = resident_mb(ours.id());
    drop(idle);
    println!(
        "{}",
        json!({
            "bench": "memory", "started_mb": round(idle_mb, 1), "after_load_mb": round(before, 1),
            "connections": IDLE_CONNECTIONS, "with_connections_mb": round(crowded, 1),
        })
    );

    drop(ours);
    let rows = stored(folder.path());
    println!("{}", json!({ "bench": "kept", "acknowledged": acknowledged, "rows": rows }));
    assert!(
        u64::try_from(rows).is_ok_and(|rows| rows >= acknowledged),
        "an acknowledged reading is not in the log"
    );
}

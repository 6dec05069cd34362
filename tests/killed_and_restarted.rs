//! Promises 1 to 3 under `kill -9`: whatever a node has read ends up in the log, once and in order.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use humidor::node::Outbox;
use humidor::reading::{ClockState, Measurement, Stamp};
use support::{
    PATIENCE, Process, broker, humidor, kills, log, outbox, readings, side_by_side, stored,
    wait_until, wait_within,
};

/// How often a broker is killed in the middle of its work, and how many brokers are: each kill mostly waits for its nodes.
const BROKER_KILLS: usize = 5;
const BROKERS: usize = 4;
/// How often a node is.
const NODE_KILLS: usize = 5;
/// Readings that wait in each node's outbox at the start for each kill of the broker: the burst.
const BACKLOG: usize = 400;

/// A node with `sensors` simulated DHT11s, each read every second, the fastest there is.
fn node(name: &str, data: &Path, broker: SocketAddr, sensors: usize) -> Process {
    let sensors: Vec<String> = (1..=sensors).map(|n| format!("s{n}=dht11@chip:{n}")).collect();
    let mut command = humidor();
    command
        .args(["node", "--node", name, "--gpio", "sim", "--interval", "1s", "--sim-faults", "0"])
        .args(["--broker", &format!("mqtt://{broker}"), "--sensors", &sensors.join(",")])
        .arg("--data")
        .arg(data);
    Process::start(command)
}

/// Readings of an earlier run that no broker has taken yet.
fn fill(data: &Path, boot: &str, backlog: u32) {
    let outbox = Outbox::open(data, boot.parse().unwrap(), u64::from(backlog) * 2).unwrap();
    for n in 0..backlog {
        let stamp = Stamp {
            at_ms: 1_760_000_000_000 + i64::from(n) * 1000,
            clock: ClockState::Synced,
            mono_ms: u64::from(n) * 1000,
        };
        outbox.push(
            &"hall".parse().unwrap(),
            stamp,
            Measurement { temperature_dc: 215, humidity_dp: 571 },
        );
    }
    assert_eq!(outbox.depth(), u64::from(backlog));
}

/// Every number ever given by the outboxes is a row, no more and no less, and none waits.
fn assert_complete(log_data: &Path, nodes: &[&Path]) {
    let taken: i64 = nodes
        .iter()
        .map(|data| {
            let (taken, waiting) = outbox(data);
            assert_eq!(waiting, 0, "{} still waits", data.display());
            taken
        })
        .sum();
    let rows = readings(log_data);
    assert_eq!(i64::try_from(rows.len()).unwrap(), taken, "rows = readings taken");
    let mut keys: Vec<_> = rows.iter().map(|row| (&row.node, &row.boot, row.seq)).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), rows.len(), "no duplicates");
    assert_eq!(log(log_data).gaps().unwrap(), [], "no gaps");
    assert_eq!(log(log_data).check().unwrap(), Vec::<String>::new(), "the file is sound");
}

#[test]
fn killing_the_broker_again_and_again_loses_and_doubles_nothing() {
    side_by_side(&[("a broker that is killed", kill_a_broker as fn()); BROKERS]);
}

fn kill_a_broker() {
    let folder = tempfile::tempdir().unwrap();
    let [log_data, press, roof] = ["log", "press", "roof"].map(|name| folder.path().join(name));
    let kills = kills(BROKER_KILLS);
    let backlog = u32::try_from(BACKLOG * kills).unwrap();
    fill(&press, "backlog-1", backlog);
    fill(&roof, "backlog-2", backlog);

    // A slow commit keeps a part of the burst between the socket and the disk at every kill, and some of
    // the backlog for the last one.
    let slow = ["--commit-window", "100ms"];
    let (mut running, address) = broker(&log_data, "127.0.0.1:0", &slow);
    let nodes = [node("press", &press, address, 3), node("roof", &roof, address, 3)];
    for _ in 0..kills {
        let before = stored(&log_data);
        // So many that both connections have proved themselves: the nodes then return soon.
        wait_until("some more readings are stored", || stored(&log_data) >= before + 100);
        running.kill_9();
        (running, _) = broker(&log_data, &address.to_string(), &slow);
    }
    assert!(
        outbox(&press).1 + outbox(&roof).1 > 0,
        "the last kill was in the middle of the burst too"
    );
    let drained = || outbox(&press).1 < 10 && outbox(&roof).1 < 10;
    wait_within(PATIENCE * u32::try_from(kills).unwrap(), "both backlogs are drained", drained);
    for node in nodes {
        assert_eq!(node.terminate(), Some(0));
    }
    assert_eq!(running.terminate(), Some(0));
    assert_complete(&log_data, &[&press, &roof]);
}

#[test]
fn killing_a_node_again_and_again_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [log_data, press] = ["log", "press"].map(|name| folder.path().join(name));
    let (running, address) = broker(&log_data, "127.0.0.1:0", &[]);
    let kills = kills(NODE_KILLS);
    for _ in 0..kills {
        let before = stored(&log_data);
        let node = node("press", &press, address, 30);
        wait_until("some more readings are stored", || stored(&log_data) >= before + 40);
        node.kill_9();
    }
    let last = node("press", &press, address, 1);
    let runs =
        || readings(&log_data).into_iter().map(|row| row.boot).collect::<BTreeSet<_>>().len();
    wait_until("every run has reported, each under its own name", || runs() == kills + 1);
    assert_eq!(last.terminate(), Some(0));
    assert_eq!(running.terminate(), Some(0));
    assert_complete(&log_data, &[&press]);
}

#[test]
fn a_node_keeps_reading_without_a_broker_and_delivers_in_order_when_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let [log_data, roof] = ["log", "roof"].map(|name| folder.path().join(name));
    // A port that was just free, so that nobody answers on it.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node = node("roof", &roof, address, 20);
    node.said("readings wait in the outbox");
    wait_until("readings wait", || {
        roof.join(humidor::node::OUTBOX_FILE).exists() && outbox(&roof).1 >= 60
    });

    let (running, _) = broker(&log_data, &address.to_string(), &[]);
    wait_until("the outbox is drained", || outbox(&roof).1 == 0);
    assert_eq!(node.terminate(), Some(0));
    assert_eq!(running.terminate(), Some(0));
    assert_complete(&log_data, &[&roof]);
    let mut rows = readings(&log_data);
    rows.sort_by_key(|row| row.seq);
    assert!(rows.is_sorted_by_key(|row| row.at), "numbers and times agree on the order");
}

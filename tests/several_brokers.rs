//! A board that knows several brokers: the next one serves while the preferred one is away, and nothing is lost or doubled on
//! the way there and back.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use humidor::node::{Brokers, DeliveryTimes, NodeConfig};
use rumqttc::{Packet, QoS};
use support::board::{Board, config, earlier, fill};
use support::fake_broker::{FakeBroker, OnConnect, OnPublish, with};
use support::{Client, broker, readings, side_by_side, wait_until};

/// An output's limit, longer than a change of brokers takes.
const AWAY: Duration = Duration::from_secs(20);

fn times() -> DeliveryTimes {
    DeliveryTimes {
        acknowledged_within: Duration::from_secs(2),
        proved_after: Duration::from_secs(1),
        return_after: Duration::from_secs(1),
        ..DeliveryTimes::default()
    }
}

/// Makes these the brokers of `node`. Returns the number of its preferred one.
fn choose(node: &mut NodeConfig, addresses: [SocketAddr; 2]) -> usize {
    let brokers: Brokers =
        format!("mqtt://{},mqtt://{}", addresses[0], addresses[1]).parse().unwrap();
    let preferred = brokers.in_order_for(&node.node)[0].to_string();
    (node.brokers, node.times) = (brokers, times());
    addresses.iter().position(|it| preferred.ends_with(&it.port().to_string())).unwrap()
}

fn status_at(address: SocketAddr, node: &str) -> String {
    let mut client = Client::connect(address, "looker");
    client.subscribe(&format!("humidor/{node}/status"), QoS::AtMostOnce);
    match client.receive() {
        Some(Packet::Publish(publish)) => String::from_utf8(publish.payload.to_vec()).unwrap(),
        other => panic!("no status at {address}: {other:?}"),
    }
}

fn a_killed_broker_is_replaced_and_gets_its_board_back() {
    const COUNT: u64 = 5_000;
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [first, second] = [0, 1].map(|n| broker(folders[n].path(), "127.0.0.1:0", &[]));
    let addresses = [first.1, second.1];
    let mut processes = [Some(first.0), Some(second.0)];
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), COUNT);
    let fake = FakeBroker::start(vec![with(|_| {})]);
    let mut node = config("mover", data.path(), fake.address, AWAY);
    let preferred = choose(&mut node, addresses);
    let other = 1 - preferred;
    let board = Board::start(node);
    let at = |n: usize| format!("connected to mqtt://{} ", addresses[n]);
    let stored = |n: usize| support::stored(folders[n].path());

    wait_until("readings come to the preferred broker", || stored(preferred) > 0);
    processes[preferred].take().unwrap().kill_9();
    wait_until("the other one serves", || board.health().1.contains(&at(other)));
    wait_until("the outbox is empty", || support::outbox(data.path()).1 == 0);
    assert_eq!(status_at(addresses[other], "mover"), "online");

    let (again, address) =
        broker(folders[preferred].path(), &addresses[preferred].to_string(), &[]);
    assert_eq!(address, addresses[preferred]);
    processes[preferred] = Some(again);
    wait_until("the board is back", || board.health().1.contains(&at(preferred)));
    wait_until("its status follows", || status_at(addresses[preferred], "mover") == "online");
    wait_until("and tells that it has left", || status_at(addresses[other], "mover") == "offline");

    for process in processes.into_iter().flatten() {
        process.terminate();
    }
    // Those in flight at the kill may be at both: each broker has one row of each, and together they have all.
    let mut rows: BTreeMap<i64, usize> = BTreeMap::new();
    for folder in &folders {
        let readings = readings(folder.path());
        let mut numbers: Vec<i64> = readings.iter().map(|it| it.seq).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "one broker has a reading twice");
        for number in numbers {
            *rows.entry(number).or_default() += 1;
        }
    }
    assert_eq!(rows.len() as u64, COUNT);
}

fn an_output_keeps_its_state_on_the_way_and_obeys_the_next_broker() {
    let data = tempfile::tempdir().unwrap();
    let command = || with(|it| it.commands = vec!["ON".to_owned()]);
    let brokers = [FakeBroker::start(vec![command()]), FakeBroker::start(vec![with(|_| {})])];
    let mut node = config("switch-0", data.path(), brokers[0].address, AWAY);
    // A node whose preferred broker is the first.
    for n in 0.. {
        node.node = format!("switch-{n}").parse().unwrap();
        if choose(&mut node, [brokers[0].address, brokers[1].address]) == 0 {
            break;
        }
    }
    let name = node.node.to_string();
    let _board = Board::start(node);
    wait_until("it is switched on", || brokers[0].last("/output/fan").as_deref() == Some("ON"));
    brokers[0].become_(&with(|it| it.connect = OnConnect::Refuse(5)));
    brokers[0].cut();
    wait_until("the other broker knows", || brokers[1].last("/output/fan").is_some());
    assert_eq!(brokers[1].last("/output/fan").as_deref(), Some("ON"), "it went to its safe state");
    wait_until("commands are expected there", || {
        brokers[1].with_seen(|seen| seen.iter().any(|it| it.subscribed.len() == 2))
    });
    brokers[1].command(&name, "OFF", 7);
    wait_until("it obeys", || brokers[1].last("/output/fan").as_deref() == Some("OFF"));
}

fn a_broker_that_acknowledges_nothing_is_passed_over() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 50);
    let mute = || with(|it| it.publish = OnPublish::Never);
    let brokers = [FakeBroker::start(vec![mute()]), FakeBroker::start(vec![mute()])];
    let mut node = config("unheard", data.path(), brokers[0].address, AWAY);
    let preferred = choose(&mut node, [brokers[0].address, brokers[1].address]);
    brokers[1 - preferred].become_(&with(|_| {}));
    let _board = Board::start(node);
    wait_until("the other one has them all", || earlier(&brokers[1 - preferred]) == 50);
    assert!(brokers[preferred].connects() >= 2, "it was given up at once");
}

/// Two boards of one id stay at one broker, which says so; each at a broker of its own would look right.
fn a_broker_that_closes_connections_keeps_its_board() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 50);
    let closing = || with(|it| it.close_after = Some(0));
    let brokers = [FakeBroker::start(vec![closing()]), FakeBroker::start(vec![closing()])];
    let mut node = config("twin", data.path(), brokers[0].address, AWAY);
    let preferred = choose(&mut node, [brokers[0].address, brokers[1].address]);
    let board = Board::start(node);
    wait_until("it is noticed", || board.health().1.contains("another board may use this node id"));
    assert_eq!(brokers[1 - preferred].connects(), 0);
}

#[test]
fn a_board_has_several_brokers() {
    side_by_side(&[
        ("killed", a_killed_broker_is_replaced_and_gets_its_board_back),
        ("output", an_output_keeps_its_state_on_the_way_and_obeys_the_next_broker),
        ("mute", a_broker_that_acknowledges_nothing_is_passed_over),
        ("twin", a_broker_that_closes_connections_keeps_its_board),
    ]);
}

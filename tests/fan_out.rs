//! Fan-out: a subscriber gets each message once, or the loss is counted under its client id; and the broker's memory
//! follows what is subscribed and what waits now, not what ever was.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use support::flood::{END, LARGE, Load, Publisher, SMALL, assert_ascending, number, read_all};
use support::packets::{self, PUBACK, Packet, SUBACK, UNSUBACK, Wire};
use support::{Process, wait_until};

/// Messages that a publisher of tiny ones may be ahead of its subscribers: far less than may wait for one of them.
const LEAD: usize = 500;
/// Most memory that the broker may ever have had for one subscriber with many overlapping filters, KiB.
const PEAK_MAX_KIB: u64 = 40 * 1024;
/// Most that the peak may grow when the same load comes again under other names, KiB: far less than the filters and topics
/// of a round take.
const GROWTH_MAX_KIB: u64 = 1024;
/// Rounds in which the peak may still grow: how much waits at once is the scheduler's chance, and a peak of it passes the
/// one before now and then. What is kept for good makes every round's higher.
const ROUNDS_MAX: usize = 6;
/// Reports of `$SYS` that may pass before one has the right count. The first may have been made too early.
const REPORTS: usize = 3;

/// What a subscriber did not get of what was acknowledged, by client id.
type Lost = (String, u64);

/// A broker and the address of its metrics.
struct Broker {
    process: Process,
    address: SocketAddr,
    http: SocketAddr,
    _data: tempfile::TempDir,
}

impl Broker {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let (process, address) = support::broker(data.path(), "127.0.0.1:0", &[]);
        let line = process.said("listening for HTTP");
        let http = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
        Self { process, address, http, _data: data }
    }

    /// Checks the counts of dropped messages by client id, which are exact and add up to the total.
    fn assert_dropped(&self, lost: &[Lost]) {
        let all: u64 = lost.iter().map(|(_, count)| count).sum();
        let mut watcher = Wire::connect(self.address, "watcher", true);
        let (total_topic, of_client) =
            ("$SYS/broker/publish/messages/dropped", "$SYS/broker/clients/dropped/");
        watcher.subscribe(&[(total_topic, 0), (&format!("{of_client}+"), 0)]);
        let (mut total, mut clients, mut reports) = (None, HashMap::new(), 0);
        loop {
            let message = watcher.message();
            // A retained one may be older than the last message.
            if message.retain {
                continue;
            }
            let count: u64 = String::from_utf8(message.payload).unwrap().parse().unwrap();
            if let Some(client) = message.topic.strip_prefix(of_client) {
                clients.insert(client.to_owned(), count);
            } else {
                (total, reports) = (Some(count), reports + 1);
            }
            let exact = |(client, count): &Lost| clients.get(client).unwrap_or(&0) == count;
            if total == Some(all) && lost.iter().all(exact) {
                break;
            }
            assert!(
                reports < REPORTS,
                "lost by acknowledgements and receipts: {lost:?}; $SYS says {total:?} in all, by client {clients:?}"
            );
        }
        let metrics = support::http::get(self.http, "/metrics");
        let name = "humidor_client_messages_dropped_total";
        if metrics.text().contains(&format!("{name}{{")) {
            for (client, count) in lost.iter().filter(|(_, count)| *count > 0) {
                let line = format!("{name}{{client=\"{client}\"}} {count}");
                assert!(metrics.text().lines().any(|found| found == line), "no `{line}`");
            }
        }
    }
}

/// One subscriber with 60 filters that match one topic of six levels, and 12,000 one-byte messages.
///
/// # Errors
/// How many came, when it was not each of them once and in order.
fn overlapping_filters(address: SocketAddr, name: &str) -> Result<(), String> {
    /// Filters out of the 64 that six levels, each literal or `+`, make.
    const FILTERS: usize = 60;
    const MESSAGES: usize = 12_000;
    let levels = [name, "b", "c", "d", "e", "f"];
    let filters: Vec<String> = (0..FILTERS)
        .map(|bits| {
            let level = |(n, level)| if bits >> n & 1 == 1 { "+" } else { level };
            levels.into_iter().enumerate().map(level).collect::<Vec<_>>().join("/")
        })
        .collect();
    let mut subscriber = Wire::connect(address, &format!("overlapping-{name}"), true);
    let wanted: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
    assert_eq!(subscriber.subscribe(&wanted), [1; FILTERS]);
    let progress = Arc::default();
    let reading = read_all(subscriber, &progress);
    let mut publisher = Publisher::connect(address, &format!("publisher-{name}"));
    let (topic, byte) = (levels.join("/"), |n: usize| u8::try_from(n % 251).unwrap());
    for n in 0..MESSAGES {
        progress.wait_for(n.saturating_sub(LEAD));
        publisher.publish(&topic, u8::from(n % 2 == 1), &[byte(n)]);
    }
    publisher.publish(&topic, 1, END);
    publisher.settle();
    let (_, numbers) = reading.join().unwrap();
    let each_once = numbers.iter().copied().eq((0..MESSAGES).map(|n| u32::from(byte(n))));
    let received = numbers.len();
    each_once.then_some(()).ok_or_else(|| format!("{received} received for {MESSAGES} published"))
}

/// More distinct filters and topics than the broker once could have until a restart.
fn many_filters_and_topics(address: SocketAddr, name: &str) {
    const CLIENTS: usize = 6;
    const FILTERS: usize = 600;
    const TOPICS: usize = 25_000;
    let progress = Arc::default();
    let reading: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let mut subscriber = Wire::connect(address, &format!("many-{name}-{client}"), true);
            let filters: Vec<String> =
                (client..FILTERS).step_by(CLIENTS).map(|n| format!("{name}/{n}/+")).collect();
            let wanted: Vec<(&str, u8)> =
                filters.iter().map(|filter| (filter.as_str(), 1)).collect();
            assert_eq!(subscriber.subscribe(&wanted), [1; FILTERS / CLIENTS]);
            read_all(subscriber, &progress)
        })
        .collect();
    let mut publisher = Publisher::connect(address, &format!("publisher-{name}"));
    for n in 0..TOPICS {
        progress.wait_for(n.saturating_sub(LEAD));
        let number = u32::try_from(n).unwrap();
        publisher.publish(&format!("{name}/{}/{n}", n % FILTERS), 1, &number.to_be_bytes());
    }
    for client in 0..CLIENTS {
        publisher.publish(&format!("{name}/{client}/0"), 1, END);
    }
    publisher.settle();
    let mut numbers: Vec<u32> =
        reading.into_iter().flat_map(|reading| reading.join().unwrap().1).collect();
    numbers.sort_unstable();
    assert_ascending(&numbers);
    assert_eq!(numbers.len(), TOPICS, "messages on distinct topics delivered");
}

/// Filters that share no level with each other, of sessions that end with their connections.
fn deep_filters(address: SocketAddr, name: &str) {
    const CLIENTS: usize = 40;
    const FILTERS: usize = 100;
    for client in 0..CLIENTS {
        let mut subscriber = Wire::connect(address, &format!("deep-{name}-{client}"), true);
        let filter = |n| format!("{name}-{client}-{n}/a/b/c/d/e/f/+");
        let filters: Vec<String> = (0..FILTERS).map(filter).collect();
        let wanted: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
        assert_eq!(subscriber.subscribe(&wanted), [1; FILTERS]);
    }
}

/// When a flooded subscriber reads.
#[derive(Debug, Clone, Copy)]
enum Reads {
    /// All the time, and the publisher waits for it when it is behind.
    Paced,
    /// All the time.
    Always,
    /// Only when everything has been published.
    Afterwards,
}

/// Floods a subscriber with both loads in turn, a client id for each. The connections stay open.
fn flood(address: SocketAddr, name: &str, reads: Reads) -> (Vec<Wire>, Vec<Lost>) {
    let mut publisher = Publisher::connect(address, &format!("publisher-{name}"));
    let flooded = |load: Load| {
        let (client, topic) = (format!("{name}-{}", load.name), format!("{name}/{}", load.name));
        let mut subscriber = Wire::connect(address, &client, true);
        subscriber.subscribe(&[(&topic, 1)]);
        let progress = Arc::default();
        let (acknowledged, reading) = match reads {
            Reads::Afterwards => {
                let acknowledged = publisher.flood(&topic, load, |_| {});
                (acknowledged, read_all(subscriber, &progress))
            }
            Reads::Always | Reads::Paced => {
                let reading = read_all(subscriber, &progress);
                let pace = |n: usize| {
                    if matches!(reads, Reads::Paced) {
                        progress.wait_for(n.saturating_sub(load.lead));
                    }
                };
                (publisher.flood(&topic, load, pace), reading)
            }
        };
        let (subscriber, numbers) = reading.join().unwrap();
        assert_ascending(&numbers);
        (subscriber, (client, acknowledged - numbers.len() as u64))
    };
    [LARGE, SMALL].map(flooded).into_iter().unzip()
}

#[test]
fn sixty_filters_that_match_cost_the_memory_of_one_and_bring_each_message_once() {
    let broker = Broker::start();
    let each_once = overlapping_filters(broker.address, "a");
    let peak = broker.process.peak_kib();
    println!("peak {peak} KiB");
    assert!(peak <= PEAK_MAX_KIB, "{peak} KiB at the peak, {PEAK_MAX_KIB} allowed; {each_once:?}");
    each_once.unwrap();
}

#[test]
fn a_subscriber_that_is_never_behind_by_more_than_may_wait_for_it_gets_everything() {
    let broker = Broker::start();
    let (_connected, lost) = flood(broker.address, "paced", Reads::Paced);
    assert!(lost.iter().all(|(_, count)| *count == 0), "not delivered: {lost:?}");
}

#[test]
fn a_subscriber_that_reads_all_the_time_gets_everything() {
    let broker = Broker::start();
    let (_connected, lost) = flood(broker.address, "reads", Reads::Always);
    assert!(lost.iter().all(|(_, count)| *count == 0), "not delivered: {lost:?}");
}

#[test]
fn what_a_reading_subscriber_does_not_get_is_counted_under_its_client_id() {
    let broker = Broker::start();
    let (_connected, lost) = flood(broker.address, "reads", Reads::Always);
    println!("lost {lost:?}");
    broker.assert_dropped(&lost);
}

#[test]
fn what_a_subscriber_loses_while_it_does_not_read_is_counted_under_its_client_id() {
    let broker = Broker::start();
    let (_connected, lost) = flood(broker.address, "unread", Reads::Afterwards);
    println!("lost {lost:?}");
    assert!(lost.iter().all(|(_, count)| *count > 0), "bounded queues must overflow: {lost:?}");
    broker.assert_dropped(&lost);
}

#[test]
fn six_hundred_filters_and_25_000_topics_are_served() {
    let broker = Broker::start();
    many_filters_and_topics(broker.address, "hall");
}

#[test]
fn memory_does_not_grow_with_filters_and_topics_that_are_gone() {
    let broker = Broker::start();
    let health = format!("@humidor-broker-{}", broker.address.port());
    let answers = || std::fs::read_to_string("/proc/net/unix").unwrap().contains(&health);
    wait_until("the broker answers for its health", answers);
    // From the first answer to a publish on all that stays open is there, and this connection.
    let mut first = Wire::connect(broker.address, "first", true);
    first.send(&packets::publish("first", 1, false, 1, b"1"));
    assert!(matches!(first.receive(), Packet::Answer(PUBACK, _)));
    let before = broker.process.sockets();
    let mut peaks: Vec<u64> = Vec::new();
    let grows = |peaks: &[u64]| match peaks {
        [.., before, last] => *last > before + GROWTH_MAX_KIB,
        _ => true,
    };
    while grows(&peaks) {
        let rounds = peaks.len();
        assert!(rounds < ROUNDS_MAX, "{peaks:?} KiB at the peaks of like rounds: each grew");
        let round = format!("round-{rounds}");
        many_filters_and_topics(broker.address, &round);
        deep_filters(broker.address, &round);
        wait_until("the clients are gone", || broker.process.sockets() <= before);
        peaks.push(broker.process.peak_kib());
    }
    println!("peaks {peaks:?} KiB");
}

#[test]
fn a_retained_message_published_during_a_subscribe_comes_once() {
    // [MQTT-3.3.1-6]
    const ROUNDS: usize = 500;
    /// Retained messages of a round. The SUBSCRIBEs are sent beside one of them.
    const VALUES: u8 = 4;
    let broker = Broker::start();
    let mut publisher = Wire::connect(broker.address, "publisher", true);
    // Client id, clean session, granted QoS.
    let kinds = [("clean-0", true, 0), ("clean-1", true, 1), ("persistent-1", false, 1)];
    let mut subscribers = kinds.map(|(id, clean, _)| Wire::connect(broker.address, id, clean));
    let mut wrong: BTreeMap<&str, BTreeMap<Vec<u8>, usize>> = BTreeMap::new();
    for round in 0..ROUNDS {
        let topic = format!("retained/{round}");
        let beside = u8::try_from(round % usize::from(VALUES)).unwrap() + 1;
        for value in 1..=VALUES {
            let publish = packets::publish(&topic, 1, true, u16::from(value), &[value]);
            let mut subscribe = || {
                for (subscriber, (.., qos)) in subscribers.iter_mut().zip(kinds) {
                    subscriber.send(&packets::subscribe(1, &[(&topic, qos)]));
                }
            };
            let (first, then) =
                (value == beside && round % 8 < 4, value == beside && round % 8 >= 4);
            if first {
                subscribe();
            }
            publisher.send(&publish);
            if then {
                subscribe();
            }
            expect_puback(&mut publisher);
        }
        let mut received = [const { Vec::new() }; 3];
        for (subscriber, values) in subscribers.iter_mut().zip(&mut received) {
            receive_until(subscriber, SUBACK, values);
        }
        publisher.send(&packets::publish(&topic, 1, false, 9, END));
        expect_puback(&mut publisher);
        for ((subscriber, mut values), (id, ..)) in subscribers.iter_mut().zip(received).zip(kinds)
        {
            while values.last().is_none_or(|payload: &Vec<u8>| payload != END) {
                values.push(subscriber.message().payload);
            }
            subscriber.send(&packets::unsubscribe(2, &topic));
            receive_until(subscriber, UNSUBACK, &mut values);
            let values: Vec<u8> =
                values.iter().filter(|payload| *payload != END).map(|payload| payload[0]).collect();
            let consecutive = values.windows(2).all(|pair| pair[1] == pair[0] + 1);
            if !consecutive || values.last() != Some(&VALUES) {
                *wrong.entry(id).or_default().entry(values).or_default() += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "of {ROUNDS} rounds, by what came of 1 to {VALUES}: {wrong:?}");
}

fn expect_puback(wire: &mut Wire) {
    let answer = wire.receive();
    assert!(matches!(answer, Packet::Answer(PUBACK, _)), "no PUBACK but {answer:?}");
}

/// Takes messages until an answer of that type.
fn receive_until(wire: &mut Wire, answer: u8, payloads: &mut Vec<Vec<u8>>) {
    loop {
        match wire.receive() {
            Packet::Message(message) => {
                if message.qos == 1 {
                    wire.send(&packets::puback(message.packet_id));
                }
                payloads.push(message.payload);
            }
            Packet::Answer(kind, _) if kind == answer => return,
            other @ Packet::Answer(..) => panic!("no answer of type {answer} but {other:?}"),
        }
    }
}

#[test]
fn a_message_comes_once_while_one_of_two_overlapping_subscriptions_changes_its_qos() {
    const ROUNDS: u32 = 400;
    /// Messages of a round; the SUBSCRIBE is sent after half of them.
    const MESSAGES: u32 = 8;
    let broker = Broker::start();
    for unchanged in [0, 1] {
        let mut publisher = Publisher::connect(broker.address, "publisher");
        let mut subscriber = Wire::connect(broker.address, &format!("changes-{unchanged}"), false);
        let (filter, topic) = (format!("{unchanged}/+"), format!("{unchanged}/a"));
        subscriber.subscribe(&[(&format!("{unchanged}/#"), unchanged), (&filter, 0)]);
        let mut payloads = Vec::new();
        for round in 0..ROUNDS {
            for n in 0..MESSAGES {
                if n == MESSAGES / 2 {
                    let qos = u8::from(round % 2 == 0);
                    subscriber.send(&packets::subscribe(2, &[(&filter, qos)]));
                }
                publisher.publish(&topic, 1, &(round * MESSAGES + n).to_be_bytes());
            }
            publisher.settle();
            receive_until(&mut subscriber, SUBACK, &mut payloads);
        }
        // The last one of each way that a message can come.
        for qos in [1, 0] {
            subscriber.send(&packets::subscribe(3, &[(&filter, qos)]));
            receive_until(&mut subscriber, SUBACK, &mut payloads);
            publisher.publish(&topic, 1, END);
            publisher.settle();
            while payloads.last().is_none_or(|payload| payload != END) {
                payloads.push(subscriber.message().payload);
            }
        }
        let mut times: HashMap<u32, usize> = HashMap::new();
        for payload in payloads.iter().filter(|payload| *payload != END) {
            *times.entry(number(payload)).or_default() += 1;
        }
        let all = ROUNDS * MESSAGES;
        let missing = (0..all).filter(|n| !times.contains_key(n)).count();
        let again = times.values().filter(|times| **times > 1).count();
        assert_eq!(
            (missing, again),
            (0, 0),
            "of {all} missing and more than once; unchanged QoS {unchanged}"
        );
    }
}

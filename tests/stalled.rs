//! Promise 1 while the store cannot commit: what was acknowledged before or after is stored and passed on once, whoever
//! comes, goes or takes over meanwhile, and a subscriber goes on receiving.

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, Packet, PubAck, PubComp, PubRec, PubRel, Publish};
use rusqlite::Connection;
use support::{Client, broker, stored, telemetry, wait_until};

/// Batches that wait for the writer, and clients enough to fill the queue and to stand before it.
const QUEUE: (usize, usize) = (256, 300);
/// A connection that was taken over keeps what it has begun for no longer; twice as long as the broker says.
const LET_GO: Duration = Duration::from_secs(1);

fn persistent(id: &str) -> Connect {
    let mut connect = Connect::new(id);
    connect.clean_session = false;
    connect.keep_alive = 0;
    connect
}

/// Another program's lock on the log: every commit fails until it is dropped, as on a full disk.
struct Stall(Connection);

impl Stall {
    fn begin(data: &Path) -> Self {
        let connection = Connection::open(data.join("humidor.db")).unwrap();
        connection.busy_timeout(support::PATIENCE).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(connection)
    }

    fn end(self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

fn qos_2(topic: &str, pkid: u16, payload: &[u8], dup: bool) -> Packet {
    let mut publish = Publish::new(topic, QoS::ExactlyOnce, payload);
    publish.pkid = pkid;
    publish.dup = dup;
    Packet::Publish(publish)
}

/// The rest of a `QoS` 2 exchange, from the PUBLISH on.
fn complete(client: &mut Client, pkid: u16) {
    let received = client.receive();
    assert!(
        matches!(received, Some(Packet::PubRec(PubRec { pkid: id, .. })) if id == pkid),
        "{received:?}"
    );
    client.send(&Packet::PubRel(PubRel { pkid }));
    let completed = client.receive();
    assert!(
        matches!(completed, Some(Packet::PubComp(PubComp { pkid: id, .. })) if id == pkid),
        "{completed:?}"
    );
}

/// Payloads of the next `count` messages, each acknowledged.
fn messages(client: &mut Client, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        match client.receive() {
            Some(Packet::Publish(publish)) => {
                payloads.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                match publish.qos {
                    QoS::AtMostOnce => {}
                    QoS::AtLeastOnce => client.send(&Packet::PubAck(PubAck::new(publish.pkid))),
                    QoS::ExactlyOnce => panic!("nobody subscribed to that"),
                }
            }
            other => panic!("no message but {other:?}"),
        }
    }
    payloads
}

/// Opens the connection that takes `id` over and waits until the broker has had time to let the other one go. Its
/// CONNACK needs a commit and comes later.
fn take_over(address: SocketAddr, id: &str, old: &mut Client) -> Client {
    let mut new = Client::open(address);
    new.send(&Packet::Connect(persistent(id)));
    let since = Instant::now();
    assert_eq!(old.receive(), None, "the old connection is closed");
    std::thread::sleep(LET_GO.saturating_sub(since.elapsed()));
    new
}

fn accepted(client: &mut Client) {
    let answer = client.receive();
    assert!(matches!(answer, Some(Packet::ConnAck(ref ack)) if ack.session_present), "{answer:?}");
}

#[test]
fn a_persistent_subscriber_goes_on_receiving_after_a_commit_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, address) = broker(folder.path(), "127.0.0.1:0", &[]);
    let (mut subscriber, _) = Client::connect_with(address, &persistent("subscriber"));
    subscriber.subscribe("t", QoS::AtLeastOnce);
    let mut publisher = Client::connect(address, "publisher");
    for pkid in 1..=5 {
        publisher.publish("t", QoS::AtLeastOnce, pkid, pkid.to_string().as_bytes());
        publisher.expect_puback(pkid);
    }
    assert_eq!(messages(&mut subscriber, 5), ["1", "2", "3", "4", "5"]);
    // Its acknowledgements are on the disk: nothing waits that could give its numbers away.
    let log = Connection::open(folder.path().join("humidor.db")).unwrap();
    let waiting =
        || log.query_one("SELECT count(*) FROM queued", [], |row| row.get::<_, i64>(0)).unwrap();
    wait_until("nothing waits in the log", || waiting() == 0);

    let stall = Stall::begin(folder.path());
    publisher.publish("t", QoS::AtLeastOnce, 6, b"6");
    broker.said("cannot commit");
    stall.end();
    publisher.expect_puback(6);
    publisher.publish("t", QoS::AtLeastOnce, 7, b"7");
    publisher.expect_puback(7);
    assert_eq!(messages(&mut subscriber, 2), ["6", "7"]);
}

#[test]
fn what_a_connection_left_to_the_writer_is_passed_on_once() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, address) = broker(folder.path(), "127.0.0.1:0", &[]);
    let mut live = Client::connect(address, "live");
    live.subscribe("t", QoS::AtMostOnce);
    let (mut publisher, _) = Client::connect_with(address, &persistent("publisher"));
    let stall = Stall::begin(folder.path());
    publisher.send(&qos_2("t", 7, b"precious", false));
    broker.said("cannot commit");
    let mut again = take_over(address, "publisher", &mut publisher);
    stall.end();
    accepted(&mut again);
    again.send(&qos_2("t", 7, b"precious", true));
    complete(&mut again, 7);
    again.publish("t", QoS::AtLeastOnce, 8, b"next");
    again.expect_puback(8);
    assert_eq!(messages(&mut live, 2), ["precious", "next"]);
}

#[test]
fn what_never_reached_the_writer_was_never_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = broker(folder.path(), "127.0.0.1:0", &[]);
    let line = process.said("listening for HTTP");
    let http: SocketAddr = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    let queued = || {
        let metrics = support::http::get(http, "/metrics");
        let line = metrics.text().lines().find(|line| line.starts_with("humidor_commit_queue "));
        line.and_then(|line| line.rsplit(' ').next())
            .and_then(|count| count.parse::<f64>().ok())
            .unwrap()
    };

    let (mut node, _) = Client::connect_with(address, &persistent("node"));
    let mut others: Vec<Client> =
        (0..QUEUE.1).map(|n| Client::connect(address, &format!("c{n}"))).collect();
    let stall = Stall::begin(folder.path());
    let reading = |n: u64| telemetry("b", 1000 + n);
    others[0].publish("humidor/n/sensor/s", QoS::AtLeastOnce, 1, &reading(0));
    // The writer takes no more until it has committed this one.
    process.said("cannot commit");
    for (n, other) in (1..).zip(&mut others[1..]) {
        other.publish("humidor/n/sensor/s", QoS::AtLeastOnce, 1, &reading(n));
    }
    #[allow(clippy::cast_precision_loss)]
    wait_until("the queue is full", || queued() >= QUEUE.0 as f64);
    // In one piece: the answer to the PINGREQ says that the PUBLISH before it was taken.
    let mut both = BytesMut::new();
    let reading = qos_2("humidor/n/sensor/s", 7, &telemetry("b", 7), false);
    reading.write(&mut both, usize::MAX).unwrap();
    Packet::PingReq.write(&mut both, usize::MAX).unwrap();
    node.stream.write_all(&both).unwrap();
    assert!(matches!(node.receive(), Some(Packet::PingResp)));
    let again = take_over(address, "node", &mut node);
    drop(again);
    stall.end();
    for other in &mut others {
        other.expect_puback(1);
    }
    let (mut node, _) = Client::connect_with(address, &persistent("node"));
    node.send(&qos_2("humidor/n/sensor/s", 7, &telemetry("b", 7), true));
    complete(&mut node, 7);
    assert_eq!(stored(folder.path()), i64::try_from(QUEUE.1).unwrap() + 1);
}

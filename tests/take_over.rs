//! A take-over loses nothing that the client had already sent: neither its messages nor its DISCONNECT, after which no
//! will is published ([MQTT-3.14.4-3]).

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use support::packets::{self, Packet, Wire};
use support::{PATIENCE, broker};

/// Take-overs of one kind.
const ROUNDS: u32 = 40;
/// Connections that wait for no answer at once.
const IN_FLIGHT: usize = 40;
/// Take-overs in the long form.
const MANY_ROUNDS: u32 = 1000;

/// What a connection sends before its DISCONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A message at QoS 0.
    Plain,
    /// A retained message at QoS 0, which needs a commit.
    Retained,
    /// A message at QoS 1, whose PUBACK the client does not wait for.
    Acknowledged,
    /// A retained message that is deleted again.
    Deleted,
    /// A burst of messages at QoS 0 and 1, larger than one read and one commit.
    Burst,
}

const KINDS: [Kind; 5] =
    [Kind::Plain, Kind::Retained, Kind::Acknowledged, Kind::Deleted, Kind::Burst];

impl Kind {
    fn packets(self, round: u32) -> Vec<u8> {
        let payload = round.to_string();
        let publish = |qos, retain, id| packets::publish("m", qos, retain, id, payload.as_bytes());
        match self {
            Self::Plain => publish(0, false, 0),
            Self::Retained => publish(0, true, 0),
            Self::Acknowledged => publish(1, false, 1),
            Self::Deleted => {
                let kept = |payload| packets::publish("kept", 0, true, 0, payload);
                [kept(b"x"), kept(b""), publish(0, false, 0)].concat()
            }
            Self::Burst => {
                let filling = |id: u16| {
                    let qos = u8::try_from(id % 2).unwrap();
                    packets::publish("filling", qos, false, id, &[b'x'; 100])
                };
                let mut burst: Vec<u8> = (1..=600).flat_map(filling).collect();
                burst.extend(publish(1, false, 601));
                burst
            }
        }
    }
}

/// Takes the client id over again and again, each time right after a message, a DISCONNECT and the end of the
/// connection. Returns how often each message was delivered, and the wills.
fn take_over(kind: Kind, rounds: u32, answered: bool, arguments: &[&str]) -> (Vec<u32>, usize) {
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", arguments);
    let mut watcher = Wire::connect(address, "watcher", true);
    assert_eq!(watcher.subscribe(&[("m", 0), ("will", 0), ("end", 0)]), [0, 0, 0]);
    let all: Vec<u32> = (0..rounds).collect();
    for some in all.chunks(IN_FLIGHT) {
        let connections: Vec<TcpStream> = some
            .iter()
            .map(|round| one(address, kind, *round, answered))
            .filter(|_| !answered)
            .collect();
        for mut connection in connections {
            // The broker closes it when it has taken everything.
            let _ = connection.read_to_end(&mut Vec::new());
        }
    }
    // It waits for the connection before it.
    let mut last = Wire::connect(address, "same", true);
    last.send(&packets::publish("end", 1, false, 1, b""));
    let (mut counts, mut wills) = (BTreeMap::new(), 0);
    loop {
        let message = watcher.message();
        match message.topic.as_str() {
            "end" => break,
            "will" => wills += 1,
            _ => {
                let round: u32 = String::from_utf8(message.payload).unwrap().parse().unwrap();
                *counts.entry(round).or_insert(0) += 1;
            }
        }
    }
    if kind == Kind::Deleted {
        assert_eq!(watcher.subscribe(&[("kept", 0)]), [0]);
        watcher.send(&packets::pingreq());
        assert_eq!(watcher.receive(), Packet::Answer(packets::PINGRESP, vec![]), "deleted");
    }
    ((0..rounds).map(|round| counts.get(&round).copied().unwrap_or(0)).collect(), wills)
}

fn one(address: SocketAddr, kind: Kind, round: u32, answered: bool) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = packets::connect_with_will("same", true, 60, "will", b"gone", false);
    if answered {
        stream.write_all(&bytes).unwrap();
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).unwrap();
        assert_eq!(connack, [0x20, 2, 0, 0]);
        bytes.clear();
    }
    bytes.extend(kind.packets(round));
    bytes.extend(packets::disconnect());
    stream.write_all(&bytes).unwrap();
    if !answered {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    stream
}

fn assert_nothing_lost(rounds: u32, answered: bool, arguments: &[&str]) {
    for kind in KINDS {
        let (counts, wills) = take_over(kind, rounds, answered, arguments);
        let lost = counts.iter().filter(|count| **count == 0).count();
        let twice = counts.iter().filter(|count| **count > 1).count();
        let found = (wills, lost, twice);
        println!("{kind:?}, {rounds} take-overs: {wills} wills, {lost} lost, {twice} twice");
        assert_eq!(found, (0, 0, 0), "{kind:?}: wills, lost, twice");
    }
}

/// Each commit takes 50 ms, as on a slow card, and every message needs one.
const SLOW: [&str; 4] = ["--commit-window", "50ms", "--logged-filters", "#"];

#[test]
fn a_client_that_disconnects_and_comes_again_at_once_loses_nothing() {
    assert_nothing_lost(ROUNDS, true, &[]);
}

#[test]
fn a_client_that_disconnects_and_comes_again_during_a_commit_loses_nothing() {
    assert_nothing_lost(ROUNDS, true, &SLOW);
}

#[test]
fn a_client_that_waits_for_no_answer_loses_nothing() {
    assert_nothing_lost(ROUNDS, false, &[]);
    assert_nothing_lost(ROUNDS, false, &SLOW);
}

#[test]
fn a_client_that_reads_no_acknowledgement_and_closes_loses_nothing() {
    const MESSAGES: u16 = 5000;
    let data = tempfile::tempdir().unwrap();
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let mut watcher = Wire::connect(address, "watcher", true);
    assert_eq!(watcher.subscribe(&[("m", 0), ("will", 0)]), [0, 0]);
    let mut bytes = packets::connect_with_will("publisher", true, 60, "will", b"gone", false);
    bytes.extend((1..=MESSAGES).flat_map(|id| packets::publish("m", 1, false, id, b"x")));
    bytes.extend(packets::disconnect());
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&bytes).unwrap();
    // With acknowledgements unread: the broker cannot write any more, and its next write fails.
    drop(stream);
    for n in 1..=MESSAGES {
        assert_eq!(watcher.message().topic, "m", "message {n}");
    }
    let mut next = Wire::connect(address, "next", true);
    next.send(&packets::publish("m", 0, false, 0, b"last"));
    assert_eq!(watcher.message().payload, b"last", "and no will");
}

#[test]
#[ignore = "takes minutes: 1,000 take-overs of each kind"]
fn a_thousand_take_overs_of_each_kind_lose_nothing() {
    for answered in [true, false] {
        assert_nothing_lost(MANY_ROUNDS, answered, &[]);
        assert_nothing_lost(MANY_ROUNDS, answered, &SLOW);
    }
}

//! Publishers that send as fast as they are acknowledged, and subscribers that note what reaches them.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use super::PATIENCE;
use super::packets::{self, PUBACK, Packet, Wire};

/// Unacknowledged publishes of one publisher.
const WINDOW: usize = 400;
/// Payload of the last message. Where there is no room the oldest goes, so this one always arrives.
pub const END: &[u8] = b"end";

/// How many messages are published, and the size of their payloads.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub name: &'static str,
    pub messages: u32,
    /// At least 4.
    pub bytes: usize,
    /// Messages that a paced publisher may be ahead of its subscriber: about half of what may wait for one.
    pub lead: usize,
}

/// More bytes than may wait for a client.
pub const LARGE: Load = Load { name: "large", messages: 800, bytes: 60_000, lead: 8 };
/// More messages than may wait for a client.
pub const SMALL: Load = Load { name: "small", messages: 20_000, bytes: 100, lead: 500 };

/// Messages that some subscribers have got, for a publisher that keeps pace with them.
#[derive(Default)]
pub struct Progress {
    received: Mutex<usize>,
    more: Condvar,
}

impl Progress {
    fn count(&self) {
        *self.received.lock().unwrap() += 1;
        self.more.notify_all();
    }

    /// Waits until `count` messages have been received.
    pub fn wait_for(&self, count: usize) {
        let received = self.received.lock().unwrap();
        let (received, waited) =
            self.more.wait_timeout_while(received, PATIENCE, |received| *received < count).unwrap();
        assert!(!waited.timed_out(), "waited {PATIENCE:?} for message {count}, got {received}");
    }
}

/// Reads and acknowledges until [`END`] in a thread of its own. Gives the connection and the numbers of what came.
pub fn read_all(mut wire: Wire, progress: &Arc<Progress>) -> JoinHandle<(Wire, Vec<u32>)> {
    let progress = Arc::clone(progress);
    std::thread::spawn(move || {
        let mut numbers = Vec::new();
        loop {
            let payload = wire.message().payload;
            progress.count();
            if payload == END {
                return (wire, numbers);
            }
            numbers.push(number(&payload));
        }
    })
}

/// The number that a payload begins with: one byte that is all of it, or four.
pub fn number(payload: &[u8]) -> u32 {
    match payload {
        [byte] => u32::from(*byte),
        _ => u32::from_be_bytes(payload[..4].try_into().expect("four bytes")),
    }
}

/// Numbers count upwards: nothing came twice or in another order.
pub fn assert_ascending(numbers: &[u32]) {
    let wrong = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(wrong, None, "twice or out of order");
}

/// A client that publishes with [`WINDOW`] messages in flight.
pub struct Publisher {
    wire: Wire,
    packet_id: u16,
    in_flight: usize,
    acknowledged: u64,
}

impl Publisher {
    pub fn connect(address: SocketAddr, client_id: &str) -> Self {
        let wire = Wire::connect(address, client_id, true);
        Self { wire, packet_id: 0, in_flight: 0, acknowledged: 0 }
    }

    /// Publishes at QoS 0 or 1, as soon as the window has room.
    pub fn publish(&mut self, topic: &str, qos: u8, payload: &[u8]) {
        if qos == 1 {
            while self.in_flight >= WINDOW {
                self.take_puback();
            }
            self.in_flight += 1;
            self.packet_id = self.packet_id % u16::MAX + 1;
        }
        self.wire.send(&packets::publish(topic, qos, false, self.packet_id, payload));
    }

    /// Waits until all is acknowledged.
    pub fn settle(&mut self) {
        while self.in_flight > 0 {
            self.take_puback();
        }
    }

    fn take_puback(&mut self) {
        let answer = self.wire.receive();
        assert!(matches!(answer, Packet::Answer(PUBACK, _)), "no PUBACK but {answer:?}");
        self.in_flight -= 1;
        self.acknowledged += 1;
    }

    /// Publishes the whole load and [`END`] at QoS 1, each message after `before` it. Returns how many of the load were
    /// acknowledged.
    pub fn flood(&mut self, topic: &str, load: Load, before: impl Fn(usize)) -> u64 {
        let earlier = self.acknowledged;
        let mut payload = vec![b'x'; load.bytes];
        for n in 0..load.messages {
            before(n as usize);
            payload[..4].copy_from_slice(&n.to_be_bytes());
            self.publish(topic, 1, &payload);
        }
        self.settle();
        let acknowledged = self.acknowledged - earlier;
        self.publish(topic, 1, END);
        self.settle();
        acknowledged
    }
}

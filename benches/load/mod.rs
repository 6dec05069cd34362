//! Clients that publish readings and time their acknowledgements, for the benches. One thread plays all of them
//! with sockets that never block, so that its share of the machine is the same for every broker.

#![allow(dead_code)] // every bench uses its part

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use humidor::clock;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, Publish};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::Client;

/// Clients at once.
pub const CONNECTIONS: usize = 20;
/// Messages a second, all connections together, for the latency.
pub const STEADY_PER_SECOND: u32 = 1000;

/// Telemetry of now, as a node would send it: retention treats an old reading otherwise.
fn reading(boot: &str, seq: u64) -> Vec<u8> {
    let (at, mono) = (clock::unix_ms(), seq * 1000);
    format!(
        r#"{{"boot":"{boot}","seq":{seq},"at":{at},"clock":"synced","mono":{mono},"temperature":21.5,"humidity":57.1}}"#
    )
    .into_bytes()
}

/// One client, and what it still has to write.
pub struct Publisher {
    client: Client,
    /// Tells this client's readings from those of every other run.
    boot: String,
    topic: String,
    sent: u64,
    /// When what is not acknowledged was due.
    pub due: VecDeque<Instant>,
    outbound: BytesMut,
    inbound: BytesMut,
}

impl Publisher {
    pub fn connect(address: SocketAddr, run: &str, number: usize) -> Self {
        // rumqttd's stock broker takes nobody without a keep-alive.
        let id = format!("bench-{run}-{number}");
        let connect = Connect { keep_alive: 60, ..Connect::new(id) };
        let (client, _) = Client::connect_with(address, &connect);
        client.stream.set_nonblocking(true).expect("non-blocking can be set");
        Self {
            client,
            boot: format!("{run}-{number}"),
            topic: format!("humidor/bench-{number}/sensor/hall"),
            sent: 0,
            due: VecDeque::new(),
            outbound: BytesMut::new(),
            inbound: BytesMut::with_capacity(4096),
        }
    }

    pub fn publish(&mut self, due: Instant) {
        self.sent += 1;
        let payload = reading(&self.boot, self.sent);
        let mut publish = Publish::new(&self.topic, QoS::AtLeastOnce, payload);
        // 1 to 65535, the same id not before 65,535 others.
        publish.pkid = u16::try_from((self.sent - 1) % 65_535 + 1).expect("below 65,536");
        publish.write(&mut self.outbound).expect("a publish can be written");
        self.due.push_back(due);
    }

    pub fn write(&mut self) {
        while !self.outbound.is_empty() {
            match self.client.stream.write(&self.outbound) {
                Ok(count) => self.outbound.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the broker does not read: {error}"),
            }
        }
    }

    /// Reads PUBACKs and calls `each` with when its message was due.
    pub fn read(&mut self, mut each: impl FnMut(Instant)) -> usize {
        let mut chunk = [0; 4096];
        match self.client.stream.read(&mut chunk) {
            Ok(0) => panic!("the broker closed the connection"),
            Ok(count) => self.inbound.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
            Err(error) => panic!("the broker does not answer: {error}"),
        }
        let mut acknowledged = 0;
        while self.inbound.len() >= 4 {
            assert_eq!(self.inbound[..2], [0x40, 2], "nothing but PUBACKs is expected");
            self.inbound.advance(4);
            each(self.due.pop_front().expect("only what was sent is acknowledged"));
            acknowledged += 1;
        }
        acknowledged
    }
}

/// Waits until one of them can be read, or written where it has something to write, or until `limit` has passed.
pub fn wait(publishers: &[Publisher], limit: Duration) {
    let mut ready: Vec<PollFd<'_>> = publishers
        .iter()
        .map(|publisher| {
            let write =
                if publisher.outbound.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            PollFd::new(&publisher.client.stream, PollFlags::IN | write)
        })
        .collect();
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
    let _ = poll(&mut ready, Some(&limit));
}

/// Latencies, sorted, at a steady rate. Counted from when a message was due, so that a pause of the broker is not
/// hidden by a client that waits with it.
pub fn latencies(address: SocketAddr, run: &str, lasting: Duration) -> Vec<Duration> {
    let mut publishers: Vec<_> =
        (0..CONNECTIONS).map(|number| Publisher::connect(address, run, number)).collect();
    let (start, every) = (Instant::now(), Duration::from_secs(1) / STEADY_PER_SECOND);
    let (mut taken, mut next) = (Vec::new(), 0);
    loop {
        let running = start.elapsed() < lasting;
        while running && start + every * next <= Instant::now() {
            let publisher = &mut publishers[next as usize % CONNECTIONS];
            publisher.publish(start + every * next);
            publisher.write();
            next += 1;
        }
        for publisher in &mut publishers {
            publisher.read(|due| taken.push(due.elapsed()));
            publisher.write();
        }
        if !running && publishers.iter().all(|publisher| publisher.due.is_empty()) {
            break;
        }
        wait(&publishers, (start + every * next).saturating_duration_since(Instant::now()));
    }
    taken.sort();
    taken
}

/// A quantile of sorted times, in ms.
pub fn ms(sorted: &[Duration], share: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len() - 1);
    round(sorted[index].as_secs_f64() * 1e3, 2)
}

/// To so many decimal digits.
pub fn round(value: f64, digits: i32) -> f64 {
    (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits)
}

//! A board: publishes its readings and counts their acknowledgements.

use super::Target;
use super::frame::{Frame, Run};
use super::socket::Socket;

/// PUBACKs of 1,024 publishes.
const INBOUND_BYTES: usize = 4096;
/// First byte and remaining length of a PUBACK (MQTT 3.1.1 §3.4).
const PUBACK: [u8; 2] = [0x40, 2];

pub struct Publisher {
    pub socket: Socket,
    frame: Frame,
    pub sent: u64,
    pub acknowledged: u64,
}

impl Publisher {
    /// Connects as the board of this number.
    pub fn connect(target: Target, run: Run, board: usize) -> Self {
        let socket = Socket::connect(target.address, &format!("board-{board:04}"), INBOUND_BYTES);
        Self { socket, frame: Frame::new(run, board), sent: 0, acknowledged: 0 }
    }

    pub const fn in_flight(&self) -> u64 {
        self.sent - self.acknowledged
    }

    /// Publishes `count` readings of `at_ms`, with one write.
    pub fn publish(&mut self, count: u64, at_ms: i64) {
        self.frame.set_time(at_ms);
        for _ in 0..count {
            self.frame.append(packet_id(self.sent), &mut self.socket.outbound);
            self.sent += 1;
        }
        self.socket.write();
    }

    /// Takes the acknowledgements that are there, which come in the order of the publishes (§4.6). Returns their number.
    pub fn take_acknowledgements(&mut self) -> u64 {
        let before = self.acknowledged;
        self.socket.read(|bytes, _| {
            let (packets, rest) = bytes.as_chunks::<4>();
            for packet in packets {
                let [high, low] = packet_id(self.acknowledged).to_be_bytes();
                assert_eq!(*packet, [PUBACK[0], PUBACK[1], high, low], "the next PUBACK");
                self.acknowledged += 1;
            }
            bytes.len() - rest.len()
        });
        assert!(self.acknowledged <= self.sent, "only what was sent is acknowledged");
        self.acknowledged - before
    }
}

/// Packet id of a publish: 1 to 65,535, and then again from 1.
fn packet_id(number: u64) -> u16 {
    u16::try_from(number % 65_535 + 1).expect("below 65,536")
}

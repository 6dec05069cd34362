//! A subscriber to the telemetry of all boards, which counts what it gets.

use super::Target;
use super::frame::{Delivery, number};
use super::socket::Socket;
use crate::support::packets;

const INBOUND_BYTES: usize = 64 * 1024;
/// Telemetry of every board.
const FILTER: &str = "humidor/+/sensor/+";

pub struct Subscriber {
    pub socket: Socket,
    delivery: Delivery,
    /// The number that a board's latest reading had.
    latest: Vec<u32>,
    pub received: u64,
}

impl Subscriber {
    /// Subscribes to all boards, of which there are `boards`.
    pub fn connect(target: Target, number: usize, boards: usize, qos: u8) -> Self {
        let id = format!("subscriber-{number}");
        let mut socket = Socket::connect(target.address, &id, INBOUND_BYTES);
        socket.subscribe(FILTER, qos);
        Self { socket, delivery: Delivery::at(qos), latest: vec![0; boards], received: 0 }
    }

    /// Takes and acknowledges what is there. Returns the number of readings.
    ///
    /// # Panics
    /// When a board's reading came twice or in another order.
    pub fn take_deliveries(&mut self) -> u64 {
        let before = self.received;
        let delivery = &self.delivery;
        self.socket.read(|bytes, out| {
            let frames = bytes.chunks_exact(delivery.length);
            let rest = frames.remainder().len();
            for frame in frames {
                assert_eq!(frame[..delivery.header.len()], delivery.header, "a delivery");
                let board = number(&frame[delivery.board.clone()]) as usize;
                let seq = number(&frame[delivery.seq.clone()]);
                assert!(self.latest[board] < seq, "a reading came twice or out of order");
                self.latest[board] = seq;
                if let [high, low] = frame[delivery.packet_id.clone()] {
                    out.extend_from_slice(&packets::puback(u16::from_be_bytes([high, low])));
                }
            }
            self.received += ((bytes.len() - rest) / delivery.length) as u64;
            bytes.len() - rest
        });
        self.socket.write();
        self.received - before
    }
}

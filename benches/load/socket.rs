//! A connection with a clean session that never blocks once it is set up.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use crate::support::{PATIENCE, packets};

/// Seconds. rumqttd's stock broker takes nobody without a keep-alive.
const KEEP_ALIVE_S: u16 = 600;
/// Where the keep-alive stands in a CONNECT of less than 128 bytes: behind the fixed header, "MQTT", level and flags.
const KEEP_ALIVE_AT: std::ops::Range<usize> = 10..12;

pub struct Socket {
    stream: TcpStream,
    inbound: Box<[u8]>,
    /// Bytes of `inbound` that were read and not taken.
    filled: usize,
    /// To be written.
    pub outbound: Vec<u8>,
}

impl Socket {
    /// Connects and waits for the CONNACK. Reads at most `inbound_bytes` at a time.
    pub fn connect(address: SocketAddr, client_id: &str, inbound_bytes: usize) -> Self {
        let stream = TcpStream::connect(address).expect("the broker accepts");
        stream.set_nodelay(true).expect("nodelay can be set");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        let mut socket = Self {
            stream,
            inbound: vec![0; inbound_bytes].into(),
            filled: 0,
            outbound: Vec::new(),
        };
        let mut connect = packets::connect(client_id, true);
        connect[KEEP_ALIVE_AT].copy_from_slice(&KEEP_ALIVE_S.to_be_bytes());
        assert_eq!(socket.ask(&connect), [0x20, 2, 0, 0], "accepted");
        socket.stream.set_nonblocking(true).expect("non-blocking can be set");
        socket
    }

    /// Subscribes and waits for the SUBACK.
    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        self.stream.set_nonblocking(false).expect("blocking can be set");
        let suback: [u8; 5] = self.ask(&packets::subscribe(1, &[(filter, qos)]));
        assert_eq!(suback, [0x90, 3, 0, 1, qos], "subscribed");
        self.stream.set_nonblocking(true).expect("non-blocking can be set");
    }

    fn ask<const N: usize>(&mut self, packet: &[u8]) -> [u8; N] {
        self.stream.write_all(packet).expect("the broker reads");
        let mut answer = [0; N];
        self.stream.read_exact(&mut answer).expect("the broker answers");
        answer
    }

    /// Writes what is to be written, as far as the socket takes it.
    pub fn write(&mut self) {
        while !self.outbound.is_empty() {
            match self.stream.write(&self.outbound) {
                Ok(count) => drop(self.outbound.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the broker does not read: {error}"),
            }
        }
    }

    /// Reads until nothing is left. `take` gets what is there and returns how many bytes of it are whole packets.
    pub fn read(&mut self, mut take: impl FnMut(&[u8], &mut Vec<u8>) -> usize) {
        loop {
            let free = &mut self.inbound[self.filled..];
            let room = free.len();
            let count = match self.stream.read(free) {
                Ok(0) => panic!("the broker closed the connection"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the broker does not answer: {error}"),
            };
            self.filled += count;
            let taken = take(&self.inbound[..self.filled], &mut self.outbound);
            self.inbound.copy_within(taken..self.filled, 0);
            self.filled -= taken;
            // epoll(7): a short read of a stream says that there was no more.
            if count < room {
                return;
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

//! MQTT 3.1.1 packets as plain bytes, without a codec library: so the broker is judged by the specification and not by
//! a decoder that it may use itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;

/// Packet types (MQTT 3.1.1 §2.2.1) that a client gets.
pub const CONNACK: u8 = 2;
pub const PUBACK: u8 = 4;
pub const PUBREL: u8 = 6;
pub const SUBACK: u8 = 9;
pub const UNSUBACK: u8 = 11;
pub const PINGRESP: u8 = 13;
/// Bytes that are read from the socket at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// A packet with this first byte. The body must have fewer than 2^28 bytes (§2.2.3).
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        bytes.push(u8::try_from(length % 128).expect("below 128") | more);
        length /= 128;
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

/// CONNECT without keep-alive, user or will.
pub fn connect(client_id: &str, clean_session: bool) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend([4, if clean_session { 2 } else { 0 }, 0, 0]);
    text(&mut body, client_id);
    packet(0x10, &body)
}

/// CONNECT with a clean session, a user name and a password.
pub fn connect_with_login(client_id: &str, user: &str, password: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend([4, 0xc2, 0, 0]);
    for part in [client_id, user, password] {
        text(&mut body, part);
    }
    packet(0x10, &body)
}

/// CONNECT with a will at QoS 1; the keep-alive is in seconds, 0 for none.
pub fn connect_with_will(
    client_id: &str,
    clean_session: bool,
    keep_alive_s: u16,
    topic: &str,
    payload: &[u8],
    retain: bool,
) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    let flags = 0x0c | if clean_session { 2 } else { 0 } | if retain { 0x20 } else { 0 };
    body.extend([4, flags]);
    body.extend(keep_alive_s.to_be_bytes());
    text(&mut body, client_id);
    text(&mut body, topic);
    body.extend(u16::try_from(payload.len()).expect("a short will").to_be_bytes());
    body.extend_from_slice(payload);
    packet(0x10, &body)
}

/// SUBSCRIBE to each filter with its QoS.
pub fn subscribe(packet_id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    for (filter, qos) in filters {
        text(&mut body, filter);
        body.push(*qos);
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE from one filter.
pub fn unsubscribe(packet_id: u16, filter: &str) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    text(&mut body, filter);
    packet(0xa2, &body)
}

/// PUBLISH; at QoS 0 the packet id is left out.
pub fn publish(topic: &str, qos: u8, retain: bool, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(payload.len() + topic.len() + 4);
    text(&mut body, topic);
    if qos > 0 {
        body.extend(packet_id.to_be_bytes());
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1 | u8::from(retain), &body)
}

/// PUBACK.
pub fn puback(packet_id: u16) -> Vec<u8> {
    packet(0x40, &packet_id.to_be_bytes())
}

/// DISCONNECT.
pub fn disconnect() -> Vec<u8> {
    packet(0xe0, &[])
}

/// DISCONNECT of MQTT 5.0 with a reason and without properties.
pub fn disconnect_v5(reason: u8) -> Vec<u8> {
    packet(0xe0, &[reason])
}

/// PINGREQ.
pub fn pingreq() -> Vec<u8> {
    packet(0xc0, &[])
}

/// A message that the broker delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// 0 at QoS 0.
    pub packet_id: u16,
    pub payload: Vec<u8>,
}

/// A packet from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Message(Message),
    /// Every other one: its type and its body.
    Answer(u8, Vec<u8>),
}

/// One end of a connection: whole packets to and from a blocking socket.
pub struct Wire {
    stream: TcpStream,
    inbound: Vec<u8>,
    /// Where the next packet begins in `inbound`.
    start: usize,
}

impl Wire {
    /// Connects and waits for the CONNACK.
    pub fn connect(address: SocketAddr, client_id: &str, clean_session: bool) -> Self {
        let (wire, connack) = Self::open(address, &connect(client_id, clean_session));
        assert_eq!(connack[1], 0, "accepted");
        wire
    }

    /// Connects with a CONNECT of either version; returns the body of the CONNACK, whose second byte is the code.
    pub fn open(address: SocketAddr, connect: &[u8]) -> (Self, Vec<u8>) {
        let stream = TcpStream::connect(address).expect("the broker accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out can be set");
        stream.set_nodelay(true).expect("nodelay can be set");
        let mut wire = Self { stream, inbound: Vec::new(), start: 0 };
        wire.send(connect);
        match wire.receive() {
            Packet::Answer(CONNACK, body) => (wire, body),
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    /// Writes as much as the broker takes before it closes the connection.
    pub fn try_send(&mut self, packets: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(packets)
    }

    /// Waits only so long for what comes next.
    pub fn wait_at_most(&self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).expect("a time-out can be set");
    }

    /// Writes packets; waits as long as the broker does not read.
    pub fn send(&mut self, packets: &[u8]) {
        self.stream.write_all(packets).expect("the broker reads");
    }

    /// Writes only as much as the broker and the system take at once.
    pub fn dont_wait(&self) {
        self.stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a time-out");
    }

    /// Subscribes and returns the SUBACK's codes. Messages of QoS 0 that come before it are left out.
    pub fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        self.send(&subscribe(1, filters));
        loop {
            match self.receive() {
                Packet::Answer(SUBACK, body) => return body[2..].to_vec(),
                Packet::Message(message) if message.qos == 0 => {}
                other => panic!("no SUBACK but {other:?}"),
            }
        }
    }

    /// The next packet.
    pub fn receive(&mut self) -> Packet {
        self.try_receive().expect("the broker closed the connection")
    }

    /// The next packet; `None` when the broker has closed the connection.
    pub fn try_receive(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.take() {
                return Some(packet);
            }
            self.inbound.drain(..self.start);
            self.start = 0;
            let end = self.inbound.len();
            self.inbound.resize(end + CHUNK_BYTES, 0);
            let count = match self.stream.read(&mut self.inbound[end..]) {
                Ok(0) => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("the broker sent nothing for {PATIENCE:?}")
                }
                Err(error) => panic!("the broker cannot be read: {error}"),
            };
            self.inbound.truncate(end + count);
        }
    }

    /// The next message, which is acknowledged; answers in between are skipped.
    pub fn message(&mut self) -> Message {
        loop {
            if let Packet::Message(message) = self.receive() {
                if message.qos == 1 {
                    self.send(&puback(message.packet_id));
                }
                return message;
            }
        }
    }

    /// Takes a whole packet off what was read.
    fn take(&mut self) -> Option<Packet> {
        let bytes = &self.inbound[self.start..];
        let (mut length, mut header) = (0, 1);
        loop {
            let byte = *bytes.get(header)?;
            length |= usize::from(byte & 0x7f) << (7 * (header - 1));
            header += 1;
            if byte & 0x80 == 0 {
                break;
            }
            assert!(header <= 4, "a remaining length has four bytes at most");
        }
        let body = bytes.get(header..header + length)?;
        let packet = parse(bytes[0], body);
        self.start += header + length;
        Some(packet)
    }
}

fn parse(first: u8, body: &[u8]) -> Packet {
    if first >> 4 != 3 {
        return Packet::Answer(first >> 4, body.to_vec());
    }
    let number = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let qos = first >> 1 & 3;
    let topic_end = 2 + usize::from(number(0));
    let topic = String::from_utf8(body[2..topic_end].to_vec()).expect("a topic is UTF-8");
    let (packet_id, payload) =
        if qos == 0 { (0, topic_end) } else { (number(topic_end), topic_end + 2) };
    let (retain, dup) = (first & 1 == 1, first & 8 == 8);
    let payload = body[payload..].to_vec();
    Packet::Message(Message { topic, qos, retain, dup, packet_id, payload })
}

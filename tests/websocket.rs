//! MQTT over WebSocket at `/mqtt`: such a client is treated like one over TCP, and any other request is refused.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use bytes::BytesMut;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Login, Packet, Publish, Subscribe};
use support::frames::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, frame};
use support::http::{Answer, receive, request, send};
use support::{Client, PATIENCE, Process, broker, humidor, stored, telemetry, wait_until};

const TOPIC: &str = "humidor/tablet/sensor/hall";

fn address(process: &Process, text: &str) -> SocketAddr {
    let line = process.said(text);
    line.rsplit("address=").next().unwrap().trim().parse().unwrap()
}

fn start(data: &Path, more: &[&str]) -> (Process, SocketAddr, SocketAddr) {
    let (process, mqtt) = broker(data, "127.0.0.1:0", more);
    let http = address(&process, "listening for HTTP");
    (process, mqtt, http)
}

/// Starts a broker that has one user, `kim` with the password `a long secret`.
fn start_with_user(data: &Path) -> (Process, SocketAddr) {
    let secret = data.join("password");
    std::fs::write(&secret, "a long secret").unwrap();
    let mut command = humidor();
    command
        .args(["broker", "--mqtt-listen", "127.0.0.1:0", "--user", "kim"])
        .args(["--http-hosts", "dashboards.example", "--data"])
        .arg(data)
        .env("HUMIDOR_PASSWORD_FILE", &secret)
        .env("NO_COLOR", "1");
    let process = Process::start(command);
    let http = address(&process, "listening for HTTP");
    (process, http)
}

/// The handshake of RFC 6455 §1.2. `changed` replaces header lines of the same name; an empty value removes one.
fn handshake(http: SocketAddr, changed: &[(&str, &str)]) -> TcpStream {
    let host = http.to_string();
    let own = [
        ("Host", host.as_str()),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Protocol", "mqtt"),
    ];
    let kept = own.iter().filter(|(name, _)| changed.iter().all(|(other, _)| other != name));
    let lines = kept.chain(changed).filter(|(_, value)| !value.is_empty());
    let lines: Vec<String> = lines.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let lines = lines.concat();
    send(http, format!("GET /mqtt HTTP/1.1\r\n{lines}\r\n").as_bytes())
}

/// The response to a refused handshake.
fn refusal(http: SocketAddr, changed: &[(&str, &str)]) -> Answer {
    receive(handshake(http, &[changed, &[("Connection", "Upgrade, close")]].concat()))
}

fn encode(packet: &Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, usize::MAX).unwrap();
    bytes.to_vec()
}

fn reading(pkid: u16, seq: u64) -> Vec<u8> {
    let mut publish = Publish::new(TOPIC, QoS::AtLeastOnce, telemetry("b", seq));
    publish.pkid = pkid;
    encode(&Packet::Publish(publish))
}

fn connect() -> Connect {
    Connect { keep_alive: 0, ..Connect::new("tablet") }
}

/// A client that sends single frames.
struct Socket {
    stream: TcpStream,
    inbound: BytesMut,
}

impl Socket {
    fn open(http: SocketAddr) -> Self {
        Self::open_with(http, &[])
    }

    fn open_with(http: SocketAddr, changed: &[(&str, &str)]) -> Self {
        let mut stream = handshake(http, changed);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        // [MQTT-6.0.0-4]
        assert!(head.contains("sec-websocket-protocol: mqtt\r\n"), "{head}");
        Self { stream, inbound: BytesMut::new() }
    }

    fn connected(http: SocketAddr) -> Self {
        let mut socket = Self::open(http);
        socket.binary(&encode(&Packet::Connect(connect())));
        let Some(Packet::ConnAck(ack)) = socket.receive() else { panic!("no CONNACK") };
        assert_eq!(ack.code, ConnectReturnCode::Success);
        socket
    }

    /// Sends a frame. The broker may close the connection before it has read all of it.
    fn frame(&mut self, first: u8, payload: &[u8]) {
        let _ = self.stream.write_all(&frame(first, payload));
    }

    fn binary(&mut self, payload: &[u8]) {
        self.frame(FIN | BINARY, payload);
    }

    /// The next frame's opcode and payload; `None` when the broker has closed the connection.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("waited {PATIENCE:?}"),
            Err(_) => return None,
        }
        assert_eq!(head[0] & 0xf0, FIN, "the broker's messages are one frame each");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).unwrap();
                u16::from_be_bytes(length).into()
            }
            length @ ..126 => usize::from(length),
            other => panic!("a masked frame, or a huge one, from a server: {other}"),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        Some((head[0] & 0xf, payload))
    }

    /// The next MQTT packet.
    fn receive(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.inbound, usize::MAX) {
                Ok(packet) => return Some(packet),
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("the broker sent nonsense: {error}"),
            }
            match self.next()? {
                (BINARY, payload) => self.inbound.extend_from_slice(&payload),
                (CLOSE, _) => return None,
                other => panic!("no packet but {other:?}"),
            }
        }
    }

    fn expect_puback(&mut self, pkid: u16) {
        match self.receive() {
            Some(Packet::PubAck(ack)) => assert_eq!(ack.pkid, pkid),
            other => panic!("no PUBACK but {other:?}"),
        }
    }

    /// Waits until the broker closes the connection; returns the code of its Close frame, if it sent one.
    fn closed(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some((opcode, payload)) = self.next() {
            assert_eq!(opcode, CLOSE, "{payload:?}");
            code = payload.get(..2).map(|two| u16::from_be_bytes([two[0], two[1]]));
            // Required by RFC 6455 §5.5.1.
            self.frame(FIN | CLOSE, &payload);
        }
        code
    }
}

#[test]
fn messages_over_websocket_are_stored_acknowledged_and_delivered_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mqtt, http) = start(folder.path(), &[]);
    let mut wire = Client::connect(mqtt, "wire");
    wire.subscribe("humidor/#", QoS::AtMostOnce);

    let mut socket = Socket::connected(http);
    socket.binary(&reading(7, 1));
    socket.expect_puback(7);
    assert_eq!(stored(folder.path()), 1);
    loop {
        match wire.receive() {
            Some(Packet::Publish(publish)) if publish.topic == TOPIC => break,
            Some(Packet::Publish(_)) => {}
            other => panic!("{other:?}"),
        }
    }

    let mut subscribe = Subscribe::new("plant/#", QoS::AtLeastOnce);
    subscribe.pkid = 2;
    socket.binary(&encode(&Packet::Subscribe(subscribe)));
    assert!(matches!(socket.receive(), Some(Packet::SubAck(ack)) if ack.pkid == 2));
    // Larger than one frame from the broker.
    let payload = vec![b'7'; 50_000];
    wire.publish("plant/press", QoS::AtLeastOnce, 1, &payload);
    wire.expect_puback(1);
    let Some(Packet::Publish(publish)) = socket.receive() else { panic!("no message arrived") };
    assert_eq!((publish.topic.as_str(), &publish.payload[..]), ("plant/press", &payload[..]));

    socket.binary(&encode(&Packet::Disconnect));
    assert_eq!(socket.closed(), Some(1000));
    assert_eq!(broker.terminate(), Some(0));
}

#[test]
fn packets_begin_and_end_anywhere_in_frames() {
    // [MQTT-6.0.0-2]
    let folder = tempfile::tempdir().unwrap();
    let (_broker, _, http) = start(folder.path(), &[]);
    let mut socket = Socket::open(http);
    for byte in encode(&Packet::Connect(connect())) {
        socket.binary(&[byte]);
    }
    assert!(matches!(socket.receive(), Some(Packet::ConnAck(_))));
    socket.binary(&[reading(1, 1), reading(2, 2)].concat());
    socket.expect_puback(1);
    socket.expect_puback(2);
    // One message of three frames, one of them empty, with a ping between them.
    let packet = reading(3, 3);
    socket.frame(BINARY, &packet[..5]);
    socket.frame(FIN | PING, b"there?");
    socket.frame(CONTINUATION, b"");
    assert_eq!(socket.next(), Some((PONG, b"there?".to_vec())));
    socket.frame(FIN | CONTINUATION, &packet[5..]);
    socket.binary(b"");
    socket.expect_puback(3);
    assert_eq!(stored(folder.path()), 3);
}

#[test]
fn the_largest_packet_passes_and_a_larger_message_closes_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mqtt, http) = start(folder.path(), &[]);
    let mut socket = Socket::connected(http);
    let mut publish = Publish::new("t", QoS::AtLeastOnce, vec![0; 256 * 1024 - 5]);
    publish.pkid = 1;
    let largest = encode(&Packet::Publish(publish));
    assert_eq!(largest.len(), 256 * 1024 + 4, "a remaining length of 256 KiB");
    socket.binary(&largest);
    socket.expect_puback(1);

    // Refused by its header: the broker does not wait for the payload.
    socket.stream.write_all(&[FIN | BINARY, 0xff, 0, 0, 0, 0, 0, 4, 0, 6, 1, 2, 3, 4]).unwrap();
    assert_eq!(socket.closed(), Some(1009));

    let mut socket = Socket::connected(http);
    for first in [BINARY, CONTINUATION, CONTINUATION] {
        socket.frame(first, &vec![0; 100 * 1024]);
    }
    assert!(socket.next().is_none_or(|(opcode, _)| opcode == CLOSE), "nor in several frames");
    support::assert_serving(mqtt);
    assert_eq!(broker.terminate(), Some(0));
}

#[test]
fn a_text_frame_or_a_malformed_frame_closes_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mqtt, http) = start(folder.path(), &[]);
    // [MQTT-6.0.0-1]
    let mut socket = Socket::connected(http);
    socket.frame(FIN | TEXT, b"hello");
    assert_eq!(socket.closed(), Some(1003));
    for (what, bytes) in [
        ("not masked", &[FIN | BINARY, 1, 0][..]),
        ("a reserved bit", &[FIN | 0x40 | BINARY, 0x81, 0, 0, 0, 0, 0]),
        ("an undefined opcode", &[FIN | 3, 0x80, 0, 0, 0, 0]),
        ("a ping in pieces", &[PING, 0x80, 0, 0, 0, 0]),
        ("a continuation of nothing", &[FIN | CONTINUATION, 0x80, 0, 0, 0, 0]),
    ] {
        let mut socket = Socket::connected(http);
        socket.stream.write_all(bytes).unwrap();
        assert_eq!(socket.closed(), Some(1002), "{what}");
    }
    // Not MQTT, in a valid frame.
    let mut socket = Socket::open(http);
    socket.binary(b"GET / HTTP/1.1\r\n\r\n");
    assert!(socket.receive().is_none());
    support::assert_serving(mqtt);
    assert_eq!(broker.terminate(), Some(0));
}

#[test]
fn a_malformed_handshake_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, _, http) = start(folder.path(), &[]);
    for (changed, status) in [
        (("Sec-WebSocket-Protocol", ""), 400),
        (("Sec-WebSocket-Protocol", "wamp, mqttv3.1"), 400),
        (("Sec-WebSocket-Key", "short"), 400),
        (("Sec-WebSocket-Version", "8"), 426),
        (("Upgrade", "h2c"), 426),
        (("Host", "evil.example"), 421),
    ] {
        assert_eq!(refusal(http, &[changed]).status, status, "{changed:?}");
    }
    let plain = support::http::get(http, "/mqtt");
    assert_eq!((plain.status, plain.header("sec-websocket-version")), (426, Some("13")));
    assert_eq!(request(http, "POST", "/mqtt", &[], "x").status, 405);
    Socket::open_with(http, &[("Sec-WebSocket-Protocol", "mqttv3.1, mqtt")]);
}

#[test]
fn without_users_only_own_pages_and_clients_on_this_machine_connect() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _, http) = start(folder.path(), &[]);
    let own = format!("http://{http}");
    Socket::open_with(http, &[("Origin", &own)]);
    for other in [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
        assert_eq!(refusal(http, &[other]).status, 403, "{other:?}");
    }
    let elsewhere = ("X-Forwarded-For", "192.0.2.7");
    assert_eq!(refusal(http, &[elsewhere]).status, 403);
    assert_eq!(broker.terminate(), Some(0));

    // `--anonymous yes` admits other machines, but still no page of another site.
    let (_broker, _, http) = start(folder.path(), &["--anonymous", "yes"]);
    Socket::open_with(http, &[elsewhere]);
    assert_eq!(refusal(http, &[("Origin", "null")]).status, 403);
}

#[test]
fn the_login_is_that_of_mqtt_and_a_cookie_does_not_replace_it() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, http) = start_with_user(folder.path());
    let body = r#"{"name":"kim","password":"a long secret"}"#;
    let json = [("content-type", "application/json")];
    let session = request(http, "POST", "/api/v1/session", &json, body);
    let cookie = session.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();

    let answer = |headers: &[(&str, &str)], login: Option<Login>| {
        let mut socket = Socket::open_with(http, headers);
        socket.binary(&encode(&Packet::Connect(Connect { login, ..connect() })));
        match socket.receive() {
            Some(Packet::ConnAck(ack)) => ack.code,
            other => panic!("no CONNACK but {other:?}"),
        }
    };
    let elsewhere = [("Origin", "https://dashboards.example"), ("Cookie", &*cookie)];
    assert_eq!(answer(&elsewhere, None), ConnectReturnCode::NotAuthorized);
    assert_eq!(answer(&[], Some(Login::new("kim", "guess"))), ConnectReturnCode::NotAuthorized);
    let good = Login::new("kim", "a long secret");
    assert_eq!(answer(&elsewhere, Some(good)), ConnectReturnCode::Success);
    // A page that is not known may not ask for a login's passwords; one at another port of this host may.
    for other in ["https://evil.example", "null", "http://127.0.0.2"] {
        assert_eq!(refusal(http, &[("Origin", other)]).status, 403, "{other}");
    }
    Socket::open_with(http, &[("Origin", "http://127.0.0.1")]);
    assert_eq!(broker.terminate(), Some(0));
}

#[test]
fn the_broker_stops_with_open_websockets_and_a_lost_one_leaves_its_will() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mqtt, http) = start(folder.path(), &[]);
    let mut wire = Client::connect(mqtt, "wire");
    wire.subscribe("last", QoS::AtMostOnce);
    let mut socket = Socket::open(http);
    let mut lost = connect();
    lost.last_will =
        Some(rumqttc::mqttbytes::v4::LastWill::new("last", "word", QoS::AtMostOnce, false));
    socket.binary(&encode(&Packet::Connect(lost)));
    assert!(matches!(socket.receive(), Some(Packet::ConnAck(_))));
    drop(socket);
    assert!(matches!(wire.receive(), Some(Packet::Publish(will)) if will.topic == "last"));

    let idle = Socket::connected(http);
    let silent = Socket::open(http);
    assert_eq!(broker.terminate(), Some(0));
    for mut socket in [idle, silent] {
        wait_until("the broker closes the connection", || {
            !matches!(socket.next(), Some((BINARY, _)))
        });
    }
}

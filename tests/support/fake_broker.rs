//! A broker that plays a script: it accepts, refuses, keeps silent, acknowledges twice or never, sends what nobody asked
//! for, and records what the node sent. On a raw socket, since no real broker does these things.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use humidor::wire::Telemetry;
use rumqttc::mqttbytes::v4::{Connect, Packet, PubAck, Publish};
use rumqttc::mqttbytes::{Error, QoS};

/// Read time-out of a connection: a script's own time passes at this pace.
const TICK: Duration = Duration::from_millis(20);

/// The answer to CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConnect {
    Accept,
    /// CONNACK with this code.
    Refuse(u8),
    Silence,
    Close,
    /// Bytes that are no CONNACK.
    Nonsense,
}

/// The answer to a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPublish {
    Acknowledge,
    Twice,
    Never,
    /// One of so many, the first one too, is never acknowledged.
    AllBut(usize),
    /// PUBACK 0 and of an id that was never sent, then the right one.
    WrongIdsToo,
}

/// The answer to a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSubscribe {
    Grant,
    Refuse,
    /// So many times on one connection, then it grants.
    RefuseFirst(usize),
    NoCodes,
    Silence,
    Close,
}

/// What the broker does on one connection.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is one breach of its own")]
pub struct Conduct {
    pub connect: OnConnect,
    pub publish: OnPublish,
    pub subscribe: OnSubscribe,
    /// A retained message of so many bytes on each subscribed topic, `+` and all.
    pub retained_bytes: Option<usize>,
    /// A slow line: so many bytes of a retained message, then this pause. Whatever follows waits.
    pub retained_pace: Option<(usize, Duration)>,
    /// Birth messages of Home Assistant at once, at `QoS` 1, when their subscription is granted.
    pub births: u16,
    /// A message on a topic that was never subscribed to, after each SUBSCRIBE and PUBLISH.
    pub strangers: bool,
    /// Payloads to the command topic of output `fan`, when its subscription is granted.
    pub commands: Vec<String>,
    /// Closes after so many publishes, acknowledged; 0: after CONNACK.
    pub close_after: Option<usize>,
    /// Closes after this time.
    pub close_at: Option<Duration>,
    /// A CONNACK each second, again and again.
    pub connacks: bool,
    /// Writes byte by byte.
    pub dribble: bool,
    /// Reads nothing after CONNECT: the window of zero.
    pub deaf: bool,
    /// Answers pings.
    pub pongs: bool,
    /// Time taken for each publish.
    pub slow: Duration,
}

impl Conduct {
    /// A right broker's.
    pub fn right() -> Self {
        Self {
            connect: OnConnect::Accept,
            publish: OnPublish::Acknowledge,
            subscribe: OnSubscribe::Grant,
            retained_bytes: None,
            retained_pace: None,
            births: 0,
            strangers: false,
            commands: Vec::new(),
            close_after: None,
            close_at: None,
            connacks: false,
            dribble: false,
            deaf: false,
            pongs: true,
            slow: Duration::ZERO,
        }
    }
}

/// A right broker's conduct, but for this.
pub fn with(change: impl FnOnce(&mut Conduct)) -> Conduct {
    let mut conduct = Conduct::right();
    change(&mut conduct);
    conduct
}

/// One connection, as the broker saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Instant,
    pub connect: Option<Connect>,
    /// Publishes in their order, and when.
    pub published: Vec<(Instant, Publish)>,
    pub subscribed: Vec<String>,
    /// Topics and payloads in the order of publishes and subscriptions: `SUB filter` for the latter.
    pub order: Vec<String>,
    /// Commands written, and how many of them the node acknowledged.
    pub commanded: Vec<String>,
    pub obeyed: usize,
    pub pings: usize,
    pub disconnected: bool,
    pub ended: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Vec<Conduct>>,
    seen: Mutex<Vec<Seen>>,
    /// Telemetry of acknowledged readings: boot and number.
    stored: Mutex<Vec<(String, u64)>>,
    /// The socket of each connection, for commands from outside. Whoever writes holds it: packets must not mix.
    writers: Mutex<Vec<Writer>>,
    /// The same sockets, to end connections.
    sockets: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
}

/// The broker. It lives as long as the test process, or until [`FakeBroker::stop`].
#[derive(Debug, Clone)]
pub struct FakeBroker {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl FakeBroker {
    /// Listens; the n-th connection meets the n-th conduct, all later ones the last.
    pub fn start(script: Vec<Conduct>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            seen: Mutex::default(),
            stored: Mutex::default(),
            writers: Mutex::default(),
            sockets: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let broker = Self { address, shared };
        let serving = broker.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = serving.shared.connections.fetch_add(1, Ordering::SeqCst);
                let conduct = {
                    let script = lock(&serving.shared.script);
                    script.get(number).or(script.last()).cloned().expect("a script")
                };
                lock(&serving.shared.seen).push(Seen {
                    at: Instant::now(),
                    connect: None,
                    published: Vec::new(),
                    subscribed: Vec::new(),
                    order: Vec::new(),
                    commanded: Vec::new(),
                    obeyed: 0,
                    pings: 0,
                    disconnected: false,
                    ended: None,
                });
                let clone = || stream.try_clone().expect("a clone");
                let writer = Arc::new(Mutex::new(clone()));
                lock(&serving.shared.writers).push(Arc::clone(&writer));
                lock(&serving.shared.sockets).push(clone());
                let connection = Connection {
                    number,
                    conduct,
                    shared: Arc::clone(&serving.shared),
                    stream,
                    writer,
                    publishes: 0,
                    subscribes: 0,
                };
                thread::Builder::new()
                    .stack_size(256 * 1024)
                    .spawn(move || connection.serve())
                    .expect("a thread");
            }
        });
        broker
    }

    /// What later connections meet.
    pub fn become_(&self, conduct: &Conduct) {
        let mut script = lock(&self.shared.script);
        let connections = self.shared.connections.load(Ordering::SeqCst);
        script.truncate(connections);
        while script.len() <= connections {
            script.push(conduct.clone());
        }
    }

    /// All connections, and what came on them.
    pub fn seen(&self) -> Vec<Seen> {
        self.with_seen(<[Seen]>::to_vec)
    }

    /// Looks at all connections without a copy.
    pub fn with_seen<T>(&self, look: impl FnOnce(&[Seen]) -> T) -> T {
        look(&lock(&self.shared.seen))
    }

    /// Connections whose CONNECT came.
    pub fn connects(&self) -> usize {
        lock(&self.shared.seen).iter().filter(|seen| seen.connect.is_some()).count()
    }

    /// Boot and number of the acknowledged readings, in the order of their acknowledgement, each as often as it was.
    pub fn stored(&self) -> Vec<(String, u64)> {
        lock(&self.shared.stored).clone()
    }

    /// The last payload on a topic that ends so.
    pub fn last(&self, topic_end: &str) -> Option<String> {
        let seen = lock(&self.shared.seen);
        let all = seen.iter().flat_map(|seen| &seen.published);
        let of_topic = all.filter(|(_, publish)| publish.topic.ends_with(topic_end));
        of_topic
            .max_by_key(|(at, _)| *at)
            .map(|(_, publish)| String::from_utf8_lossy(&publish.payload).into_owned())
    }

    /// Writes to the latest connection.
    pub fn write(&self, bytes: &[u8]) {
        let writer = lock(&self.shared.writers).last().map(Arc::clone).expect("a connection");
        let _ = lock(&writer).write_all(bytes);
    }

    /// Sends a command to output `fan` of node `node` on the latest connection, at QoS 1.
    pub fn command(&self, node: &str, payload: &str, pkid: u16) {
        self.write(&command(node, payload, pkid));
    }

    /// Ends every connection.
    pub fn cut(&self) {
        for socket in lock(&self.shared.sockets).iter() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// A PUBLISH to the command topic of output `fan`.
pub fn command(node: &str, payload: &str, pkid: u16) -> Vec<u8> {
    let mut publish =
        Publish::new(format!("humidor/{node}/output/fan/set"), QoS::AtLeastOnce, payload);
    publish.pkid = pkid;
    encode(&Packet::Publish(publish))
}

fn encode(packet: &Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, usize::MAX).expect("it can be written");
    bytes.to_vec()
}

struct Connection {
    number: usize,
    conduct: Conduct,
    shared: Arc<Shared>,
    stream: TcpStream,
    writer: Writer,
    publishes: usize,
    subscribes: usize,
}

/// Why a connection ends.
struct Closed;

/// The writing side of a connection.
type Writer = Arc<Mutex<TcpStream>>;

impl Connection {
    fn serve(mut self) {
        let _ = self.stream.set_nodelay(true);
        let _ = self.stream.set_read_timeout(Some(TICK));
        let _ = self.converse();
        let _ = self.stream.shutdown(Shutdown::Both);
        self.note(|seen| seen.ended = Some(Instant::now()));
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut lock(&self.shared.seen)[self.number]);
    }

    fn converse(&mut self) -> Result<(), Closed> {
        let begin = Instant::now();
        let mut inbound = BytesMut::new();
        let mut connected = false;
        let mut connacks = 0;
        loop {
            if self.conduct.close_at.is_some_and(|at| begin.elapsed() >= at) {
                return Err(Closed);
            }
            if self.conduct.connacks && connected && begin.elapsed().as_secs() > connacks {
                connacks += 1;
                self.write(&[0x20, 2, 0, 0])?;
            }
            if self.conduct.deaf && connected {
                // Still open, nothing read. The end of the other side shows as a reset or a hang-up at `peek`.
                thread::sleep(TICK);
                if let Some(error) = self.stream.take_error().ok().flatten() {
                    drop(error);
                    return Err(Closed);
                }
                continue;
            }
            match Packet::read(&mut inbound, usize::MAX) {
                Ok(Packet::Connect(connect)) => {
                    self.note(|seen| seen.connect = Some(connect));
                    self.connect()?;
                    connected = true;
                }
                Ok(packet) => self.answer(packet)?,
                Err(Error::InsufficientBytes(_)) => {
                    let mut chunk = [0; 16 * 1024];
                    match self.stream.read(&mut chunk) {
                        Ok(0) => return Err(Closed),
                        Ok(count) => inbound.extend_from_slice(&chunk[..count]),
                        Err(error)
                            if matches!(
                                error.kind(),
                                ErrorKind::WouldBlock | ErrorKind::TimedOut
                            ) => {}
                        Err(_) => return Err(Closed),
                    }
                }
                Err(error) => panic!("the node sent nonsense: {error}"),
            }
        }
    }

    fn connect(&self) -> Result<(), Closed> {
        match self.conduct.connect {
            OnConnect::Accept => self.write(&[0x20, 2, 0, 0])?,
            OnConnect::Refuse(code) => {
                self.write(&[0x20, 2, 0, code])?;
                return Err(Closed);
            }
            OnConnect::Silence => {}
            OnConnect::Close => return Err(Closed),
            OnConnect::Nonsense => self.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")?,
        }
        if self.conduct.close_after == Some(0) { Err(Closed) } else { Ok(()) }
    }

    fn answer(&mut self, packet: Packet) -> Result<(), Closed> {
        match packet {
            Packet::Publish(publish) => {
                self.note(|seen| {
                    seen.order.push(format!(
                        "{} {}",
                        publish.topic,
                        String::from_utf8_lossy(&publish.payload)
                    ));
                    seen.published.push((Instant::now(), publish.clone()));
                });
                self.publish(&publish)?;
                self.strangers()?;
                self.publishes += 1;
                if self.conduct.close_after.is_some_and(|count| self.publishes >= count) {
                    return Err(Closed);
                }
            }
            Packet::Subscribe(subscribe) => {
                let filters: Vec<String> =
                    subscribe.filters.iter().map(|filter| filter.path.clone()).collect();
                self.note(|seen| {
                    seen.order.extend(filters.iter().map(|filter| format!("SUB {filter}")));
                    seen.subscribed.extend(filters.iter().cloned());
                });
                let [high, low] = subscribe.pkid.to_be_bytes();
                self.subscribes += 1;
                let granted = match self.conduct.subscribe {
                    OnSubscribe::Grant => true,
                    OnSubscribe::RefuseFirst(count) => self.subscribes > count,
                    _ => false,
                };
                match self.conduct.subscribe {
                    _ if granted => self.write(&[0x90, 3, high, low, 1])?,
                    OnSubscribe::Grant | OnSubscribe::RefuseFirst(_) | OnSubscribe::Refuse => {
                        self.write(&[0x90, 3, high, low, 0x80])?;
                    }
                    OnSubscribe::NoCodes => self.write(&[0x90, 2, high, low])?,
                    OnSubscribe::Silence => return Ok(()),
                    OnSubscribe::Close => return Err(Closed),
                }
                for filter in &filters {
                    if let Some(bytes) = self.conduct.retained_bytes {
                        let topic = filter.replace('+', "fan");
                        let mut publish = Publish::new(topic, QoS::AtLeastOnce, vec![b'x'; bytes]);
                        (publish.retain, publish.pkid) = (true, 40_000);
                        self.write_slowly(&encode(&Packet::Publish(publish)))?;
                    }
                    if granted && filter == "homeassistant/status" {
                        for pkid in 1..=self.conduct.births {
                            let mut birth = Publish::new(filter, QoS::AtLeastOnce, "online");
                            birth.pkid = pkid;
                            self.write(&encode(&Packet::Publish(birth)))?;
                        }
                    }
                    if granted
                        && let Some(node) = filter
                            .strip_prefix("humidor/")
                            .and_then(|rest| rest.strip_suffix("/output/+/set"))
                    {
                        for (pkid, payload) in (1..).zip(self.conduct.commands.clone()) {
                            self.note(|seen| seen.commanded.push(payload.clone()));
                            self.write(&command(node, &payload, pkid))?;
                        }
                    }
                }
                self.strangers()?;
            }
            Packet::PingReq => {
                self.note(|seen| seen.pings += 1);
                if self.conduct.pongs {
                    self.write(&[0xd0, 0])?;
                }
            }
            Packet::PubAck(ack) if ack.pkid < 40_000 => self.note(|seen| seen.obeyed += 1),
            Packet::PubAck(_) => {}
            Packet::Disconnect => {
                self.note(|seen| seen.disconnected = true);
                return Err(Closed);
            }
            other => panic!("the node sent {other:?}"),
        }
        Ok(())
    }

    fn publish(&self, publish: &Publish) -> Result<(), Closed> {
        thread::sleep(self.conduct.slow);
        let ack = |pkid: u16| encode(&Packet::PubAck(PubAck::new(pkid)));
        let times = match self.conduct.publish {
            OnPublish::Never => return Ok(()),
            OnPublish::AllBut(count) if self.publishes.is_multiple_of(count) => return Ok(()),
            OnPublish::Twice => 2,
            OnPublish::WrongIdsToo => {
                self.write(&ack(0))?;
                self.write(&ack(60_000))?;
                1
            }
            OnPublish::Acknowledge | OnPublish::AllBut(_) => 1,
        };
        if publish.topic.contains("/sensor/") {
            let telemetry = Telemetry::parse(&publish.payload).expect("telemetry");
            lock(&self.shared.stored).push((telemetry.boot.to_string(), telemetry.seq));
        }
        for _ in 0..times {
            self.write(&ack(publish.pkid))?;
        }
        Ok(())
    }

    fn strangers(&self) -> Result<(), Closed> {
        if !self.conduct.strangers {
            return Ok(());
        }
        for (topic, payload) in [("plant/other", "1"), ("humidor/else/output/fan/set", "ON")] {
            self.write(&encode(&Packet::Publish(Publish::new(topic, QoS::AtMostOnce, payload))))?;
        }
        Ok(())
    }

    fn write_slowly(&self, bytes: &[u8]) -> Result<(), Closed> {
        let Some((count, pause)) = self.conduct.retained_pace else { return self.write(bytes) };
        let mut writer = lock(&self.writer);
        for some in bytes.chunks(count) {
            writer.write_all(some).map_err(|_| Closed)?;
            thread::sleep(pause);
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> Result<(), Closed> {
        let mut writer = lock(&self.writer);
        if self.conduct.dribble {
            let one_by_one = bytes.iter().try_for_each(|byte| writer.write_all(&[*byte]));
            return one_by_one.map_err(|_| Closed);
        }
        writer.write_all(bytes).map_err(|_| Closed)
    }
}

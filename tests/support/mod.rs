//! The harness: real processes, a bare MQTT client, and waiting for conditions instead of for time.

#![allow(dead_code)] // every test binary uses its part

pub mod board;
pub mod fake_broker;
pub mod flood;
pub mod frames;
pub mod http;
pub mod packets;
pub mod stock;
pub mod users;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use humidor::broker::{Broker, BrokerConfig};
use humidor::shutdown;
use humidor::store::{LOG_FILE, Log, Selection};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, Packet, Publish, Subscribe, SubscribeReasonCode};

/// Longest that any single condition may take on a busy two-core machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `condition` holds.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, condition);
}

/// Waits until `condition` holds, for what takes long by its nature.
pub fn wait_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {patience:?} for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How often a process is killed: `usual`, or the number in `HUMIDOR_KILLS`, for a long form of the test.
pub fn kills(usual: usize) -> usize {
    std::env::var("HUMIDOR_KILLS").map_or(usual, |text| text.parse().expect("HUMIDOR_KILLS"))
}

/// Runs cases side by side, which mostly wait. Each failure is told.
pub fn side_by_side(cases: &[(&'static str, fn())]) {
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let start = |(name, case): &(&'static str, fn())| {
            let named = std::thread::Builder::new().name((*name).to_owned());
            (*name, named.spawn_scoped(scope, *case).expect("a thread"))
        };
        let running: Vec<_> = cases.iter().map(start).collect();
        let ended = running.into_iter().map(|(name, case)| (name, case.join().is_err()));
        ended.filter(|(_, failed)| *failed).map(|(name, _)| name).collect()
    });
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}

/// The binary, or the one that `HUMIDOR_BINARY` names: the shipped one, say. Without any HUMIDOR_ variable of the
/// surroundings.
pub fn humidor() -> Command {
    let binary = std::env::var_os("HUMIDOR_BINARY");
    let mut command = Command::new(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_humidor").into()));
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HUMIDOR_"))
    {
        command.env_remove(name);
    }
    // Tests run side by side.
    command.env("HUMIDOR_HTTP_LISTEN", "127.0.0.1:0");
    // One heap, as the shipped binary has: by its own choice glibc keeps one for each thread, and what is free in one of
    // them would count as the broker's memory. A benchmark measures its build as it is.
    if cfg!(debug_assertions) {
        command.env("MALLOC_ARENA_MAX", "1");
    }
    command
}

/// A role in a process of its own. Dropping it kills it.
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts `command` and collects its log.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for a log line that contains `text` and returns it.
    pub fn said(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => heard = heard + &line + "\n",
                Err(end) => panic!("it never said `{text}` ({end}), only:\n{heard}"),
            }
        }
    }

    /// `kill -9`: no handler runs, nothing is flushed.
    pub fn kill_9(mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process is gone");
    }

    /// SIGTERM; returns the exit code, and prints what it said when that is not 0.
    pub fn terminate(mut self) -> Option<i32> {
        self.ask_to_end();
        let code = self.wait();
        if code != Some(0) {
            eprintln!("{}", self.lines.iter().collect::<Vec<_>>().join("\n"));
        }
        code
    }

    /// SIGTERM; returns what it said and nobody has read.
    pub fn last_words(mut self) -> String {
        self.ask_to_end();
        self.wait();
        self.lines.iter().collect::<Vec<_>>().join("\n")
    }

    fn ask_to_end(&self) {
        let killed =
            Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(killed.success());
    }

    /// Waits for its end by itself; returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the process ends", || {
            status = self.child.try_wait().expect("the process can be waited for");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Waits for its end by itself; returns the exit code and all that it said.
    pub fn end(mut self) -> (Option<i32>, String) {
        let code = self.wait();
        (code, self.lines.iter().collect::<Vec<_>>().join("\n"))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many sockets it has open: a connection is one.
    pub fn sockets(&self) -> usize {
        let links = std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap();
        // One that was closed meanwhile leads nowhere.
        let files = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
        files.filter(|file| file.to_string_lossy().starts_with("socket:")).count()
    }

    /// Memory that it has, KiB.
    pub fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Most memory that it ever had, KiB.
    pub fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a broker on `address` (port 0: any) and waits until it listens.
pub fn broker(data: &Path, address: &str, more: &[&str]) -> (Process, SocketAddr) {
    let mut command = humidor();
    command
        .args(["broker", "--mqtt-listen", address, "--data"])
        .arg(data)
        .args(more)
        .env("NO_COLOR", "1")
        // Readings of the tests are old, and nothing of them is to be given up for that.
        .env("HUMIDOR_KEEP_RAW", "forever");
    let process = Process::start(command);
    let line = process.said("listening for MQTT");
    let address = line.rsplit("address=").next().expect("the line has an address").trim();
    (process, address.parse().expect("an address"))
}

/// A broker inside the test process, for as long as that lives. It logs everything.
pub fn lasting_broker() -> SocketAddr {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let data = lasting_folder();
    let (trigger, shutdown) = shutdown::channel();
    let config = BrokerConfig {
        data,
        mqtt_listen: "127.0.0.1:0".parse().unwrap(),
        logged: vec!["#".parse().unwrap()],
        commit_window: std::time::Duration::ZERO,
        retention: humidor::store::Retention::EVERYTHING,
        alarms: Vec::new(),
        discovery: None,
        access: humidor::broker::AccessConfig::default(),
        tls: None,
        limits: humidor::broker::Limits::default(),
        upstream: None,
    };
    let broker = runtime.block_on(Broker::start(config, shutdown)).unwrap();
    let address = broker.address();
    // Both live as long as the test process.
    std::mem::forget((runtime, broker, trigger));
    address
}

/// A folder of this test process, which nobody is left to remove: those of processes that are gone go now.
fn lasting_folder() -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lasting");
    std::fs::create_dir_all(&all).unwrap();
    for earlier in std::fs::read_dir(&all).unwrap() {
        let earlier = earlier.unwrap();
        if !Path::new("/proc").join(earlier.file_name()).exists() {
            // Another test process may be removing it too.
            let _ = std::fs::remove_dir_all(earlier.path());
        }
    }
    let own = all.join(std::process::id().to_string());
    let _ = std::fs::remove_dir_all(&own);
    std::fs::create_dir_all(&own).unwrap();
    own
}

/// Others still connect, subscribe, publish, get their acknowledgement and each other's messages.
pub fn assert_serving(address: SocketAddr) {
    let id = format!("bystander-{}", fastrand::u64(..));
    let topic = format!("humidor/{id}/sensor/s");
    let mut bystander = Client::connect(address, &id);
    assert_eq!(
        bystander.subscribe(&topic, QoS::AtMostOnce),
        SubscribeReasonCode::Success(QoS::AtMostOnce)
    );
    bystander.publish(&topic, QoS::AtLeastOnce, 5, &telemetry("b", 1));
    let (mut acknowledged, mut delivered) = (false, false);
    while !(acknowledged && delivered) {
        match bystander.receive() {
            Some(Packet::PubAck(ack)) => acknowledged = ack.pkid == 5,
            Some(Packet::Publish(publish)) => delivered = publish.topic == topic,
            other => panic!("the broker does not serve: {other:?}"),
        }
    }
}

/// The log of a broker.
pub fn log(data: &Path) -> Log {
    Log::open(&data.join(LOG_FILE)).expect("the log opens")
}

/// Stored readings, 0 before there is a log.
pub fn stored(data: &Path) -> i64 {
    Log::open(&data.join(LOG_FILE)).and_then(|log| log.stats()).map_or(0, |stats| stats.readings)
}

/// All stored readings.
pub fn readings(data: &Path) -> Vec<humidor::store::Reading> {
    let mut all = Vec::new();
    log(data)
        .export(&Selection::default(), |reading| {
            all.push(reading);
            Ok::<_, rusqlite::Error>(())
        })
        .expect("the log can be exported");
    all
}

/// Numbers ever given by the outbox in `data`, that is readings taken, and those still waiting.
pub fn outbox(data: &Path) -> (i64, i64) {
    let path: PathBuf = data.join(humidor::node::OUTBOX_FILE);
    let connection = rusqlite::Connection::open(path).expect("the outbox opens");
    let one = |sql| connection.query_row(sql, [], |row| row.get(0)).unwrap_or(0);
    (
        one("SELECT seq FROM sqlite_sequence WHERE name = 'waiting'"),
        one("SELECT count(*) FROM waiting"),
    )
}

/// Telemetry as a node would send it.
pub fn telemetry(boot: &str, seq: u64) -> Vec<u8> {
    format!(
        r#"{{"boot":"{boot}","seq":{seq},"at":1760000000123,"clock":"synced","mono":{},"temperature":21.5,"humidity":57.1}}"#,
        seq * 1000
    )
    .into_bytes()
}

/// A client that does what a test says, packet by packet.
pub struct Client {
    pub stream: TcpStream,
    inbound: BytesMut,
}

impl Client {
    /// Opens a socket and says nothing.
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the broker accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        stream.set_nodelay(true).expect("nodelay can be set");
        Self { stream, inbound: BytesMut::new() }
    }

    /// As [`Client::open`], for a broker that may be dead by now.
    pub fn try_open(address: SocketAddr) -> Option<Self> {
        TcpStream::connect(address).ok().map(|stream| {
            stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
            Self { stream, inbound: BytesMut::new() }
        })
    }

    /// Connects with a clean session.
    pub fn connect(address: SocketAddr, id: &str) -> Self {
        // No keep-alive: a test that waits for something else says nothing meanwhile.
        Self::connect_with(address, &Connect { keep_alive: 0, ..Connect::new(id) }).0
    }

    /// Connects; returns whether a session was present.
    pub fn connect_with(address: SocketAddr, connect: &Connect) -> (Self, bool) {
        let mut client = Self::open(address);
        client.send(&Packet::Connect(connect.clone()));
        match client.receive() {
            Some(Packet::ConnAck(ack))
                if ack.code == rumqttc::mqttbytes::v4::ConnectReturnCode::Success =>
            {
                (client, ack.session_present)
            }
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).expect("the packet can be written");
        self.stream.write_all(&bytes).expect("the broker reads");
    }

    pub fn publish(&mut self, topic: &str, qos: QoS, pkid: u16, payload: &[u8]) {
        let mut publish = Publish::new(topic, qos, payload);
        publish.pkid = pkid;
        self.send(&Packet::Publish(publish));
    }

    /// Subscribes and returns the SUBACK's code.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> SubscribeReasonCode {
        let mut subscribe = Subscribe::new(filter, qos);
        subscribe.pkid = 1;
        self.send(&Packet::Subscribe(subscribe));
        loop {
            match self.receive() {
                Some(Packet::SubAck(ack)) => return ack.return_codes[0],
                // A persistent session may have something waiting.
                Some(Packet::Publish(_)) => {}
                other => panic!("no SUBACK but {other:?}"),
            }
        }
    }

    /// The next packet; `None` when the broker closed the connection.
    pub fn receive(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.inbound, usize::MAX) {
                Ok(packet) => return Some(packet),
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("the broker sent nonsense: {error}"),
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.inbound.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the broker did not answer: {error}"),
            }
        }
    }

    /// Whether nothing has arrived, without waiting.
    pub fn is_silent(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("non-blocking can be set");
        let mut byte = [0];
        let silent = matches!(self.stream.peek(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).expect("blocking can be set");
        silent && self.inbound.is_empty()
    }

    /// Waits for the PUBACK of `pkid`.
    pub fn expect_puback(&mut self, pkid: u16) {
        match self.receive() {
            Some(Packet::PubAck(ack)) => assert_eq!(ack.pkid, pkid),
            other => panic!("no PUBACK but {other:?}"),
        }
    }

    /// A round trip: whatever was sent before has been read by the broker when this returns.
    pub fn ping(&mut self) {
        self.send(&Packet::PingReq);
        loop {
            match self.receive() {
                Some(Packet::PingResp) => return,
                Some(_) => {}
                None => panic!("the broker closed the connection"),
            }
        }
    }
}

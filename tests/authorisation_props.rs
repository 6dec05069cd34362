//! One answer at every door: whatever the rules are, a topic can be read or written over MQTT, WebSocket and HTTP alike, in
//! lists, charts, exports, events and metrics. `PROPTEST_CASES` sets the number of random rule sets, that is of users with
//! roles and rules; three of them share a users file, its rules for all and the guests that these bind.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::frames::{BINARY, FIN, frame};
use support::http::send;
use support::packets::packet;
use support::users::user;
use support::{PATIENCE, Process, telemetry, wait_until};

/// Rule sets where `PROPTEST_CASES` says nothing.
const CASES: u32 = 100;
const NODES: [&str; 3] = ["a", "b", "c"];
const ALARMS: [&str; 2] = ["hot", "cold"];
/// Reports in `$SYS/broker/`, and the metric that stands for each.
const REPORTS: [(&str, &str); 4] = [
    ("uptime", "humidor_start_time_seconds"),
    ("store/readings", "humidor_readings_stored_total"),
    ("clients/connected", "humidor_clients"),
    ("publish/messages/dropped", "humidor_messages_dropped_total"),
];
/// Messages of this board are read by everybody; it is the last to change.
const MARKER: &str = "allow read humidor/marker/#";
/// The users' names are those of boards, and the client id is that of HTTP's clients, so that placeholders mean the same.
const USERS: [&str; 3] = NODES;
const CLIENT_ID: &str = "http";

/// Rules for all, and of each user its role and its rules.
#[derive(Debug, Clone)]
struct RuleSets {
    all: Vec<String>,
    users: [(&'static str, Vec<String>); USERS.len()],
}

fn pattern(last: &'static [&'static str]) -> impl Strategy<Value = String> {
    let first = prop_oneof![
        8 => Just("humidor"), 1 => Just("+"), 1 => Just("#"), 2 => Just("$SYS"), 1 => Just("x")
    ];
    let second = prop::sample::select(vec!["a", "b", "c", "+", "#", "%u", "%c", "alarm", "broker"]);
    let third = prop::sample::select(vec![
        "sensor", "status", "health", "input", "output", "+", "#", "hot", "cold", "uptime",
        "store", "clients", "publish",
    ]);
    let fourth =
        prop::sample::select(vec!["s", "i", "o", "+", "#", "readings", "connected", "messages"]);
    (first, second, third, fourth, prop::sample::select(last), 2..=5_usize).prop_map(
        |(first, second, third, fourth, fifth, length)| {
            let mut levels: Vec<&str> = vec![first, second, third, fourth, fifth];
            levels.truncate(length);
            let end = levels.iter().position(|level| *level == "#");
            levels.truncate(end.map_or(levels.len(), |at| at + 1));
            levels.join("/")
        },
    )
}

fn rule(
    access: &'static [&'static str],
    last: &'static [&'static str],
) -> impl Strategy<Value = String> {
    let verb = prop_oneof![Just("allow"), Just("deny")];
    (verb, prop::sample::select(access), pattern(last))
        .prop_map(|(verb, access, pattern)| format!("{verb} {access} {pattern}"))
}

fn rule_sets() -> impl Strategy<Value = RuleSets> {
    // A board publishes as `root`, and rules for all bind it, too: they deny commands only.
    let command = (
        prop::sample::select(vec!["allow", "deny"]),
        prop::sample::select(vec![
            "humidor/a/output/o/set",
            "humidor/+/output/o/set",
            "+/b/output/+/set",
            "humidor/%u/output/o/set",
            "humidor/%c/output/o/set",
        ]),
    )
        .prop_map(|(verb, pattern)| format!("{verb} write {pattern}"));
    let all = prop::collection::vec(
        prop_oneof![2 => rule(&["read"], &["#", "dropped"]), 1 => command],
        0..4,
    );
    let own =
        prop::collection::vec(rule(&["read", "write", "all"], &["set", "#", "dropped"]), 0..7);
    let role = prop::sample::select(vec![
        "admin", "operator", "reader", "node", "fleet", "none", "none", "none",
    ]);
    let user = (role, own).boxed();
    (all, [user.clone(), user.clone(), user]).prop_map(|(all, users)| RuleSets { all, users })
}

/// Topics that can be read, and those of commands.
fn topics() -> (Vec<String>, Vec<String>) {
    let boards = NODES.iter().flat_map(|node| {
        ["sensor/s", "status", "health", "input/i", "output/o"]
            .map(|value| format!("humidor/{node}/{value}"))
    });
    let alarms = ALARMS.iter().map(|alarm| format!("humidor/alarm/{alarm}"));
    let reports = REPORTS.iter().map(|(report, _)| format!("$SYS/broker/{report}"));
    let commands = NODES.iter().map(|node| format!("humidor/{node}/output/o/set"));
    (boards.chain(alarms).chain(reports).collect(), commands.collect())
}

/// What can be read and written: by topic.
type Answers = BTreeMap<String, bool>;

/// An MQTT 5.0 client over any stream.
struct Mqtt {
    stream: Box<dyn Stream>,
    inbound: Vec<u8>,
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

impl Mqtt {
    /// Connects; `None` when a rule cannot be applied to the client's names.
    fn connect(stream: Box<dyn Stream>, client_id: &str, user: Option<&str>) -> Option<Self> {
        let mut body = Vec::new();
        text(&mut body, "MQTT");
        body.extend([5, if user.is_some() { 0xc2 } else { 2 }, 0, 0, 0]);
        text(&mut body, client_id);
        if let Some(user) = user {
            text(&mut body, user);
            text(&mut body, "secret");
        }
        let mut mqtt = Self { stream, inbound: Vec::new() };
        mqtt.stream.write_all(&packet(0x10, &body)).unwrap();
        let (kind, body) = mqtt.receive();
        assert_eq!(kind, 0x20);
        match body[1] {
            0 => Some(mqtt),
            0x85 | 0x87 => None,
            other => panic!("CONNACK {other:#x}"),
        }
    }

    /// The next packet: its first byte and its body; the type 0 when the connection ends.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(found) = self.take() {
                return found;
            }
            let mut chunk = [0; 4096];
            let count = self.stream.read(&mut chunk).unwrap_or(0);
            if count == 0 {
                return (0, Vec::new());
            }
            self.inbound.extend_from_slice(&chunk[..count]);
        }
    }

    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let (mut length, mut header) = (0, 1);
        loop {
            let byte = *self.inbound.get(header)?;
            length |= usize::from(byte & 0x7f) << (7 * (header - 1));
            header += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let body = self.inbound.get(header..header + length)?.to_vec();
        let first = self.inbound[0];
        self.inbound.drain(..header + length);
        Some((first, body))
    }

    /// The next packet of this type.
    fn expect(&mut self, wanted: u8) -> Vec<u8> {
        loop {
            match self.receive() {
                (kind, body) if kind == wanted => return body,
                (0, _) => panic!("the broker closed the connection"),
                _ => {}
            }
        }
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) -> bool {
        self.send(topic, false, payload);
        self.acknowledged()
    }

    /// Whether the next message of this client was taken.
    fn acknowledged(&mut self) -> bool {
        self.expect(0x40).get(2).is_none_or(|reason| *reason != 0x87)
    }

    fn send(&mut self, topic: &str, retain: bool, payload: &[u8]) {
        let mut body = Vec::new();
        text(&mut body, topic);
        body.extend([0, 7, 0]);
        body.extend_from_slice(payload);
        self.stream.write_all(&packet(0x32 | u8::from(retain), &body)).unwrap();
    }

    /// Reads and writes everything.
    fn answers(&mut self) -> Answers {
        let (read, written) = topics();
        let mut body = vec![0, 1, 0];
        for topic in &read {
            text(&mut body, topic);
            body.push(0);
        }
        self.stream.write_all(&packet(0x82, &body)).unwrap();
        let reasons = self.expect(0x90);
        let mut answers: Answers = read
            .into_iter()
            .zip(&reasons[3..])
            .map(|(topic, reason)| (topic, *reason == 0))
            .collect();
        for topic in written {
            let may = self.publish(&topic, b"OFF");
            answers.insert(topic, may);
        }
        answers
    }
}

/// The bytes of MQTT in frames of a WebSocket (RFC 6455 §5.2).
struct WebSocket {
    stream: TcpStream,
    /// Of the frame that is read.
    left: usize,
}

impl WebSocket {
    fn open(http: SocketAddr) -> Self {
        let head = format!(
            "GET /mqtt HTTP/1.1\r\nhost: {http}\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: mqtt\r\n\r\n"
        );
        let mut stream = send(http, head.as_bytes());
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"));
        Self { stream, left: 0 }
    }
}

impl Read for WebSocket {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.left == 0 {
            let mut header = [0; 2];
            self.stream.read_exact(&mut header)?;
            self.left = match header[1] {
                126 => {
                    let mut long = [0; 2];
                    self.stream.read_exact(&mut long)?;
                    usize::from(u16::from_be_bytes(long))
                }
                127 => panic!("no frame is that long"),
                short => usize::from(short),
            };
        }
        let most = self.left.min(buffer.len());
        let count = self.stream.read(&mut buffer[..most])?;
        self.left -= count;
        Ok(count)
    }
}

impl Write for WebSocket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write_all(&frame(FIN | BINARY, bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// Where a broker listens.
#[derive(Debug, Clone, Copy)]
struct Doors {
    mqtt: SocketAddr,
    http: SocketAddr,
}

/// A broker, and what it takes to change its rules.
struct Fixture {
    broker: Process,
    doors: Doors,
    users: PathBuf,
    hash: String,
    /// Changes with each rule set.
    round: u64,
    /// How often everything has changed.
    changes: u64,
    _data: tempfile::TempDir,
}

impl Fixture {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let hash = hash_of_secret(data.path());
        let users = data.path().join("rules.toml");
        std::fs::write(&users, "").unwrap();
        let more = [
            "--users-file",
            users.to_str().unwrap(),
            "--anonymous",
            "yes",
            "--http-guests",
            "switch",
            "--alarms",
            "hot=a/s:silent>10h,cold=b/s:silent>10h",
        ];
        let (broker, mqtt) = support::broker(data.path(), "127.0.0.1:0", &more);
        let line = broker.said("listening for HTTP");
        let http = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
        let mut fixture = Self {
            broker,
            doors: Doors { mqtt, http },
            users,
            hash,
            round: 0,
            changes: 0,
            _data: data,
        };
        let nothing = || ("none", Vec::new());
        let users = [nothing(), nothing(), nothing()];
        fixture.write(&RuleSets { all: Vec::new(), users });
        fixture.reload();
        fixture.change_everything();
        wait_until("the outputs are known", || {
            let mut root = Http::open(fixture.doors.http, Some("root"));
            root.rows("/api/v1/outputs").len() == NODES.len() + 1
        });
        fixture
    }

    fn write(&mut self, rules: &RuleSets) {
        self.round += 1;
        let all: Vec<String> = [MARKER.to_owned()].iter().chain(&rules.all).cloned().collect();
        let (hash, round) = (&self.hash, self.round);
        let users = USERS.iter().zip(&rules.users).map(|(name, (role, own))| {
            format!("[user.{name}]\npassword = '{hash}'\nrole = '{role}'\nrules = {own:?}\n")
        });
        let text = format!(
            "rules = {all:?}\n{}\
             [user.root]\npassword = '{hash}'\nrole = 'admin'\n\
             [user.sentinel]\npassword = '{hash}'\nrules = ['allow read round/{round}']\n",
            users.collect::<String>(),
        );
        let new = self.users.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.users).unwrap();
    }

    fn hang_up(&self) {
        let pid = i32::try_from(self.broker.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    }

    /// Lets the broker read its first rules.
    fn reload(&self) {
        self.hang_up();
        self.broker.said("users read again");
    }

    /// Puts these rules in force.
    fn set(&mut self, rules: &RuleSets) {
        let mut sentinel =
            self.doors.connect("sentinel", Some("sentinel")).expect("it has no placeholder");
        self.write(rules);
        self.hang_up();
        // Its connection ends with the rules of before.
        while sentinel.receive().0 != 0 {}
    }

    /// Changes every value of every board, the marker's last.
    fn change_everything(&mut self) {
        self.changes += 1;
        let changes = self.changes;
        let mut root = self.doors.connect("root", Some("root")).expect("it has no placeholder");
        let on = changes.is_multiple_of(2);
        let (status, state) =
            (if on { "online" } else { "offline" }, if on { "ON" } else { "OFF" });
        for node in NODES.iter().chain(&["marker"]) {
            let health = format!(
                r#"{{"version":"1","boot":"b","at":{changes},"clock":"synced","taken":1,"outbox":{changes},"dropped":0,"outbox_kind":"disk","failures":{{}}}}"#
            );
            for (value, payload) in [
                ("health", health.as_str()),
                ("input/i", state),
                ("output/o", state),
                ("status", status),
            ] {
                root.send(&format!("humidor/{node}/{value}"), true, payload.as_bytes());
            }
            root.send(&format!("humidor/{node}/sensor/s"), true, &telemetry("b", changes));
        }
        for _ in 0..5 * (NODES.len() + 1) {
            assert!(root.acknowledged());
        }
    }
}

impl Doors {
    fn connect(&self, client_id: &str, user: Option<&str>) -> Option<Mqtt> {
        let stream = TcpStream::connect(self.mqtt).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Mqtt::connect(Box::new(stream), client_id, user)
    }

    /// What HTTP answers, by the door that answers it.
    fn http_answers(&self, user: Option<&str>) -> Vec<(&'static str, Answers)> {
        let mut http = Http::open(self.http, user);
        let sensors = |rows: Vec<Value>| -> Answers {
            let found: BTreeSet<_> =
                rows.iter().map(|row| row["node"].as_str().unwrap().to_owned()).collect();
            by_node(|node| vec![("sensor/s", found.contains(node))])
        };
        let export = http.ask("GET", "/api/v1/export?format=jsonl", "");
        let exported = export.text().lines().map(|line| serde_json::from_str(line).unwrap());
        let nodes = http.rows("/api/v1/nodes");
        let outputs = http.rows("/api/v1/outputs");
        let alarms = http.rows("/api/v1/alarms");
        let metrics = http.ask("GET", "/metrics", "");
        let has = |start: &str| metrics.text().lines().any(|line| line.starts_with(start));
        let mut of_metrics = by_node(|node| {
            let series = |name: &str| has(&format!("humidor_{name}{{node=\"{node}\""));
            vec![
                ("sensor/s", series("reading_age_seconds")),
                ("status", series("board_online")),
                ("health", series("board_outbox")),
            ]
        });
        for alarm in ALARMS {
            let raised = has(&format!("humidor_alarm_raised{{alarm=\"{alarm}\""));
            of_metrics.insert(format!("humidor/alarm/{alarm}"), raised);
        }
        for (report, metric) in REPORTS {
            of_metrics.insert(format!("$SYS/broker/{report}"), has(&format!("{metric} ")));
        }
        let listed = |alarm: &str| alarms.iter().any(|row| row["name"] == alarm);
        vec![
            ("latest", sensors(http.rows("/api/v1/latest"))),
            ("sensors", sensors(http.rows("/api/v1/sensors"))),
            ("export", sensors(exported.collect())),
            (
                "series",
                by_node(|node| {
                    let path = format!("/api/v1/series?node={node}&sensor=s");
                    vec![("sensor/s", http.ask("GET", &path, "").status == 200)]
                }),
            ),
            ("nodes", by_node(|node| values_of(nodes.iter().find(|row| row["node"] == node)))),
            (
                "outputs",
                by_node(|node| vec![("output/o", outputs.iter().any(|row| row["node"] == node))]),
            ),
            (
                "alarms",
                ALARMS.iter().map(|name| (format!("humidor/alarm/{name}"), listed(name))).collect(),
            ),
            ("metrics", of_metrics),
            (
                "switching",
                by_node(|node| {
                    let path = format!("/api/v1/outputs/{node}/o");
                    let status = http.ask("POST", &path, r#"{"on":false}"#).status;
                    assert!([202, 401, 403].contains(&status), "{status}");
                    vec![("output/o/set", status == 202)]
                }),
            ),
        ]
    }

    fn open_events(&self, user: Option<&str>) -> Events {
        let login = user.map(|user| format!("authorization: {}\r\n", basic(user)));
        let (http, login) = (self.http, login.unwrap_or_default());
        let head = format!("GET /api/v1/events HTTP/1.1\r\nhost: {http}\r\n{login}\r\n");
        let mut events = Events { stream: send(http, head.as_bytes()), text: String::new() };
        events.until(|text| text.contains("event: hello"));
        events
    }
}

/// The values of a board, as the API shows them.
fn values_of(board: Option<&Value>) -> Vec<(&'static str, bool)> {
    let there = |value: &str| board.is_some_and(|board| !board[value].is_null());
    let named = |kind: &str, name: &str| board.is_some_and(|board| board[kind][name].is_boolean());
    vec![
        ("status", there("status")),
        ("health", there("health")),
        ("input/i", named("inputs", "i")),
        ("output/o", named("outputs", "o")),
    ]
}

fn by_node(mut values: impl FnMut(&str) -> Vec<(&'static str, bool)>) -> Answers {
    let all = NODES.iter().flat_map(|node| {
        values(node).into_iter().map(move |(value, may)| (format!("humidor/{node}/{value}"), may))
    });
    all.collect()
}

struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    fn until(&mut self, seen: impl Fn(&str) -> bool) {
        let mut chunk = [0; 16 * 1024];
        while !seen(&self.text) {
            let count = self.stream.read(&mut chunk).unwrap();
            assert!(count > 0, "closed after: {}", self.text);
            self.text += std::str::from_utf8(&chunk[..count]).unwrap();
        }
    }

    /// What was told of each value until the marker.
    fn answers(mut self, changes: u64) -> Answers {
        let status = if changes.is_multiple_of(2) { "online" } else { "offline" };
        let board = format!(r#""node":"marker","status":"{status}""#);
        let reading = format!(r#""node":"marker","sensor":"s","boot":"b","seq":{changes},"#);
        self.until(|text| {
            [&board, &reading]
                .iter()
                .all(|last| text.rfind(last.as_str()).is_some_and(|at| text[at..].contains("\n\n")))
        });
        let events = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        let events: Vec<Value> = events.map(|data| serde_json::from_str(data).unwrap()).collect();
        by_node(|node| {
            let read = events.iter().filter_map(Value::as_array).flatten();
            let mut read = read.filter(|reading| reading["seq"] == changes);
            let board = events.iter().rfind(|event| event.is_object() && event["node"] == node);
            let mut values = values_of(board);
            values.push(("sensor/s", read.any(|reading| reading["node"] == node)));
            values
        })
    }
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:secret")))
}

/// A client of HTTP/1.1 that keeps its connection.
struct Http {
    stream: BufReader<TcpStream>,
    head: String,
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Http {
    fn open(http: SocketAddr, user: Option<&str>) -> Self {
        let login = user.map(|user| format!("authorization: {}\r\n", basic(user)));
        let stream = TcpStream::connect(http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let head = format!("host: {http}\r\n{}", login.unwrap_or_default());
        Self { stream: BufReader::new(stream), head }
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let (head, length) = (&self.head, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let status = self.line();
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("transfer-encoding", value)) => chunked = value == "chunked",
                Some(_) => {}
                None => break,
            }
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                let length = usize::from_str_radix(&self.line(), 16).unwrap();
                self.read(length, &mut body);
                assert_eq!(self.line(), "");
                if length == 0 {
                    break;
                }
            }
        } else {
            self.read(length, &mut body);
        }
        Answer { status, body }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.stream.read_line(&mut line).unwrap() > 0, "closed");
        line.trim_end().to_owned()
    }

    fn read(&mut self, length: usize, body: &mut Vec<u8>) {
        let before = body.len();
        body.resize(before + length, 0);
        self.stream.read_exact(&mut body[before..]).unwrap();
    }

    fn rows(&mut self, path: &str) -> Vec<Value> {
        let answer = self.ask("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }
}

/// The hash of `secret`, made by the binary.
fn hash_of_secret(data: &Path) -> String {
    assert!(user(data, &["add", "x"], "secret\n").status.success());
    let text = std::fs::read_to_string(data.join("users.toml")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("password = \"")).unwrap();
    line.trim_end_matches('"').to_owned()
}

/// A caller and what MQTT answers it, and its event stream; or that no rule can be applied to it.
type Heard = Result<Option<(Answers, Events)>, String>;

/// What MQTT answers over TCP and WebSocket.
fn hear(doors: Doors, user: Option<&str>) -> Heard {
    let answers = |mqtt: Option<Mqtt>| mqtt.map(|mut mqtt| mqtt.answers());
    let over_tcp = answers(doors.connect(CLIENT_ID, user));
    let web_socket = Box::new(WebSocket::open(doors.http));
    let over_web_socket = answers(Mqtt::connect(web_socket, CLIENT_ID, user));
    if over_tcp != over_web_socket {
        return Err(format!("over TCP {over_tcp:?}, over WebSocket {over_web_socket:?}"));
    }
    let Some(expected) = over_tcp else {
        let status = Http::open(doors.http, user).ask("GET", "/api/v1/latest", "").status;
        let why = format!("{status}, though a rule cannot be applied");
        return if status == 401 { Ok(None) } else { Err(why) };
    };
    Ok(Some((expected, doors.open_events(user))))
}

/// Compares what HTTP answers with it; counts the answers: no, yes.
fn compare(
    doors: Doors,
    changes: u64,
    user: Option<&str>,
    heard: Option<(Answers, Events)>,
) -> Result<[u64; 2], String> {
    let Some((expected, events)) = heard else { return Ok([0; 2]) };
    let mut found = doors.http_answers(user);
    found.push(("events", events.answers(changes)));
    let mut counts = [0; 2];
    for (door, answers) in found {
        for (topic, may) in answers {
            counts[usize::from(may)] += 1;
            if may != expected[&topic] {
                return Err(format!("{door}: {topic}: {may}, over MQTT {}", expected[&topic]));
            }
        }
    }
    Ok(counts)
}

/// Calls `call` for each caller, all at once, with its part of `with`.
fn each_caller<T: Send, R: Send>(
    with: impl IntoIterator<Item = T>,
    call: impl Fn(Option<&str>, T) -> Result<R, String> + Sync,
) -> Result<Vec<R>, String> {
    let call = &call;
    let callers = USERS.into_iter().map(Some).chain([None]);
    std::thread::scope(|scope| {
        let threads: Vec<_> = callers
            .zip(with)
            .map(|(user, part)| {
                scope.spawn(move || call(user, part).map_err(|error| format!("{user:?}: {error}")))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn every_door_gives_the_same_answer() {
    let mut fixture = Fixture::start();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let rule_sets_wanted: u32 = cases.unwrap_or(CASES);
    let config = Config {
        cases: rule_sets_wanted.div_ceil(u32::try_from(USERS.len()).unwrap()),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    };
    // Answers that were compared: no, yes.
    let compared = std::cell::Cell::new([0_u64; 2]);
    let began = Instant::now();
    let fixture = std::cell::RefCell::new(&mut fixture);
    let outcome = TestRunner::new(config).run(&rule_sets(), |rules| {
        let mut fixture = fixture.borrow_mut();
        fixture.set(&rules);
        let (doors, all) = (fixture.doors, [(); USERS.len() + 1]);
        let heard = each_caller(all, |user, ()| hear(doors, user));
        let heard = heard.map_err(TestCaseError::fail)?;
        fixture.change_everything();
        let changes = fixture.changes;
        let counts = each_caller(heard, |user, heard| compare(doors, changes, user, heard));
        for [no, yes] in counts.map_err(TestCaseError::fail)? {
            let [all_no, all_yes] = compared.get();
            compared.set([all_no + no, all_yes + yes]);
        }
        Ok(())
    });
    outcome.unwrap();
    let [no, yes] = compared.get();
    println!(
        "{rule_sets_wanted} rule sets in {:?}: {no} times no, {yes} times yes",
        began.elapsed()
    );
    assert!(no > 1000 && yes > 1000, "{no} times no, {yes} times yes");
}

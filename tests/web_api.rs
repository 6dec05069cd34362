//! The HTTP port: the answers of the API and the metrics, the permissions, and the refusals.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rumqttc::mqttbytes::QoS;
use serde_json::json;
use support::http::{get, receive, request, send};
use support::{Client, Process, broker, telemetry, wait_until};

fn web(data: &std::path::Path, more: &[&str]) -> (Process, SocketAddr, SocketAddr) {
    let (process, mqtt) = broker(data, "127.0.0.1:0", more);
    let line = process.said("listening for HTTP");
    let address = line.rsplit("address=").next().expect("the line has an address").trim();
    (process, mqtt, address.parse().expect("an address"))
}

#[test]
fn a_broker_that_can_commit_is_healthy_and_ready() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _, http) = web(folder.path(), &[]);
    assert_eq!(get(http, "/healthz").status, 200);
    assert_eq!(get(http, "/readyz").status, 200);
    assert_eq!(get(http, "/nothing").status, 404);
    // As HAProxy, ELB and others ask, of whom only some send a host. They learn no more than whether it serves.
    for request in [
        "GET /readyz HTTP/1.0\r\n\r\n",
        "OPTIONS /readyz HTTP/1.0\r\n\r\n",
        "HEAD /readyz HTTP/1.0\r\n\r\n",
        "OPTIONS /healthz HTTP/1.0\r\nhost: any.example\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: any.example\r\nconnection: close\r\n\r\n",
    ] {
        assert_eq!(receive(send(http, request.as_bytes())).status, 200, "{request}");
    }
    assert_eq!(receive(send(http, b"OPTIONS / HTTP/1.0\r\n\r\n")).status, 421);
    assert_eq!(broker.terminate(), Some(0));
}

#[test]
fn where_postgresql_is_is_told_on_the_brokers_machine_only() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing listens on port 9.
    let url = "postgres://reporter@127.0.0.1:9/plant";
    let upstream = ["--upstream", url, "--ack", "upstream", "--upstream-tls", "no"];
    let (_broker, mqtt, http) = web(folder.path(), &upstream);
    let mut client = Client::connect(mqtt, "oven");
    let waits = reading(1, T0, 71.5).to_string();
    client.publish("humidor/oven/sensor/top", QoS::AtLeastOnce, 1, waits.as_bytes());
    wait_until("the broker is not ready", || get(http, "/readyz").status == 503);
    let told = get(http, "/readyz");
    assert!(told.text().starts_with("cannot commit: PostgreSQL is awaited: "), "{told:?}");
    for header in [("host", "evil.example"), ("via", "1.1 proxy")] {
        let told = request(http, "GET", "/readyz", &[header], "");
        let found = (told.status, told.text());
        assert_eq!(found, (503, "cannot commit: PostgreSQL is awaited\n"), "{header:?}");
    }
}

#[test]
fn http_can_be_off() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _) = broker(folder.path(), "127.0.0.1:0", &["--http-listen", "off"]);
    assert_eq!(broker.terminate(), Some(0));
}

/// Publishes a reading with these members and waits for its PUBACK.
fn store(client: &mut Client, node: &str, sensor: &str, reading: &serde_json::Value) {
    let topic = format!("humidor/{node}/sensor/{sensor}");
    client.publish(&topic, QoS::AtLeastOnce, 1, reading.to_string().as_bytes());
    client.expect_puback(1);
}

fn reading(seq: u64, at: i64, temperature: f64) -> serde_json::Value {
    json!({
        "boot": "b1", "seq": seq, "at": at, "clock": "synced", "mono": seq * 1000,
        "temperature": temperature, "humidity": 50.0
    })
}

/// Publishes a retained message of a board and waits for its PUBACK.
fn publish_retained(client: &mut Client, topic: &str, payload: &str) {
    let mut publish = rumqttc::mqttbytes::v4::Publish::new(topic, QoS::AtLeastOnce, payload);
    (publish.pkid, publish.retain) = (9, true);
    client.send(&rumqttc::mqttbytes::v4::Packet::Publish(publish));
    client.expect_puback(9);
}

const T0: i64 = 1_760_000_000_000;

#[test]
fn stored_readings_are_listed_charted_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mqtt, http) = web(folder.path(), &[]);
    assert_eq!(get(http, "/api/v1/sensors").json(), json!([]));
    let mut client = Client::connect(mqtt, "press");
    for n in 0..5_u32 {
        let at = T0 + i64::from(n) * 10_000;
        store(&mut client, "press", "hall", &reading(u64::from(n) + 1, at, 20.0 + f64::from(n)));
    }
    let sensors = get(http, "/api/v1/sensors").json();
    assert_eq!(sensors[0]["interval_ms"], 10_000);
    assert_eq!(sensors[0]["latest"]["temperature"], 24.0);
    assert_eq!(get(http, "/api/v1/latest").json()[0]["seq"], 5);

    let path = format!("/api/v1/series?node=press&sensor=hall&from={T0}&to={}", T0 + 50_000);
    let single = get(http, &path).json();
    assert_eq!(single["step_ms"], serde_json::Value::Null);
    assert_eq!(single["temperature"]["mean"], json!([20.0, 21.0, 22.0, 23.0, 24.0]));
    let banded = get(http, &format!("{path}&step=30000")).json();
    assert_eq!(banded["step_ms"], 30_000);
    let counted: i64 =
        banded["count"].as_array().unwrap().iter().map(|count| count.as_i64().unwrap()).sum();
    assert_eq!(counted, 5);

    let csv = get(http, "/api/v1/export?node=press");
    let lines: Vec<&str> = csv.text().lines().collect();
    assert_eq!(lines[0], "node,sensor,boot,seq,at,clock,temperature,humidity");
    assert_eq!((lines.len(), lines[1]), (6, "press,hall,b1,1,1760000000000,synced,20.0,50.0"));
    let jsonl = get(http, &format!("/api/v1/export?format=jsonl&from={}", T0 + 40_000));
    assert_eq!(jsonl.json()["seq"], 5);
}

#[test]
fn a_chart_is_compressed_for_those_who_take_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mqtt, http) = web(folder.path(), &[]);
    let mut client = Client::connect(mqtt, "oven");
    for seq in 1..=200 {
        store(&mut client, "oven", "top", &reading(seq, T0 + seq.cast_signed() * 1000, 21.5));
    }
    let path = format!("/api/v1/series?node=oven&sensor=top&from={T0}&to={}", T0 + 600_000);
    let plain = get(http, &path);
    assert_eq!(
        (plain.header("content-encoding"), plain.header("vary")),
        (None, Some("accept-encoding"))
    );
    let packed = request(http, "GET", &path, &[("accept-encoding", "gzip, br")], "");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.len() * 4 < plain.body.len(), "{} {}", packed.body.len(), plain.body.len());
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    let refused = request(http, "GET", &path, &[("accept-encoding", "gzip;q=0")], "");
    assert_eq!(refused.body, plain.body);
}

#[test]
fn an_export_of_many_pages_has_every_reading_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mqtt, http) = web(folder.path(), &[]);
    let mut client = Client::connect(mqtt, "press");
    let rows = 2 * humidor::store::PAGE_ROWS as u64 + 1;
    for seq in 1..=rows {
        // Ten readings share each time stamp, also across page borders.
        let at = T0 + i64::try_from(seq / 10).unwrap();
        let topic = format!("humidor/press/sensor/s{}", seq % 2);
        let payload = reading(seq, at, 20.0).to_string();
        client.publish(&topic, QoS::AtMostOnce, 0, payload.as_bytes());
    }
    client.ping();
    wait_until("all are stored", || support::stored(folder.path()) == i64::try_from(rows).unwrap());
    let text = get(http, "/api/v1/export?format=jsonl");
    let found: Vec<(String, u64)> = text
        .text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|row| (row["sensor"].as_str().unwrap().to_owned(), row["seq"].as_u64().unwrap()))
        .collect();
    let expected: Vec<(String, u64)> = [0, 1]
        .into_iter()
        .flat_map(|n| {
            (1..=rows).filter(move |seq| seq % 2 == n).map(move |seq| (format!("s{n}"), seq))
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn malformed_and_out_of_range_queries_are_400_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _, http) = web(folder.path(), &[]);
    for (query, why) in [
        ("", "node"),
        ("node=press", "sensor"),
        ("node=Press&sensor=hall", "not an id"),
        ("node=press&sensor=%3Cb%3E", "not an id"),
        ("node=press&sensor=hall&from=yesterday", "from"),
        ("node=press&sensor=hall&from=5&to=5", "empty"),
        ("node=press&sensor=hall&from=9&to=5", "empty"),
        ("node=press&sensor=hall&from=-1&to=5", "between 0"),
        ("node=press&sensor=hall&from=0&to=9223372036854775807", "between 0"),
        ("node=press&sensor=hall&from=0&to=99999999999999999999", "to"),
        ("node=press&sensor=hall&from=0&to=1760000000000&step=0", "points"),
        ("node=press&sensor=hall&from=0&to=1760000000000&step=1", "points"),
        ("node=press&sensor=hall&step=-60000", "step"),
        ("node=press&sensor=hall&form=5", "form"),
        ("node=press&sensor=hall&node=oven", "node"),
    ] {
        let answer = get(http, &format!("/api/v1/series?{query}"));
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(why), "{query}: {error}");
    }
    // The longest possible range is valid.
    let all = "node=press&sensor=hall&from=0&to=253402300799999";
    assert_eq!(get(http, &format!("/api/v1/series?{all}")).status, 200);
    for path in ["/api/v1/export?from=2&to=1", "/api/v1/export?format=xml", "/api/v1/export?x=1"] {
        assert_eq!(get(http, path).status, 400, "{path}");
    }
    assert_eq!(request(http, "DELETE", "/api/v1/nodes", &[], "").status, 405);
    assert_eq!(get(http, "/healthz").status, 200);
    assert_eq!(broker.terminate(), Some(0));
}

/// Where another one reads one of two, a request passes for what it is not.
#[test]
fn a_request_names_one_host_and_has_one_length() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, _, http) = web(folder.path(), &["--http-hosts", "plant.example.org"]);
    let own = http.to_string();
    let answer = |request: &str| {
        let request = request.replace("HERE", &own).replace('\n', "\r\n");
        let mut answer = Vec::new();
        // The server may close while the rest of a request is on its way.
        let _ = send(http, request.as_bytes()).read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    };
    let path = "/api/v1/nodes";
    for (request, status) in [
        (format!("GET {path} HTTP/1.1\nhost: HERE\n"), 200),
        (format!("GET http://HERE{path} HTTP/1.1\nhost: HERE\n"), 200),
        (format!("GET http://LOCALHOST{path} HTTP/1.1\nhost: localhost\n"), 200),
        (format!("GET {path} HTTP/1.1\nhost: HERE\nhost: HERE\n"), 400),
        (format!("GET {path} HTTP/1.1\nhost: evil.example\nhost: HERE\n"), 400),
        ("GET /healthz HTTP/1.1\nhost: HERE\nhost: evil.example\n".to_owned(), 400),
        (format!("GET {path} HTTP/1.1\n"), 400),
        (format!("GET {path} HTTP/1.0\n"), 421),
        ("GET /healthz HTTP/1.1\nhost: any.example\n".to_owned(), 200),
        (format!("GET {path} HTTP/1.1\nhost: [::1\n"), 400),
        (format!("GET {path} HTTP/1.1\nhost: [::1]]\n"), 400),
        (format!("GET {path} HTTP/1.1\nhost: ::1\n"), 400),
        (format!("GET {path} HTTP/1.1\nhost: kim@localhost\n"), 400),
        (format!("GET {path} HTTP/1.1\nhost: localhost:http\n"), 400),
        (format!("GET {path} HTTP/1.1\nhost: localhost, HERE\n"), 400),
        (format!("GET {path} HTTP/1.1\nhost: \u{f6}\n"), 400),
        (format!("GET {path} HTTP/1.1\nhost: evil.example\n"), 421),
        (format!("GET http://evil.example{path} HTTP/1.1\nhost: HERE\n"), 400),
        (format!("GET http://HERE{path} HTTP/1.1\nhost: evil.example\n"), 400),
        (format!("GET http://evil.example{path} HTTP/1.1\nhost: evil.example\n"), 421),
        (format!("GET http://evil.example{path} HTTP/1.0\n"), 421),
        (format!("GET http://HERE{path} HTTP/1.1\n"), 400),
        (format!("GET http://kim@localhost{path} HTTP/1.1\nhost: localhost\n"), 400),
        // A folded line (RFC 9112 §5.2), and a space before a colon (§5.1).
        (format!("GET {path} HTTP/1.1\nhost: HERE\nx: y\n z\n"), 400),
        (format!("GET {path} HTTP/1.1\nhost: HERE\n x: y\n"), 400),
        (format!("GET {path} HTTP/1.1\nhost : HERE\n"), 400),
        // Lengths (§6.3): two that differ, a list, a sign, an encoding that is not the last.
        (format!("POST {path} HTTP/1.1\nhost: HERE\ncontent-length: 1\ncontent-length: 2\n"), 400),
        (format!("POST {path} HTTP/1.1\nhost: HERE\ncontent-length: 1, 1\n"), 400),
        (format!("POST {path} HTTP/1.1\nhost: HERE\ncontent-length: +1\n"), 400),
        (format!("POST {path} HTTP/1.1\nhost: HERE\ntransfer-encoding: chunked, gzip\n"), 400),
        (format!("POST {path} HTTP/1.0\nhost: HERE\ntransfer-encoding: chunked\n"), 400),
    ] {
        let answer = answer(&format!("{request}connection: close\n\n"));
        let found = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        assert_eq!(found, Some(status), "{request:?}: {answer}");
    }
    // Of both an encoding and a length the encoding counts, and nothing that follows is a request.
    for both in [
        "transfer-encoding: chunked\ncontent-length: 5",
        "content-length: 5\ntransfer-encoding: chunked",
    ] {
        let next = format!("GET {path} HTTP/1.1\nhost: HERE\n\n");
        let answer = answer(&format!("POST /healthz HTTP/1.1\nhost: HERE\n{both}\n\n0\n\n{next}"));
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{both}: {answer}");
    }
}

#[test]
fn another_host_name_or_another_sites_page_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mqtt, http) = web(folder.path(), &["--http-hosts", "plant.example.org"]);
    let host = |host: &str| request(http, "GET", "/api/v1/nodes", &[("host", host)], "").status;
    assert_eq!(host("localhost"), 200);
    // A name that is known, but not that of loopback: a proxy may stand between.
    assert_eq!(host("PLANT.example.org:8080"), 401);
    assert_eq!(host("evil.example"), 421);
    assert_eq!(host(""), 421);

    let mut client = Client::connect(mqtt, "oven");
    publish_retained(&mut client, "humidor/oven/output/fan", "OFF");
    wait_until("the output is known", || get(http, "/api/v1/outputs").json() != json!([]));
    client.subscribe("humidor/oven/output/+/set", QoS::AtMostOnce);
    let post = |headers: &[(&str, &str)], body: &str| {
        request(http, "POST", "/api/v1/outputs/oven/fan", headers, body).status
    };
    let json_type = ("content-type", "application/json");
    let own = format!("http://{http}");
    assert_eq!(post(&[json_type, ("origin", "http://evil.example")], r#"{"on":true}"#), 403);
    assert_eq!(post(&[json_type, ("sec-fetch-site", "cross-site")], r#"{"on":true}"#), 403);
    assert_eq!(post(&[("content-type", "text/plain")], r#"{"on":true}"#), 415);
    assert_eq!(post(&[json_type], r#"{"on":"maybe"}"#), 422);
    assert_eq!(post(&[json_type], r#"{"on":true,"for_ms":0}"#), 400);
    assert_eq!(post(&[json_type], &"x".repeat(17_000)), 413);
    assert_eq!(post(&[json_type, ("x-forwarded-for", "203.0.113.9")], r#"{"on":true}"#), 401);
    let missing =
        request(http, "POST", "/api/v1/outputs/oven/lamp", &[json_type], r#"{"on":true}"#);
    assert_eq!(missing.status, 404);
    client.ping();
    assert!(client.is_silent(), "none of these was a command");

    assert_eq!(post(&[json_type, ("origin", &own)], r#"{"on":true,"for_ms":500}"#), 202);
    match client.receive() {
        Some(rumqttc::mqttbytes::v4::Packet::Publish(command)) => {
            assert_eq!(command.topic, "humidor/oven/output/fan/set");
            assert_eq!(&command.payload[..], br#"{"for_ms":500,"state":"ON"}"#);
        }
        other => panic!("no command but {other:?}"),
    }
}

#[test]
fn guests_on_other_machines_need_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = [("x-forwarded-for", "203.0.113.9")];
    for (guests, here, there) in [("none", 401, 401), ("local", 200, 401), ("read", 200, 200)] {
        let (broker, _, http) = web(folder.path(), &["--http-guests", guests]);
        assert_eq!(get(http, "/api/v1/nodes").status, here, "{guests}");
        assert_eq!(request(http, "GET", "/api/v1/nodes", &elsewhere, "").status, there, "{guests}");
        assert_eq!(request(http, "GET", "/healthz", &elsewhere, "").status, 200);
        assert_eq!(broker.terminate(), Some(0));
    }
}

#[test]
fn every_response_has_the_security_headers() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, _, http) = web(folder.path(), &[]);
    for path in ["/", "/app.js", "/api/v1/nodes", "/nothing", "/healthz", "/api/v1/series"] {
        let answer = get(http, path);
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(answer.header("cache-control").is_some(), "{path}");
    }
}

#[test]
fn a_board_is_shown_with_its_latest_state_and_its_name_is_never_markup() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mqtt, http) = web(folder.path(), &[]);
    let mut client = Client::connect(mqtt, "oven");
    publish_retained(&mut client, "humidor/oven/status", "online");
    publish_retained(&mut client, "humidor/oven/input/door", "ON");
    publish_retained(&mut client, "humidor/<img src=x onerror=alert(1)>/status", "online");
    publish_retained(&mut client, "humidor/oven/output/<b>fan</b>", "ON");
    publish_retained(&mut client, "humidor/oven/status", "offline");
    let offline = || get(http, "/api/v1/nodes").json()[0]["status"] == "offline";
    wait_until("the board is offline", offline);
    let nodes = get(http, "/api/v1/nodes");
    assert_eq!(nodes.json().as_array().unwrap().len(), 1);
    assert_eq!(nodes.json()[0]["inputs"], json!({ "door": true }));
    assert!(nodes.json()[0]["status_at"].is_i64());
    assert!(!nodes.text().contains('<'));
}

#[test]
fn an_alarm_is_shown_with_its_rule_its_unit_and_its_history() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "hot=press/hall:temperature>30,lost=press:gap,quiet=press/hall:silent>5m";
    let (_broker, mqtt, http) = web(folder.path(), &["--alarms", rules]);
    let alarms = || get(http, "/api/v1/alarms").json();
    assert_eq!(get(http, "/api/v1/alarms/changes").json(), json!([]));
    // Nothing is forwarded to PostgreSQL.
    assert_eq!(get(http, "/api/v1/upstream").json(), json!(null));
    assert_eq!(get(http, "/api/v1/about").json()["upstream"], false);
    let mut client = Client::connect(mqtt, "press");
    store(&mut client, "press", "hall", &reading(1, T0, 31.5));
    wait_until("the alarm is raised", || alarms()[0]["raised"] == true);
    let states = alarms();
    let [hot, lost, quiet] = &states.as_array().unwrap()[..] else { panic!("three alarms") };
    assert_eq!(
        (&hot["kind"], &hot["node"], &hot["sensor"], &hot["quantity"], &hot["side"], &hot["limit"]),
        (
            &json!("threshold"),
            &json!("press"),
            &json!("hall"),
            &json!("temperature"),
            &json!("above"),
            &json!(30.0)
        )
    );
    assert_eq!(hot["detail"], "hall: temperature 31.5 °C, limit >30 °C");
    assert_eq!((&lost["kind"], &lost["node"]), (&json!("gap"), &json!("press")));
    assert_eq!((&quiet["kind"], &quiet["limit_ms"]), (&json!("silent"), &json!(300_000)));

    store(&mut client, "press", "hall", &reading(2, T0 + 1_000, 20.0));
    let changes = || get(http, "/api/v1/alarms/changes").json();
    wait_until("the history has both changes", || changes().as_array().unwrap().len() == 2);
    assert_eq!((&changes()[0]["raised"], &changes()[1]["raised"]), (&json!(false), &json!(true)));
    assert_eq!(changes()[1]["detail"], hot["detail"]);
    assert_eq!(get(http, "/api/v1/alarms/changes?limit=1").json().as_array().unwrap().len(), 1);
    for bad in ["limit=0", "limit=1001", "limit=x", "count=1"] {
        assert_eq!(get(http, &format!("/api/v1/alarms/changes?{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn readings_from_1970_and_from_the_future_keep_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mqtt, http) = web(folder.path(), &[]);
    let mut client = Client::connect(mqtt, "oven");
    store(&mut client, "oven", "past", &reading(1, 0, 1.0));
    store(&mut client, "oven", "future", &reading(2, 253_402_300_799_999, 2.0));
    let latest = get(http, "/api/v1/latest").json();
    assert_eq!((&latest[0]["at"], &latest[1]["at"]), (&json!(253_402_300_799_999_i64), &json!(0)));
    let path = "/api/v1/series?node=oven&sensor=past&from=0&to=253402300799999";
    assert_eq!(get(http, path).json()["at"], json!([0]));
}

/// Opens an event stream and returns the text up to its first event.
fn open_events(http: SocketAddr) -> (std::net::TcpStream, String) {
    use std::io::Read;
    let head = format!("GET /api/v1/events HTTP/1.1\r\nhost: {http}\r\n\r\n");
    let mut stream = send(http, head.as_bytes());
    let mut text = Vec::new();
    let mut byte = [0; 512];
    while !String::from_utf8_lossy(&text).contains("\n\n") && !text.starts_with(b"HTTP/1.1 503") {
        let count = stream.read(&mut byte).expect("the stream answers");
        assert!(count > 0, "closed: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&byte[..count]);
    }
    (stream, String::from_utf8(text).unwrap())
}

#[test]
fn stored_readings_and_board_states_reach_an_event_stream() {
    use std::io::Read;
    let folder = tempfile::tempdir().unwrap();
    let (broker, mqtt, http) = web(folder.path(), &[]);
    let (mut stream, hello) = open_events(http);
    assert!(hello.contains("event: hello") && hello.contains("text/event-stream"), "{hello}");
    let mut client = Client::connect(mqtt, "oven");
    store(&mut client, "oven", "top", &reading(7, T0, 71.5));
    publish_retained(&mut client, "humidor/oven/status", "online");
    let mut text = String::new();
    let mut chunk = [0; 4096];
    while !(text.contains("event: readings") && text.contains("event: board")) {
        let count = stream.read(&mut chunk).expect("the stream goes on");
        assert!(count > 0, "closed after: {text}");
        text += std::str::from_utf8(&chunk[..count]).unwrap();
    }
    assert!(
        text.contains(r#""seq":7,"at":1760000000000,"clock":"synced","temperature":71.5"#),
        "{text}"
    );
    assert!(text.contains(r#"{"node":"oven","status":"online""#), "{text}");
    // An open stream does not delay the shutdown.
    assert_eq!(broker.terminate(), Some(0));
}

#[test]
fn an_open_page_is_told_that_a_board_was_removed() {
    use std::io::Read;
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mqtt, http) = web(folder.path(), &[]);
    let mut client = Client::connect(mqtt, "oven");
    store(&mut client, "oven", "top", &reading(1, T0, 71.5));
    let (mut stream, mut text) = open_events(http);
    assert_eq!(request(http, "DELETE", "/api/v1/nodes/oven", &[], "").status, 202);
    let mut chunk = [0; 4096];
    while !text.contains("event: refresh") {
        let count = stream.read(&mut chunk).expect("the stream goes on");
        assert!(count > 0, "closed after: {text}");
        text += std::str::from_utf8(&chunk[..count]).unwrap();
    }
    // Its rows may take long to go.
    assert_eq!(get(http, "/api/v1/sensors").json(), json!([]));
}

#[test]
fn streams_beyond_the_limit_are_refused_and_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mqtt, http) = web(folder.path(), &[]);
    let mut held = Vec::new();
    let refused = loop {
        let (stream, answer) = open_events(http);
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
        held.push(stream);
        assert!(held.len() < 1000, "streams without a bound");
    };
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after"), "{refused}");
    let mut client = Client::connect(mqtt, "oven");
    store(&mut client, "oven", "top", &reading(1, T0, 71.5));
    assert_eq!(get(http, "/api/v1/latest").json()[0]["seq"], 1);
    held.clear();
    wait_until("a stream is free again", || open_events(http).1.starts_with("HTTP/1.1 200"));
}

/// Requests `path` and reads only the status of the response, with the smallest receive buffer that the system allows.
fn request_and_read_status(http: SocketAddr, path: &str) -> std::net::TcpStream {
    use std::io::{Read, Write};
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(&http.into()).unwrap();
    let mut stream = std::net::TcpStream::from(socket);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {http}\r\n\r\n").unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

#[test]
fn slow_readers_of_exports_and_events_delay_nobody() {
    let folder = tempfile::tempdir().unwrap();
    // More than the socket buffers hold.
    let rows = 150_000_u64;
    let mut log =
        humidor::store::Store::open(&folder.path().join(humidor::store::LOG_FILE)).unwrap();
    for first in (1..=rows).step_by(10_000) {
        let batch: Vec<_> = (first..first + 10_000)
            .map(|seq| humidor::store::Record::Reading {
                node: "oven".parse().unwrap(),
                sensor: "top".parse().unwrap(),
                telemetry: serde_json::from_value(reading(seq, T0 + seq.cast_signed(), 20.0))
                    .unwrap(),
            })
            .collect();
        log.bulk_load(&batch.iter().collect::<Vec<_>>()).unwrap();
    }
    drop(log);
    let (broker, mqtt, http) = web(folder.path(), &[]);
    let exports = [(); 2].map(|()| request_and_read_status(http, "/api/v1/export"));
    let events = request_and_read_status(http, "/api/v1/events");
    assert_eq!(get(http, "/api/v1/export").status, 503, "two exports are running");
    let mut client = Client::connect(mqtt, "press");
    for seq in 1..=500 {
        store(&mut client, "press", "hall", &reading(seq, T0, 71.5));
    }
    assert_eq!(get(http, "/api/v1/latest").json()[1]["seq"], 500);
    // Nor do they delay the shutdown.
    let asked = std::time::Instant::now();
    assert_eq!(broker.terminate(), Some(0));
    assert!(asked.elapsed() < std::time::Duration::from_secs(20), "{:?}", asked.elapsed());
    drop((exports, events));
}

#[test]
fn silent_http_connections_do_not_block_mqtt() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mqtt, http) = web(folder.path(), &[]);
    let silent: Vec<_> = (0..300).map(|_| send(http, b"GET / HT")).collect();
    let mut client = Client::connect(mqtt, "oven");
    store(&mut client, "oven", "top", &reading(1, T0, 71.5));
    drop(silent);
    wait_until("pages are served again", || {
        std::panic::catch_unwind(|| get(http, "/healthz").status).is_ok_and(|status| status == 200)
    });
}

#[test]
fn hostile_bytes_on_the_http_port_harm_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, mqtt, http) = web(folder.path(), &[]);
    let long = format!("GET /{} HTTP/1.1\r\nhost: {http}\r\n\r\n", "a".repeat(60_000));
    let many = format!("GET / HTTP/1.1\r\nhost: {http}\r\n{}\r\n", "x: y\r\n".repeat(500));
    for bytes in
        [long.as_bytes(), many.as_bytes(), b"\x10\x0e\x00\x04MQTT\x04\x02", b"\r\n\r\n", b"GET"]
    {
        drop(send(http, bytes));
    }
    assert!(receive(send(http, long.as_bytes())).status >= 400);
    assert!(receive(send(http, many.as_bytes())).status >= 400);
    let encoded = get(http, "/api/v1/series?node=%00&sensor=%ff%fe");
    assert_eq!(encoded.status, 400);
    let mut client = Client::connect(mqtt, "oven");
    client.publish("humidor/oven/sensor/top", QoS::AtLeastOnce, 1, &telemetry("b", 1));
    client.expect_puback(1);
    assert_eq!(broker.terminate(), Some(0));
}

#[test]
fn a_login_opens_a_session_and_wrong_passwords_are_limited() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("password");
    std::fs::write(&secret, "a long secret").unwrap();
    let mut command = support::humidor();
    command
        .args(["broker", "--mqtt-listen", "127.0.0.1:0", "--http-guests", "none", "--user", "kim"])
        .args(["--data".as_ref(), folder.path().as_os_str()])
        .env("HUMIDOR_PASSWORD_FILE", &secret)
        .env("NO_COLOR", "1");
    let broker = Process::start(command);
    let line = broker.said("listening for HTTP");
    let http = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    let json_type = ("content-type", "application/json");
    let log_in = |password: &str| {
        let body = json!({ "name": "kim", "password": password }).to_string();
        request(http, "POST", "/api/v1/session", &[json_type], &body)
    };
    assert_eq!(get(http, "/api/v1/latest").status, 401);
    assert_eq!(get(http, "/metrics").status, 401);
    assert_eq!(get(http, "/").status, 200, "the page itself has no data");
    let answer = log_in("a long secret");
    assert_eq!(answer.status, 204);
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let with =
        |cookie: &str| request(http, "GET", "/api/v1/latest", &[("cookie", cookie)], "").status;
    assert_eq!(with(&cookie), 200);
    assert_eq!(with("humidor_session=guessed"), 401);
    // A page of another port of this host may have set one of the same name, which comes first.
    assert_eq!(with(&format!("humidor_session=of-others; {cookie}")), 200);
    let about = request(http, "GET", "/api/v1/about", &[("cookie", &cookie)], "").json();
    assert_eq!((&about["user"], &about["may"]["switch"]), (&json!("kim"), &json!(true)));
    // Prometheus and Grafana send the name and the password with each request: kim:a long secret
    let basic = [("authorization", "Basic a2ltOmEgbG9uZyBzZWNyZXQ=")];
    assert_eq!(request(http, "GET", "/metrics", &basic, "").status, 200);
    assert_eq!(request(http, "DELETE", "/api/v1/session", &[("cookie", &cookie)], "").status, 204);
    assert_eq!(with(&cookie), 401);

    let wrong: Vec<u16> = (0..5).map(|n| log_in(&format!("guess {n}")).status).collect();
    assert_eq!(wrong, [401; 5]);
    assert_eq!(log_in("a long secret").status, 401, "no guess is left");
    assert_eq!(broker.terminate(), Some(0));
}

#[test]
fn without_users_an_invented_login_is_a_guest() {
    let folder = tempfile::tempdir().unwrap();
    let invented = ("authorization", "Basic a2ltOmEgbG9uZyBzZWNyZXQ=");
    let from_elsewhere = [invented, ("x-forwarded-for", "192.0.2.7")];
    for (anonymous, guests) in [("auto", "local"), ("yes", "local"), ("yes", "none")] {
        let more = ["--anonymous", anonymous, "--http-guests", guests];
        let (broker, _, http) = web(folder.path(), &more);
        let answer = request(http, "GET", "/api/v1/nodes", &from_elsewhere, "");
        assert_eq!(answer.status, 401, "{more:?}");
        assert_eq!(broker.terminate(), Some(0));
    }
}

#[test]
fn metrics_count_stored_refused_and_dropped_messages() {
    let folder = tempfile::tempdir().unwrap();
    let (_broker, mqtt, http) = web(folder.path(), &[]);
    let mut client = Client::connect(mqtt, "oven");
    store(&mut client, "oven", "top", &reading(1, T0, 71.5));
    client.publish("humidor/oven/sensor/top", QoS::AtLeastOnce, 2, b"hot");
    client.expect_puback(2);
    let mut stranger = TcpStream::connect(mqtt).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(stranger.read(&mut [0; 16]).unwrap_or_default(), 0, "closed");
    let text = get(http, "/metrics");
    for line in [
        "humidor_connections_malformed_total 1",
        "humidor_readings_stored_total 1",
        "humidor_refused_total{cause=\"payload-json\"} 1",
        "humidor_clients 1.0",
        "humidor_messages_dropped_total 0",
        "humidor_temperature_celsius{node=\"oven\",sensor=\"top\"} 71.5",
        "humidor_acknowledging 1.0",
        "# TYPE humidor_commit_seconds histogram",
    ] {
        assert!(text.text().lines().any(|found| found == line), "{line} in {}", text.text());
    }
}

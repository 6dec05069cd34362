//! Every number that a double can hold, and every time that a clock can say, through all doors: the log, its roll-ups, the API,
//! CSV, Prometheus, and what other clients get.

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use humidor::store::{LOG_FILE, Log, Record, Retention, Selection, Store};
use humidor::wire::numbers;
use proptest::prelude::*;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Packet;
use serde_json::Value;
use support::{Client, Process, http, humidor};

const TINY: f64 = 5e-324;
const TWO_TO_53: f64 = 9_007_199_254_740_992.0;
/// What another publisher may send, and the number that it is.
const FOREIGN: [(&str, f64); 16] = [
    ("0", 0.0),
    ("-0", 0.0),
    ("-0.0", 0.0),
    ("5e-324", TINY),
    ("-5e-324", -TINY),
    ("1e-400", 0.0),
    ("2.2250738585072014e-308", f64::MIN_POSITIVE),
    ("2.225073858507201e-308", 2.225_073_858_507_201e-308),
    ("1.7976931348623157e308", f64::MAX),
    ("-1.7976931348623157e308", f64::MIN),
    ("9007199254740991", TWO_TO_53 - 1.0),
    ("9007199254740993", TWO_TO_53),
    ("18446744073709551615", 18_446_744_073_709_551_615.0),
    ("-9223372036854775808", -9_223_372_036_854_775_808.0),
    ("100000000000000000000000", 1e23),
    ("0.1", 0.1),
];
const NOT_FINITE: [&str; 8] =
    ["NaN", "nan", "-NaN", "inf", "Infinity", "-Infinity", "1e309", "-1.8e308"];
/// Temperatures at the ends of what a reading may say.
const TEMPERATURES: [(&str, f64); 8] = [
    ("0", 0.0),
    ("-0.0", 0.0),
    ("5e-324", TINY),
    ("-5e-324", -TINY),
    ("2.2250738585072014e-308", f64::MIN_POSITIVE),
    ("-100", -100.0),
    ("300", 300.0),
    ("299.99999999999994", 299.999_999_999_999_94),
];
const LAST_MS: i64 = 253_402_300_799_999;
/// Times in ms: 1970, the ends of 31, 32 and 63 bits of seconds, ms and ns, a leap year's last day, and the end of 9999.
const TIMES_MS: [i64; 11] = [
    0,
    1,
    2_147_483_647,
    4_294_967_296,
    1_760_000_000_123,
    2_147_483_647_999,
    2_147_483_648_000,
    4_294_967_296_000,
    9_223_372_036_854,
    9_223_372_036_855,
    LAST_MS,
];

struct Broker {
    _process: Process,
    mqtt: SocketAddr,
    http: SocketAddr,
}

fn start(data: &Path) -> Broker {
    let address = |line: &str| line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    let mut command = humidor();
    command.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(data);
    command
        .env("NO_COLOR", "1")
        .env("HUMIDOR_KEEP_RAW", "forever")
        .env("HUMIDOR_LOGGED_FILTERS", "plant/#");
    let process = Process::start(command);
    let mqtt = address(&process.said("listening for MQTT"));
    let http = address(&process.said("listening for HTTP"));
    Broker { _process: process, mqtt, http }
}

fn run(data: &Path, arguments: &[&str]) -> Output {
    humidor().args(arguments).arg("--data").arg(data).output().unwrap()
}

fn printed(data: &Path, arguments: &[&str]) -> String {
    let output = run(data, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Publishes and waits for the acknowledgement.
fn send(client: &mut Client, topic: &str, payload: &str) {
    client.publish(topic, QoS::AtLeastOnce, 1, payload.as_bytes());
    client.expect_puback(1);
}

fn reading(seq: usize, at: &str, temperature: &str) -> String {
    format!(
        r#"{{"boot":"b","seq":{seq},"at":{at},"clock":"synced","mono":1,"temperature":{temperature}}}"#
    )
}

/// The last column of a CSV, as numbers.
fn last_column(csv: &str) -> Vec<f64> {
    csv.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect()
}

fn refused(data: &Path, cause: &str) -> i64 {
    let log = rusqlite::Connection::open(data.join(LOG_FILE)).unwrap();
    let sum = "SELECT coalesce(sum(count), 0) FROM refusal WHERE cause = ?";
    log.query_row(sum, [cause], |row| row.get(0)).unwrap()
}

#[test]
fn numbers_of_other_publishers_are_stored_as_they_are_or_refused_by_name() {
    let data = tempfile::tempdir().unwrap();
    let broker = start(data.path());
    let mut client = Client::connect(broker.mqtt, "plant");
    let mut watcher = Client::connect(broker.mqtt, "watcher");
    watcher.subscribe("plant/#", QoS::AtMostOnce);
    for (n, (text, _)) in FOREIGN.iter().enumerate() {
        send(&mut client, &format!("plant/{n:02}"), text);
        send(&mut client, &format!("plant/{n:02}/json"), &format!("{{\"v\":{text}}}"));
        // Subscribers get the bytes that were sent.
        for expected in [(*text).to_owned(), format!("{{\"v\":{text}}}")] {
            match watcher.receive() {
                Some(Packet::Publish(publish)) => assert_eq!(publish.payload, expected),
                other => panic!("{other:?}"),
            }
        }
    }
    for text in NOT_FINITE {
        send(&mut client, "plant/none", text);
        send(&mut client, "plant/none", &format!("{{\"v\":{text}}}"));
    }
    assert_eq!(refused(data.path(), "foreign-not-finite"), 2 * 8);
    assert_eq!(refused(data.path(), "foreign-no-number"), 0);
    let expected: Vec<f64> = FOREIGN.iter().flat_map(|(_, value)| [*value; 2]).collect();
    let jsonl = printed(data.path(), &["export", "--samples", "--format", "jsonl"]);
    let json: Vec<f64> = jsonl
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].as_f64().unwrap())
        .collect();
    let csv = last_column(&printed(data.path(), &["export", "--samples"]));
    for found in [json, csv] {
        assert_eq!(found.len(), expected.len());
        for ((found, expected), n) in found.iter().zip(&expected).zip(0..) {
            assert!(same(*found, *expected), "{}: {found:e}", FOREIGN[n / 2].0);
        }
    }
}

/// To the last bit; the log does not tell −0 from 0.
fn same(found: f64, expected: f64) -> bool {
    (found + 0.0).to_bits() == (expected + 0.0).to_bits()
}

#[test]
fn readings_at_the_ends_of_what_they_may_say_come_out_of_every_door() {
    let data = tempfile::tempdir().unwrap();
    let broker = start(data.path());
    let mut client = Client::connect(broker.mqtt, "node");
    let topic = |n: usize| format!("humidor/press/sensor/s{n}");
    let at = humidor::clock::unix_ms();
    for (n, (text, _)) in TEMPERATURES.iter().enumerate() {
        send(&mut client, &topic(n), &reading(n + 1, &at.to_string(), text));
    }
    for (n, wrong) in
        ["300.00000000000006", "-100.00000000000001", "1.7976931348623157e308", "1e30"]
            .iter()
            .enumerate()
    {
        send(&mut client, &topic(0), &reading(100 + n, "1", wrong));
        let humid = format!(
            r#"{{"boot":"b","seq":{},"at":1,"clock":"synced","mono":1,"humidity":{wrong}}}"#,
            200 + n
        );
        send(&mut client, &topic(0), &humid);
    }
    assert_eq!(refused(data.path(), "payload-range"), 8);
    for text in ["NaN", "Infinity", "-Infinity", "1e309"] {
        send(&mut client, &topic(0), &reading(300, "1", text));
    }
    assert_eq!(refused(data.path(), "payload-not-finite"), 4);

    let get = |path: &str| {
        let answer = http::get(broker.http, path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer
    };
    let of_json = |found: &Value| -> Vec<f64> {
        let found = found.as_array().unwrap();
        found.iter().map(|reading| reading["temperature"].as_f64().unwrap()).collect()
    };
    let sensors = get("/api/v1/sensors").json();
    let sensors = sensors.as_array().unwrap().iter().map(|sensor| sensor["latest"].clone());
    let jsonl = get("/api/v1/export?format=jsonl");
    let jsonl = jsonl.text().lines().map(|line| serde_json::from_str(line).unwrap());
    let csv = get("/api/v1/export");
    let csv = csv.text().lines().skip(1).map(|line| line.split(',').nth(6).unwrap().parse());
    let metrics = get("/metrics");
    let metrics = metrics.text().lines().filter_map(|line| {
        let (labels, value) =
            line.strip_prefix("humidor_temperature_celsius{")?.rsplit_once(' ').unwrap();
        Some((labels.to_owned(), value.parse().unwrap()))
    });
    let mut metrics: Vec<(String, f64)> = metrics.collect();
    metrics.sort_by(|one, other| one.0.cmp(&other.0));
    for (door, found) in [
        ("latest", of_json(&get("/api/v1/latest").json())),
        ("sensors", of_json(&Value::Array(sensors.collect()))),
        ("jsonl", of_json(&Value::Array(jsonl.collect()))),
        ("csv", csv.map(Result::unwrap).collect()),
        ("metrics", metrics.into_iter().map(|(_, value)| value).collect()),
    ] {
        assert_eq!(found.len(), TEMPERATURES.len(), "{door}");
        for (found, (text, expected)) in found.iter().zip(TEMPERATURES) {
            assert!(same(*found, expected), "{door}: {text} is {found:e}");
        }
    }
    // A chart rounds.
    for (n, (text, expected)) in TEMPERATURES.iter().enumerate() {
        let path = format!("/api/v1/series?node=press&sensor=s{n}&from={}&to={}", at, at + 1);
        let mean = get(&path).json()["temperature"]["mean"][0].as_f64().unwrap();
        assert!((mean - expected).abs() <= 0.0005, "{text} is {mean:e}");
    }
}

#[test]
fn times_at_the_ends_of_every_count_come_out_of_every_door() {
    let data = tempfile::tempdir().unwrap();
    let broker = start(data.path());
    let mut client = Client::connect(broker.mqtt, "node");
    let topic = |n: usize| format!("humidor/press/sensor/t{n:02}");
    for (n, at) in TIMES_MS.iter().enumerate() {
        send(&mut client, &topic(n), &reading(n + 1, &at.to_string(), "20"));
    }
    let wrong = [
        ("-1", "payload-range"),
        ("253402300800000", "payload-range"),
        ("9223372036854775807", "payload-range"),
        ("-9223372036854775808", "payload-range"),
        ("9223372036854775808", "payload-json"),
        ("1e12", "payload-json"),
        ("\"1970-01-01\"", "payload-json"),
        ("NaN", "payload-not-finite"),
    ];
    for (n, (at, cause)) in wrong.iter().enumerate() {
        let before = refused(data.path(), cause);
        send(&mut client, &topic(0), &reading(100 + n, at, "20"));
        assert_eq!(refused(data.path(), cause), before + 1, "{at}");
    }
    // Counters likewise: 2^63-1 is the last one.
    for (seq, cause) in [("0", "payload-range"), ("9223372036854775808", "payload-range")] {
        let before = refused(data.path(), cause);
        let payload = reading(1, "1", "20").replace("\"seq\":1", &format!("\"seq\":{seq}"));
        send(&mut client, &topic(0), &payload);
        assert_eq!(refused(data.path(), cause), before + 1, "{seq}");
    }

    let get = |path: &str| http::get(broker.http, path);
    let latest = get("/api/v1/latest").json();
    let found: Vec<i64> =
        latest.as_array().unwrap().iter().map(|row| row["at"].as_i64().unwrap()).collect();
    assert_eq!(found, TIMES_MS);
    let metrics = get("/metrics");
    let ages =
        metrics.text().lines().filter(|line| line.starts_with("humidor_reading_age_seconds{"));
    let ages: Vec<f64> =
        ages.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(ages.len() == TIMES_MS.len() && ages.iter().all(|age| (0.0..1e10).contains(age)));
    // By a clock that was never set no age is known; the values are.
    let unset =
        reading(1, "7", "20").replace("\"b\"", "\"never-set\"").replace("synced", "unsynced");
    send(&mut client, &topic(99), &unset);
    let metrics = get("/metrics");
    let has = |name: &str| {
        let start = format!("humidor_{name}{{node=\"press\",sensor=\"t99\"}}");
        metrics.text().lines().any(|line| line.starts_with(&start))
    };
    assert!(has("temperature_celsius") && !has("reading_age_seconds"), "{}", metrics.text());
    for (n, at) in TIMES_MS.iter().enumerate() {
        let (from, to) = (at.to_string(), (at + 1).to_string());
        // As a range of HTTP, the last ms of 9999 has none after it.
        let series = get(&format!("/api/v1/series?node=press&sensor=t{n:02}&from={from}&to={to}"));
        match series.status {
            200 => assert_eq!(series.json()["at"], serde_json::json!([at]), "{at}"),
            status => assert_eq!((status, *at), (400, LAST_MS), "{series:?}"),
        }
        let csv = get(&format!("/api/v1/export?from={from}&to={to}"));
        let by_command = printed(data.path(), &["export", "--from", &from, "--to", &to]);
        assert_eq!(csv.text(), by_command);
        let row = format!("press,t{n:02},b,{},{at},synced,20.0,", n + 1);
        assert_eq!(csv.text().lines().skip(1).collect::<Vec<_>>(), [row]);
    }

    for command in
        [&["db", "check"][..], &["db", "stats"], &["db", "gaps"], &["tail", "--no-follow"]]
    {
        printed(data.path(), command);
    }
}

#[test]
fn a_range_may_begin_and_end_anywhere_and_nothing_else_is_one() {
    let data = tempfile::tempdir().unwrap();
    let broker = start(data.path());
    let mut client = Client::connect(broker.mqtt, "node");
    for (n, at) in TIMES_MS.iter().enumerate() {
        let topic = format!("humidor/press/sensor/t{n:02}");
        send(&mut client, &topic, &reading(n + 1, &at.to_string(), "20"));
    }
    let get = |path: &str| http::get(broker.http, path);
    let extremes = ["-9223372036854775808", "-1", "0", "9223372036854775807"];
    for (from, to) in extremes.iter().flat_map(|from| extremes.map(|to| (from, to))) {
        let whole = from.parse::<i64>().unwrap() < to.parse().unwrap();
        let csv = get(&format!("/api/v1/export?from={from}&to={to}"));
        assert_eq!(csv.status, if whole { 200 } else { 400 }, "{from} {to}");
        let by_command =
            run(data.path(), &["export", &format!("--from={from}"), &format!("--to={to}")]);
        assert_eq!(by_command.status.code(), Some(0), "{from} {to}: {by_command:?}");
        if whole {
            assert_eq!(csv.body, by_command.stdout, "{from} {to}");
        }
        for step in ["", "&step=1", "&step=9223372036854775807", "&step=18446744073709551615"] {
            let path = format!("/api/v1/series?node=press&sensor=t00&from={from}&to={to}{step}");
            assert_eq!(get(&path).status, 400, "{path}");
        }
    }
    let whole = format!("/api/v1/series?node=press&sensor=t00&from=0&to={LAST_MS}");
    for (step, status) in [
        ("", 200),
        ("&step=0", 400),
        ("&step=1", 400),
        ("&step=-1", 400),
        ("&step=9223372036854775807", 200),
        ("&step=18446744073709551615", 200),
        ("&step=18446744073709551616", 400),
        ("&step=1e9", 400),
    ] {
        let answer = get(&format!("{whole}{step}"));
        assert_eq!(answer.status, status, "{step}: {answer:?}");
        if status == 200 {
            let counts = answer.json()["count"].as_array().unwrap().clone();
            assert_eq!(counts.iter().map(|count| count.as_i64().unwrap()).sum::<i64>(), 1);
        }
    }
    for wrong in ["9223372036854775808", "-9223372036854775809", "NaN", "1e3", "1970-01-01", ""] {
        for path in [
            format!("/api/v1/export?from={wrong}"),
            format!("/api/v1/export?to={wrong}"),
            format!("/api/v1/series?node=press&sensor=t00&from={wrong}"),
            format!("/api/v1/alarms/changes?limit={wrong}"),
        ] {
            assert_eq!(get(&path).status, 400, "{path}");
        }
    }
    for (time, rows) in [
        ("1970-01-01", 11),
        ("1970-01-01T00:00:00.001Z", 10),
        ("2038-01-19T03:14:08Z", 5),
        ("2106-02-07T06:28:16Z", 4),
        ("2262-04-11T23:47:16.854Z", 3),
        ("9999-12-30T22:00:00Z", 1),
        ("-009999-01-03", 11),
    ] {
        let csv = printed(data.path(), &["export", &format!("--from={time}")]);
        assert_eq!(csv.lines().count() - 1, rows, "{time}");
    }
    for wrong in ["9223372036854775808", "10000-01-01", "-009999-01-02", "NaN", "1e3", ""] {
        let output = run(data.path(), &["export", &format!("--from={wrong}")]);
        assert_eq!(output.status.code(), Some(64), "{wrong}: {output:?}");
    }
}

/// A double of any kind, with as many of the rare ones as of the others.
fn double() -> impl Strategy<Value = f64> {
    use proptest::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    let known = proptest::sample::select(FOREIGN.map(|(_, value)| value).to_vec());
    prop_oneof![known, POSITIVE | NEGATIVE | NORMAL, POSITIVE | NEGATIVE | SUBNORMAL | ZERO]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn any_finite_doubles_are_stored_to_the_last_bit_and_rolled_up_within_their_ends(
        values in proptest::collection::vec((double(), 0_i64..3_600), 1..40)) {
        const START_MS: i64 = 489_000 * 3_600_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let mut store = Store::open(&path).unwrap();
        store.retain(Retention { keep_raw: Some(Duration::from_hours(24)), ..Retention::EVERYTHING });
        let records: Vec<Record> = values.iter().map(|(value, second)| {
            // As text, as a client sends it.
            let numbers = numbers(format!("{value:e}").as_bytes()).unwrap();
            Record::Foreign { topic: "plant".to_owned(), at_ms: START_MS + second * 1_000, numbers }
        }).collect();
        store.append(&records.iter().collect::<Vec<_>>()).unwrap();
        let mut found = Vec::new();
        Log::open(&path).unwrap().export_samples(&Selection::default(), |sample| {
            found.push(sample.value);
            Ok::<_, rusqlite::Error>(())
        }).unwrap();
        let mut expected: Vec<f64> = values.iter().map(|(value, _)| *value).collect();
        found.sort_by(|one, other| (one + 0.0).total_cmp(&(other + 0.0)));
        expected.sort_by(|one, other| (one + 0.0).total_cmp(&(other + 0.0)));
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.into_iter().zip(expected) {
            prop_assert!(same(found, expected), "{found:e} for {expected:e}");
        }

        while store.maintain(START_MS + 2 * 3_600_000).unwrap() {}
        let raw = rusqlite::Connection::open(&path).unwrap();
        for view in ["samples_1m", "samples_15m", "samples_1h"] {
            let mut rows = raw.prepare(&format!("SELECT count, min, mean, max FROM {view}")).unwrap();
            let rows: Vec<(i64, f64, f64, f64)> = rows
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
                .unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(rows.iter().map(|row| row.0).sum::<i64>(), i64::try_from(values.len()).unwrap());
            for (_, min, mean, max) in rows {
                // A mean of doubles may be rounded past its ends by a little.
                let slack = 1e-12 * min.abs().max(max.abs());
                prop_assert!(mean.is_finite() && min - slack <= mean && mean <= max + slack, "{min:e} {mean:e} {max:e}");
            }
        }
    }
}

//! What a user meets: commands, their output, their exit codes, and what they say about mistakes.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use humidor::reading::{ClockState, Id};
use humidor::store::{LOG_FILE, Record, Store};
use humidor::wire::Telemetry;
use rustix::fs::{CWD, Mode, mkfifoat};
use support::{Client, Process, broker, humidor, telemetry, wait_until};

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn humidor_with(args: &[&str]) -> (Option<i32>, String, String) {
    run(humidor().args(args))
}

/// Asserts the exit code and that the message holds every one of `parts`.
fn assert_refused(command: Command, code: i32, parts: &[&str]) {
    // One that is let through would run for ever.
    let (status, stderr) = Process::start(command).end();
    assert_eq!(status, Some(code), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "`{part}` is not in:\n{stderr}");
    }
}

fn node(more: &[(&str, &str)]) -> Command {
    let mut command = humidor();
    command.arg("node");
    let defaults = [
        ("BROKER", "mqtt://127.0.0.1:1"),
        ("SENSORS", "a=dht22@7"),
        ("GPIO", "sim"),
        ("NODE", "box"),
    ];
    for (name, value) in defaults.iter().chain(more) {
        command.env(format!("HUMIDOR_{name}"), value);
    }
    command
}

/// A log with three readings of two sensors.
fn sample_log(folder: &Path) {
    let mut store = Store::open(&folder.join(LOG_FILE)).unwrap();
    let id = |text: &str| text.parse::<Id>().unwrap();
    let record = |seq, at, sensor, temperature| Record::Reading {
        node: id("press"),
        sensor: id(sensor),
        telemetry: Telemetry {
            boot: id("b"),
            seq,
            at,
            clock: ClockState::Synced,
            mono: seq,
            temperature: Some(temperature),
            humidity: Some(50.0),
        },
    };
    let records = [
        record(1, 1_760_000_000_000, "hall", 21.5),
        record(2, 1_760_000_001_000, "oil", 60.0),
        record(4, 1_760_000_010_000, "hall", -0.5),
    ];
    store.append(&records.iter().collect::<Vec<_>>()).unwrap();
}

/// Adds numbers of other publishers to [`sample_log`].
fn add_samples(folder: &Path) {
    let mut store = Store::open(&folder.join(LOG_FILE)).unwrap();
    let record = |topic: &str, at_ms, field: &str, value| Record::Foreign {
        topic: topic.to_owned(),
        at_ms,
        numbers: vec![(field.to_owned(), value)].into(),
    };
    let records = [
        record("plant/oven/heat", 1_760_000_002_000, "", 0.1),
        record("tele/hall/SENSOR", 1_760_000_003_000, "AM2301.온도", 21.25),
        record("tele/\u{1b}[31mred", 1_760_000_003_500, "", 7.0),
    ];
    store.append(&records.iter().collect::<Vec<_>>()).unwrap();
}

#[test]
fn wrong_usage_is_64_and_help_is_0() {
    assert_eq!(humidor_with(&["nonsense"]).0, Some(64));
    let (status, help, _) = humidor_with(&["node", "--help"]);
    assert_eq!(status, Some(0));
    assert!(help.contains("HUMIDOR_SENSORS") && help.contains("--sensors"));
}

#[test]
fn every_mistake_is_named_at_once_with_the_nearest_known_name() {
    let mut command = node(&[
        ("SENSORS", "a=dht23@7"),
        ("INTERVAL", "soon"),
        ("BROKER", "localhost"),
        ("GPIO", "smi"),
    ]);
    command.env("HUMIDOR_SENSOR", "x");
    let parts = [
        "5 mistakes",
        "did you mean `HUMIDOR_SENSORS`",
        "`dht23`",
        "did you mean `dht22`",
        "`soon`",
        "mqtt://",
        "did you mean `sim`",
    ];
    assert_refused(command, 78, &parts);
}

#[test]
fn pins_and_intervals_that_cannot_be_are_refused() {
    assert_refused(node(&[("SENSORS", "a=dht22@PZ9x")]), 78, &["`PZ9x` is not a pin"]);
    assert_refused(node(&[("SENSORS", "a=dht22@41")]), 78, &["`41` is not a pin"]);
    assert_refused(
        node(&[("SENSORS", "a=dht22@7,b=dht22@7")]),
        78,
        &["the configuration is wrong", "pin `7` is given twice"],
    );
    assert_refused(
        node(&[("SENSORS", "a=dht22@7"), ("INPUTS", "door=7"), ("BOARD", "raspberry-pi-4")]),
        78,
        &["the configuration is wrong", "`a@7` and `door@7` are both on"],
    );
    assert_refused(node(&[("INTERVAL", "1s")]), 78, &["too short for `a`", "2s"]);
    assert_refused(node(&[("NODE", "broker")]), 78, &["`broker` is a reserved id"]);
}

#[test]
fn a_settings_file_that_is_not_there_is_the_only_mistake() {
    for role in ["node", "broker", "config"] {
        let mut command = humidor();
        command.args([role, "--config", "/nonexistent/node.toml"]);
        assert_refused(
            command,
            78,
            &["the configuration is wrong: /nonexistent/node.toml: No such file"],
        );
    }
}

#[test]
fn what_is_nearly_right_leads_to_what_is_right() {
    assert_refused(node(&[("LOG", "debgu")]), 78, &["HUMIDOR_LOG", "did you mean `debug`?"]);
    assert_refused(
        node(&[("BROKER", "mqtt:/192.168.1.20")]),
        78,
        &["did you mean `mqtt://192.168.1.20`?"],
    );
    assert_refused(
        node(&[("BROKER", "mqtt://192.168.1.300")]),
        78,
        &["300 in 192.168.1.300 is more than 255"],
    );
    assert_refused(node(&[("INPUTS", "door=15:debounce=50")]), 78, &["did you mean `50ms`?"]);
    let mut read = humidor();
    read.args(["read", "dht22"]);
    assert_refused(read, 78, &["its pin is missing", "dht22@7"]);
}

#[test]
fn a_folder_that_may_not_be_entered_is_one_of_permission() {
    // Root enters every folder.
    if rustix::process::getuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (closed, data) = (folder.path().join("closed"), folder.path().join("closed/data"));
    std::fs::create_dir_all(&data).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o600)).unwrap();
    let data = data.to_str().unwrap();
    for args in [&["tail", "--data", data][..], &["user", "add", "kim", "--data", data]] {
        let (status, _, stderr) = humidor_with(args);
        assert_eq!(status, Some(77), "{stderr}");
        assert!(stderr.contains("ermission") && stderr.contains("or as root"), "{stderr}");
        assert!(!stderr.contains("no log at") && !stderr.contains("makes one"), "{stderr}");
    }
    let (_, report, _) = humidor_with(&["doctor", "--data", data]);
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    assert!(report.contains("permission to enter (x)"), "{report}");
    assert!(!report.contains("does not exist"), "{report}");
}

#[test]
fn a_file_that_is_no_regular_file_or_too_large_is_refused_and_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    let huge = folder.path().join("huge");
    // Of these ten gigabytes the disk holds nothing.
    std::fs::File::create(&huge).unwrap().set_len(10_000_000_000).unwrap();
    let node_with = |name: &str, file: &Path| {
        let mut command = node(&[("BROKER", "mqtts://127.0.0.1:1")]);
        command.env(format!("HUMIDOR_{name}"), file).current_dir(folder.path());
        command
    };
    let broker_with = |settings: &[(&str, &Path)]| {
        let mut command = humidor();
        command.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
        command.args(["--data", "data", "--anonymous", "yes"]).current_dir(folder.path());
        for (name, value) in settings {
            command.env(format!("HUMIDOR_{name}"), value);
        }
        command
    };
    let user = |task: &str, file: &Path| {
        let mut command = humidor();
        command.args(["user", task, "--users-file"]).arg(file);
        command
    };
    let (listen, none) = (Path::new("127.0.0.1:0"), Path::new("/dev/null"));
    for (file, cause) in [
        (fifo.as_path(), "this is a pipe (FIFO)"),
        (Path::new("/dev/zero"), "this is a character device"),
        (&huge, "the file is larger than"),
    ] {
        for command in [
            node_with("CONFIG", file),
            node_with("PASSWORD_FILE", file),
            node_with("TLS_CA", file),
            broker_with(&[("USERS_FILE", file)]),
            broker_with(&[("MQTTS_LISTEN", listen), ("TLS_CERT", file), ("TLS_KEY", none)]),
            user("list", file),
        ] {
            let what = format!("{command:?}");
            let (code, said) = Process::start(command).end();
            assert_eq!(code, Some(78), "{what}: {said}");
            let named = format!("{}: {cause}", file.display());
            assert!(said.contains(&named), "`{named}` is not in what {what} said:\n{said}");
        }
    }
}

#[test]
fn the_effective_configuration_is_shown_with_its_origins_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("humidor.toml");
    std::fs::write(&file, "interval = \"20s\"\npassword = \"hush\"\n").unwrap();
    let mut command = humidor();
    command.arg("config").arg("--config").arg(&file).env("HUMIDOR_BROKER", "mqtt://hall");
    let (status, stdout, stderr) = run(&mut command);
    assert_eq!(status, Some(0), "{stderr}");
    let row = |name: &str| stdout.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(
        row("HUMIDOR_INTERVAL").contains("20s") && row("HUMIDOR_INTERVAL").contains("humidor.toml")
    );
    assert!(row("HUMIDOR_BROKER").ends_with("environment HUMIDOR_BROKER"));
    assert!(row("HUMIDOR_MQTT_LISTEN").ends_with("default"));
    assert!(!stdout.contains("hush"));
    for broker in [
        "mqtt://user:S3cret/pw@h",
        "user:S3cret@h",
        "mqtt://h,mqtts://user:S3:c@ret@h:1",
        "mqtt://user:S3,c@ret/pw@h",
    ] {
        let (status, stdout, stderr) = run(humidor().arg("config").env("HUMIDOR_BROKER", broker));
        assert_eq!(status, Some(78), "{broker}");
        for secret in ["S3", "c@", "/pw"] {
            assert!(!stdout.contains(secret) && !stderr.contains(secret), "{stdout}{stderr}");
        }
        assert!(stdout.contains("user:…"), "{stdout}");
    }
}

#[test]
fn a_port_in_use_is_69_and_says_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = humidor();
    command
        .args(["broker", "--mqtt-listen", &taken.local_addr().unwrap().to_string(), "--data"])
        .arg(folder.path());
    assert_refused(command, 69, &["cannot listen on", "HUMIDOR_MQTT_LISTEN"]);
    let mut command = humidor();
    command
        .args(["broker", "--mqtt-listen", "127.0.0.1:0", "--http-listen"])
        .arg(taken.local_addr().unwrap().to_string())
        .arg("--data")
        .arg(folder.path());
    assert_refused(command, 69, &["cannot listen on", "HUMIDOR_HTTP_LISTEN"]);
    assert!(!folder.path().join("humidor.db").exists(), "it left the log alone");
}

#[test]
fn a_data_folder_that_cannot_be_is_74_and_one_that_may_not_77() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let broker_on = |data: &Path| {
        let mut command = humidor();
        command.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(data);
        command
    };
    assert_refused(broker_on(&file.join("below")), 74, &["file/below"]);
    // Nobody makes folders in sysfs, root included.
    assert_refused(broker_on(Path::new("/sys/humidor")), 77, &["/sys/humidor"]);
}

#[test]
fn a_node_without_a_disk_keeps_readings_in_memory_and_says_so() {
    let node = Process::start(node(&[("DATA", "/sys/humidor"), ("NODE", "diskless")]));
    node.said("the outbox is in memory only");
    assert_eq!(node.terminate(), Some(0));
}

#[test]
fn a_damaged_log_is_kept_aside_loudly_and_a_new_one_started() {
    let folder = tempfile::tempdir().unwrap();
    sample_log(folder.path());
    let path = folder.path().join(LOG_FILE);
    let size = std::fs::metadata(&path).unwrap().len();
    let mut bytes = std::fs::read(&path).unwrap();
    // Everything but the header page: sound enough to open, not to trust.
    bytes[4096..].fill(0xa5);
    std::fs::write(&path, &bytes).unwrap();
    let (status, _, stderr) = run(humidor().args(["db", "check", "--data"]).arg(folder.path()));
    assert_eq!(status, Some(65), "{stderr}");

    let mut command = humidor();
    command.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(folder.path());
    let process = Process::start(command);
    process.said("the database is damaged: it was moved aside");
    let line = process.said("listening for MQTT");
    let address = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    let mut client = Client::connect(address, "n");
    client.publish(
        "humidor/n/sensor/s",
        rumqttc::mqttbytes::QoS::AtLeastOnce,
        1,
        &telemetry("b", 1),
    );
    client.expect_puback(1);
    assert_eq!(process.terminate(), Some(0));
    let kept = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .find(|entry| entry.file_name().to_string_lossy().contains(".damaged-"))
        .expect("the damaged file is kept");
    assert_eq!(kept.metadata().unwrap().len(), size);
}

#[test]
fn a_log_of_a_newer_version_or_another_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    sample_log(folder.path());
    let raw = rusqlite::Connection::open(folder.path().join(LOG_FILE)).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    let broker = || {
        let mut command = humidor();
        command.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(folder.path());
        command
    };
    assert_refused(broker(), 65, &["schema version 99"]);
    raw.pragma_update(None, "application_id", 5).unwrap();
    assert_refused(broker(), 65, &["another program"]);
}

#[test]
fn one_data_folder_serves_one_broker() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = broker(folder.path(), "127.0.0.1:0", &[]);
    let mut second = humidor();
    second.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(folder.path());
    assert_refused(second, 69, &["in use by another humidor"]);
    assert_eq!(first.terminate(), Some(0));
}

#[test]
fn recorded_trains_give_what_the_sensor_sent_or_a_cause() {
    let captures = "tests/fixtures/captures.json";
    let expected: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(captures).unwrap()).unwrap();
    let (status, stdout, _) = humidor_with(&["read", "--from", captures, "--format", "json"]);
    assert_eq!(status, Some(65), "one of them is refused");
    let found: Vec<serde_json::Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found["id"], expected["id"]);
        if expected["expect"]["error"].is_string() {
            assert!(found["error"].is_string() && found["bytes"].is_null(), "{found}");
        } else {
            for field in ["bytes", "humidity", "temperature"] {
                assert_eq!(found[field], expected["expect"][field], "{found}");
            }
        }
    }
    assert_eq!(humidor_with(&["read", "--from", "/nonexistent"]).0, Some(66));
    let mut stdin = humidor();
    stdin.args(["read", "--from", "-"]).stdin(std::process::Stdio::null());
    assert_refused(stdin, 65, &["not JSON"]);
}

#[test]
fn the_log_is_exported_followed_counted_and_copied() {
    let folder = tempfile::tempdir().unwrap();
    sample_log(folder.path());
    let data = folder.path().to_str().unwrap();
    let (status, csv, _) = humidor_with(&["export", "--data", data]);
    assert_eq!(status, Some(0));
    assert_eq!(
        csv,
        "node,sensor,boot,seq,at,clock,temperature,humidity\n\
         press,hall,b,1,1760000000000,synced,21.5,50.0\n\
         press,hall,b,4,1760000010000,synced,-0.5,50.0\n\
         press,oil,b,2,1760000001000,synced,60.0,50.0\n"
    );
    let (_, jsonl, _) = humidor_with(&[
        "export",
        "--format",
        "jsonl",
        "--sensor",
        "hall",
        "--from",
        "2025-10-09T08:53:25Z",
        "--data",
        data,
    ]);
    assert_eq!(
        jsonl,
        "{\"node\":\"press\",\"sensor\":\"hall\",\"boot\":\"b\",\"seq\":4,\"at\":1760000010000,\"clock\":\"synced\",\"temperature\":-0.5,\"humidity\":50.0}\n"
    );
    for (wanted, told) in [
        (&["--node", "nope"][..], "has no node `nope`"),
        (&["--node", "press", "--sensor", "nope"], "has no sensor `nope` of node `press`"),
        (&["--node", "press", "--sensor", "hall", "--to", "2020-01-01"], ""),
    ] {
        let (status, csv, said) = humidor_with(&[&["export", "--data", data][..], wanted].concat());
        assert_eq!((status, csv.lines().count()), (Some(0), 1), "{said}");
        assert!(said.contains(told) && said.is_empty() == told.is_empty(), "{said}");
    }
    let (_, none, _) = humidor_with(&["export", "--to", "2020-01-01", "--data", data]);
    assert_eq!(none.lines().count(), 1, "a header stands alone");
    let (_, tail, _) = humidor_with(&["tail", "--no-follow", "-n", "2", "--data", data]);
    assert_eq!(
        tail,
        "2025-10-09 08:53:21  press        oil            60.0 °C    50.0 %  #2\n\
         2025-10-09 08:53:30  press        hall           -0.5 °C    50.0 %  #4\n"
    );
    add_samples(folder.path());
    let (_, tail, _) = humidor_with(&["tail", "--no-follow", "-n", "4", "--data", data]);
    assert_eq!(
        tail,
        "2025-10-09 08:53:22  plant/oven/heat                 0.1\n\
         2025-10-09 08:53:23  tele/hall/SENSOR AM2301.온도  21.25\n\
         2025-10-09 08:53:23  tele/\\u{1b}[31mred                7\n\
         2025-10-09 08:53:30  press        hall           -0.5 °C    50.0 %  #4\n"
    );
    let (status, gaps, _) = humidor_with(&["db", "gaps", "--data", data]);
    assert_eq!(status, Some(65));
    assert!(gaps.contains("3..=3"), "{gaps}");
    let (_, counts, _) = humidor_with(&["db", "stats", "--data", data]);
    assert!(counts.contains("readings  3\n") && counts.contains("sensors   2\n"), "{counts}");
    assert_eq!(humidor_with(&["db", "check", "--data", data]).0, Some(0));

    let copy = folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    let target = copy.join(LOG_FILE);
    let backup = || run(humidor().args(["db", "backup", "--data", data]).arg(&target));
    assert_eq!(backup().0, Some(0));
    assert_eq!(humidor_with(&["export", "--data", copy.to_str().unwrap()]).1, csv);
    assert_eq!(backup().0, Some(64), "a backup never overwrites");
    assert_refused(
        {
            let mut command = humidor();
            command.args(["export", "--data", "/nonexistent"]);
            command
        },
        66,
        &["no log at", "HUMIDOR_DATA"],
    );
}

#[test]
fn health_is_asked_without_a_network_and_is_69_when_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = broker(folder.path(), "127.0.0.1:0", &[]);
    let listen = address.to_string();
    let ask = || humidor_with(&["health", "--mqtt-listen", &listen, "--node", "no-such-node"]);
    wait_until("the broker answers", || ask().0 == Some(0));
    assert!(ask().1.starts_with("broker: healthy"), "{}", ask().1);
    assert_eq!(process.terminate(), Some(0));
    assert_eq!(ask().0, Some(69));
}

#[test]
fn the_demo_takes_another_port_when_the_usual_one_is_taken() {
    // Whoever holds it, this test or somebody else on this machine.
    let _taken = std::net::TcpListener::bind("0.0.0.0:1883");
    let mut demo = humidor();
    demo.args(["demo", "--seconds", "1"]);
    let (status, stdout, stderr) = run(&mut demo);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(
        stdout.contains("The broker listens on") && !stdout.contains("0.0.0.0:1883."),
        "{stdout}"
    );
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    sample_log(folder.path());
    for task in [
        "export",
        "export --format jsonl",
        "tail --no-follow",
        "db stats",
        "db gaps",
        "doctor",
        "config",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = humidor();
        command.args(task.split(' ')).stdout(writer);
        if task != "config" {
            command.arg("--data").arg(folder.path());
        }
        let (status, _, stderr) = run(&mut command);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{task}");
    }
}

#[test]
fn the_demo_stores_what_three_boards_read_and_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("demo");
    let mut command = humidor();
    command.args(["demo", "--seconds", "8", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(&data);
    let (status, stdout, stderr) = run(&mut command);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stdout.contains("HUMIDOR_BROKER=mqtt://"), "{stdout}");
    let rows = support::readings(&data);
    let nodes: std::collections::BTreeSet<_> = rows.iter().map(|row| row.node.as_str()).collect();
    assert_eq!(nodes.len(), 4, "three boards and a foreign sensor: {stdout}");
    assert!(rows.iter().all(|row| row.clock == "synced"), "the broker's own clock is theirs");
    let printed = stdout.lines().filter(|line| line.contains("°C")).count();
    assert_eq!(printed, rows.len(), "every stored reading is printed");
    let taken: i64 = ["press", "store", "roof"]
        .map(|node| support::outbox(&data.join(format!("board-{node}"))).0)
        .iter()
        .sum();
    let of_boards = rows.iter().filter(|row| row.node != "yard").count();
    assert_eq!(i64::try_from(of_boards).unwrap(), taken, "every reading taken is stored");
}

#[test]
fn a_damaged_log_is_65_and_the_check_says_what_is_damaged() {
    use std::os::unix::fs::FileExt;
    let data = tempfile::tempdir().unwrap();
    humidor()
        .args(["sim", "--nodes", "1", "--days", "2", "--data"])
        .arg(data.path())
        .output()
        .unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(data.path().join(LOG_FILE)).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    for page in (pages / 2..pages).step_by(3) {
        file.write_all_at(&[0xa5; 4096], page * 4096).unwrap();
    }
    let run = |args: &[&str]| {
        let output = humidor().args(args).arg("--data").arg(data.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&["db", "check"]);
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("is damaged") && said.contains(".recover"), "{said}");
    let (code, said) = run(&["export"]);
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("humidor db check"), "{said}");
}

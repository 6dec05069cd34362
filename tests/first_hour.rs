//! The first hour with humidor: what a newcomer types, forgets and misspells leads on, and never to a wall.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::http::{get, request};
use support::{Process, broker, humidor, stored, wait_until};

/// Exit code, standard output and standard error.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn http_of(broker: &Process) -> SocketAddr {
    let line = broker.said("listening for HTTP");
    line.rsplit("address=").next().unwrap().trim().parse().unwrap()
}

/// Runs `humidor user add` with a password on its standard input.
fn add_user(data: &Path, name: &str, role: &str) -> (Option<i32>, String, String) {
    let mut command = humidor();
    command.args(["user", "add", name, "--role", role, "--data"]).arg(data);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{name}-secret\n").as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A board with a simulated sensor, and its secret beside its outbox.
fn board(data: &Path, node: &str, broker: &str, password: &str) -> Command {
    std::fs::create_dir_all(data).unwrap();
    let secret = data.join("password");
    std::fs::write(&secret, password).unwrap();
    let mut command = humidor();
    command
        .args(["node", "--node", node, "--broker", broker, "--sensors", "hall=dht22@7"])
        .args(["--gpio", "sim", "--interval", "2s", "--data"])
        .arg(data)
        .env("HUMIDOR_PASSWORD_FILE", secret)
        .env("NO_COLOR", "1");
    command
}

#[test]
fn whoever_may_do_everything_over_mqtt_may_look_at_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = [("x-forwarded-for", "203.0.113.9")];
    for (more, status) in [
        (&["--anonymous", "yes"][..], 200),
        (&["--anonymous", "yes", "--http-guests", "local"], 401),
        (&[], 401),
    ] {
        let (broker, _) = broker(folder.path(), "127.0.0.1:0", more);
        let http = http_of(&broker);
        assert_eq!(
            request(http, "GET", "/api/v1/nodes", &elsewhere, "").status,
            status,
            "{more:?}"
        );
        assert_eq!(broker.terminate(), Some(0));
    }
    let mut local = humidor();
    local.args(["broker", "--anonymous", "yes", "--mqtt-listen", "127.0.0.1:0", "--data"]);
    local.arg(folder.path()).env("NO_COLOR", "1");
    let line = Process::start(local).said("may connect without a login");
    assert!(line.contains("clients on this machine") && !line.contains("WARN"), "{line}");
    let shown = run(humidor().arg("config").env("HUMIDOR_ANONYMOUS", "yes")).1;
    let row = shown.lines().find(|line| line.starts_with("HUMIDOR_HTTP_GUESTS")).unwrap();
    assert!(row.contains("read") && row.ends_with("follows from HUMIDOR_ANONYMOUS=yes"), "{row}");
}

#[test]
fn a_name_of_the_local_network_is_known_and_another_gets_a_page_that_says_what_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _) = broker(folder.path(), "127.0.0.1:0", &[]);
    let http = http_of(&broker);
    let ask = |host: &str, accept: &str| {
        request(http, "GET", "/", &[("host", host), ("accept", accept)], "")
    };
    for host in [
        "raspberrypi.local:8080",
        "orangepizero3",
        "box.lan",
        "raspberrypi.home:8080",
        "raspberrypi.localdomain",
        "box.internal",
        "box.home.arpa",
    ] {
        assert_eq!(ask(host, "text/html").status, 200, "{host}");
    }
    let page = ask("plant.example:8080", "text/html,application/xhtml+xml");
    assert_eq!(page.status, 421);
    assert!(page.header("content-type").unwrap().starts_with("text/html"), "{page:?}");
    assert!(page.text().contains("HUMIDOR_HTTP_HOSTS=plant.example<"), "{}", page.text());
    // A public name, which its owner may lead anywhere: what the router knows without its ending is offered.
    let page = ask("raspberrypi.fritz.box:8080", "text/html");
    assert_eq!(page.status, 421);
    assert!(page.text().contains("<a href=\"http://raspberrypi:8080/\">"), "{}", page.text());
    assert!(ask("plant.example", "application/json").text().starts_with('{'));
    // An emoji, and behind a proxy that leaves its prefix on.
    for path in ["/%F0%9F%8F%A0", "/🏠", "/humidor/", "/humidor/app.js", "/api/v1/nothing"] {
        let ask = |accept: &str| request(http, "GET", path, &[("accept", accept)], "");
        let page = ask("text/html");
        // Bytes that no path may have are refused by the parser.
        assert!(page.status == 404 || path.contains('🏠'), "{path}: {page:?}");
        if page.status == 404 {
            assert!(page.text().contains("take the prefix off"), "{}", page.text());
            assert!(ask("*/*").json()["error"].as_str().unwrap().contains("prefix"), "{path}");
        }
    }
    let lies = [("accept", "text/html"), ("x-forwarded-prefix", "/🏠/<script>")];
    let page = request(http, "GET", "/", &lies, "");
    assert!(page.status == 200 && !page.text().contains("<script>"), "{page:?}");
    // An emoji and markup, which no host may have, and nothing at all.
    for (host, status) in [("🏠.example", 400), ("<script>alert(1)</script>", 400), ("", 421)] {
        let page = ask(host, "text/html");
        assert_eq!(page.status, status, "{host}");
        assert!(!page.text().contains("<script"), "{}", page.text());
    }
}

#[test]
fn a_user_is_added_before_there_is_a_folder_and_told_what_to_write_on_the_board() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("not/yet");
    let mut first = humidor();
    first.args(["broker", "--mqtt-listen", "0.0.0.0:0", "--data"]).arg(&data);
    let (code, _, said) = run(&mut first);
    assert_eq!(code, Some(78));
    let file =
        format!("humidor user add --role admin NAME --users-file {}/users.toml", data.display());
    assert!(said.contains(&file), "{said}");

    let (code, said, stderr) = add_user(&data, "press", "node");
    assert_eq!(code, Some(0), "{stderr}");
    for part in ["HUMIDOR_NODE=press", "HUMIDOR_BROKER=mqtt://press@", "the board `press` only"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let (code, _, stderr) = add_user(&data, "PI4", "node");
    assert_eq!(code, Some(64));
    for part in ["a-z, 0-9 and -", "did you mean `pi4`?", "--role fleet"] {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    assert_eq!(add_user(&data, "PI4", "reader").0, Some(0));
    assert!(add_user(&data, "boards", "fleet").1.contains("HUMIDOR_NODE=ID"));
    assert!(add_user(&data, "kim", "reader").1.contains(":8080/"));
    let (code, _, stderr) = add_user(&data, "press", "node");
    assert_eq!(code, Some(65));
    assert!(stderr.contains("exists already") && stderr.contains("humidor user passwd press"));

    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (code, _, stderr) = add_user(&file, "press", "node");
    assert!(code != Some(0) && stderr.contains("is a file, not a folder"), "{stderr}");
}

#[test]
fn the_refusals_of_a_board_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(add_user(folder.path(), "press", "node").0, Some(0));
    assert_eq!(add_user(folder.path(), "kim", "admin").0, Some(0));
    let (broker, address) = broker(folder.path(), "127.0.0.1:0", &[]);
    let http = http_of(&broker);
    let id = format!("pi-{}", std::process::id());
    let refused =
        |login: &str| request(http, "GET", "/api/v1/refused", &[("authorization", login)], "");
    // kim:kim-secret, press:press-secret
    let (kim, press) = ("Basic a2ltOmtpbS1zZWNyZXQ=", "Basic cHJlc3M6cHJlc3Mtc2VjcmV0");
    let start = |name: &str, user: &str, password: &str| {
        let data = folder.path().join(name);
        Process::start(board(&data, &id, &format!("mqtt://{user}@{address}"), password))
    };
    let health = || {
        let mut command = humidor();
        command.args(["health", "--mqtt-listen", "127.0.0.1:1", "--node", &id]);
        run(&mut command)
    };
    for (name, user, password, of_broker, of_board, of_page) in [
        (
            "a",
            "press",
            "guess",
            "wrong password",
            "unknown user or wrong password",
            "wrong-password",
        ),
        (
            "b",
            "nobody",
            "press-secret",
            "unknown user",
            "unknown user or wrong password",
            "unknown-user",
        ),
        (
            "c",
            "press",
            "press-secret",
            "may not publish as this node",
            "HUMIDOR_NODE=press",
            "wrong-node",
        ),
    ] {
        let board = start(name, user, password);
        let line = board.said("broker refused");
        assert!(line.contains(of_board), "{line}");
        let line = broker.said("login refused");
        assert!(line.contains(of_broker) && line.contains(user), "{line}");
        let told = &refused(kim).json()[0];
        assert_eq!((&told["node"], &told["user"]), (&id.as_str().into(), &user.into()), "{told}");
        assert_eq!((&told["cause"], &told["address"]), (&of_page.into(), &"127.0.0.1".into()));
        assert_eq!(told["role"], if user == "press" { json!("node") } else { Value::Null });
        // The line that a page shows must be one that does not fail.
        assert_eq!(told["fleet"], json!({ "name": "boards", "exists": false }));
        wait_until("the refusal is known", || health().1.contains("broker refused"));
        let (code, said, _) = health();
        assert_eq!(code, Some(75), "{said}");
        assert!(said.contains("degraded"), "{said}");
        drop(board);
        // The line of a user and an address comes once in a while.
        wait_until("it has gone", || health().0 == Some(69));
        std::fs::remove_dir_all(folder.path().join(name)).unwrap();
        if name == "a" {
            assert_eq!(add_user(folder.path(), "other", "reader").0, Some(0));
        }
    }
    assert_eq!(stored(folder.path()), 0);
    let about = |login: &str| {
        request(http, "GET", "/api/v1/about", &[("authorization", login)], "").json()["boards"]
            .clone()
    };
    assert_eq!(about(press), json!({ "name": "boards" }), "which users there are is for admins");
    assert_eq!(add_user(folder.path(), "boards", "reader").0, Some(0));
    wait_until("the name is taken", || {
        about(kim) == json!({ "name": "boards-2", "exists": false })
    });
    assert_eq!(add_user(folder.path(), "all", "fleet").0, Some(0));
    wait_until("there is one for all boards", || {
        refused(kim).json()[0]["fleet"] == json!({ "name": "all", "exists": true })
    });
    assert_eq!(refused(press).status, 403, "the names of users are for admins");
    assert_eq!(request(http, "GET", "/api/v1/refused", &[], "").status, 401);
    // An admin may publish as any node.
    let address = format!("mqtt://kim@{address}");
    let _board = Process::start(board(&folder.path().join("d"), &id, &address, "kim-secret"));
    wait_until("a board that is let in is refused no more", || {
        refused(kim).json().as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn pins_that_a_board_does_not_have_are_refused_by_config() {
    let config = |board: &str, sensors: &str| {
        let mut command = humidor();
        command.arg("config").env("HUMIDOR_SENSORS", sensors).env("HUMIDOR_NODE", "box");
        if !board.is_empty() {
            command.env("HUMIDOR_BOARD", board);
        }
        run(&mut command)
    };
    for (board, sensors, said) in [
        ("", "hall=dht22@GPIO99", "no known board has a line on `GPIO99`"),
        ("", "hall=dht22@6", "ground"),
        ("", "hall=dht22@1", "3.3 V"),
        ("raspberry-pi-4", "hall=dht22@PA6", "the Raspberry Pi 4 has no line on `PA6`"),
        ("raspberry-pi-4", "hall=dht22@2", "which is 5 V"),
        ("orange-pi-zero", "hall=dht22@7,press=dht11@PA6", "`hall@7` and `press@PA6` are both on"),
        ("orange-pi-zero-3", "hall=dht22@27", "near it"),
    ] {
        let (code, _, stderr) = config(board, sensors);
        assert_eq!(code, Some(78), "{board} {sensors}: {stderr}");
        assert!(stderr.contains(said), "{said} in {stderr}");
    }
    for (board, sensors) in [
        ("", "hall=dht22@7,press=dht11@PA6"),
        ("raspberry-pi-4", "hall=dht22@7,press=dht11@GPIO17"),
        ("orange-pi-zero", "hall=dht21@7,press=am2301@11"),
    ] {
        assert_eq!(config(board, sensors).0, Some(0), "{board} {sensors}");
    }
}

#[test]
fn the_doctor_tries_a_reading_and_the_login_and_says_what_to_do_next() {
    let folder = tempfile::tempdir().unwrap();
    let node = format!("doctor-{}", std::process::id());
    assert_eq!(add_user(folder.path(), &node, "node").0, Some(0));
    let password = format!("{node}-secret");
    let (_broker, address) = broker(folder.path(), "127.0.0.1:0", &[]);
    let doctor = |more: &[(&str, &str)]| {
        let mut command = humidor();
        command.arg("doctor").env("HUMIDOR_GPIO", "sim").env("HUMIDOR_NODE", &node);
        command.env("HUMIDOR_DATA", folder.path().join("new")).env("HUMIDOR_SIM_FAULTS", "0");
        for (name, value) in more {
            command.env(format!("HUMIDOR_{name}"), value);
        }
        run(&mut command)
    };
    let next = |report: &str| report.lines().last().unwrap_or_default().to_owned();
    let (code, report, _) = doctor(&[]);
    assert_eq!(code, Some(0), "{report}");
    assert!(next(&report).starts_with("next:  say what is connected"), "{report}");
    assert!(report.contains("ok     gpio: simulated"), "{report}");
    let new = folder.path().join("new");
    assert!(report.contains(&format!("{} does not exist yet", new.display())), "{report}");

    let login = ("BROKER", format!("mqtt://{node}@{address}"));
    let sensors = ("SENSORS", "hall=dht21@7");
    let (code, report, _) = doctor(&[(login.0, &login.1), sensors, ("PASSWORD", &password)]);
    assert_eq!(code, Some(0), "{report}");
    for part in
        ["ok     sensor: hall reads ", "admits this board as `doctor-", "next:  start the node"]
    {
        assert!(report.contains(part), "{part} in {report}");
    }
    let (code, report, _) = doctor(&[(login.0, &login.1), sensors, ("PASSWORD", "guess")]);
    assert_eq!(code, Some(69), "{report}");
    assert!(report.contains("WRONG  broker") && report.contains("wrong password"), "{report}");
    let (code, report, _) =
        doctor(&[(login.0, &login.1), sensors, ("PASSWORD", &password), ("NODE", "oven")]);
    assert_eq!(code, Some(69), "{report}");
    assert!(report.contains(&format!("HUMIDOR_NODE={node}")), "{report}");
    let (code, report, _) = doctor(&[sensors, ("BROKER", "mqtt://127.0.0.1:1")]);
    assert_eq!(code, Some(69), "{report}");
    assert!(report.contains("no connection to the broker"), "{report}");
    assert!(report.contains("start the broker, and check the port"), "{report}");
    // A name that no service is asked for.
    let (code, report, _) = doctor(&[sensors, ("BROKER", "mqtt://a..b")]);
    assert_eq!(code, Some(69), "{report}");
    assert!(report.contains("write the broker's IP address"), "{report}");
    let (code, report, _) = doctor(&[("SENSORS", "hall=dht22@41")]);
    assert_eq!(code, Some(78), "{report}");
    assert!(report.contains("`41` is not a pin"), "{report}");
    assert!(next(&report).contains("mend the first WRONG line above (settings)"), "{report}");
}

/// A small board checks a password for seconds, and refuses a wrong one late on purpose.
#[test]
fn the_doctor_waits_for_a_broker_that_is_slow_to_refuse_and_says_so() {
    // Longer than an MQTT client waits by itself.
    const SLOW: Duration = Duration::from_secs(6);
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (told, refuse) = std::sync::mpsc::channel::<()>();
    let refusing = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let accepted = Instant::now();
        refuse.recv().unwrap();
        std::thread::sleep(SLOW.saturating_sub(accepted.elapsed()));
        // CONNACK: not authorised.
        let _ = stream.write_all(&[0x20, 2, 0, 5]);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut command = humidor();
    command.arg("doctor").env("HUMIDOR_GPIO", "sim").env("HUMIDOR_NODE", "slow");
    command
        .env("HUMIDOR_BROKER", format!("mqtt://slow@{address}"))
        .env("HUMIDOR_PASSWORD", "guess");
    command.env("HUMIDOR_DATA", folder.path()).stdout(Stdio::piped());
    let mut doctor = command.spawn().unwrap();
    let mut report = String::new();
    for line in BufReader::new(doctor.stdout.take().unwrap()).lines().map_while(Result::ok) {
        if line.starts_with("wait   broker") {
            told.send(()).unwrap();
        }
        report = report + &line + "\n";
    }
    assert_eq!(doctor.wait().unwrap().code(), Some(69), "{report}");
    assert!(report.contains("has not answered the login yet"), "{report}");
    let verdict = "broker refused user `slow`: unknown user or wrong password";
    assert!(report.contains(verdict), "{report}");
    refusing.join().unwrap();
}

/// Command lines with a slip, and what the answer offers instead.
const SLIPS_OF_COMMANDS: [(&str, &str); 39] = [
    ("brokr", "broker"),
    ("borker", "broker"),
    ("server", "broker"),
    ("forget", "db forget"),
    ("nod", "node"),
    ("run", "node"),
    ("start", "broker"),
    ("board", "node"),
    ("demoo", "demo"),
    ("doctr", "doctor"),
    ("check", "doctor"),
    ("helth", "health"),
    ("status", "health"),
    ("tial", "tail"),
    ("logs", "tail"),
    ("expor", "export"),
    ("csv", "export"),
    ("conf", "config"),
    ("settings", "config"),
    ("gpoi", "gpio"),
    ("pinout", "gpio"),
    ("usr", "user"),
    ("users", "user"),
    ("passwd", "user passwd"),
    ("dbb", "db"),
    ("backup", "db backup"),
    ("monitor", "tail"),
    ("web", "broker"),
    ("add-user", "user add"),
    ("user del kim", "remove"),
    ("user pasword kim", "passwd"),
    ("db remove press", "forget"),
    ("gpio pins", "header"),
    ("broker --port 1884", "--mqtt-listen"),
    ("demo --port 8081", "--http-listen"),
    ("node --pin 7", "--sensors"),
    ("node --brokr x", "--broker"),
    ("export --since 1h", "--from"),
    ("user add kim --role admn", "admin"),
];

/// Settings with a value with a slip, and what the answer offers instead.
const SLIPS_OF_SETTINGS: [(&str, &str, &str); 68] = [
    ("SENSORS", "a=dht22@pin7", "7"),
    ("SENSORS", "a=dht22@BCM4", "GPIO4"),
    ("SENSORS", "a=dht22@GPIO_4", "GPIO4"),
    ("SENSORS", "a=dht22@GPI04", "GPIO4"),
    ("SENSORS", "a=dht22@GPO4", "GPIO4"),
    ("SENSORS", "a=dht22@A6", "PA6"),
    ("SENSORS", "a=dht22@PIN 11", "11"),
    ("OUTPUTS", "fan=IO27", "GPIO27"),
    ("SENSORS", "a=dth22@7", "dht22"),
    ("SENSORS", "a=dht-22@7", "dht22"),
    ("SENSORS", "a=dht12@7", "dht11"),
    ("SENSORS", "a=am2303@7", "am2302"),
    ("SENSORS", "a=dht 11@7", "dht11"),
    ("SENSORS", "Hall=dht22@7", "hall"),
    ("BOARD", "orangepi-zero3", "orange-pi-zero-3"),
    ("BOARD", "rpi4", "raspberry-pi-4"),
    ("BOARD", "pi4", "raspberry-pi-4"),
    ("BOARD", "opi-zero", "orange-pi-zero"),
    ("BOARD", "Raspberry Pi 5", "raspberry-pi-5"),
    ("NODE", "PI4", "pi4"),
    ("NODE", "hall_3", "hall-3"),
    ("INTERVAL", "10", "10s"),
    ("INTERVAL", "500 msek", "500ms"),
    ("INTERVAL", "90 sek", "90s"),
    ("KEEP_RAW", "90", "90d"),
    ("KEEP_RAW", "3 months", "90d"),
    ("KEEP_RAW", "1y", "365d"),
    ("KEEP_RAW", "never", "forever"),
    ("MAX_DB", "1G", "1GiB"),
    ("MAX_DB", "512m", "512MiB"),
    ("MAX_DB", "1.5GiB", "1536MiB"),
    ("SIM_FAULTS", "2%", "0.02"),
    ("GPIO", "smi", "sim"),
    ("GPIO", "libgpiod", "cdev"),
    ("ANONYMOUS", "true", "yes"),
    ("ANONYMOUS", "ja", "yes"),
    ("BOARD", "zero3", "orange-pi-zero-3"),
    ("LOG", "debgu", "debug"),
    ("INPUTS", "door=15:debounce=50", "50ms"),
    ("BROKER", "mqtt:/192.168.1.20", "mqtt://192.168.1.20"),
    ("HTTP_GUESTS", "everyone", "read"),
    ("MQTT_LISTEN", "1883", "0.0.0.0:1883"),
    ("MQTT_LISTEN", "localhost:1884", "127.0.0.1:1884"),
    ("BROKER", "192.168.1.20", "mqtt://192.168.1.20"),
    ("BROKER", "tcp://hall", "mqtt://hall"),
    ("OUTPUTS", "fan=13:save=off", "safe"),
    ("SENSORS", "a=dht22@physical7", "7"),
    ("SENSORS", "a=dht22@GPIO.4", "GPIO4"),
    ("SENSORS", "a=dhtt22@7", "dht22"),
    ("SENSORS", "living room=dht22@7", "living-room"),
    ("BOARD", "OrangePi Zero3", "orange-pi-zero-3"),
    ("BOARD", "rpi3b", "raspberry-pi-3"),
    ("INTERVAL", "10sekunden", "10s"),
    ("KEEP_RAW", "2w", "14d"),
    ("ALARMS", "hot=press/hall:temp>30", "temperature"),
    ("ALARMS", "hot=press/hall:temperature>=30", "30"),
    ("ALARMS", "hot=press/hall:temperature>30°C", "30"),
    ("ALARMS", "dry=press/hall:humidity<20%", "20"),
    ("OUTBOX_CAPACITY", "10k", "10000"),
    ("CONNECTIONS", "2,000", "2000"),
    ("LOGGED_FILTERS", "plant/*", "plant/#"),
    ("LOGGED_FILTERS", "tele/*/SENSOR", "tele/+/SENSOR"),
    ("DISCOVERY", "no", "off"),
    ("HTTP_GUESTS", "readonly", "read"),
    ("HTTP_LISTEN", "none", "off"),
    ("HTTP_LISTEN", "http://0.0.0.0:8080/", "0.0.0.0:8080"),
    ("HTTP_HOSTS", "http://plant.example:8080/", "plant.example"),
    ("INPUTS", "door=15:debonce=50ms", "debounce"),
];

#[test]
fn a_slip_is_answered_by_the_nearest_right_thing() {
    for (slip, meant) in SLIPS_OF_COMMANDS {
        let (code, _, stderr) = run(humidor().args(slip.split(' ')));
        assert_eq!(code, Some(64), "{slip}");
        assert!(stderr.contains(&format!("'{meant}'")), "{slip}: {meant} in {stderr}");
        assert!(slip != "demoo" || !stderr.contains("'doctor'"), "the nearest alone: {stderr}");
    }
    for (name, value, meant) in SLIPS_OF_SETTINGS {
        let mut command = humidor();
        command.arg("config").env(format!("HUMIDOR_{name}"), value);
        let (code, _, stderr) = run(&mut command);
        assert_eq!(code, Some(78), "{name}={value}: {stderr}");
        let offer = format!("did you mean `{meant}`?");
        assert!(stderr.contains(&offer), "{name}={value}: {offer} in {stderr}");
    }
}

#[test]
fn what_is_no_slip_is_explained() {
    // No word is offered that only looks like it.
    for (name, value, said) in [
        ("SENSORS", "a=sht21@7", "is none of dht11"),
        ("SENSORS", "a=dht20@7", "is none of dht11"),
        ("SENSORS", "a=dht22@7;b=dht11@11", "needs commas"),
        ("SENSORS", "a=dht22@7 b=dht11@11", "needs commas"),
        ("BROKER", "mqtt://192.168.1", "192.168.1 is not an address of four numbers"),
        ("PORT", "1883", "unknown variable `HUMIDOR_PORT`"),
        ("USERNAME", "kim", "unknown variable `HUMIDOR_USERNAME`"),
    ] {
        let (code, _, stderr) = run(humidor().arg("config").env(format!("HUMIDOR_{name}"), value));
        assert_eq!(code, Some(78), "{name}={value}: {stderr}");
        assert!(stderr.contains(said), "{name}={value}: {said} in {stderr}");
        assert!(!stderr.contains("did you mean"), "{name}={value}: {stderr}");
    }
    let (_, _, stderr) = run(humidor().arg("config").env("HUMIDOR_MQTT_BROKER", "mqtt://h"));
    assert!(stderr.contains("did you mean `HUMIDOR_BROKER`?"), "{stderr}");
    let (_, _, stderr) = run(humidor().arg("config").env("HUMIDOR_SENSORS", "living room=dht22@7"));
    assert!(!stderr.contains("commas"), "{stderr}");
    let (code, _, stderr) = run(humidor().args(["read", "dht22:7"]));
    assert!(code == Some(78) && stderr.contains("write dht22@7"), "{stderr}");
}

#[test]
fn a_password_in_the_address_is_not_shown_and_one_from_another_editor_is_right() {
    let (code, _, stderr) =
        run(humidor().arg("config").env("HUMIDOR_BROKER", "mqtt://user:S3cret/pw@host"));
    assert_eq!(code, Some(78));
    assert!(stderr.contains("HUMIDOR_PASSWORD_FILE") && !stderr.contains("S3cret"), "{stderr}");
    let quoted = run(humidor().arg("config").env("HUMIDOR_PASSWORD", "\"hush\"")).2;
    assert!(quoted.contains("quote") && !quoted.contains("hush"), "{quoted}");

    let folder = tempfile::tempdir().unwrap();
    let node = format!("windows-{}", std::process::id());
    assert_eq!(add_user(folder.path(), &node, "node").0, Some(0));
    let (_broker, address) = broker(folder.path(), "127.0.0.1:0", &[]);
    let address = format!("mqtt://{node}@{address}");
    let windows = format!("\u{feff}{node}-secret\r\n");
    let _board = Process::start(board(&folder.path().join("b"), &node, &address, &windows));
    wait_until("a reading is stored", || stored(folder.path()) > 0);
}

#[test]
fn two_boards_with_one_id_are_told_to_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, address) = broker(folder.path(), "127.0.0.1:0", &[]);
    let http = http_of(&broker);
    let id = format!("twin-{}", std::process::id());
    let start = |name: &str| {
        Process::start(board(&folder.path().join(name), &id, &format!("mqtt://{address}"), "x"))
    };
    let (one, other) = (start("one"), start("other"));
    let line = broker.said("two clients use this client id");
    assert!(line.contains(&format!("humidor-{id}")) && line.contains("127.0.0.1"), "{line}");
    let hint = format!("does another board have the id `{id}` too?");
    one.said(&hint);
    other.said(&hint);
    wait_until("the page is told", || {
        let nodes = get(http, "/api/v1/nodes").json();
        nodes[0]["health"]["complaints"].to_string().contains("another board may use this node id")
    });
}

/// The blocks of a language in a section of the README.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let readme = include_str!("../README.md");
    let rest = readme.split(&format!("## {section}\n")).nth(1).expect("the section");
    let rest = rest.split("\n## ").next().unwrap_or_default();
    let fence = format!("```{language}\n");
    rest.split(fence.as_str())
        .skip(1)
        .map(|block| block.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

/// A line of the README: its variables, and its arguments behind `humidor`. Ports and addresses are those of this test.
fn of_readme(line: &str, folder: &Path, broker: &str) -> Command {
    let line = line.replace("192.168.1.20", broker);
    let (variables, arguments) = line.split_once("humidor ").expect("a command");
    let mut command = humidor();
    command.current_dir(folder).args(arguments.split_whitespace()).env("NO_COLOR", "1");
    for pair in variables.split_whitespace() {
        let (name, value) = pair.split_once('=').expect("a variable");
        command.env(name, value);
    }
    command
}

#[test]
fn the_readmes_commands_give_a_reading_on_the_page_from_an_empty_folder() {
    let blocks = blocks("Run it without containers", "sh");
    for (block, with_users) in [(&blocks[0], false), (&blocks[1], true)] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "a-secret\n").unwrap();
        let (mut roles, mut address, mut http) = (Vec::new(), String::new(), None);
        for line in block.lines() {
            let mut command = of_readme(line, folder.path(), &address);
            if line.contains("user add") {
                let mut child =
                    command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
                child.stdin.take().unwrap().write_all(b"a-secret\n").unwrap();
                assert!(child.wait().unwrap().success(), "{line}");
            } else if line.contains("humidor broker") {
                // On every address, as it is by default.
                command.env("HUMIDOR_MQTT_LISTEN", "0.0.0.0:0");
                let broker = Process::start(command);
                let listens = broker.said("listening for MQTT");
                let port = listens.rsplit(':').next().unwrap().trim().to_owned();
                address = format!("127.0.0.1:{port}");
                http = Some(http_of(&broker));
                roles.push(broker);
            } else {
                command.env("HUMIDOR_GPIO", "sim").env("HUMIDOR_INTERVAL", "2s");
                command.env("HUMIDOR_NODE", format!("readme-{with_users}-{}", std::process::id()));
                roles.push(Process::start(command));
            }
        }
        let elsewhere = ("x-forwarded-for", "203.0.113.9");
        // kim:a-secret
        let login = ("authorization", "Basic a2ltOmEtc2VjcmV0");
        let headers = if with_users { vec![elsewhere, login] } else { vec![elsewhere] };
        wait_until("a reading is on the page, seen from another machine", || {
            let latest = request(http.unwrap(), "GET", "/api/v1/latest", &headers, "");
            latest.status == 200 && latest.json()[0]["temperature"].is_number()
        });
    }
}

#[test]
fn the_readmes_settings_file_is_right_on_every_board() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, &blocks("Run it without containers", "toml")[0]).unwrap();
    for board in humidor::board::BOARDS {
        let mut command = humidor();
        command.args(["config", "--board", board.id, "--config"]).arg(&file);
        let (code, _, stderr) = run(&mut command);
        assert_eq!(code, Some(0), "{}: {stderr}", board.id);
    }
}

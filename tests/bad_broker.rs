//! A node under a broker that misbehaves: readings leave, the last command counts, outputs are safe, and it says so.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::board::{earlier, fill};
use support::fake_broker::{Conduct, FakeBroker, OnConnect, OnPublish, OnSubscribe, command, with};
use support::{PATIENCE, Process, broker, humidor, outbox, side_by_side, wait_until, wait_within};

const KIB: usize = 1024;

/// A node with a sensor, which it reads every second, and output `fan`.
fn node(name: &str, data: &Path, broker: &FakeBroker, fan: &str) -> Command {
    let mut command = humidor();
    command
        .args(["node", "--node", name, "--gpio", "sim", "--sim-faults", "0", "--interval", "1s"])
        .args(["--sensors", "hall=dht11@7", "--outputs", fan])
        .args(["--broker", &format!("mqtt://{}", broker.address), "--data"])
        .arg(data)
        .env("NO_COLOR", "1");
    command
}

#[test]
fn the_last_of_a_burst_of_commands_counts() {
    let data = tempfile::tempdir().unwrap();
    let mut commands = vec!["OFF".to_owned(); 200];
    commands.push("ON".to_owned());
    let broker = FakeBroker::start(vec![with(|it| it.commands = commands)]);
    let _running = Process::start(node("burst", data.path(), &broker, "fan=11"));
    wait_until("all are acknowledged", || broker.seen().iter().any(|seen| seen.obeyed == 201));
    wait_until("the last one is carried out", || {
        broker.last("/output/fan").as_deref() == Some("ON")
    });
}

fn retained_messages_of_any_size_stand_in_no_readings_way() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 200);
    let broker = FakeBroker::start(vec![with(|it| {
        it.retained_bytes = Some(256 * KIB);
        it.commands = vec!["ON".to_owned()];
    })]);
    let _running = Process::start(node("large", data.path(), &broker, "fan=11"));
    wait_until("the readings are stored", || earlier(&broker) == 200);
    wait_until("the command came too", || broker.last("/output/fan").as_deref() == Some("ON"));
    assert_eq!(broker.connects(), 1, "the connection stands");
}

fn a_subscription_that_ends_the_connection_is_left_out_and_said() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 200);
    let broker = FakeBroker::start(vec![with(|it| it.subscribe = OnSubscribe::Close)]);
    let running = Process::start(node("closing", data.path(), &broker, "fan=11"));
    let line = running.said("left out");
    assert!(line.contains("output/+/set"), "{line}");
    // The second filter ends three connections too, with up to half a minute between two of them.
    wait_within(PATIENCE * 3, "a connection goes on without it", || {
        let seen = broker.seen();
        let last = seen.last().unwrap();
        last.subscribed.is_empty() && last.published.len() > 3
    });
    wait_until("the readings are stored", || earlier(&broker) == 200);
}

/// Switches `fan` on under a right broker, which then becomes this one.
fn switched_on_under(name: &str, data: &Path, conduct: &Conduct) -> (Process, FakeBroker) {
    let broker = FakeBroker::start(vec![with(|it| it.commands = vec!["ON".to_owned()])]);
    let running = Process::start(node(name, data, &broker, "fan=11:safe=off:away=3s"));
    wait_until("it is on", || broker.last("/output/fan").as_deref() == Some("ON"));
    broker.become_(conduct);
    broker.cut();
    (running, broker)
}

fn an_output_is_safe_while_its_commands_are_refused() {
    for (name, subscribe) in [("refused", OnSubscribe::Refuse), ("codes", OnSubscribe::NoCodes)] {
        let data = tempfile::tempdir().unwrap();
        let (running, broker) =
            switched_on_under(name, data.path(), &with(|it| it.subscribe = subscribe));
        wait_until("it is safe", || broker.last("/output/fan").as_deref() == Some("OFF"));
        let said = running.last_words();
        let of_commands =
            |line: &&str| line.contains("refuses the subscription") && line.contains("/set");
        let refusals = said.lines().filter(of_commands);
        assert_eq!(refusals.count(), 1, "{said}");
    }
}

fn an_output_is_safe_while_the_broker_only_accepts_and_closes() {
    let data = tempfile::tempdir().unwrap();
    let closing = with(|it| it.close_after = Some(0));
    let (running, _broker) = switched_on_under("accepts", data.path(), &closing);
    running.said("output takes its safe state");
}

fn a_broker_that_closes_after_connack_is_asked_less_and_less_and_not_complained_of_each_time() {
    let data = tempfile::tempdir().unwrap();
    let broker = FakeBroker::start(vec![with(|it| it.close_after = Some(0))]);
    let begin = Instant::now();
    let running = Process::start(node("grows", data.path(), &broker, "fan=11"));
    wait_until("five connections", || broker.connects() >= 5);
    assert!(begin.elapsed() >= Duration::from_secs(7), "{:?}", begin.elapsed());
    let said = running.last_words();
    let lines = said.lines().filter(|line| line.contains("broker")).count();
    assert!(lines <= 6, "{said}");
}

fn two_boards_of_one_id_say_so_both() {
    let (data, one, other) = {
        let folder = || tempfile::tempdir().unwrap();
        (folder(), folder(), folder())
    };
    let (_broker, address) = broker(data.path(), "127.0.0.1:0", &[]);
    let twin = |data: &Path| {
        let mut command = humidor();
        command
            .args(["node", "--node", "twin", "--gpio", "sim", "--interval", "1s"])
            .args(["--sensors", "hall=dht11@7", "--broker", &format!("mqtt://{address}"), "--data"])
            .arg(data)
            .env("NO_COLOR", "1");
        Process::start(command)
    };
    let boards = [twin(one.path()), twin(other.path())];
    for board in &boards {
        let line = board.said("another board");
        assert!(line.contains("twin") && line.contains("HUMIDOR_NODE"), "{line}");
    }
}

fn acknowledgements_of_nothing_are_ignored() {
    for (name, publish) in [("twice", OnPublish::Twice), ("zero", OnPublish::WrongIdsToo)] {
        let data = tempfile::tempdir().unwrap();
        fill(data.path(), 200);
        let broker = FakeBroker::start(vec![with(|it| it.publish = publish)]);
        let _running = Process::start(node(name, data.path(), &broker, "fan=11"));
        wait_until("the readings are stored", || earlier(&broker) == 200);
        wait_until("they left the outbox", || outbox(data.path()).1 < 3);
        assert_eq!(broker.connects(), 1, "{name}: the connection stands");
    }
}

fn a_reading_leaves_the_outbox_although_an_earlier_one_was_not_acknowledged() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 40);
    let all_but = with(|it| it.publish = OnPublish::AllBut(1_000_000));
    let broker = FakeBroker::start(vec![all_but]);
    let _running = Process::start(node("gap", data.path(), &broker, "fan=11"));
    wait_until("the others are stored", || earlier(&broker) == 39);
    wait_until("they left the outbox", || outbox(data.path()).1 <= 4);
    assert_eq!(broker.connects(), 1);
}

fn one_lost_acknowledgement_in_a_long_drain_costs_a_reconnect_and_no_minute() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 4_000);
    let all_but = with(|it| it.publish = OnPublish::AllBut(1_000_000));
    let broker = FakeBroker::start(vec![all_but, Conduct::right()]);
    let begin = Instant::now();
    let _running = Process::start(node("lost", data.path(), &broker, "fan=11"));
    wait_until("the readings are stored", || earlier(&broker) == 4_000);
    assert!(begin.elapsed() < Duration::from_secs(29), "not by a time-out");
}

fn a_new_reading_does_not_wait_for_a_backlog() {
    const BACKLOG: u64 = 2_000;
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), BACKLOG);
    let slow = with(|it| it.slow = Duration::from_millis(4));
    let broker = FakeBroker::start(vec![slow]);
    let running = Process::start(node("fresh", data.path(), &broker, "fan=11"));
    let new = || broker.stored().iter().filter(|(boot, _)| boot != "earlier").count();
    wait_until("a new reading is stored", || new() >= 2);
    let before = earlier(&broker);
    assert!(before < 1_500, "{before} of the backlog came first");
    wait_until("the backlog is stored", || earlier(&broker) == 2_000);
    // The newest of the backlog showed the state at once; the rest came in its order.
    let order: Vec<u64> =
        broker.stored().into_iter().filter(|(boot, _)| boot == "earlier").map(|(_, n)| n).collect();
    let (newest, rest): (Vec<u64>, Vec<u64>) = order.iter().partition(|n| **n > BACKLOG - 64);
    assert!(rest.is_sorted() && order[..64].contains(&BACKLOG), "{newest:?}");
    assert_eq!(running.terminate(), Some(0));
    assert_eq!(order.len(), 2_000, "each once");
}

fn ten_thousand_commands_are_a_few_lines_in_the_log() {
    let data = tempfile::tempdir().unwrap();
    let broker = FakeBroker::start(vec![Conduct::right()]);
    let running = Process::start(node("many", data.path(), &broker, "fan=11"));
    wait_until("the commands are subscribed to", || {
        broker.seen().iter().any(|seen| seen.subscribed.iter().any(|it| it.contains("set")))
    });
    let begin = Instant::now();
    let burst: Vec<u8> = (1..=10_000_u16)
        .flat_map(|n| command("many", if n.is_multiple_of(2) { "ON" } else { "what" }, n))
        .collect();
    broker.write(&burst);
    wait_until("all are acknowledged", || broker.seen().iter().any(|seen| seen.obeyed == 10_000));
    wait_until("it is on", || broker.last("/output/fan").as_deref() == Some("ON"));
    // The line of the state is among those left out, and made up for.
    let line = running.said("this is its state now");
    assert!(line.contains("state=\"ON\""), "{line}");
    let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap() + 1;
    let said = running.last_words();
    let lines = said.lines().count();
    assert!(lines <= 15 + 5 * seconds, "{lines} lines");
}

#[test]
fn health_tells_a_board_that_waits_from_one_that_loses() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 60);
    let broker = FakeBroker::start(vec![with(|it| it.connect = OnConnect::Refuse(5))]);
    let mut waiting = node("waits", data.path(), &broker, "fan=11");
    waiting.args(["--outbox-capacity", "100"]);
    let running = Process::start(waiting);
    running.said("broker refused a client without a user");
    let ask = |more: &[&str]| {
        let mut health = humidor();
        health.args(["health", "--node", "waits", "--mqtt-listen", "127.0.0.1:1"]).args(more);
        let output = health.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let (code, text) = ask(&[]);
    assert_eq!(code, Some(75), "{text}");
    for part in ["degraded", "outbox is more than half full", "broker refused", "queued"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let (code, text) = ask(&["--alive"]);
    assert_eq!(code, Some(0), "a container that waits is not restarted: {text}");
    broker.become_(&Conduct::right());
    wait_until("it is healthy", || ask(&[]).0 == Some(0));
}

#[test]
fn a_queue_that_was_told_is_told_to_be_empty_before_the_next_health_is_due() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 60);
    let broker = FakeBroker::start(vec![with(|it| it.slow = Duration::from_millis(50))]);
    let _running = Process::start(node("drains", data.path(), &broker, "fan=11"));
    let told = || {
        broker.with_seen(|seen| {
            let published = seen.iter().flat_map(|seen| &seen.published);
            let healths = published.filter(|(_, it)| it.topic.ends_with("/health"));
            let waiting = |payload: &[u8]| humidor::wire::Health::parse(payload).unwrap().outbox;
            healths.map(|(at, it)| (*at, waiting(&it.payload))).collect::<Vec<_>>()
        })
    };
    wait_until("a queue is told", || told().iter().any(|(_, waiting)| *waiting > 0));
    wait_until("an empty one is told", || told().last().is_some_and(|(_, waiting)| *waiting == 0));
    let told = told();
    let (first, last) =
        (told.iter().find(|(_, waiting)| *waiting > 0).unwrap(), told.last().unwrap());
    assert!(last.0 - first.0 < Duration::from_secs(30), "{told:?}");
}

fn a_disk_that_is_full_now_and_then_is_one_pair_of_lines_a_minute() {
    let data = tempfile::tempdir().unwrap();
    let broker = FakeBroker::start(vec![Conduct::right()]);
    let running = Process::start(node("flaps", data.path(), &broker, "fan=11"));
    running.said("connected");
    let text = || {
        let mut health = humidor();
        health.args(["health", "--node", "flaps", "--mqtt-listen", "127.0.0.1:1"]);
        String::from_utf8(health.output().unwrap().stdout).unwrap()
    };
    // Another program holds the write lock, which refuses as a full disk does.
    let file = rusqlite::Connection::open(data.path().join(humidor::node::OUTBOX_FILE)).unwrap();
    for _ in 0..4 {
        wait_until("the lock is free", || file.execute_batch("BEGIN IMMEDIATE").is_ok());
        wait_until("it cannot write", || text().contains("cannot write"));
        file.execute_batch("ROLLBACK").unwrap();
        wait_until("it writes again", || text().starts_with("node: healthy"));
    }
    let said = running.last_words();
    let lines = |text: &str| said.lines().filter(|line| line.contains(text)).count();
    assert_eq!((lines("outbox cannot write"), lines("outbox can write again")), (1, 1), "{said}");
}

fn outbox_files_that_were_deleted_are_written_anew() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 30);
    let broker = FakeBroker::start(vec![with(|it| it.connect = OnConnect::Close)]);
    let running = Process::start(node("deleted", data.path(), &broker, "fan=11"));
    running.said("readings wait in the outbox");
    for file in std::fs::read_dir(data.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    running.said("deleted");
    wait_until("it is there again", || {
        data.path().join(humidor::node::OUTBOX_FILE).exists() && outbox(data.path()).1 >= 30
    });
    running.kill_9();
    broker.become_(&Conduct::right());
    let _again = Process::start(node("deleted", data.path(), &broker, "fan=11"));
    wait_until("the readings are stored", || earlier(&broker) == 30);
}

#[test]
fn a_data_folder_that_is_a_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, "no folder").unwrap();
    let broker = FakeBroker::start(vec![Conduct::right()]);
    let (code, said) = Process::start(node("file", &file, &broker, "fan=11")).end();
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("is a file, not a folder") && said.contains("HUMIDOR_DATA"), "{said}");
}

#[test]
fn no_answer_of_a_broker_is_told_in_raw_words() {
    for (name, connect, text) in [
        ("version", OnConnect::Refuse(1), "does not support MQTT 3.1.1"),
        ("code", OnConnect::Refuse(99), "with a code that MQTT 3.1.1 does not have (99)"),
        ("http", OnConnect::Nonsense, "is no MQTT broker"),
    ] {
        let data = tempfile::tempdir().unwrap();
        let broker = FakeBroker::start(vec![with(|it| it.connect = connect)]);
        let running = Process::start(node(name, data.path(), &broker, "fan=11"));
        let line = running.said("readings wait in the outbox");
        assert!(line.contains(text), "{line}");
    }
}

/// Each breach in turn, then a right broker: every reading is stored.
#[test]
fn whatever_the_broker_did_before_a_right_one_gets_every_reading() {
    let breaches: Vec<(&str, Conduct)> = vec![
        ("strangers", with(|it| it.strangers = true)),
        ("connacks", with(|it| it.connacks = true)),
        ("dribble", with(|it| it.dribble = true)),
        ("deaf", with(|it| it.deaf = true)),
        ("no-suback", with(|it| it.subscribe = OnSubscribe::Silence)),
        ("closes", with(|it| it.close_after = Some(1))),
        ("no-pongs", with(|it| it.pongs = false)),
    ];
    let running: Vec<_> = breaches
        .into_iter()
        .map(|(name, conduct)| {
            let data = tempfile::tempdir().unwrap();
            fill(data.path(), 300);
            let broker = FakeBroker::start(vec![conduct.clone(), conduct, Conduct::right()]);
            let node = Process::start(node(name, data.path(), &broker, "fan=11:away=5s"));
            (name, data, broker, node)
        })
        .collect();
    for (name, _data, broker, _node) in &running {
        wait_until(&format!("{name}: the readings are stored"), || earlier(broker) == 300);
    }
}

#[test]
fn readings_leave_whatever_is_acknowledged() {
    side_by_side(&[
        ("acknowledgements_of_nothing_are_ignored", acknowledgements_of_nothing_are_ignored),
        (
            "a_reading_leaves_the_outbox_although_an_earlier_one_was_not_acknowledged",
            a_reading_leaves_the_outbox_although_an_earlier_one_was_not_acknowledged,
        ),
        (
            "one_lost_acknowledgement_in_a_long_drain_costs_a_reconnect_and_no_minute",
            one_lost_acknowledgement_in_a_long_drain_costs_a_reconnect_and_no_minute,
        ),
        ("a_new_reading_does_not_wait_for_a_backlog", a_new_reading_does_not_wait_for_a_backlog),
    ]);
}

#[test]
fn whatever_a_broker_does_is_a_few_lines_in_the_log() {
    side_by_side(&[
        ("a_broker_that_closes_after_connack_is_asked_less_and_less_and_not_complained_of_each_time", a_broker_that_closes_after_connack_is_asked_less_and_less_and_not_complained_of_each_time),
        ("two_boards_of_one_id_say_so_both", two_boards_of_one_id_say_so_both),
        ("outbox_files_that_were_deleted_are_written_anew", outbox_files_that_were_deleted_are_written_anew),
        ("ten_thousand_commands_are_a_few_lines_in_the_log", ten_thousand_commands_are_a_few_lines_in_the_log),
        ("a_disk_that_is_full_now_and_then_is_one_pair_of_lines_a_minute", a_disk_that_is_full_now_and_then_is_one_pair_of_lines_a_minute),
    ]);
}

#[test]
fn subscriptions_stand_in_no_readings_way_and_outputs_are_safe_without() {
    side_by_side(&[
        (
            "retained_messages_of_any_size_stand_in_no_readings_way",
            retained_messages_of_any_size_stand_in_no_readings_way,
        ),
        (
            "a_subscription_that_ends_the_connection_is_left_out_and_said",
            a_subscription_that_ends_the_connection_is_left_out_and_said,
        ),
        (
            "an_output_is_safe_while_its_commands_are_refused",
            an_output_is_safe_while_its_commands_are_refused,
        ),
        (
            "an_output_is_safe_while_the_broker_only_accepts_and_closes",
            an_output_is_safe_while_the_broker_only_accepts_and_closes,
        ),
    ]);
}

//! A broker that is there, and slow or stubborn: the connection stands, readings leave, and an output keeps its state while it
//! can be commanded.

mod support;

use std::time::{Duration, Instant};

use humidor::gpio::{Level, Pin};
use humidor::health::State;
use humidor::node::{DeliveryTimes, InputConfig};
use support::board::{Board, config, earlier, fill};
use support::fake_broker::{Conduct, FakeBroker, OnPublish, OnSubscribe, with};
use support::{side_by_side, wait_until};

const KIB: usize = 1024;
/// The shortest limit of an output: its keep-alive is a second.
const AWAY: Duration = Duration::from_secs(3);

fn times() -> DeliveryTimes {
    DeliveryTimes {
        acknowledged_within: Duration::from_secs(2),
        proved_after: Duration::from_secs(1),
        held_up_within: Duration::from_mins(1),
        subscribe_again: (Duration::from_millis(100), Duration::from_secs(1)),
        return_after: Duration::from_mins(5),
        discovery_pause: Duration::from_secs(2),
    }
}

/// A line of 8 KiB a second.
fn slow_line(bytes: usize) -> Conduct {
    with(|it| {
        it.retained_bytes = Some(bytes);
        it.retained_pace = Some((2 * KIB, Duration::from_millis(250)));
    })
}

fn a_large_message_on_a_slow_line_ends_no_connection() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 200);
    let broker = FakeBroker::start(vec![slow_line(40 * KIB)]);
    let mut config = config("slow", data.path(), broker.address, AWAY);
    config.times = times();
    let board = Board::start(config);
    // Both subscriptions bring one, which takes five keep-alives and twice the time for an acknowledgement.
    let seen = || broker.seen().into_iter().next();
    wait_until("both were asked for", || seen().is_some_and(|it| it.subscribed.len() == 2));
    wait_until("the discovery came behind them", || {
        seen().iter().flat_map(|it| &it.published).any(|(_, it)| it.topic.ends_with("/config"))
    });
    wait_until("the readings are stored", || earlier(&broker) == 200);
    wait_until("it is healthy", || board.health().0 == State::Healthy);
    assert_eq!(broker.connects(), 1, "{}", board.health().1);
}

fn a_message_that_takes_for_ever_is_left_out() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 200);
    let broker = FakeBroker::start(vec![slow_line(200 * KIB * KIB)]);
    let mut config = config("endless", data.path(), broker.address, AWAY);
    config.times = DeliveryTimes { held_up_within: Duration::from_secs(3), ..times() };
    let board = Board::start(config);
    wait_until("a connection goes on without subscriptions", || {
        let seen = broker.seen();
        let last = seen.last().filter(|_| seen.len() > 2);
        last.is_some_and(|last| last.subscribed.is_empty() && last.published.len() > 2)
    });
    wait_until("the readings are stored", || earlier(&broker) == 200);
    let (state, text) = board.health();
    assert!(state == State::Degraded && text.contains("commands do not arrive"), "{text}");
}

fn thousands_of_birth_messages_are_a_few_discoveries() {
    let data = tempfile::tempdir().unwrap();
    let broker = FakeBroker::start(vec![with(|it| it.births = 6_000)]);
    let mut config = config("births", data.path(), broker.address, AWAY);
    config.times = times();
    let begin = Instant::now();
    let _board = Board::start(config);
    let discoveries = || {
        let seen = broker.seen();
        seen.iter()
            .flat_map(|it| &it.published)
            .filter(|(_, it)| it.topic.ends_with("/config"))
            .count()
    };
    wait_until("all have come", || broker.seen().iter().any(|seen| seen.obeyed == 6_000));
    wait_until("the last one is answered", || discoveries() >= 2);
    let pauses = begin.elapsed().as_secs() / times().discovery_pause.as_secs();
    let count = discoveries() as u64;
    assert!(count <= pauses + 1, "{count} discoveries");
    assert_eq!(broker.connects(), 1);
}

fn a_refused_subscription_is_asked_for_again_on_the_same_connection() {
    let data = tempfile::tempdir().unwrap();
    let refused = with(|it| {
        it.subscribe = OnSubscribe::RefuseFirst(6);
        it.commands = vec!["ON".to_owned()];
    });
    let broker = FakeBroker::start(vec![refused]);
    let mut config = config("again", data.path(), broker.address, AWAY);
    config.times = times();
    let board = Board::start(config);
    wait_until("it is refused", || board.health().1.contains("no subscription"));
    wait_until("it is granted in the end", || broker.last("/output/fan").as_deref() == Some("ON"));
    wait_until("it is healthy", || board.health().0 == State::Healthy);
    assert_eq!(broker.connects(), 1);
}

/// A broker that withholds acknowledgements is there: it has granted the commands, and delivers them.
fn an_output_keeps_its_state_while_only_acknowledgements_are_missing() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 20);
    let broker = FakeBroker::start(vec![with(|it| it.publish = OnPublish::Never)]);
    let mut config = config("withheld", data.path(), broker.address, AWAY);
    config.times = times();
    let board = Board::start(config);
    wait_until("commands are subscribed to", || {
        broker.seen().iter().any(|seen| seen.subscribed.iter().any(|it| it.contains("set")))
    });
    broker.command("withheld", "ON", 7);
    wait_until("it is on", || broker.last("/output/fan").as_deref() == Some("ON"));
    wait_until("the readings were sent again and again", || broker.connects() >= 5);
    let (_, text) = board.health();
    assert!(text.contains("has acknowledged nothing"), "{text}");
    let states: Vec<String> = broker
        .seen()
        .iter()
        .flat_map(|seen| &seen.published)
        .filter(|(_, it)| it.topic.ends_with("/output/fan"))
        .map(|(_, it)| String::from_utf8_lossy(&it.payload).into_owned())
        .collect();
    let since = states.iter().position(|it| it == "ON").unwrap();
    assert!(states[since..].iter().all(|it| it == "ON"), "{states:?}");
}

fn a_missing_acknowledgement_is_said_and_the_reading_sent_again() {
    let data = tempfile::tempdir().unwrap();
    fill(data.path(), 200);
    let never = with(|it| it.publish = OnPublish::Never);
    let broker = FakeBroker::start(vec![never, Conduct::right()]);
    let mut config = config("silent", data.path(), broker.address, AWAY);
    config.times = times();
    let board = Board::start(config);
    wait_until("the readings are stored", || earlier(&broker) == 200);
    let (_, text) = board.health();
    assert!(text.contains("has acknowledged nothing"), "{text}");
}

fn a_board_without_sensors_and_outputs_says_that_the_broker_ends_its_connections() {
    let data = tempfile::tempdir().unwrap();
    let broker = FakeBroker::start(vec![with(|it| it.subscribe = OnSubscribe::Close)]);
    let mut config = config("inputs", data.path(), broker.address, AWAY);
    config.outputs = Vec::new();
    config.inputs = vec![InputConfig {
        name: "door".parse().unwrap(),
        pin: Pin::Header(13),
        active: Level::High,
        debounce: Duration::from_millis(50),
    }];
    let board = Board::start(config);
    wait_until("it is degraded", || board.health().0 == State::Degraded);
    let (_, text) = board.health();
    assert!(text.contains("homeassistant/status") && text.contains("left out"), "{text}");
    // Refused, it is only said: Home Assistant finds the board all the same.
    let data = tempfile::tempdir().unwrap();
    let broker = FakeBroker::start(vec![with(|it| it.subscribe = OnSubscribe::Refuse)]);
    let mut config = support::board::config("refused", data.path(), broker.address, AWAY);
    config.outputs = Vec::new();
    let board = Board::start(config);
    wait_until("it is refused", || board.health().1.contains("no subscription to homeassistant"));
    assert_eq!(board.health().0, State::Healthy);
}

#[test]
fn a_slow_or_stubborn_broker_is_a_broker() {
    side_by_side(&[
        ("large on a slow line", a_large_message_on_a_slow_line_ends_no_connection),
        ("endless", a_message_that_takes_for_ever_is_left_out),
        ("births", thousands_of_birth_messages_are_a_few_discoveries),
        ("refused", a_refused_subscription_is_asked_for_again_on_the_same_connection),
        ("withheld", an_output_keeps_its_state_while_only_acknowledgements_are_missing),
        ("silent", a_missing_acknowledgement_is_said_and_the_reading_sent_again),
        ("inputs", a_board_without_sensors_and_outputs_says_that_the_broker_ends_its_connections),
    ]);
}

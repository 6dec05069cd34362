//! The laws of alarms, whatever comes in whatever order.

use std::time::{Duration, Instant};

use humidor::broker::{Alarm, AlarmConfig, AlarmRule, Change, Now, Quantity, Seen, Side};
use humidor::reading::{ClockState, Id};
use humidor::store::Gap;
use humidor::upstream::UpstreamStatus;
use humidor::wire::{Health, Telemetry};
use proptest::prelude::*;

const LIMIT: f64 = 30.0;
const HYSTERESIS: f64 = 2.0;

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn alarm(rule: AlarmRule, raised: bool, start: Instant) -> Alarm {
    Alarm::new(AlarmConfig { name: id("a"), node: id("press"), rule, output: None }, raised, start)
}

fn threshold(side: Side, delay: Duration) -> AlarmRule {
    let quantity = Quantity::Temperature;
    AlarmRule::Threshold {
        sensor: id("hall"),
        quantity,
        side,
        limit: LIMIT,
        hysteresis: HYSTERESIS,
        delay,
    }
}

fn reading(boot: &str, seq: u64, temperature: f64) -> Telemetry {
    let boot = id(boot);
    let (clock, temperature) = (ClockState::Synced, Some(temperature));
    Telemetry { boot, seq, at: 0, clock, mono: 0, temperature, humidity: None }
}

fn see(
    alarm: &mut Alarm,
    node: &str,
    sensor: &str,
    telemetry: &Telemetry,
    at: Instant,
) -> Vec<Change> {
    let (node, sensor) = (id(node), id(sensor));
    alarm.see(Seen { node: &node, sensor: &sensor, telemetry }, Now { instant: at, unix_ms: 0 })
}

/// Something that happens: after so many ms, a reading of ours, of another sensor, or a look at the clock.
#[derive(Debug, Clone)]
enum Happens {
    Ours(f64),
    Others,
    Look,
}

fn story() -> impl Strategy<Value = Vec<(u64, Happens)>> {
    let happens = prop_oneof![
        4 => (20.0..40.0).prop_map(Happens::Ours),
        1 => Just(Happens::Others),
        2 => Just(Happens::Look),
    ];
    prop::collection::vec((0_u64..20_000, happens), 0..60)
}

/// Plays a story; each change with its ms since the start. The last look is at the end of time.
fn play(alarm: &mut Alarm, start: Instant, story: &[(u64, Happens)]) -> Vec<(u64, bool)> {
    let mut changes = Vec::new();
    let mut ms = 0;
    for (wait, happens) in story {
        ms += wait;
        let at = start + Duration::from_millis(ms);
        let new = match happens {
            Happens::Ours(value) => see(alarm, "press", "hall", &reading("b", 1, *value), at),
            Happens::Others => see(alarm, "press", "oil", &reading("b", 1, 99.0), at),
            Happens::Look => alarm.pass(at).into_iter().collect(),
        };
        changes.extend(new.into_iter().map(|change| (ms, change.raised)));
    }
    changes
}

proptest! {
    /// Whatever steps the clock makes while readings go on: silence and delays count what really passed.
    #[test]
    fn a_step_of_the_clock_neither_raises_nor_clears(
        story in story(), steps in prop::collection::vec(-90_000_000_i64..90_000_000, 60), limit_ms in 1_u64..60_000,
    ) {
        let limit = Duration::from_millis(limit_ms);
        let silent = AlarmRule::Silent { sensor: id("hall"), limit };
        for rule in [silent, threshold(Side::Above, limit)] {
            let start = Instant::now();
            let (mut steady, mut stepped) =
                (alarm(rule.clone(), false, start), alarm(rule, false, start));
            let (mut ms, mut unix_ms) = (0, 1_780_000_000_000);
            for ((wait, happens), step) in story.iter().zip(&steps) {
                ms += wait;
                unix_ms += step + i64::try_from(*wait).unwrap();
                let instant = start + Duration::from_millis(ms);
                if let Happens::Ours(value) = happens {
                    let telemetry = Telemetry { at: unix_ms, ..reading("b", 1, *value) };
                    let (node, sensor) = (id("press"), id("hall"));
                    let seen = Seen { node: &node, sensor: &sensor, telemetry: &telemetry };
                    prop_assert_eq!(
                        stepped.see(seen, Now { instant, unix_ms }),
                        steady.see(seen, Now { instant, unix_ms: 1_780_000_000_000 })
                    );
                }
                prop_assert_eq!(stepped.pass(instant), steady.pass(instant));
                prop_assert_eq!(stepped.deadline(), steady.deadline());
            }
        }
    }

    /// Inside the hysteresis nothing is raised and nothing cleared.
    #[test]
    fn a_value_inside_the_hysteresis_changes_nothing(
        raised: bool, above: bool, values in prop::collection::vec(0.0..HYSTERESIS, 1..50),
    ) {
        let start = Instant::now();
        let side = if above { Side::Above } else { Side::Below };
        let mut alarm = alarm(threshold(side, Duration::ZERO), raised, start);
        for (n, inside) in (0..).zip(values) {
            // Above 0 and below the hysteresis from the limit, on the good side; at exactly the hysteresis it is good.
            let value = if above { LIMIT - inside } else { LIMIT + inside };
            let at = start + Duration::from_secs(n);
            prop_assert_eq!(see(&mut alarm, "press", "hall", &reading("b", 1, value), at), vec![]);
            prop_assert_eq!(alarm.pass(at), None);
        }
    }

    /// Raised exactly when it has been bad without a break for the delay, and cleared exactly by a good value.
    #[test]
    fn a_threshold_is_raised_after_its_delay_and_not_before(story in story(), delay_ms in 0_u64..60_000) {
        let start = Instant::now();
        let rule = threshold(Side::Above, Duration::from_millis(delay_ms));
        let mut alarm = alarm(rule, false, start);
        let changes = play(&mut alarm, start, &story);
        // The law, told from the whole story at once.
        let (mut expected, mut raised, mut bad_since, mut ms) = (Vec::new(), false, None, 0);
        for (wait, happens) in &story {
            ms += wait;
            if !raised && bad_since.is_some_and(|since| since + delay_ms <= ms) {
                raised = true;
                expected.push((ms, true));
            }
            match happens {
                Happens::Ours(value) if *value > LIMIT => {
                    let since = *bad_since.get_or_insert(ms);
                    if !raised && since + delay_ms <= ms {
                        raised = true;
                        expected.push((ms, true));
                    }
                }
                Happens::Ours(value) => {
                    bad_since = None;
                    if raised && *value <= LIMIT - HYSTERESIS {
                        raised = false;
                        expected.push((ms, false));
                    }
                }
                Happens::Others | Happens::Look => {}
            }
        }
        prop_assert_eq!(changes, expected);
    }

    /// Who looks at each deadline sees silence at its limit, to the ms, whatever else happened before.
    #[test]
    fn silence_is_seen_within_its_limit(story in story(), limit_ms in 1_u64..30_000) {
        let start = Instant::now();
        let limit = Duration::from_millis(limit_ms);
        let mut alarm = alarm(AlarmRule::Silent { sensor: id("hall"), limit }, false, start);
        let mut last = 0;
        let mut ms = 0;
        for (wait, happens) in &story {
            let next = ms + wait;
            let due = last + limit_ms;
            if !alarm.is_raised() {
                prop_assert_eq!(alarm.deadline(), Some(start + Duration::from_millis(due)));
                if due <= next {
                    let change = alarm.pass(start + Duration::from_millis(due));
                    prop_assert!(change.is_some_and(|change| change.raised));
                }
            }
            ms = next;
            let changes = play(&mut alarm, start + Duration::from_millis(ms), &[(0, happens.clone())]);
            if let Happens::Ours(_) = happens {
                last = ms;
                prop_assert!(!alarm.is_raised());
            } else {
                prop_assert!(changes.is_empty());
            }
            prop_assert_eq!(alarm.is_raised(), last + limit_ms <= ms);
        }
    }

    /// A gap is raised exactly when a number is skipped; repeats, and the numbers of the run before, are none.
    #[test]
    fn a_gap_is_a_skipped_number_and_nothing_else(steps in prop::collection::vec((0_u64..4, any::<bool>()), 1..60)) {
        let start = Instant::now();
        let quiet = Duration::from_mins(1);
        let mut alarm = alarm(AlarmRule::Gap { quiet, wait: Duration::ZERO }, false, start);
        let (mut boot, mut seq, mut at) = (0, 7, start);
        see(&mut alarm, "press", "hall", &reading("r0", seq, 20.0), at);
        for (step, restart) in steps {
            // Long enough apart for the gap before to be over.
            at += quiet;
            let _ = alarm.pass(at);
            prop_assert!(!alarm.is_raised());
            if restart {
                let before = format!("r{boot}");
                boot += 1;
                seq = step.max(1);
                let changes = see(&mut alarm, "press", "oil", &reading(&format!("r{boot}"), seq, 20.0), at);
                prop_assert_eq!(!changes.is_empty(), seq > 1);
                prop_assert_eq!(see(&mut alarm, "press", "oil", &reading(&before, 1, 20.0), at), vec![]);
            } else {
                seq += step;
                let changes = see(&mut alarm, "press", "hall", &reading(&format!("r{boot}"), seq, 20.0), at);
                prop_assert_eq!(!changes.is_empty(), step > 1);
            }
        }
    }
}

#[test]
fn a_clock_that_is_not_set_or_runs_ahead_is_wrong() {
    let start = Instant::now();
    let (ahead, delay) = (Duration::from_mins(1), Duration::ZERO);
    let mut alarm = alarm(AlarmRule::Clock { ahead, delay }, false, start);
    for (at, clock, wrong) in [
        (0, ClockState::Unsynced, true),
        (0, ClockState::Synced, false),
        (60_000, ClockState::Synced, false),
        (60_001, ClockState::Synced, true),
        (i64::MIN, ClockState::Synced, false),
        (i64::MAX, ClockState::Synced, true),
    ] {
        see(&mut alarm, "press", "hall", &Telemetry { at, clock, ..reading("b", 1, 20.0) }, start);
        assert_eq!(alarm.is_raised(), wrong, "{at} {clock:?}");
    }
}

fn health(faults: &[(&str, &str)]) -> Health {
    let mut health = Health::parse(
        br#"{"version":"1","boot":"b","at":0,"clock":"synced","taken":0,"outbox":0,"dropped":0,"outbox_kind":"disk","failures":{}}"#,
    )
    .unwrap();
    health.output_faults =
        faults.iter().map(|(output, why)| ((*output).to_owned(), (*why).to_owned())).collect();
    health
}

#[test]
fn an_output_that_its_board_cannot_switch_is_told_after_the_delay_until_it_follows() {
    let (start, press) = (Instant::now(), id("press"));
    let at = |seconds| start + Duration::from_secs(seconds);
    let rule = AlarmRule::Fault { output: id("heater"), delay: Duration::from_secs(10) };
    let mut stuck = alarm(rule, false, start);
    let (good, bad) = (health(&[("fan", "EIO")]), health(&[("heater", &"no 열 ".repeat(500))]));
    assert_eq!(stuck.hear(&press, Some(&good), at(0)), vec![]);
    assert_eq!(stuck.hear(&id("store"), Some(&bad), at(0)), vec![]);
    assert_eq!(stuck.deadline(), None);
    // It comes and goes: the delay begins anew.
    assert_eq!(stuck.hear(&press, Some(&bad), at(1)), vec![]);
    assert_eq!(stuck.hear(&press, Some(&good), at(9)), vec![]);
    assert_eq!(stuck.hear(&press, Some(&bad), at(12)), vec![]);
    assert_eq!(stuck.hear(&press, Some(&bad), at(20)), vec![]);
    assert_eq!(stuck.deadline(), Some(at(22)));
    let raised = stuck.pass(at(22)).unwrap();
    assert!(raised.raised && raised.detail.starts_with("heater: no"), "{raised:?}");
    assert!(raised.detail.chars().count() < 220, "a board's words are bounded");
    assert_eq!(stuck.hear(&press, Some(&bad), at(23)), vec![]);
    // Readings say nothing about it, and neither does silence.
    assert_eq!(see(&mut stuck, "press", "hall", &reading("b", 1, 20.0), at(24)), vec![]);
    assert_eq!(stuck.pass(at(100_000)), None);
    let cleared = &stuck.hear(&press, Some(&good), at(100_001))[0];
    assert!(!cleared.raised && cleared.detail == "heater follows again", "{cleared:?}");
    // A change that was due is not lost; and a board that was forgotten has no outputs.
    assert_eq!(stuck.hear(&press, Some(&bad), at(100_002)), vec![]);
    assert_eq!(
        stuck.hear(&press, None, at(100_020)).iter().map(|it| it.raised).collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn what_was_raised_before_a_restart_stays_so_until_it_is_good() {
    let start = Instant::now();
    let mut hot = alarm(threshold(Side::Above, Duration::from_mins(1)), true, start);
    assert_eq!(see(&mut hot, "press", "hall", &reading("b", 1, 29.0), start), vec![]);
    assert!(!see(&mut hot, "press", "hall", &reading("b", 1, 28.0), start)[0].raised);
    let mut quiet =
        alarm(AlarmRule::Silent { sensor: id("hall"), limit: Duration::from_mins(5) }, true, start);
    assert_eq!(quiet.deadline(), None);
    assert!(!see(&mut quiet, "press", "hall", &reading("b", 1, 20.0), start)[0].raised);
    assert_eq!(quiet.deadline(), Some(start + Duration::from_mins(5)));
    let mut gap =
        alarm(AlarmRule::Gap { quiet: Duration::from_mins(9), wait: Duration::ZERO }, true, start);
    assert_eq!(gap.deadline(), Some(start + Duration::from_mins(9)));
    assert!(!gap.pass(start + Duration::from_mins(9)).unwrap().raised);
}

fn gap(from: i64, to: i64) -> Gap {
    Gap { node: "press".to_owned(), boot: "r".to_owned(), from, to }
}

#[test]
fn with_an_upstream_database_a_hole_counts_when_that_has_it_too() {
    let start = Instant::now();
    let at = |minutes: u64| start + Duration::from_mins(minutes);
    let (quiet, wait) = (Duration::from_mins(10), Duration::from_mins(1));
    let mut lost = alarm(AlarmRule::Gap { quiet, wait }, false, start).over_halls();
    for seq in [1, 2, 6, 7] {
        assert_eq!(see(&mut lost, "press", "hall", &reading("r", seq, 20.0), start), vec![]);
    }
    // A run that began at another hall.
    assert_eq!(see(&mut lost, "press", "hall", &reading("s", 4, 20.0), start), vec![]);
    assert_eq!(lost.holes(), [gap(3, 5), Gap { boot: "s".to_owned(), ..gap(1, 3) }]);
    assert_eq!((lost.holes(), lost.deadline(), lost.is_raised()), (vec![], None, false));
    // Another hall had the first two of them.
    let raised = &lost.missing(&gap(5, 5), at(1))[0];
    assert!(raised.raised && raised.detail == "1 missing before #6 of run r", "{raised:?}");
    // A hole that is not confirmed keeps it up no longer, one that is does.
    assert_eq!(see(&mut lost, "press", "hall", &reading("r", 9, 20.0), at(9)), vec![]);
    assert_eq!(lost.deadline(), Some(at(11)));
    assert_eq!(lost.missing(&gap(8, 8), at(10)), vec![]);
    assert_eq!(lost.pass(at(11)), None);
    assert!(!lost.pass(at(20)).unwrap().raised);
}

#[test]
fn the_copy_in_postgresql_is_behind_while_it_takes_nothing_or_is_late() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut copy = alarm(AlarmRule::Upstream { delay: Duration::from_mins(1) }, false, start);
    let well = UpstreamStatus {
        server: Some("pg1:5432".to_owned()),
        error: None,
        filling: false,
        lag: 900,
        lag_time: Duration::from_secs(1),
        forwarded: 5,
        refused: 0,
        overflowed: 0,
    };
    let late = UpstreamStatus { lag_time: Duration::from_secs(11), ..well.clone() };
    let error = Some("no route to host ".repeat(99));
    let away = UpstreamStatus { server: None, error, lag: 0, ..well.clone() };
    let connecting = UpstreamStatus { server: None, lag: 0, ..well.clone() };
    let again = UpstreamStatus { filling: true, ..well.clone() };
    for (n, bad) in [&late, &away, &again].into_iter().enumerate() {
        let from = 1_000 * n as u64;
        assert_eq!(copy.look_upstream(&well, at(from)), vec![]);
        assert_eq!(copy.look_upstream(bad, at(from)), vec![]);
        assert_eq!(copy.look_upstream(bad, at(from + 59)), vec![]);
        // Well meanwhile: the delay begins anew.
        assert_eq!(copy.look_upstream(&well, at(from + 59)), vec![]);
        assert_eq!(copy.look_upstream(bad, at(from + 60)), vec![]);
        assert_eq!(copy.look_upstream(bad, at(from + 119)), vec![]);
        let raised = &copy.look_upstream(bad, at(from + 120))[0];
        assert!(raised.raised && raised.detail.len() < 300, "{raised:?}");
        // After a restart nothing is known yet.
        assert_eq!(copy.look_upstream(&connecting, at(from + 121)), vec![]);
        assert!(!copy.look_upstream(&well, at(from + 122))[0].raised);
    }
}

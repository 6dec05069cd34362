//! Promise 3 against a model: an outbox is a queue that survives its process and drops only its oldest, counted.

use std::collections::VecDeque;

use humidor::node::{Outbox, OutboxKind};
use humidor::reading::{ClockState, Measurement, Stamp};
use humidor::wire::Telemetry;
use proptest::prelude::*;

const CAPACITY: u64 = 6;

#[derive(Debug, Clone)]
enum Op {
    Push,
    /// Remove the n-th of those waiting, as PUBACKs do, which need not come in order.
    Remove(usize),
    /// The process is killed and starts again.
    Restart,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => Just(Op::Push),
        3 => (0..8_usize).prop_map(Op::Remove),
        1 => Just(Op::Restart),
    ];
    proptest::collection::vec(op, 0..60)
}

fn open(data: &std::path::Path, run: u64) -> Outbox {
    Outbox::open(data, format!("run-{run}").parse().unwrap(), CAPACITY).unwrap()
}

fn waiting(outbox: &Outbox) -> Vec<(i64, String, u64)> {
    let head = outbox.peek(0, 100).unwrap();
    assert!(head.is_sorted_by_key(|waiting| waiting.id));
    head.into_iter()
        .map(|waiting| {
            let telemetry = Telemetry::parse(&waiting.telemetry).unwrap();
            (waiting.id, telemetry.boot.to_string(), telemetry.seq)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn an_outbox_is_a_queue_that_survives(ops in ops()) {
        let folder = tempfile::tempdir().unwrap();
        let mut outbox = open(folder.path(), 0);
        let (mut model, mut run, mut seq, mut dropped) = (VecDeque::new(), 0, 0, 0);
        for op in ops {
            match op {
                Op::Push => {
                    seq += 1;
                    let stamp = Stamp { at_ms: 5, clock: ClockState::Synced, mono_ms: 5 };
                    outbox.push(&"s".parse().unwrap(), stamp, Measurement { temperature_dc: 215, humidity_dp: 500 });
                    model.push_back((format!("run-{run}"), seq));
                    if model.len() as u64 > CAPACITY {
                        model.pop_front();
                        dropped += 1;
                    }
                }
                Op::Remove(n) => {
                    if let Some((id, ..)) = waiting(&outbox).get(n) {
                        outbox.remove(&[*id]).unwrap();
                        model.remove(n);
                        // A second PUBACK of the same is no news.
                        outbox.remove(&[*id]).unwrap();
                    }
                }
                Op::Restart => {
                    drop(outbox);
                    run += 1;
                    seq = 0;
                    outbox = open(folder.path(), run);
                }
            }
            let found: Vec<_> = waiting(&outbox).into_iter().map(|(_, boot, seq)| (boot, seq)).collect();
            prop_assert_eq!(&found, &Vec::from(model.clone()));
            prop_assert_eq!(outbox.depth(), model.len() as u64);
            prop_assert_eq!(outbox.dropped(), dropped);
            prop_assert_eq!(outbox.taken(), seq);
            prop_assert_eq!(outbox.kind(), OutboxKind::Disk);
        }
    }
}

#[test]
fn readings_that_the_disk_refuses_wait_in_memory_and_are_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path(), "b".parse().unwrap(), 100).unwrap();
    let push = || {
        let stamp = Stamp { at_ms: 5, clock: ClockState::Synced, mono_ms: 5 };
        outbox.push(
            &"s".parse().unwrap(),
            stamp,
            Measurement { temperature_dc: 215, humidity_dp: 500 },
        );
    };
    push();
    // Another program holds the write lock, which refuses as a full disk does.
    let other = rusqlite::Connection::open(folder.path().join(humidor::node::OUTBOX_FILE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    push();
    push();
    let seqs = || waiting(&outbox).into_iter().map(|(.., seq)| seq).collect::<Vec<u64>>();
    assert_eq!((seqs(), outbox.depth(), outbox.taken()), (vec![1, 2, 3], 3, 3), "delivery goes on");
    assert!(outbox.write_error().is_some());
    other.execute_batch("ROLLBACK").unwrap();
    push();
    assert_eq!(seqs(), [1, 2, 3, 4], "in the order they were taken");
    assert_eq!((outbox.dropped(), outbox.write_error()), (0, None));
    drop(outbox);
    let again = Outbox::open(folder.path(), "c".parse().unwrap(), 100).unwrap();
    assert_eq!(waiting(&again).len(), 4, "and they are on the disk");
}

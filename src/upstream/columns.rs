//! A batch by columns, as PostgreSQL takes it: readings in the order of their key, and the parts of runs whose times may have
//! to be corrected. Pure.

use std::collections::BTreeMap;

use crate::store::{ForwardedAlarm, ForwardedReading, ForwardedRun, ForwardedSample, Operation};

/// Clock states upstream.
const UNSYNCED: i16 = 0;
const SYNCED: i16 = 1;

#[derive(Debug, Default)]
pub(super) struct Readings<'a> {
    pub node: Vec<&'a str>,
    pub boot: Vec<&'a str>,
    pub seq: Vec<i64>,
    pub sensor: Vec<&'a str>,
    pub at: Vec<i64>,
    pub clock: Vec<i16>,
    pub mono: Vec<i64>,
    pub temperature: Vec<Option<f64>>,
    pub humidity: Vec<Option<f64>>,
}

#[derive(Debug, Default)]
pub(super) struct Runs<'a> {
    pub node: Vec<&'a str>,
    pub boot: Vec<&'a str>,
    pub offset_ms: Vec<i64>,
    pub synced_seq: Vec<i64>,
}

/// Parts of runs whose times may have to be corrected: numbers from `first` to `last`.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    pub node: Vec<&'a str>,
    pub boot: Vec<&'a str>,
    pub first: Vec<i64>,
    pub last: Vec<i64>,
}

#[derive(Debug, Default)]
pub(super) struct Samples<'a> {
    pub position: Vec<i64>,
    pub topic: Vec<&'a str>,
    pub field: Vec<&'a str>,
    pub at: Vec<i64>,
    pub clock: Vec<i16>,
    pub value: Vec<f64>,
}

#[derive(Debug, Default)]
pub(super) struct Alarms<'a> {
    pub position: Vec<i64>,
    pub name: Vec<&'a str>,
    pub at: Vec<i64>,
    pub raised: Vec<bool>,
    pub detail: Vec<&'a str>,
}

/// A batch by columns.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    pub readings: Readings<'a>,
    pub runs: Runs<'a>,
    pub parts: Parts<'a>,
    pub samples: Samples<'a>,
    pub alarms: Alarms<'a>,
}

impl<'a> Columns<'a> {
    /// The columns of operations; those of readings stay empty where these are `copied`.
    pub fn of(operations: &'a [(i64, Operation)], copied: bool) -> Self {
        let mut columns = Self::default();
        let mut readings: Vec<&ForwardedReading> = Vec::with_capacity(operations.len());
        // One row each: a statement may not change a row twice.
        let mut runs: BTreeMap<(&str, &str), &ForwardedRun> = BTreeMap::new();
        let mut parts: BTreeMap<(&str, &str), (i64, i64)> = BTreeMap::new();
        for (position, operation) in operations {
            match operation {
                Operation::Reading(_) if copied => {}
                Operation::Reading(reading) => {
                    readings.push(reading);
                    if !reading.synced {
                        let seq = reading.seq;
                        parts
                            .entry((&reading.node, &reading.boot))
                            .and_modify(|(first, last)| {
                                (*first, *last) = ((*first).min(seq), (*last).max(seq));
                            })
                            .or_insert((seq, seq));
                    }
                }
                Operation::Run(run) => {
                    runs.entry((&run.node, &run.boot))
                        .and_modify(|known| {
                            if run.synced_seq < known.synced_seq {
                                *known = run;
                            }
                        })
                        .or_insert(run);
                }
                Operation::Sample(sample) => columns.samples.push(*position, sample),
                Operation::Alarm(alarm) => columns.alarms.push(*position, alarm),
            }
        }
        // So that two forwarders do not lock each other's rows.
        readings.sort_unstable_by(|one, other| key(one).cmp(&key(other)));
        for reading in readings {
            columns.readings.push(reading);
        }
        for ((node, boot), run) in runs {
            // Its readings may have come long ago.
            parts.insert((node, boot), (i64::MIN, i64::MAX));
            columns.runs.node.push(node);
            columns.runs.boot.push(boot);
            columns.runs.offset_ms.push(run.offset_ms);
            columns.runs.synced_seq.push(run.synced_seq);
        }
        for ((node, boot), (first, last)) in parts {
            columns.parts.node.push(node);
            columns.parts.boot.push(boot);
            columns.parts.first.push(first);
            columns.parts.last.push(last);
        }
        columns
    }
}

/// The key upstream.
pub(super) fn key(reading: &ForwardedReading) -> (&str, &str, i64) {
    (&reading.node, &reading.boot, reading.seq)
}

pub(super) const fn clock(synced: bool) -> i16 {
    if synced { SYNCED } else { UNSYNCED }
}

impl<'a> Readings<'a> {
    fn push(&mut self, reading: &'a ForwardedReading) {
        self.node.push(&reading.node);
        self.boot.push(&reading.boot);
        self.seq.push(reading.seq);
        self.sensor.push(&reading.sensor);
        self.at.push(reading.at);
        self.clock.push(clock(reading.synced));
        self.mono.push(reading.mono);
        self.temperature.push(reading.temperature);
        self.humidity.push(reading.humidity);
    }
}

impl<'a> Samples<'a> {
    fn push(&mut self, position: i64, sample: &'a ForwardedSample) {
        self.position.push(position);
        self.topic.push(&sample.topic);
        self.field.push(&sample.field);
        self.at.push(sample.at);
        self.clock.push(clock(sample.synced));
        self.value.push(sample.value);
    }
}

impl<'a> Alarms<'a> {
    fn push(&mut self, position: i64, alarm: &'a ForwardedAlarm) {
        self.position.push(position);
        self.name.push(&alarm.name);
        self.at.push(alarm.at);
        self.raised.push(alarm.raised);
        self.detail.push(&alarm.detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(node: &str, seq: i64, synced: bool) -> Operation {
        Operation::Reading(ForwardedReading {
            node: node.to_owned(),
            boot: "b".to_owned(),
            seq,
            sensor: "hall".to_owned(),
            at: 5,
            synced,
            mono: 5,
            temperature: Some(20.0),
            humidity: None,
        })
    }

    fn run(synced_seq: i64) -> Operation {
        let (node, boot) = ("a".to_owned(), "b".to_owned());
        Operation::Run(ForwardedRun { node, boot, offset_ms: synced_seq * 10, synced_seq })
    }

    #[test]
    fn readings_are_in_the_order_of_their_key() {
        let operations: Vec<_> = [("b", 2), ("a", 9), ("b", 1), ("a", 3)]
            .map(|(node, seq)| (0, reading(node, seq, true)))
            .into();
        let columns = Columns::of(&operations, false);
        assert_eq!(columns.readings.node, ["a", "a", "b", "b"]);
        assert_eq!(columns.readings.seq, [3, 9, 1, 2]);
        assert!(columns.parts.node.is_empty(), "nothing is to be corrected");
    }

    #[test]
    fn the_part_of_a_run_that_may_have_to_be_corrected_is_no_larger_than_needed() {
        let mut operations = vec![
            (1, reading("a", 7, false)),
            (2, reading("a", 4, false)),
            (3, reading("c", 1, false)),
        ];
        let columns = Columns::of(&operations, false);
        assert_eq!((columns.parts.node, columns.parts.first), (vec!["a", "c"], vec![4, 1]));
        assert_eq!(columns.parts.last, [7, 1]);
        // With the run's clock it is all of the run, once, and the clock that was set first counts.
        operations.extend([(4, run(9)), (5, run(8)), (6, run(10))]);
        let columns = Columns::of(&operations, false);
        assert_eq!((columns.runs.synced_seq, columns.runs.offset_ms), (vec![8], vec![80]));
        assert_eq!(
            (columns.parts.first, columns.parts.last),
            (vec![i64::MIN, 1], vec![i64::MAX, 1])
        );
    }
}

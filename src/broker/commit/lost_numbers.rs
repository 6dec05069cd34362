//! Counts what committed messages of other publishers had and the log could not keep, and says so once of each.

use tracing::info;

use crate::broker::counters::Counters;
use crate::clock;
use crate::store::Record;
use crate::wire::{NearNumber, NumberError, near_number};

/// Numbers by topic, and texts that were meant as numbers by topic and name.
pub fn count(records: &[&Record], counters: &Counters) {
    for record in records {
        match record {
            Record::Foreign { topic, numbers, .. } => {
                if counters.left_out().add(&topic.as_str().into(), numbers.left_out) {
                    info!(
                        topic,
                        left_out = numbers.left_out,
                        "numbers in a message cannot be kept: not finite (NaN, 1e400), a name twice or too long, nested too deep, or too many; the others are. Said once; /metrics counts them"
                    );
                }
                if let Some(near) = &numbers.near {
                    note(topic, near, counters);
                }
            }
            Record::Refused { topic, cause, payload, .. } if *cause == NumberError::None.name() => {
                if let Some(near) = near_number(payload) {
                    note(topic, &near, counters);
                }
            }
            _ => {}
        }
    }
}

fn note(topic: &str, near: &NearNumber, counters: &Counters) {
    if counters.near_numbers().add(topic, near.clone(), clock::unix_ms()) {
        let NearNumber { field, came, meant } = near;
        info!(
            topic,
            field,
            came,
            meant,
            "a text is not kept: it would be as a number, as `meant` has it. Said once; /api/v1/sources/lost lists it"
        );
    }
}

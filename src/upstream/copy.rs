//! Readings in the binary form of COPY. PostgreSQL takes them in bulk, for about half of what INSERT costs it; but one
//! that is there already fails all of them, and then they are sent again as rows of INSERT.

use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use futures_util::Sink;
use tokio_postgres::{CopyInSink, Statement};

use super::columns::{clock, key};
use super::connect::Session;
use crate::store::{ForwardedReading, Operation};

/// The columns, in the order in which a row has them.
pub const STATEMENT: &str =
    "COPY humidor.reading (node, boot, seq, sensor, at, clock, mono, temperature, humidity, via)
    FROM STDIN (FORMAT binary)";
const COLUMNS: i16 = 10;
/// Fewer readings go by INSERT: COPY waits for one answer more.
const READINGS_MIN: usize = 200;
/// Bytes of a reading, about, without its names.
const ROW_BYTES: usize = 120;
/// Bytes of one message.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Batches that are sent by INSERT after a COPY has failed, the first time and at most.
const PAUSE_BATCHES: (u32, u32) = (16, 4_096);

/// Whether readings may be sent by COPY: not for some time after one has failed.
#[derive(Debug, Default)]
pub struct Copying {
    /// Batches until the next one.
    wait: u32,
    /// How many there were after the last failure.
    pause: u32,
}

impl Copying {
    /// Whether the next batch may be sent so.
    pub const fn is_open(&self) -> bool {
        self.wait == 0
    }

    /// A batch was committed.
    pub const fn committed(&mut self, copied: bool) {
        if copied {
            self.pause /= 2;
        } else {
            self.wait = self.wait.saturating_sub(1);
        }
    }

    /// PostgreSQL did not take one.
    pub fn failed(&mut self) {
        self.pause = (self.pause * 2).clamp(PAUSE_BATCHES.0, PAUSE_BATCHES.1);
        self.wait = self.pause;
    }
}

/// The readings among operations of `log`, a UUID, where they can be sent by COPY and are many enough.
pub fn encode(operations: &[(i64, Operation)], log: &str) -> Option<Bytes> {
    let log = u128::from_str_radix(&log.replace('-', ""), 16).ok()?;
    let mut readings = Vec::with_capacity(operations.len());
    for (_, operation) in operations {
        match operation {
            Operation::Reading(reading) if reading.synced => readings.push(reading),
            // Times may have to be corrected, under a lock that is taken before.
            Operation::Reading(_) | Operation::Run(_) => return None,
            Operation::Sample(_) | Operation::Alarm(_) => {}
        }
    }
    if readings.len() < READINGS_MIN {
        return None;
    }
    readings.sort_unstable_by(|one: &&ForwardedReading, other| key(one).cmp(&key(other)));
    // Signature, flags, and the length of an extension: PostgreSQL, COPY, binary format.
    let mut bytes = Vec::with_capacity(readings.len() * ROW_BYTES);
    bytes.extend(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for reading in readings {
        put_row(&mut bytes, reading, log);
    }
    bytes.extend((-1_i16).to_be_bytes());
    Some(bytes.into())
}

fn put_row(bytes: &mut Vec<u8>, reading: &ForwardedReading, log: u128) {
    bytes.extend(COLUMNS.to_be_bytes());
    put(bytes, reading.node.as_bytes());
    put(bytes, reading.boot.as_bytes());
    put(bytes, &reading.seq.to_be_bytes());
    put(bytes, reading.sensor.as_bytes());
    put(bytes, &reading.at.to_be_bytes());
    put(bytes, &clock(reading.synced).to_be_bytes());
    put(bytes, &reading.mono.to_be_bytes());
    for value in [reading.temperature, reading.humidity] {
        match value {
            Some(value) => put(bytes, &value.to_be_bytes()),
            None => bytes.extend((-1_i32).to_be_bytes()),
        }
    }
    put(bytes, &log.to_be_bytes());
}

fn put(bytes: &mut Vec<u8>, field: &[u8]) {
    // A name is no longer than a topic.
    let length = i32::try_from(field.len()).unwrap_or(i32::MAX);
    bytes.extend(length.to_be_bytes());
    bytes.extend(field);
}

/// Sends encoded readings. The statement, a prepared one, is sent at the first poll.
///
/// # Errors
/// What the server says. The connection cannot be used any more: where the statement failed before it had read anything,
/// the server answers once more than it was asked.
pub async fn copy(
    session: &Session,
    statement: &Statement,
    mut rows: Bytes,
) -> Result<(), tokio_postgres::Error> {
    let sink: CopyInSink<Bytes> = session.client.copy_in(statement).await?;
    let mut sink = pin!(sink);
    while !rows.is_empty() {
        poll_fn(|context| sink.as_mut().poll_ready(context)).await?;
        let message = rows.split_to(rows.len().min(MESSAGE_BYTES));
        sink.as_mut().start_send(message)?;
    }
    sink.finish().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ForwardedRun, ForwardedSample};

    const LOG: &str = "8417aa8c-8373-41ff-8df7-82837690c5bf";

    fn reading(seq: i64, synced: bool) -> (i64, Operation) {
        let text = str::to_owned;
        let reading = ForwardedReading {
            node: text("press"),
            boot: text("b"),
            seq,
            sensor: text("hall"),
            at: 5,
            synced,
            mono: 7,
            temperature: Some(20.5),
            humidity: None,
        };
        (seq, Operation::Reading(reading))
    }

    #[test]
    fn rows_are_in_the_order_of_their_key_and_in_the_format_of_the_manual() {
        let count = i64::try_from(READINGS_MIN).unwrap();
        let operations: Vec<_> = (0..count).rev().map(|seq| reading(seq, true)).collect();
        let bytes = encode(&operations, LOG).unwrap();
        let mut expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        for seq in 0..count {
            expected.extend(b"\0\x0a\0\0\0\x05press\0\0\0\x01b\0\0\0\x08");
            expected.extend(seq.to_be_bytes());
            expected.extend(b"\0\0\0\x04hall\0\0\0\x08\0\0\0\0\0\0\0\x05\0\0\0\x02\0\x01");
            expected.extend(b"\0\0\0\x08\0\0\0\0\0\0\0\x07\0\0\0\x08\x40\x34\x80\0\0\0\0\0");
            expected.extend(b"\xff\xff\xff\xff\0\0\0\x10\x84\x17\xaa\x8c\x83\x73\x41\xff");
            expected.extend(b"\x8d\xf7\x82\x83\x76\x90\xc5\xbf");
        }
        expected.extend(b"\xff\xff");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_needs_more_than_rows_or_is_little_goes_by_insert() {
        let count = i64::try_from(READINGS_MIN).unwrap();
        let mut operations: Vec<_> = (1..=count).map(|seq| reading(seq, true)).collect();
        assert_eq!(encode(&operations[1..], LOG), None);
        let sample = ForwardedSample {
            topic: "t".to_owned(),
            field: String::new(),
            at: 1,
            synced: false,
            value: 1.0,
        };
        operations.push((0, Operation::Sample(sample)));
        assert!(encode(&operations, LOG).is_some(), "samples go beside them");
        let mut unset = operations.clone();
        unset.push(reading(count + 1, false));
        assert_eq!(encode(&unset, LOG), None);
        let (node, boot) = ("press".to_owned(), "b".to_owned());
        let run = ForwardedRun { node, boot, offset_ms: 1, synced_seq: 1 };
        operations.push((0, Operation::Run(run)));
        assert_eq!(encode(&operations, LOG), None);
    }

    #[test]
    fn copies_that_fail_again_and_again_become_rare() {
        let mut copying = Copying::default();
        let mut waits = Vec::new();
        for _ in 0..10 {
            copying.failed();
            let mut wait = 0;
            while !copying.is_open() {
                copying.committed(false);
                wait += 1;
            }
            waits.push(wait);
        }
        assert_eq!(waits, [16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 4_096]);
        for _ in 0..12 {
            copying.committed(true);
        }
        copying.failed();
        assert_eq!(copying.wait, 16);
    }
}

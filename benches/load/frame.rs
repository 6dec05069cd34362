//! A board's telemetry as a ready frame, of which only what changes is written anew.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use humidor::clock;

use crate::support::packets;

/// A number before the first of a run. All have seven digits, so that each frame of a board is as long as the other: JSON
/// has no leading zeros.
const SEQ_BEFORE_FIRST: &str = "1000000";
/// Bytes of a delivered topic or frame before the digits of the board.
const BOARD_PREFIX: &str = "humidor/board-";
const BOARD_DIGITS: usize = 4;
/// Bytes of a fixed header when 128 to 16,383 bytes follow (MQTT 3.1.1 §2.2.3).
const HEADER_BYTES: usize = 3;

/// A run of all boards: with its number in `boot`, no reading of one load is that of another.
#[derive(Debug, Clone, Copy)]
pub struct Run(u32);

impl Run {
    /// One that this process has not had.
    pub fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A PUBLISH of QoS 1 with telemetry of one board.
pub struct Frame {
    bytes: Vec<u8>,
    packet_id: Range<usize>,
    seq: Range<usize>,
    at: Range<usize>,
    /// The thousands of `mono`: a reading a second.
    mono: Range<usize>,
    /// The digit of `temperature` after the point.
    tenth: usize,
    /// Unix ms that `at` has.
    at_ms: i64,
}

impl Frame {
    /// `board` has at most four digits.
    pub fn new(run: Run, board: usize) -> Self {
        let bytes = packets::publish(&topic(board), 1, false, 1, payload(run, board).as_bytes());
        let after = |text: &str| {
            let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
            found.expect("the frame has it") + text.len()
        };
        let (topic_end, digits) = (after("/sensor/hall"), SEQ_BEFORE_FIRST.len());
        let (seq, at, mono) = (after("\"seq\":"), after("\"at\":"), after("\"mono\":"));
        Self {
            packet_id: topic_end..topic_end + 2,
            seq: seq..seq + digits,
            at: at..at + 13,
            mono: mono..mono + digits,
            tenth: after("\"temperature\":21."),
            at_ms: 0,
            bytes,
        }
    }

    /// Sets the time of the readings that follow.
    pub fn set_time(&mut self, at_ms: i64) {
        if self.at_ms != at_ms {
            self.at_ms = at_ms;
            self.bytes[self.at.clone()].copy_from_slice(format!("{at_ms:013}").as_bytes());
        }
    }

    /// Appends the next reading to `out`.
    pub fn append(&mut self, packet_id: u16, out: &mut Vec<u8>) {
        let carry = self.bytes[self.seq.clone()].iter_mut().rev().all(|digit| {
            *digit = if *digit == b'9' { b'0' } else { *digit + 1 };
            *digit == b'0'
        });
        assert!(!carry, "more readings than seven digits can number");
        self.bytes.copy_within(self.seq.clone(), self.mono.start);
        self.bytes[self.tenth] = self.bytes[self.seq.end - 1];
        self.bytes[self.packet_id.clone()].copy_from_slice(&packet_id.to_be_bytes());
        out.extend_from_slice(&self.bytes);
    }
}

/// A delivered frame, by its offsets. All of a load are alike but for the digits.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Fixed header.
    pub header: [u8; HEADER_BYTES],
    /// Bytes of the whole frame.
    pub length: usize,
    pub board: Range<usize>,
    /// Empty at QoS 0.
    pub packet_id: Range<usize>,
    pub seq: Range<usize>,
}

impl Delivery {
    /// How a [`Frame`] arrives at a subscriber.
    pub fn at(qos: u8) -> Self {
        let topic = topic(0);
        let bytes = packets::publish(&topic, qos, false, 1, payload(Run(0), 0).as_bytes());
        let board = HEADER_BYTES + 2 + BOARD_PREFIX.len();
        let topic_end = HEADER_BYTES + 2 + topic.len();
        let seq = bytes.windows(SEQ_BEFORE_FIRST.len());
        let seq = seq.into_iter().position(|window| window == SEQ_BEFORE_FIRST.as_bytes());
        let seq = seq.expect("the frame has it");
        Self {
            header: bytes[..HEADER_BYTES].try_into().expect("three bytes"),
            length: bytes.len(),
            board: board..board + BOARD_DIGITS,
            packet_id: topic_end..topic_end + if qos == 0 { 0 } else { 2 },
            seq: seq..seq + SEQ_BEFORE_FIRST.len(),
        }
    }
}

fn topic(board: usize) -> String {
    format!("{BOARD_PREFIX}{board:0BOARD_DIGITS$}/sensor/hall")
}

/// A payload as a board sends it, but for the size of its first number.
fn payload(Run(run): Run, board: usize) -> String {
    let at = clock::unix_ms();
    format!(
        r#"{{"boot":"{:08x}-{run:08x}{board:08x}","seq":{SEQ_BEFORE_FIRST},"at":{at:013},"clock":"synced","mono":{SEQ_BEFORE_FIRST}000,"temperature":21.0,"humidity":57.1}}"#,
        at / 1000
    )
}

/// A decimal number of a few digits.
pub fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}

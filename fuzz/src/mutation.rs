//! Frames that are nearly right: well-formed ones with a few bytes changed, whose lengths mostly fit again.

use fastrand::Rng;
use humidor::mqtt::codec::Version;

/// Bytes that mean something in a frame: bounds of numbers, property identifiers, reason codes.
const TELLING: [u8; 32] = [
    0, 1, 2, 3, 4, 5, 8, 9, 11, 17, 18, 21, 22, 23, 24, 25, 28, 31, 33, 34, 35, 38, 39, 0x2b, 0x23,
    0x24, 0x7f, 0x80, 0x87, 0x92, 0xc0, 0xff,
];
/// Accepted frames of one packet type that mutation starts from, at most; beyond it a new one replaces another.
const LEARNED_MAX: usize = 512;
/// Bytes of a frame that is worth to start from.
const LEARNED_MAX_BYTES: usize = 256;
/// Bytes of a mutated frame, at most.
const FRAME_MAX_BYTES: usize = 16 * 1024;

/// A frame and the version it is sent in.
pub type Frame = (Version, Vec<u8>);

/// Makes mutated frames; the same seed makes the same.
pub struct Mutation {
    rng: Rng,
    corpus: Vec<Frame>,
    /// Accepted frames by version and packet type, so that no type crowds out the others.
    learned: Vec<Vec<Frame>>,
}

impl Mutation {
    /// Starts from `corpus`, which is not empty.
    pub fn new(corpus: Vec<Frame>, seed: u64) -> Self {
        assert!(!corpus.is_empty(), "no frame to start from");
        Self { rng: Rng::with_seed(seed), corpus, learned: vec![Vec::new(); 32] }
    }

    /// Adds an accepted frame to start from.
    pub fn learn(&mut self, frame: Frame) {
        if frame.1.len() > LEARNED_MAX_BYTES {
            return;
        }
        let version = if frame.0 == Version::V5 { 16 } else { 0 };
        let learned = &mut self.learned[version + usize::from(frame.1[0] >> 4)];
        if learned.len() < LEARNED_MAX {
            learned.push(frame);
        } else {
            learned[self.rng.usize(..LEARNED_MAX)] = frame;
        }
    }

    /// The next frame: never empty.
    pub fn next_frame(&mut self) -> Frame {
        let (mut version, frame) = self.any();
        // Sometimes as the other version reads it; a CONNECT says its version itself.
        if self.rng.u8(..) < 8 {
            version = if version == Version::V4 { Version::V5 } else { Version::V4 };
        }
        let mut first = frame[0];
        let mut body = body(&frame).to_vec();
        if self.rng.u8(..) < 16 {
            first = self.rng.u8(..);
        }
        for _ in 0..self.rng.usize(1..=3) {
            self.change(&mut body);
        }
        body.truncate(FRAME_MAX_BYTES);
        let mut mutated = vec![first];
        let length = match self.rng.u8(..) {
            0..4 => body.len() + self.rng.usize(..4),
            4..8 => body.len().saturating_sub(self.rng.usize(..4)),
            _ => body.len(),
        };
        let longer = self.rng.u8(..) < 4;
        put_length(length, longer, &mut mutated);
        mutated.extend_from_slice(&body);
        (version, mutated)
    }

    fn any(&mut self) -> Frame {
        let learned = &self.learned[self.rng.usize(..self.learned.len())];
        if self.rng.bool() && !learned.is_empty() {
            return learned[self.rng.usize(..learned.len())].clone();
        }
        self.corpus[self.rng.usize(..self.corpus.len())].clone()
    }

    fn byte(&mut self) -> u8 {
        if self.rng.bool() { TELLING[self.rng.usize(..TELLING.len())] } else { self.rng.u8(..) }
    }

    fn change(&mut self, body: &mut Vec<u8>) {
        let at = self.rng.usize(..=body.len());
        match self.rng.u8(..12) {
            0 if at < body.len() => body[at] ^= 1 << self.rng.u8(..8),
            1 | 2 if at < body.len() => body[at] = self.byte(),
            3 => {
                let byte = self.byte();
                body.insert(at, byte);
                self.refit(body, at, 1);
            }
            4 if at < body.len() => {
                body.remove(at);
                self.refit(body, at, -1);
            }
            5 => body.truncate(at),
            // A piece once more, as a property that comes twice.
            6 | 7 => {
                let end = self.rng.usize(at..=body.len().min(at + 24));
                let piece = body[at..end].to_vec();
                self.insert(body, end, &piece);
            }
            // A piece many times, as filters and user properties that fill a packet.
            8 if self.rng.u8(..) < 32 => {
                let end = self.rng.usize(at..=body.len().min(at + 8));
                let piece = body[at..end].repeat(self.rng.usize(..700));
                body.splice(end..end, piece);
            }
            9 => {
                let end = self.rng.usize(at..=body.len().min(at + 16));
                body.drain(at..end);
                self.refit(body, at, i64::try_from(end - at).map_or(0, |n| -n));
            }
            // A piece of another frame.
            _ => {
                let (_, other) = self.any();
                let start = self.rng.usize(..other.len());
                let end = self.rng.usize(start..=other.len().min(start + 24));
                self.insert(body, at, &other[start..end]);
            }
        }
    }

    fn insert(&mut self, body: &mut Vec<u8>, at: usize, piece: &[u8]) {
        body.splice(at..at, piece.iter().copied());
        self.refit(body, at, i64::try_from(piece.len()).unwrap_or(0));
    }

    /// Corrects a byte before a change of `by` bytes, which may be the length of what was changed.
    fn refit(&mut self, body: &mut [u8], at: usize, by: i64) {
        let nearest = at.min(body.len());
        if nearest > 0 && self.rng.u8(..) < 192 {
            let n = nearest - 1 - self.rng.usize(..nearest).min(self.rng.usize(..nearest));
            body[n] = body[n].wrapping_add(by.to_le_bytes()[0]);
        }
    }
}

/// What follows the fixed header.
fn body(frame: &[u8]) -> &[u8] {
    let digits = frame[1..].iter().take(4).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    frame.get(1 + digits..).unwrap_or_default()
}

fn put_length(mut length: usize, longer: bool, out: &mut Vec<u8>) {
    while length > 0x7f {
        out.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    out.push(length.to_le_bytes()[0] | if longer { 0x80 } else { 0 });
    if longer {
        out.push(0);
    }
}

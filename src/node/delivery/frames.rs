//! Cuts a stream of bytes into MQTT packets without keeping large ones: of a PUBLISH only the part that matters here is
//! kept, whatever its payload's size.

/// Bytes of the longest fixed header: the type, and a remaining length of four (MQTT 3.1.1, 2.2.3).
const HEADER_MAX_BYTES: usize = 5;
/// The packet type of PUBLISH in the first byte.
const PUBLISH: u8 = 0x30;

/// How much of a packet's body is kept.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Bytes of a PUBLISH's payload, behind its topic and packet id.
    pub payload: usize,
    /// Bytes of any other packet.
    pub other: usize,
}

/// The remaining length of a packet has more than four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packet without a valid length")]
pub struct LengthError;

/// One packet.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its first byte: type and flags.
    pub first: u8,
    /// The kept part of what follows the fixed header.
    pub body: &'a [u8],
    /// Bytes that follow the fixed header in all.
    pub length: usize,
}

#[derive(Debug)]
enum State {
    Header,
    Body { first: u8, length: usize },
    Skipping(usize),
}

/// The packets of one direction of a connection.
#[derive(Debug)]
pub struct Frames {
    kept: Kept,
    /// The fixed header so far, then the kept part so far.
    buffer: Vec<u8>,
    state: State,
}

impl Frames {
    /// At the beginning of a connection.
    #[must_use]
    pub const fn new(kept: Kept) -> Self {
        Self { kept, buffer: Vec::new(), state: State::Header }
    }

    /// Takes bytes as they come, and calls `take` for each packet whose kept part is complete.
    ///
    /// # Errors
    /// [`LengthError`], or the error of `take`. The rest of the stream is of no use then.
    pub fn feed<E: From<LengthError>>(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            match self.state {
                State::Header => {
                    let Some((byte, rest)) = bytes.split_first() else { return Ok(()) };
                    bytes = rest;
                    self.buffer.push(*byte);
                    if self.buffer.len() == 1 {
                        continue;
                    }
                    if byte & 0x80 == 0 {
                        let first = self.buffer[0];
                        let length = remaining_length(&self.buffer[1..]);
                        self.buffer.clear();
                        self.state = State::Body { first, length };
                    } else if self.buffer.len() == HEADER_MAX_BYTES {
                        return Err(LengthError.into());
                    }
                }
                State::Body { first, length } => {
                    let wanted = self.wanted(first, length);
                    let count = (wanted - self.buffer.len()).min(bytes.len());
                    self.buffer.extend_from_slice(&bytes[..count]);
                    bytes = &bytes[count..];
                    if self.buffer.len() < wanted {
                        return Ok(());
                    }
                    // The topic's length, which was wanted first, says what more is.
                    if self.wanted(first, length) > wanted {
                        continue;
                    }
                    take(Frame { first, body: &self.buffer, length })?;
                    self.buffer.clear();
                    self.state = State::Skipping(length - wanted);
                }
                State::Skipping(left) => {
                    let count = left.min(bytes.len());
                    bytes = &bytes[count..];
                    self.state = match left - count {
                        0 => State::Header,
                        left => State::Skipping(left),
                    };
                    if bytes.is_empty() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Whether a PUBLISH has begun and not ended.
    pub const fn is_in_publish(&self) -> bool {
        match self.state {
            State::Header => false,
            State::Body { first, .. } => first & 0xf0 == PUBLISH,
            // Of other packets nothing is left out.
            State::Skipping(_) => true,
        }
    }

    /// How many bytes of the body are to be kept, as far as is known yet.
    fn wanted(&self, first: u8, length: usize) -> usize {
        let wanted = if first & 0xf0 == PUBLISH {
            match self.buffer.first_chunk() {
                None => 2,
                Some(topic) => {
                    let packet_id = if first & 0x06 == 0 { 0 } else { 2 };
                    2 + usize::from(u16::from_be_bytes(*topic)) + packet_id + self.kept.payload
                }
            }
        } else {
            self.kept.other
        };
        wanted.min(length)
    }
}

/// Decodes a remaining length (MQTT 3.1.1, 2.2.3).
fn remaining_length(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f))
}

/// Encodes a fixed header before a body of `length` bytes.
pub fn header(first: u8, mut length: usize) -> impl Iterator<Item = u8> {
    let mut bytes = vec![first];
    loop {
        let [low, ..] = (length & 0x7f).to_le_bytes();
        length >>= 7;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return bytes.into_iter();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Kept = Kept { payload: 4, other: 3 };

    fn frames(chunks: &[&[u8]]) -> Result<Vec<(u8, Vec<u8>, usize)>, LengthError> {
        let (mut frames, mut found) = (Frames::new(KEPT), Vec::new());
        for chunk in chunks {
            frames.feed(chunk, |frame| {
                found.push((frame.first, frame.body.to_vec(), frame.length));
                Ok::<_, LengthError>(())
            })?;
        }
        Ok(found)
    }

    #[test]
    fn packets_are_found_wherever_they_are_cut_and_large_ones_lose_their_end() {
        let large = [&b"\x00\x02ab\x00\x07"[..], &[b'x'; 300]].concat();
        let mut stream: Vec<u8> = header(0x32, large.len()).chain(large).collect();
        stream.extend(b"\xd0\x00\x90\x05\x00\x01\x00\x00\x00\x30\x03\x00\x01c");
        let expected = vec![
            (0x32, b"\x00\x02ab\x00\x07xxxx".to_vec(), 306),
            (0xd0, vec![], 0),
            (0x90, vec![0, 1, 0], 5),
            (0x30, b"\x00\x01c".to_vec(), 3),
        ];
        assert_eq!(frames(&[&stream]).unwrap(), expected);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(frames(&bytes).unwrap(), expected);
        // A topic that claims more than the packet has is kept as it is.
        assert_eq!(frames(&[b"\x30\x03\xff\xffz"]).unwrap()[0].1, b"\xff\xffz");
        assert_eq!(frames(&[b"\x30\x01z"]).unwrap()[0].1, b"z");
        assert_eq!(frames(&[b"\x30\xff\xff\xff\xff\x00"]), Err(LengthError));
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455] {
            let bytes: Vec<u8> = header(0x30, length).collect();
            assert_eq!(remaining_length(&bytes[1..]), length);
        }
    }
}

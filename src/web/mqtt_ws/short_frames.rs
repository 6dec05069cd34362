//! The client's frames in pieces (RFC 6455 §5.2). The WebSocket's library holds a message until it is whole, and nobody
//! counts what it holds. So it gets short messages instead of long ones: each piece of a data frame is a message of its
//! own, which MQTT does not mind ([MQTT-6.0.0-2]). Then long packets wait where the broker counts them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, ReadBuf};

use crate::mqtt::codec::PACKET_MAX_BYTES;

/// Largest message from the client, in bytes, in one frame or in several: the largest packet and its fixed header.
pub const RECEIVED_MAX_BYTES: usize = PACKET_MAX_BYTES as usize + 5;
/// Most payload of a piece, in bytes. It is a multiple of the masking key's length, so that each piece begins with the
/// key's first byte, as a frame does.
const PIECE_BYTES: u16 = 4096;
/// What is read at once to find headers in, in bytes. Payloads are read past it.
const HEADERS_BYTES: usize = 1024;
/// Largest header of a frame, in bytes.
const HEADER_MAX_BYTES: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
/// In place of a length: it follows in 16 bits, or in 64.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;

/// A client's stream of frames, of which each that is read is a whole message: a control frame as it came, or a piece of
/// a data frame. What violates RFC 6455, or is too large, is handed on so that the reader refuses it by its header; after
/// that the stream ends. Writes pass through.
pub struct ShortFrames<S> {
    stream: BufReader<S>,
    step: Step,
    /// The header of the client's frame as far as it has arrived, then of the piece, or of what is refused.
    header: [u8; HEADER_MAX_BYTES],
    header_bytes: usize,
    opcode: u8,
    key: [u8; 4],
    /// Bytes of the piece that are not handed on yet.
    piece: u16,
    /// Bytes of the client's frame after the piece.
    rest: usize,
    /// The opcode of the message whose last frame has not come, and its bytes so far.
    message: Option<(u8, usize)>,
}

#[derive(Clone, Copy)]
enum Step {
    /// The client's header arrives.
    Arriving,
    /// So many bytes of the header are handed on.
    Handing(usize),
    /// The payload passes through.
    Passing,
    /// As `Handing`; nothing comes after it.
    Refusing(usize),
}

impl<S: AsyncRead> ShortFrames<S> {
    /// Takes what the client sends after its handshake.
    pub fn new(stream: S) -> Self {
        Self {
            stream: BufReader::with_capacity(HEADERS_BYTES, stream),
            step: Step::Arriving,
            header: [0; HEADER_MAX_BYTES],
            header_bytes: 0,
            opcode: CONTINUATION,
            key: [0; 4],
            piece: 0,
            rest: 0,
            message: None,
        }
    }

    /// What it reads and writes.
    #[cfg(test)]
    pub fn stream_mut(&mut self) -> &mut S {
        self.stream.get_mut()
    }

    /// Begins the frame whose header has arrived.
    fn begin_frame(&mut self) {
        self.step = Step::Refusing(0);
        let [first, second, ..] = self.header;
        if is_malformed(first, second) {
            return;
        }
        let key_at = self.header_bytes - self.key.len();
        let length = match (&self.header[2..key_at], u64::from(second & !MASKED)) {
            ([], length) => length,
            (longer, _) => longer.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let least = [(4, 126), (10, 1 << 16)].into_iter().find(|(at, _)| *at == key_at);
        if least.is_some_and(|(_, least)| length < least) {
            return;
        }
        self.key.copy_from_slice(&self.header[key_at..self.header_bytes]);
        self.opcode = first & OPCODE;
        if self.opcode & CONTROL == 0 {
            let before = match (self.opcode, self.message) {
                (CONTINUATION, None) => return,
                (CONTINUATION, Some((opcode, bytes))) => {
                    self.opcode = opcode;
                    bytes
                }
                (_, None) => 0,
                (_, Some(_)) => {
                    // The reader knows of no message that this one interrupts.
                    self.header[0] = FIN | CONTINUATION;
                    return;
                }
            };
            let bytes = length.saturating_add(before as u64);
            if bytes > RECEIVED_MAX_BYTES as u64 {
                // The reader knows of no frames before this one. A reader of 32 bits takes no longer length.
                let declared = bytes.min(u32::MAX.into()).to_be_bytes();
                self.header[..2].copy_from_slice(&[FIN | self.opcode, MASKED | LENGTH_64]);
                self.header[2..10].copy_from_slice(&declared);
                self.header_bytes = HEADER_MAX_BYTES;
                return;
            }
            let bytes = usize::try_from(bytes).unwrap_or(RECEIVED_MAX_BYTES);
            self.message = (first & FIN == 0).then_some((self.opcode, bytes));
        }
        self.rest = usize::try_from(length).unwrap_or(RECEIVED_MAX_BYTES);
        // A text is refused whatever it says. Cut between the bytes of a character, it would be no text.
        self.begin_piece(if self.opcode == TEXT { 0 } else { PIECE_BYTES });
    }

    /// Begins a piece of at most so many bytes.
    fn begin_piece(&mut self, most: u16) {
        self.piece = u16::try_from(self.rest).map_or(most, |rest| rest.min(most));
        self.rest -= usize::from(self.piece);
        self.header[0] = FIN | self.opcode;
        let key_at = if let Ok(short @ ..LENGTH_16) = u8::try_from(self.piece) {
            self.header[1] = MASKED | short;
            2
        } else {
            self.header[1] = MASKED | LENGTH_16;
            self.header[2..4].copy_from_slice(&self.piece.to_be_bytes());
            4
        };
        self.header_bytes = key_at + self.key.len();
        self.header[key_at..self.header_bytes].copy_from_slice(&self.key);
        self.step = Step::Handing(0);
    }
}

/// What no header may begin with.
fn is_malformed(first: u8, second: u8) -> bool {
    let opcode = first & OPCODE;
    first & RESERVED != 0
        || second & MASKED == 0
        || opcode & !CONTROL > 2
        || opcode & CONTROL != 0 && (first & FIN == 0 || second & !MASKED >= LENGTH_16)
}

/// Length of the header that begins so, in bytes, as far as it is read.
fn header_length(begin: &[u8]) -> usize {
    match begin {
        [first, second, ..] if !is_malformed(*first, *second) => match second & !MASKED {
            LENGTH_16 => 8,
            LENGTH_64 => HEADER_MAX_BYTES,
            _ => 6,
        },
        _ => 2,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ShortFrames<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut stream = Pin::new(&mut this.stream);
        loop {
            match this.step {
                Step::Arriving => {
                    let arrived = ready!(stream.as_mut().poll_fill_buf(cx))?;
                    let length = header_length(&this.header[..this.header_bytes]);
                    let count = arrived.len().min(length - this.header_bytes);
                    let end = this.header_bytes + count;
                    this.header[this.header_bytes..end].copy_from_slice(&arrived[..count]);
                    this.header_bytes = end;
                    stream.as_mut().consume(count);
                    if count == 0 {
                        // The client has closed its side, perhaps within a header.
                        this.step = Step::Refusing(0);
                    } else if end == header_length(&this.header[..end]) {
                        this.begin_frame();
                        stream = Pin::new(&mut this.stream);
                    }
                }
                Step::Handing(handed) | Step::Refusing(handed) => {
                    let left = &this.header[handed..this.header_bytes];
                    let count = left.len().min(buffer.remaining());
                    buffer.put_slice(&left[..count]);
                    this.step = match this.step {
                        Step::Refusing(_) => Step::Refusing(handed + count),
                        _ if count < left.len() => Step::Handing(handed + count),
                        _ => Step::Passing,
                    };
                    return Poll::Ready(Ok(()));
                }
                Step::Passing if this.piece > 0 => {
                    let most = buffer.remaining().min(this.piece.into());
                    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
                    ready!(stream.poll_read(cx, &mut part))?;
                    let count = part.filled().len();
                    buffer.advance(count);
                    this.piece -= u16::try_from(count).unwrap_or(this.piece);
                    return Poll::Ready(Ok(()));
                }
                Step::Passing if this.rest > 0 => {
                    this.begin_piece(PIECE_BYTES);
                    stream = Pin::new(&mut this.stream);
                }
                Step::Passing => {
                    this.header_bytes = 0;
                    this.step = Step::Arriving;
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ShortFrames<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

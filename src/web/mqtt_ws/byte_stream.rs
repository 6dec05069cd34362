//! The binary messages of a WebSocket as one byte stream. An MQTT packet may begin and end anywhere in a message
//! ([MQTT-6.0.0-2]).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_websockets::{CloseCode, Error, Limits, Message, ServerBuilder, WebSocketStream};

use super::short_frames::{RECEIVED_MAX_BYTES, ShortFrames};

/// Largest message to the client, in bytes.
const SENT_MAX_BYTES: usize = 16 * 1024;

/// The server's side of a WebSocket after its handshake.
pub struct ByteStream<S> {
    socket: WebSocketStream<ShortFrames<S>>,
    unread: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ByteStream<S> {
    /// Wraps a stream whose handshake is complete.
    pub fn new(stream: S) -> Self {
        let limits = Limits::default().max_payload_len(Some(RECEIVED_MAX_BYTES));
        let socket = ServerBuilder::new().limits(limits).serve(ShortFrames::new(stream));
        Self { socket, unread: Bytes::new() }
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, unread } = self.get_mut();
        let mut socket = Pin::new(socket);
        while unread.is_empty() {
            // The library answers pings. A client that reads no answers gets its messages read no further.
            ready!(socket.as_mut().poll_ready(cx)).map_err(io_error)?;
            match ready!(socket.as_mut().poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                Some(Ok(message)) if message.is_binary() => *unread = message.into_payload().into(),
                Some(Ok(message)) if message.is_text() => {
                    // [MQTT-6.0.0-1]. The frame is sent when the connection closes.
                    let close = Message::close(
                        Some(CloseCode::UNSUPPORTED_DATA),
                        "MQTT needs binary frames",
                    );
                    socket.as_mut().start_send(close).map_err(io_error)?;
                    let error = "the client sent a text frame";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
                Some(Ok(_)) => {}
            }
        }
        let taken = unread.split_to(unread.len().min(buffer.remaining()));
        buffer.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.get_mut().socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(io_error)?;
        let taken = &bytes[..bytes.len().min(SENT_MAX_BYTES)];
        socket.start_send(Message::binary(Bytes::copy_from_slice(taken))).map_err(io_error)?;
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_close(cx).map_err(io_error)
    }
}

#[cfg(test)]
#[path = "../../../tests/support/frames.rs"]
mod frames;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::frames::{BINARY, FIN, PING, TEXT, frame};
    use super::*;

    /// A client that sends `inbound` and closes its side. Each read gets as much as the next of `cuts` says, by turns; at
    /// 0 nothing has arrived.
    struct Cut {
        inbound: VecDeque<u8>,
        cuts: VecDeque<usize>,
        outbound: Vec<u8>,
    }

    impl AsyncRead for Cut {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.cuts.rotate_left(1);
            let count = self.cuts[0].min(buffer.remaining()).min(self.inbound.len());
            if self.cuts[0] == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            buffer.put_slice(&self.inbound.drain(..count).collect::<Vec<_>>());
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Cut {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.outbound.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Reads all and closes: what was read, how it ended, and what the broker sent.
    fn read(sent: &[u8], cuts: &[usize]) -> (Vec<u8>, io::Result<usize>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let cuts = cuts.iter().copied().collect();
            let inbound = sent.iter().copied().collect();
            let mut stream = ByteStream::new(Cut { inbound, cuts, outbound: Vec::new() });
            let mut got = Vec::new();
            let end = stream.read_to_end(&mut got).await;
            let _ = stream.shutdown().await;
            (got, end, std::mem::take(&mut stream.socket.get_mut().stream_mut().outbound))
        })
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|n| (n * 31 % 251).to_le_bytes()[0]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn messages_in_any_frames_and_any_reads_are_the_same_bytes_and_pings_are_answered(
            messages in proptest::collection::vec(
                proptest::collection::vec(
                    (prop_oneof![0..300_usize, 4000..4200_usize, 0..20_000_usize], 0..150_usize),
                    1..4,
                ),
                0..6,
            ),
            large in prop_oneof![Just(0), Just(70_000_usize)],
            cuts in proptest::collection::vec(prop_oneof![0..20_usize, 0..10_000_usize], 0..12),
        ) {
            let (mut sent, mut expected, mut pongs) = (Vec::new(), Vec::new(), Vec::new());
            for frames in messages.iter().chain([&vec![(large, 0)]]) {
                for (n, (length, ping)) in frames.iter().enumerate() {
                    let fin = if n + 1 == frames.len() { FIN } else { 0 };
                    let payload = bytes(*length);
                    sent.extend(frame(fin | if n == 0 { BINARY } else { 0 }, &payload));
                    expected.extend(payload);
                    // Beyond 125: none.
                    if *ping <= 125 {
                        sent.extend(frame(FIN | PING, &bytes(*ping)));
                        pongs.extend([&[0x8a, u8::try_from(*ping).unwrap()], &bytes(*ping)[..]].concat());
                    }
                }
            }
            let cuts = [&cuts[..], &[1]].concat();
            let (got, end, answers) = read(&sent, &cuts);
            prop_assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
            prop_assert_eq!(end.unwrap(), expected.len());
            prop_assert_eq!(&answers[..pongs.len()], &pongs[..]);
            // Close 1000.
            prop_assert_eq!(&answers[pongs.len()..], &[0x88, 2, 3, 0xe8][..]);
        }
    }

    #[test]
    fn what_is_malformed_or_too_large_ends_the_stream_with_the_close_of_its_kind() {
        let begun = |more: &[u8]| [&frame(BINARY, b"begun")[..], more].concat();
        let fifth = vec![0; RECEIVED_MAX_BYTES / 5];
        let fifths = [frame(BINARY, &fifth), frame(0, &fifth).repeat(4)].concat();
        for (what, sent, code) in [
            ("not masked", vec![FIN | BINARY, 5, 0, 0, 0, 0, 0], 1002),
            ("a reserved bit", frame(FIN | 0x40 | BINARY, b"x"), 1002),
            ("an undefined opcode", frame(FIN | 3, b"x"), 1002),
            ("an undefined control opcode", frame(FIN | 0x0b, b"x"), 1002),
            ("a ping in pieces", frame(PING, b"x"), 1002),
            ("a long ping", frame(FIN | PING, &[0; 126]), 1002),
            ("a continuation of nothing", frame(FIN, b"x"), 1002),
            ("a second continuation of nothing", begun(&frame(FIN, b"").repeat(2)), 1002),
            ("a message in a message", begun(&frame(FIN | BINARY, b"x")), 1002),
            ("a begin in a message", begun(&frame(BINARY, b"x")), 1002),
            ("a text in a message", begun(&frame(FIN | TEXT, b"x")), 1002),
            ("5 as 16 bits", [&[0x82, 0xfe, 0, 5][..], &[0; 9]].concat(), 1002),
            ("65,535 as 64 bits", [&[0x82, 0xff, 0, 0, 0, 0, 0, 0][..], &[255; 9]].concat(), 1002),
            ("a large frame", frame(FIN | BINARY, &vec![0; RECEIVED_MAX_BYTES + 1]), 1009),
            ("the longest length", [&[0x82][..], &[255; 13]].concat(), 1009),
            ("a large message", [&fifths[..], &frame(0, &[0; 5])].concat(), 1009),
            ("a text", frame(FIN | TEXT, b"x"), 1003),
            ("an empty text", frame(FIN | TEXT, b""), 1003),
            ("a long text", frame(FIN | TEXT, "xx한".repeat(3_000).as_bytes()), 1003),
            ("a text in pieces", frame(TEXT, b"x"), 1003),
        ] {
            let before = frame(FIN | BINARY, b"before");
            let sent = [&before[..], &sent, &frame(FIN | BINARY, &[b'!'; 100])].concat();
            for cut in [1, usize::MAX] {
                let (got, end, answers) = read(&sent, &[cut]);
                assert!(got.starts_with(b"before") && !got.contains(&b'!'), "{what}");
                assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData, "{what}");
                assert_eq!(answers[0], 0x88, "{what}");
                assert_eq!(u16::from_be_bytes([answers[2], answers[3]]), code, "{what}");
            }
        }
        let (got, end, _) = read(&fifths, &[usize::MAX]);
        assert_eq!((got.len(), end.unwrap()), (fifth.len() * 5, fifth.len() * 5));
    }

    #[test]
    fn a_half_sent_frame_is_read_but_for_one_piece() {
        let whole = frame(FIN | BINARY, &bytes(200_000));
        for half in [150_000, 9_000, 10, 1] {
            let (got, end, _) = read(&whole[..half], &[usize::MAX]);
            assert!(end.is_err(), "{half}");
            assert!(got.len() + 4096 + 14 >= half, "{} of {half}", got.len());
            assert!(bytes(200_000).starts_with(&got));
        }
    }
}

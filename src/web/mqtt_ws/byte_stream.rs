//! The binary messages of a WebSocket as one byte stream. An MQTT packet may begin and end anywhere in a message
//! ([MQTT-6.0.0-2]).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_websockets::{CloseCode, Error, Limits, Message, ServerBuilder, WebSocketStream};

use crate::mqtt::codec::PACKET_MAX_BYTES;

/// Largest message from the client, in bytes, in one frame or in several: the largest packet and its fixed header.
const RECEIVED_MAX_BYTES: usize = PACKET_MAX_BYTES as usize + 5;
/// Largest message to the client, in bytes.
const SENT_MAX_BYTES: usize = 16 * 1024;

/// The server's side of a WebSocket after its handshake.
pub struct ByteStream<S> {
    socket: WebSocketStream<S>,
    unread: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ByteStream<S> {
    /// Wraps a stream whose handshake is complete.
    pub fn new(stream: S) -> Self {
        let limits = Limits::default().max_payload_len(Some(RECEIVED_MAX_BYTES));
        Self { socket: ServerBuilder::new().limits(limits).serve(stream), unread: Bytes::new() }
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

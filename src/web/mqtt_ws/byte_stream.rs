//! The bytes in a WebSocket's binary messages as one stream: MQTT packets begin and end anywhere in them
//! ([MQTT-6.0.0-2]).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_websockets::{CloseCode, Error, Limits, Message, ServerBuilder, WebSocketStream};

use crate::broker::PACKET_MAX_BYTES;

/// Most bytes of a message, in one frame or in several: the largest packet with its fixed header.
const MESSAGE_MAX_BYTES: usize = PACKET_MAX_BYTES as usize + 5;
/// Most bytes of a message to the client.
const OUT_MAX_BYTES: usize = 16 * 1024;

/// The server's side of a WebSocket after its handshake.
pub struct WebSocket<S> {
    socket: WebSocketStream<S>,
    unread: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Over a stream whose handshake is done.
    pub fn new(stream: S) -> Self {
        let limits = Limits::default().max_payload_len(Some(MESSAGE_MAX_BYTES));
        Self { socket: ServerBuilder::new().limits(limits).serve(stream), unread: Bytes::new() }
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, unread } = self.get_mut();
        let mut socket = Pin::new(socket);
        while unread.is_empty() {
            // Pings are answered by the library: who takes no answers is asked no further.
            ready!(socket.as_mut().poll_ready(cx)).map_err(broken)?;
            match ready!(socket.as_mut().poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                Some(Ok(message)) if message.is_binary() => *unread = message.into_payload().into(),
                Some(Ok(message)) if message.is_text() => {
                    // [MQTT-6.0.0-1]; the frame leaves when the connection is closed.
                    let close = Message::close(Some(CloseCode::UNSUPPORTED_DATA), "MQTT is binary");
                    socket.as_mut().start_send(close).map_err(broken)?;
                    let error = "a text frame";
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.get_mut().socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(broken)?;
        let taken = &bytes[..bytes.len().min(OUT_MAX_BYTES)];
        socket.start_send(Message::binary(Bytes::copy_from_slice(taken))).map_err(broken)?;
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_close(cx).map_err(broken)
    }
}

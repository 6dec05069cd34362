//! The transport of a connection, over TCP, TLS or WebSocket: reading, writing and flushing as one future, so
//! that a loop can wait for either without halves that share a lock.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

use crate::broker::net::rate_limit::RateLimiter;

/// Bytes reserved in the read buffer for one read.
const READ_BYTES: usize = 16 * 1024;
/// How often the runtime asks the system for readable sockets before nothing has arrived. The first answer may be from
/// before, and each has up to 1,024 sockets, in the order of their bytes.
const ASKED_TIMES: u32 = 3;
/// The runtime's shortest timer.
const ASK_INTERVAL: Duration = Duration::from_millis(1);

/// A byte stream in both directions: TCP, TLS over it, a WebSocket.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The progress of one wait: bytes read, bytes written, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Bytes read; 0 when the client has closed its side.
    pub read: Option<usize>,
    /// Bytes were written or flushed.
    pub wrote: bool,
}

/// A stream, and whether it still buffers written bytes, as TLS does.
#[derive(Debug)]
pub struct Transport<S> {
    stream: S,
    unflushed: bool,
    rate_limit: RateLimiter,
    read_bytes: usize,
}

impl<S: Stream> Transport<S> {
    /// A transport over a stream with nothing to flush.
    pub const fn new(stream: S) -> Self {
        Self {
            stream,
            unflushed: false,
            rate_limit: RateLimiter::UNBOUNDED,
            read_bytes: READ_BYTES,
        }
    }

    /// Limits the rate of reads from now on. Unread bytes wait in the client's own buffers.
    pub fn set_rate_limit(&mut self, rate_limit: RateLimiter) {
        self.rate_limit = rate_limit;
    }

    /// Reads at most `bytes` at once from now on, or [`READ_BYTES`].
    pub fn read_at_most(&mut self, bytes: Option<usize>) {
        self.read_bytes = bytes.unwrap_or(READ_BYTES);
    }

    /// Charges the rate limiter for `messages`.
    pub fn charge(&mut self, messages: u32) {
        self.rate_limit.spend(messages, 0);
    }

    /// Whether the rate limiter stops the reads.
    pub const fn is_holding_back(&self) -> bool {
        self.rate_limit.is_closed()
    }

    /// Whether no bytes wait for the client, neither in `out` nor in the stream.
    pub fn is_idle(&self, out: &BytesMut) -> bool {
        out.is_empty() && !self.unflushed
    }

    /// Waits until it has written bytes of `out` or, where `inbound` is given, read some. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// The system's error.
    pub async fn progress(
        &mut self,
        mut inbound: Option<&mut BytesMut>,
        out: &mut BytesMut,
    ) -> io::Result<Moved> {
        poll_fn(|cx| {
            // Both ways in each turn: a client that takes every byte at once is still read from.
            let mut moved = Moved::default();
            while !out.is_empty() {
                match pin!(self.stream.write_buf(out)).poll(cx)? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(_) => (moved.wrote, self.unflushed) = (true, true),
                    Poll::Pending => break,
                }
            }
            if self.unflushed && pin!(self.stream.flush()).poll(cx)?.is_ready() {
                (moved.wrote, self.unflushed) = (true, false);
            }
            if let Some(inbound) = inbound.as_deref_mut()
                && self.rate_limit.poll_open(cx).is_ready()
            {
                inbound.reserve(self.read_bytes);
                let mut room = inbound.limit(self.read_bytes);
                if let Poll::Ready(count) = pin!(self.stream.read_buf(&mut room)).poll(cx)? {
                    self.rate_limit.spend(0, count);
                    moved.read = Some(count);
                }
            }
            if moved == Moved::default() { Poll::Pending } else { Poll::Ready(Ok(moved)) }
        })
        .await
    }

    /// Reads bytes that have arrived already, without regard to the rate limiter; `None` when there are none, 0 when the
    /// client has closed its side.
    ///
    /// # Errors
    /// The system's error.
    pub async fn read_arrived(&mut self, inbound: &mut BytesMut) -> io::Result<Option<usize>> {
        for attempt in 0..=ASKED_TIMES {
            if attempt > 0 {
                // A timer fires after the runtime has asked the system which sockets are readable. Giving way to others is
                // no such promise: the worker that waits for the system's answer may have it and not have run yet.
                sleep(ASK_INTERVAL).await;
            }
            inbound.reserve(READ_BYTES);
            let read = poll_fn(|cx| Poll::Ready(pin!(self.stream.read_buf(inbound)).poll(cx)));
            if let Poll::Ready(count) = read.await {
                return count.map(Some);
            }
        }
        Ok(None)
    }

    /// Waits for bytes; 0 when the client has closed its side.
    ///
    /// # Errors
    /// The system's error.
    pub async fn read(&mut self, inbound: &mut BytesMut) -> io::Result<usize> {
        self.stream.read_buf(inbound).await
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The system's error.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Writes all of `out` and shuts the stream down.
    ///
    /// # Errors
    /// The system's error.
    pub async fn close(&mut self, out: &mut BytesMut) -> io::Result<()> {
        self.stream.write_all_buf(out).await?;
        self.stream.shutdown().await
    }

    /// Shuts the stream down in its own way: a browser reports a WebSocket without a Close frame as broken.
    ///
    /// # Errors
    /// The system's error.
    pub async fn hang_up(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_ways_move_in_one_turn() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut transport = Transport::new(near);
        far.write_all(b"question").await.unwrap();
        let (mut inbound, mut out) = (BytesMut::new(), BytesMut::from(&b"answer"[..]));
        let moved = transport.progress(Some(&mut inbound), &mut out).await.unwrap();
        assert_eq!(moved, Moved { read: Some(8), wrote: true });
        assert_eq!(&inbound[..], b"question");
        assert!(transport.is_idle(&out));
    }

    #[tokio::test]
    async fn without_a_read_buffer_nothing_is_read_and_unwritten_bytes_stay() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut transport = Transport::new(near);
        far.write_all(b"more").await.unwrap();
        let mut out = BytesMut::from(&b"answer"[..]);
        assert!(transport.progress(None, &mut out).await.unwrap().wrote);
        assert_eq!((&out[..], transport.is_idle(&out)), (&b"er"[..], false));
        let mut answer = [0; 6];
        let reading = far.read_exact(&mut answer);
        let (written, read) = tokio::join!(transport.progress(None, &mut out), reading);
        assert!(written.unwrap().wrote && read.is_ok());
        assert_eq!(&answer, b"answer");
        drop(far);
        let mut inbound = BytesMut::new();
        assert_eq!(transport.read(&mut inbound).await.unwrap(), 4);
        let closed = transport.progress(Some(&mut inbound), &mut out).await.unwrap();
        assert_eq!(closed, Moved { read: Some(0), wrote: false });
    }

    /// Bytes that lie in the socket are found though the thread that waits for the system's events has not told of them yet.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_has_arrived_is_read_before_the_runtime_knows_of_it() {
        const ROUNDS: usize = 200;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        for round in 0..ROUNDS {
            let mut far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (near, _) = listener.accept().await.unwrap();
            let mut transport = Transport::new(near);
            let reading = async move {
                // The runtime takes a new socket for readable until it was asked.
                assert_eq!(transport.read_arrived(&mut BytesMut::new()).await.unwrap(), None);
                // The other worker has nothing to do after this and waits for events.
                let (ran, other_worker) = std::sync::mpsc::channel();
                tokio::spawn(async move { ran.send(()) });
                // A worker runs the last one that it has spawned by itself.
                tokio::spawn(async {});
                other_worker.recv().unwrap();
                std::io::Write::write_all(&mut far, b"bytes").unwrap();
                transport.read_arrived(&mut BytesMut::new()).await.unwrap()
            };
            assert_eq!(tokio::spawn(reading).await.unwrap(), Some(5), "round {round}");
        }
    }
}

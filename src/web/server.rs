//! The HTTP server: bounds on connections, requests and slow clients, and an orderly shutdown.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tower_service::Service;
use tracing::debug;

use super::admission::{Admission, HTTP_CONNECTIONS, Permit, Stage};
use crate::accept::accept;
use crate::shutdown::Shutdown;

/// Longest time in which a client sends a request's headers, and in which it leaves a connection idle between
/// requests.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest headers of a request, in bytes.
const HEADERS_MAX_BYTES: usize = 16 * 1024;
/// Most header lines of a request.
const HEADERS_MAX: usize = 64;
/// Largest body of a request, in bytes. A login or a command is far smaller.
const BODY_MAX_BYTES: usize = 16 * 1024;
/// Longest time from a request's headers to the headers of its response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time in which a client reads nothing of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer that the system keeps for a client that does not read. It would keep megabytes of each, in memory of
/// the broker's container; what is beyond these is counted by the admission.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Longest time for the responses under way at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// The client's address, in the extensions of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Bounds the body and the response time of every request of `router`: 413 beyond [`BODY_MAX_BYTES`], 504 after
/// [`RESPONSE_TIMEOUT`].
pub fn bounded(router: Router) -> Router {
    router
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .layer(axum::middleware::from_fn(time_limited))
}

async fn time_limited(request: axum::extract::Request, next: Next) -> Response {
    timeout(RESPONSE_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| {
        let message = "the broker did not answer in time; try again\n";
        (StatusCode::GATEWAY_TIMEOUT, message).into_response()
    })
}

/// Serves `router` until `shutdown`, then waits up to 2 s for the responses under way.
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let admission = Admission::default();
    let ending = shutdown.clone();
    let connections = accept(listener, shutdown, |socket, peer| {
        let (permit, evicted) = admission.enter(peer.ip());
        if let Err(error) = SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER_BYTES) {
            debug!(%peer, %error, "the size of a socket's buffer stays the system's");
        }
        let (router, shutdown) = (router.clone(), ending.clone());
        Some(async move {
            let permit = Arc::new(permit);
            tokio::select! {
                () = connection(socket, peer, router, shutdown, permit) => {}
                Ok(()) = evicted => {
                    debug!(%peer, "HTTP connection closed: {HTTP_CONNECTIONS} are open, and another one came");
                }
            }
        })
    });
    if !connections.await.finish(SHUTDOWN_GRACE).await {
        debug!("some HTTP responses did not finish within {SHUTDOWN_GRACE:?}");
    }
}

async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut shutdown: Shutdown,
    permit: Arc<Permit>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        permit.set(Stage::Asked);
        let (answer, permit) = (router.clone().call(request), Arc::clone(&permit));
        async move {
            // A client may send hundreds of requests at once. Without this the connection would answer sixteen of them
            // before others have a turn, and who publishes would wait for all of these connections.
            yield_now().await;
            let mut answer = answer.await?;
            let holder = answer.extensions_mut().remove::<Holder>();
            permit.answers(holder.map(|holder| holder.0));
            Ok::<_, std::convert::Infallible>(answer.map(|body| Answer::new(body, permit)))
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HEADERS_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(WriteTimeout::new(socket)), service)
        .with_upgrades();
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = &mut serving => outcome,
        () = shutdown.requested() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        debug!(%peer, %error, "HTTP connection ended");
    }
}

/// Whose answer it is, in the extensions of an answer: a user, or an address.
#[derive(Debug, Clone)]
pub struct Holder(pub Arc<str>);

/// The body of an answer. The connection is idle again once it is written.
struct Answer {
    body: Body,
    /// Its bytes that are in memory and were not passed on.
    whole: Unread,
}

/// Bytes of an answer that are counted until they are written.
struct Unread {
    answering: Arc<Answering>,
    bytes: usize,
}

/// An answer that is not written.
struct Answering(Arc<Permit>);

/// A part of an answer.
struct Part {
    bytes: Bytes,
    _unread: Unread,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answered();
    }
}

impl Unread {
    fn new(answering: Arc<Answering>, bytes: usize) -> Self {
        answering.0.add(bytes);
        Self { answering, bytes }
    }

    fn set(&mut self, bytes: usize) {
        self.answering.0.subtract(self.bytes.saturating_sub(bytes));
        self.bytes = bytes.min(self.bytes);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Answer {
    fn new(body: Body, permit: Arc<Permit>) -> Self {
        // Of a stream nothing is in memory yet.
        let bytes = hyper::body::Body::size_hint(&body).exact().unwrap_or(0);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Self { body, whole: Unread::new(Arc::new(Answering(permit)), bytes) }
    }
}

impl hyper::body::Body for Answer {
    type Data = Part;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Part>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| {
                    let left = self.whole.bytes.saturating_sub(bytes.len());
                    self.whole.set(left);
                    let answering = Arc::clone(&self.whole.answering);
                    Part { _unread: Unread::new(answering, bytes.len()), bytes }
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose writes fail after the client has read nothing for [`WRITE_TIMEOUT`]. hyper bounds the time of a
/// request, not the time of its response.
#[derive(Debug)]
struct WriteTimeout<S> {
    stream: S,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    const fn new(stream: S) -> Self {
        Self { stream, deadline: None }
    }

    /// Passes the result of a write on; `TimedOut` when writes have been pending for too long.
    fn limit<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_TIMEOUT)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.limit(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.limit(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.limit(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.limit(cx, closed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Sends a message when the response's body is dropped.
    struct DropSignal(tokio::sync::mpsc::Sender<()>);

    impl Drop for DropSignal {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }

    /// An endless response to a client that reads nothing of it, over a real socket.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_disconnected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (held, mut dropped) = tokio::sync::mpsc::channel::<()>(1);
        let endless = axum::routing::get(async move || {
            let chunk = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
            let stream = futures_util::stream::unfold(DropSignal(held), move |held| {
                let chunk = chunk.clone();
                async move { Some((Ok::<_, io::Error>(chunk), held)) }
            });
            Body::from_stream(stream)
        });
        let (trigger, shutdown) = crate::shutdown::channel();
        let serving = tokio::spawn(serve(listener, Router::new().route("/", endless), shutdown));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
        // The paused clock advances while nothing can be written.
        timeout(4 * WRITE_TIMEOUT, dropped.recv()).await.expect("the response is dropped");
        trigger.throw();
        serving.await.unwrap();
    }

    /// Whatever one connection has asked, others have a turn before each of its answers.
    #[tokio::test]
    async fn requests_that_came_at_once_leave_others_their_turn() {
        const REQUESTS: usize = 16;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let turns = Arc::new(AtomicUsize::new(0));
        let (taken, mut answered) = tokio::sync::mpsc::unbounded_channel();
        let seen = Arc::clone(&turns);
        let route = axum::routing::get(async move || taken.send(seen.load(Relaxed)).unwrap());
        let (trigger, shutdown) = crate::shutdown::channel();
        let serving = tokio::spawn(serve(listener, Router::new().route("/", route), shutdown));
        let other = tokio::spawn(async move {
            loop {
                turns.fetch_add(1, Relaxed);
                yield_now().await;
            }
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = "GET / HTTP/1.1\r\nhost: here\r\n\r\n";
        client.write_all(request.repeat(REQUESTS).as_bytes()).await.unwrap();
        let mut at = Vec::new();
        for _ in 0..REQUESTS {
            at.push(answered.recv().await.unwrap());
        }
        // The order of two that give way changes from turn to turn.
        assert!(at.windows(3).all(|three| three[0] < three[2]), "{at:?}");
        other.abort();
        trigger.throw();
        serving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_times_out_only_when_the_client_reads_nothing() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = WriteTimeout::new(ours);
        let reading = async {
            for _ in 0..4 {
                tokio::time::sleep(WRITE_TIMEOUT * 3 / 4).await;
                tokio::io::AsyncReadExt::read_exact(&mut theirs, &mut [0; 16]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(ours.write_all(&[7; 80]), reading);
        written.unwrap();
        let stalled = ours.write_all(&[7; 80]).await.unwrap_err();
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
    }
}

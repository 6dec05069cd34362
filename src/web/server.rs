//! The HTTP listener: connections bounded in number, clients that say or take nothing sent away, and an
//! orderly end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tower_service::Service;
use tracing::{debug, warn};

use crate::broker::TCP_KEEPALIVE;
use crate::shutdown::Shutdown;

/// Connections at once, event streams among them. A browser opens six.
const CONNECTIONS: usize = 256;
/// How long a client may take to send a request's headers, and how long it may keep a connection without
/// another request.
const HEADERS_WITHIN: Duration = Duration::from_secs(15);
/// Most bytes and lines of a request's headers.
const HEADERS_MAX_BYTES: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// A client that takes nothing off its socket for this long is gone.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// How long answers may take to finish at shutdown.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pause after a failed accept: out of file descriptors is the usual cause, and passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whom a request comes from; in the extensions of each.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Serves `app` until `shutdown`, then lets answers that have begun finish.
pub async fn serve(listener: TcpListener, app: Router, mut shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, peer) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        warn!(%error, "cannot accept an HTTP connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    debug!(%peer, "full: {CONNECTIONS} HTTP connections; closed");
                    continue;
                };
                // Events are small and wanted now: Nagle's algorithm would hold them back.
                let _ = socket.set_nodelay(true);
                // Events and MQTT may have nothing to say for a long time.
                let _ = SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE));
                let (app, shutdown) = (app.clone(), shutdown.clone());
                connections.spawn(async move {
                    connection(socket, peer, app, shutdown).await;
                    drop(place);
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = shutdown.requested() => break,
        }
    }
    drop(listener);
    let gone = async { while connections.join_next().await.is_some() {} };
    if timeout(FAREWELL, gone).await.is_err() {
        debug!("some HTTP answers did not finish in {FAREWELL:?}");
    }
}

async fn connection(socket: TcpStream, peer: SocketAddr, app: Router, mut shutdown: Shutdown) {
    let service = service_fn(|request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        app.clone().call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(HEADERS_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Impatient::new(socket)), service)
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

/// A stream whose writing fails when the other side takes nothing for [`WRITE_STALL`]: hyper bounds how
/// long a request may take to come, not how long its answer may take to go.
#[derive(Debug)]
struct Impatient<S> {
    stream: S,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    const fn new(stream: S) -> Self {
        Self { stream, stalled: None }
    }

    /// Passes on what writing came to, unless it has been pending for too long.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled =
            self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_STALL)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, closed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Says when an answer's body is let go of.
    struct Held(tokio::sync::mpsc::Sender<()>);

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }

    /// An answer without end to a client that takes nothing of it, over a real socket.
    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (held, mut let_go) = tokio::sync::mpsc::channel::<()>(1);
        let endless = axum::routing::get(async move || {
            let chunk = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
            let stream = futures_util::stream::unfold(Held(held), move |held| {
                let chunk = chunk.clone();
                async move { Some((Ok::<_, io::Error>(chunk), held)) }
            });
            Body::from_stream(stream)
        });
        let (trigger, shutdown) = crate::shutdown::channel();
        let serving = tokio::spawn(serve(listener, Router::new().route("/", endless), shutdown));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
        // The paused clock goes on by itself while nothing can be written.
        timeout(4 * WRITE_STALL, let_go.recv()).await.expect("it is cut off");
        trigger.throw();
        serving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up_and_who_takes_a_little_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = Impatient::new(ours);
        let taking = async {
            for _ in 0..4 {
                tokio::time::sleep(WRITE_STALL * 3 / 4).await;
                tokio::io::AsyncReadExt::read_exact(&mut theirs, &mut [0; 16]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(ours.write_all(&[7; 80]), taking);
        written.unwrap();
        let stalled = ours.write_all(&[7; 80]).await.unwrap_err();
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
    }
}

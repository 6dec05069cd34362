//! Accepting TCP connections, for MQTT and HTTP alike: each in a task of its own, and an orderly end.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::shutdown::Shutdown;

/// Silence after which the kernel asks whether the other machine is still there: a client that vanished without a
/// word would hold its place for ever.
const TCP_KEEPALIVE: Duration = Duration::from_mins(2);
/// Pause after a failed accept: out of file descriptors is the usual cause, and passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The tasks of connections. Dropping it ends them.
#[derive(Debug, Default)]
pub struct Connections(JoinSet<()>);

impl Connections {
    /// Runs a connection.
    pub fn spawn(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(connection);
    }

    /// Waits until one has ended; for ever when there is none. Cancelling and calling again is fine.
    pub async fn ended(&mut self) {
        if self.0.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Lets them end by themselves for at most `limit`, and ends the others. Returns whether none was left.
    pub async fn finish(mut self, limit: Duration) -> bool {
        let ended = async { while self.0.join_next().await.is_some() {} };
        timeout(limit, ended).await.is_ok()
    }
}

/// Accepts connections until `shutdown` and closes the listener. `connection` says what each runs; where it is `None`
/// the connection is closed.
pub async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    mut shutdown: Shutdown,
    mut connection: impl FnMut(TcpStream, SocketAddr) -> Option<F>,
) -> Connections {
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    // Acknowledgements and events are small and awaited: Nagle's algorithm would hold them back.
                    let _ = socket.set_nodelay(true);
                    let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE);
                    let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
                    if let Some(connection) = connection(socket, peer) {
                        connections.spawn(connection);
                    }
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            () = connections.ended() => {}
            () = shutdown.requested() => return connections,
        }
    }
}

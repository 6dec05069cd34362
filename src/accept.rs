//! Listening and accepting TCP connections, for MQTT and HTTP alike: each in a task of its own, and an orderly end.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::shutdown::Shutdown;

/// Silence after which the kernel asks whether the other machine is still there: a client that vanished without a
/// word would hold its place for ever.
const TCP_KEEPALIVE: Duration = Duration::from_mins(2);
/// Connections that the kernel keeps until they are accepted; the system may allow fewer (`net.core.somaxconn`). The usual
/// 128 overflow when a hall of boards comes back at once, and each board beyond tries again after 1 s, 3 s, 7 s.
const BACKLOG: u32 = 4096;
/// Pause after a failed accept: out of file descriptors is the usual cause, and passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {source}; is another broker running? Choose another address with {setting}"
)]
pub struct ListenError {
    /// The variable that chooses another address.
    pub setting: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

/// Listens on `address`, which the variable `setting` gave; with port 0 the system chooses one. Returns the address
/// with the real port.
///
/// # Errors
/// When the address is taken, or is none of this machine's.
pub fn listen(
    setting: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), ListenError> {
    let refused = |source| ListenError { setting, address, source };
    let listener = bind(address).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` does: a restart need not wait for connections that are closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

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

//! The listener: accepts connections, bounded in number, and sees them off at the end.

use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::connection::{self, Services};
use crate::shutdown::Shutdown;

/// Clients at once. Each costs a few kilobytes and a file descriptor.
const CONNECTIONS: usize = 2000;
/// How long connections may take to finish at shutdown.
const FAREWELL: Duration = Duration::from_secs(5);
/// Silence after which the kernel asks whether the other machine is still there.
const TCP_KEEPALIVE: Duration = Duration::from_mins(2);
/// Pause after a failed accept: out of file descriptors is the usual cause, and passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves clients until `shutdown`, then waits for their last commits.
pub async fn serve(listener: TcpListener, services: Services, mut shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, peer) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    debug!(%peer, "full: {CONNECTIONS} connections; closed");
                    continue;
                };
                // Acknowledgements are small and awaited: Nagle's algorithm would hold them back.
                let _ = socket.set_nodelay(true);
                // A client with keep-alive 0 that vanished without a word would hold its place for ever.
                let _ = SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE));
                let (services, shutdown) = (services.clone(), shutdown.clone());
                connections.spawn(async move {
                    connection::serve(socket, peer, services, shutdown).await;
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
        warn!(
            "some connections did not finish in {FAREWELL:?}; their last messages are not acknowledged"
        );
    }
}

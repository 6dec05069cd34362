//! The listeners: accept connections, give each its stream, and see them off at the end.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::carrier::Stream;
use super::connection::{self, Services};
use super::limits::Limits;
use super::lobby::{UNNAMED, Visitor};
use super::tls::Tls;
use crate::shutdown::Shutdown;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections may take to finish at shutdown.
const FAREWELL: Duration = Duration::from_secs(5);
/// Silence after which the kernel asks whether the other machine is still there.
const TCP_KEEPALIVE: Duration = Duration::from_mins(2);
/// Pause after a failed accept: out of file descriptors is the usual cause, and passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// File descriptors beside those of clients: HTTP's 256, the database's, listeners, the runtime's.
const OTHER_FILES: usize = 320;

/// Serves clients until `shutdown`, then waits for their last commits. `tls` says whether they speak TLS.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    services: Services,
    mut shutdown: Shutdown,
) {
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
                let visitor = services.lobby.enter(peer.ip());
                // Acknowledgements are small and awaited: Nagle's algorithm would hold them back.
                let _ = socket.set_nodelay(true);
                // A client with keep-alive 0 that vanished without a word would hold its place for ever.
                let _ = SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE));
                let (services, shutdown) = (services.clone(), shutdown.clone());
                match &tls {
                    None => connections.spawn(connection::serve(socket, peer, visitor, services, shutdown)),
                    Some(tls) => connections.spawn(shake_hands(socket, peer, visitor, tls.clone(), services, shutdown)),
                };
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

/// A handshake costs a signature and may never end: in the connection's own task, and not for ever.
async fn shake_hands(
    socket: TcpStream,
    peer: SocketAddr,
    mut visitor: Visitor,
    tls: Tls,
    services: Services,
    shutdown: Shutdown,
) {
    let handshake = tls.acceptor().accept(socket);
    let shaken = tokio::select! {
        shaken = timeout(HANDSHAKE_TIMEOUT, handshake) => shaken,
        () = visitor.evicted() => {
            debug!(%peer, "too slow with its TLS handshake while others came");
            return;
        }
    };
    match shaken {
        Ok(Ok(stream)) => {
            let stream: Box<dyn Stream> = Box::new(stream);
            connection::serve(stream, peer, visitor, services, shutdown).await;
        }
        Ok(Err(error)) => debug!(%peer, %error, "no TLS"),
        Err(_) => debug!(%peer, "no TLS handshake within {HANDSHAKE_TIMEOUT:?}"),
    }
}

/// Asks the system for as many file descriptors as the limits need. Shells give 1024 by default.
pub fn allow_files(limits: &Limits) {
    let needed = (limits.connections + UNNAMED + OTHER_FILES) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        let wanted = maximum.map_or(needed, |maximum| needed.min(maximum));
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
        if raised.is_err() || wanted < needed {
            warn!(
                needed,
                allowed = wanted,
                "fewer open files are allowed than the limits on connections need; raise `ulimit -n`, or lower HUMIDOR_CONNECTIONS"
            );
        }
    }
}

//! The listeners: accept connections, give each its stream, and see them off at the end. One door has no port: what
//! comes through another's, as a WebSocket does, is handed in there.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::broker::connection::run;
use crate::broker::context::Services;
use crate::broker::net::admission::{Permit, WITHOUT_CONNECT};
use crate::broker::net::limits::Limits;
use crate::broker::net::tls::Tls;
use crate::broker::net::transport::Stream;
use crate::broker::status::local_client::Ending;
use crate::shutdown::Shutdown;

/// How long a TLS or WebSocket handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections may take to finish at shutdown.
const FAREWELL: Duration = Duration::from_secs(5);
/// Silence after which the kernel asks whether the other machine is still there.
pub const TCP_KEEPALIVE: Duration = Duration::from_mins(2);
/// Pause after a failed accept: out of file descriptors is the usual cause, and passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// File descriptors beside those of clients: HTTP's 256, the database's, listeners, the runtime's.
const OTHER_FILES: usize = 320;

/// Arrivals that wait to be let in; letting in takes no time.
const ARRIVALS: usize = 16;

/// A client whose stream is still being agreed on.
pub struct Arrival {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// What it comes over, for the log.
    pub over: &'static str,
    /// Its stream, once that is agreed on.
    pub stream: Handshake,
}

/// Ends with a stream that MQTT's bytes come and go on.
pub type Handshake = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Where arrivals are handed in. It holds nothing of the broker, whose end therefore need not wait for it.
#[derive(Debug, Clone)]
pub struct SideDoor(mpsc::Sender<Arrival>);

/// The inner side of a [`SideDoor`].
pub struct Arrivals(mpsc::Receiver<Arrival>);

/// A door without a port.
pub fn side_door() -> (SideDoor, Arrivals) {
    let (sender, receiver) = mpsc::channel(ARRIVALS);
    (SideDoor(sender), Arrivals(receiver))
}

impl SideDoor {
    /// Hands a client in. From here on it is one like those of the listeners.
    ///
    /// # Errors
    /// When the broker is ending.
    pub async fn hand(&self, arrival: Arrival) -> Result<(), Ending> {
        self.0.send(arrival).await.map_err(|_| Ending)
    }
}

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
                let permit = services.admission.enter(peer.ip());
                // Acknowledgements are small and awaited: Nagle's algorithm would hold them back.
                let _ = socket.set_nodelay(true);
                // A client with keep-alive 0 that vanished without a word would hold its place for ever.
                let _ = SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE));
                let (services, shutdown) = (services.clone(), shutdown.clone());
                match &tls {
                    None => connections.spawn(run::serve(socket, peer, permit, services, shutdown)),
                    Some(tls) => {
                        let handshake = tls.acceptor().accept(socket);
                        let stream = async { Ok(Box::new(handshake.await?) as Box<dyn Stream>) };
                        let arrival = Arrival { peer, over: "TLS", stream: Box::pin(stream) };
                        connections.spawn(welcome(arrival, permit, services, shutdown))
                    }
                };
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = shutdown.requested() => break,
        }
    }
    drop(listener);
    see_off(connections).await;
}

/// Serves clients that are handed in, as [`serve`] does.
pub async fn receive(Arrivals(mut arrivals): Arrivals, services: Services, mut shutdown: Shutdown) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(arrival) = arrivals.recv() => {
                let permit = services.admission.enter(arrival.peer.ip());
                connections.spawn(welcome(arrival, permit, services.clone(), shutdown.clone()));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = shutdown.requested() => break,
        }
    }
    drop(arrivals);
    see_off(connections).await;
}

async fn see_off(mut connections: JoinSet<()>) {
    let gone = async { while connections.join_next().await.is_some() {} };
    if timeout(FAREWELL, gone).await.is_err() {
        warn!(
            "some connections did not finish in {FAREWELL:?}; their last messages are not acknowledged"
        );
    }
}

/// A handshake may cost a signature and may never end: in the connection's own task, and not for ever.
async fn welcome(
    Arrival { peer, over, stream: handshake }: Arrival,
    mut permit: Permit,
    services: Services,
    shutdown: Shutdown,
) {
    let shaken = tokio::select! {
        shaken = timeout(HANDSHAKE_TIMEOUT, handshake) => shaken,
        () = permit.evicted() => {
            debug!(%peer, over, "too slow with its handshake while others came");
            return;
        }
    };
    match shaken {
        Ok(Ok(stream)) => run::serve(stream, peer, permit, services, shutdown).await,
        Ok(Err(error)) => debug!(%peer, over, %error, "no handshake"),
        Err(_) => debug!(%peer, over, "no handshake within {HANDSHAKE_TIMEOUT:?}"),
    }
}

/// Asks the system for as many file descriptors as the limits need. Shells give 1024 by default.
pub fn allow_files(limits: &Limits) {
    let needed = (limits.connections + WITHOUT_CONNECT + OTHER_FILES) as u64;
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

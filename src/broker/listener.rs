//! The listeners of MQTT: TCP, TLS, and streams that HTTP hands over after a WebSocket's handshake.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::connection::event_loop;
use super::context::{Services, Stopping};
use super::net::admission::{ENDING, Permit, WITHOUT_LOGIN};
use super::net::limits::Limits;
use super::net::tls::Tls;
use super::net::transport::Stream;
use crate::accept::{Connections, accept};
use crate::shutdown::Shutdown;

/// How long a TLS or WebSocket handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections may take to finish at shutdown.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// File descriptors beside those of clients: HTTP's 256, the database's, listeners, the runtime's.
const OTHER_FILES: usize = 320;
/// Streams handed over that wait for their task, which starts at once.
const HANDOFFS: usize = 16;

/// An incoming stream whose handshake is not complete.
pub struct Incoming {
    /// Address of the client.
    pub peer: SocketAddr,
    /// Name of the transport, for the log.
    pub over: &'static str,
    /// The handshake of the stream.
    pub stream: Handshake,
}

/// A handshake. It resolves to the stream that carries MQTT.
pub type Handshake = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Hands incoming streams over to the broker. It holds nothing of the broker, so it does not delay the broker's end.
#[derive(Debug, Clone)]
pub struct Handoff(mpsc::Sender<Incoming>);

/// The receiving side of a [`Handoff`].
pub struct Handoffs(mpsc::Receiver<Incoming>);

/// Both ends of a handoff, a listener without a port.
pub fn handoff() -> (Handoff, Handoffs) {
    let (sender, receiver) = mpsc::channel(HANDOFFS);
    (Handoff(sender), Handoffs(receiver))
}

impl Handoff {
    /// Hands a stream over. The broker then serves its client as one of the other listeners.
    ///
    /// # Errors
    /// When the broker is stopping.
    pub async fn hand_over(&self, incoming: Incoming) -> Result<(), Stopping> {
        self.0.send(incoming).await.map_err(|_| Stopping)
    }
}

/// Serves clients until `shutdown`, then waits for their last commits. With `tls` their streams are TLS.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    services: Services,
    shutdown: Shutdown,
) {
    let closing = shutdown.clone();
    let connections = accept(listener, shutdown, |socket, peer| {
        let permit = services.admission.enter(peer.ip());
        let (services, shutdown, tls) = (services.clone(), closing.clone(), tls.clone());
        Some(async move {
            match tls {
                None => event_loop::serve(socket, peer, permit, services, shutdown).await,
                Some(tls) => {
                    let handshake = tls.accept(socket, permit.handshake());
                    let stream = async { Ok(Box::new(handshake.await?) as Box<dyn Stream>) };
                    let incoming = Incoming { peer, over: "TLS", stream: Box::pin(stream) };
                    agree(incoming, permit, services, shutdown).await;
                }
            }
        })
    });
    finish(connections.await).await;
}

/// Serves clients whose streams are handed over, as [`serve`] does.
pub async fn receive(Handoffs(mut handoffs): Handoffs, services: Services, mut shutdown: Shutdown) {
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            Some(incoming) = handoffs.recv() => {
                let permit = services.admission.enter(incoming.peer.ip());
                connections.spawn(agree(incoming, permit, services.clone(), shutdown.clone()));
            }
            () = connections.ended() => {}
            () = shutdown.requested() => break,
        }
    }
    drop(handoffs);
    finish(connections).await;
}

async fn finish(connections: Connections) {
    if !connections.finish(FINISH_TIMEOUT).await {
        warn!(
            "some connections did not finish in {FINISH_TIMEOUT:?}; their last messages are not acknowledged"
        );
    }
}

/// Waits for a handshake, then serves the client. A handshake may cost a signature and may never end, so it runs in
/// the connection's own task and within [`HANDSHAKE_TIMEOUT`].
async fn agree(
    Incoming { peer, over, stream: handshake }: Incoming,
    mut permit: Permit,
    services: Services,
    shutdown: Shutdown,
) {
    let agreed = tokio::select! {
        agreed = timeout(HANDSHAKE_TIMEOUT, handshake) => agreed,
        () = permit.evicted() => {
            debug!(%peer, over, "evicted for a new connection before its handshake was complete");
            return;
        }
    };
    match agreed {
        Ok(Ok(stream)) => event_loop::serve(stream, peer, permit, services, shutdown).await,
        Ok(Err(error)) => debug!(%peer, over, %error, "no handshake"),
        Err(_) => debug!(%peer, over, "no handshake within {HANDSHAKE_TIMEOUT:?}"),
    }
}

/// Raises the limit of open files as far as the limits on connections need. Shells set 1024 by default.
pub fn allow_files(limits: &Limits) {
    // Beside the clients those that wait for the place of one that ends.
    let wanted = (2 * limits.connections + WITHOUT_LOGIN + ENDING + OTHER_FILES) as u64;
    let needed = (limits.connections + WITHOUT_LOGIN + ENDING + OTHER_FILES) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let wanted = maximum.map_or(wanted, |maximum| wanted.min(maximum));
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

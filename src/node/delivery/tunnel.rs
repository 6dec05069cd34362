//! TLS to the broker.
//!
//! rumqttc speaks TLS only by its own features, which pin versions with open advisories, and takes no stream that
//! somebody else has opened. But it connects to a Unix socket as readily as to TCP: so TLS is spoken here, and
//! rumqttc is handed an abstract socket that this process alone may connect to.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::node::address::BrokerAddress;
use crate::node::config::TlsFiles;
use crate::tls::{TlsError, identity, provider, roots};

/// How long TCP and the handshake may take, together. A small board signs in a tenth of a second.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long rumqttc may take to come to its end of the tunnel.
const ENTER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last bytes may take to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// rustls's configuration of a client, from the files.
///
/// # Errors
/// [`TlsError`] with the file that cannot be used, and why.
pub fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(files.ca.as_deref())?);
    Ok(Arc::new(match &files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let identity = identity(certificate, key, UnixTime::now())?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
    }))
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// A file.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// The host's name is none that a certificate could be for.
    #[error("`{0}` is no host that a certificate could be for")]
    Name(String),
    /// The network, or what the broker showed.
    #[error("TLS: {0}")]
    Io(#[from] std::io::Error),
    /// The broker does not answer.
    #[error("no TLS connection within {OPEN_TIMEOUT:?}")]
    Silent,
}

/// A TLS connection to the broker, and where rumqttc finds it.
#[derive(Debug)]
pub struct Tunnel {
    /// Address of the near end, for rumqttc.
    pub entrance: String,
    carrying: JoinHandle<()>,
}

impl Tunnel {
    /// Connects to the broker and shakes hands.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub async fn open(files: &TlsFiles, broker: &BrokerAddress) -> Result<Self, TunnelError> {
        let files = files.clone();
        let read = spawn_blocking(move || client_config(&files)).await;
        let config = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let name = ServerName::try_from(broker.host.clone());
        let name = name.map_err(|_| TunnelError::Name(broker.host.clone()))?;
        let opening = async {
            let socket = TcpStream::connect((broker.host.as_str(), broker.port)).await?;
            socket.set_nodelay(true)?;
            TlsConnector::from(config).connect(name, socket).await
        };
        let stream = timeout(OPEN_TIMEOUT, opening).await.map_err(|_| TunnelError::Silent)??;

        let entrance =
            format!("humidor-tunnel-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&entrance)?)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let carrying = tokio::spawn(carry(listener, stream));
        // The leading zero says "abstract" to whoever connects.
        Ok(Self { entrance: format!("\0{entrance}"), carrying })
    }

    /// Waits until what was sent has left, when the near end is closed already.
    pub async fn close(mut self) {
        let _ = timeout(CLOSE_TIMEOUT, &mut self.carrying).await;
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

async fn carry(listener: UnixListener, mut stream: TlsStream<TcpStream>) {
    let Ok(Some(mut near)) = timeout(ENTER_TIMEOUT, own_client(listener)).await else { return };
    // Either end tells rumqttc or the broker by closing.
    let _ = tokio::io::copy_bidirectional(&mut near, &mut stream).await;
}

/// The first that connects and is this process. On a host's own network other processes see the name too.
async fn own_client(listener: UnixListener) -> Option<UnixStream> {
    let own = i32::try_from(std::process::id()).ok()?;
    loop {
        let (stream, _) = listener.accept().await.ok()?;
        if stream.peer_cred().ok()?.pid() == Some(own) {
            return Some(stream);
        }
    }
}

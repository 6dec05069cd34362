//! TLS to the broker, through an abstract Unix socket between rumqttc and the TLS connection.
//!
//! rumqttc's own TLS features pin versions with open advisories, and it takes no stream that is already open. But it can
//! connect to a Unix socket. So this file makes the TLS connection, and rumqttc gets the name of an abstract socket that
//! accepts this process alone.

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

/// Longest time for TCP and the handshake together. A small board signs in a tenth of a second.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time until rumqttc connects to its end.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for sending the last bytes.
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

/// The reason why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// A file is missing or wrong.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// The host's name cannot be in a certificate.
    #[error("`{0}` is not a host name or address that a certificate can be for")]
    Name(String),
    /// The network, or the broker's certificate.
    #[error("TLS: {0}")]
    Io(#[from] std::io::Error),
    /// The broker does not answer.
    #[error("no TLS connection within {OPEN_TIMEOUT:?}")]
    Silent,
}

/// A TLS connection to the broker, and the socket where rumqttc finds it.
#[derive(Debug)]
pub struct Tunnel {
    /// Name of rumqttc's end: an abstract Unix socket.
    pub entrance: String,
    copying: JoinHandle<std::io::Result<()>>,
}

impl Tunnel {
    /// Connects to the broker and makes the TLS handshake.
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
        let copying = tokio::spawn(copy(listener, stream));
        // The leading zero byte means an abstract socket (unix(7)).
        Ok(Self { entrance: format!("\0{entrance}"), copying })
    }

    /// Waits until the last bytes are sent, after rumqttc has closed its end. Returns the TLS error that ended the
    /// connection, which rumqttc sees as a closed socket: a broker that asks for the node's certificate refuses
    /// only after the handshake.
    pub async fn close(mut self) -> Option<TunnelError> {
        let error = timeout(CLOSE_TIMEOUT, &mut self.copying).await.ok()?.ok()?.err()?;
        error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(TunnelError::Io(error))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.copying.abort();
    }
}

/// Copies both ways until either end closes.
async fn copy(listener: UnixListener, mut stream: TlsStream<TcpStream>) -> std::io::Result<()> {
    let Ok(Some(mut client)) = timeout(ACCEPT_TIMEOUT, own_client(listener)).await else {
        return Ok(());
    };
    tokio::io::copy_bidirectional(&mut client, &mut stream).await.map(drop)
}

/// The first connection from this process. In the host's network namespace other processes see the name too.
async fn own_client(listener: UnixListener) -> Option<UnixStream> {
    let own = i32::try_from(std::process::id()).ok()?;
    loop {
        let (stream, _) = listener.accept().await.ok()?;
        if stream.peer_cred().ok()?.pid() == Some(own) {
            return Some(stream);
        }
    }
}

//! The connection to the broker, over TCP or TLS, and an abstract Unix socket where rumqttc finds it.
//!
//! rumqttc takes no stream that is already open, but it can connect to a Unix socket. So this file makes the connection,
//! gives rumqttc the name of an abstract socket that accepts this process alone, and copies between the two. What the
//! broker sends passes the check of `inbound` on its way; and TLS needs none of rumqttc's features, which pin versions with
//! open advisories.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, ClientConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream, lookup_host};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tracing::warn;

use super::inbound::{Breach, Inbound, Outbound};
use super::traffic::Traffic;
use crate::node::address::BrokerAddress;
use crate::node::config::TlsFiles;
use crate::throttled_log::ThrottledLog;
use crate::tls::{TlsError, identity, provider, roots};

/// Longest time for TCP and the handshake together. A small board signs in a tenth of a second.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time until rumqttc connects to its end.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for sending the last bytes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for the broker's reason after writing to it has failed.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes copied at once.
const CHUNK_BYTES: usize = 4 * 1024;
/// Time between two lines on acknowledgements of nothing.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

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

/// The reason why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// A file is missing or wrong.
    #[error(transparent)]
    Files(#[from] TlsError),
    /// The host's name cannot be in a certificate.
    #[error("`{0}` is not a host name or address that a certificate can be for")]
    Name(String),
    /// The host's name is not found.
    #[error("{0}")]
    Lookup(std::io::Error),
    /// The network.
    #[error("{0}")]
    Io(std::io::Error),
    /// The handshake, or the broker's certificate.
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// The broker refused by a TLS alert, or its certificate is refused.
    #[error("TLS: {0}")]
    Refused(String),
    /// The broker does not answer.
    #[error("no answer within {OPEN_TIMEOUT:?}")]
    Silent,
    /// The broker broke the protocol.
    #[error(transparent)]
    Breach(#[from] Breach),
}

impl TunnelError {
    /// An error of the stream: the network's, TLS's, or the broker's alert.
    fn of_stream(error: std::io::Error, has_certificate: bool) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            None => Self::Io(error),
            Some(rustls::Error::AlertReceived(alert)) => {
                Self::Refused(refusal(*alert, has_certificate))
            }
            Some(fault) => match crate::tls::certificate_fault(fault) {
                Some(fault) => Self::Refused(fault),
                None => Self::Tls(error),
            },
        }
    }

    /// The same of a handshake. A port for plain MQTT closes it, or answers with what is no TLS.
    fn of_handshake(error: std::io::Error, has_certificate: bool) -> Self {
        use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let is_plain = match tls {
            Some(fault) => matches!(fault, rustls::Error::InvalidMessage(_)),
            None => matches!(error.kind(), ConnectionReset | UnexpectedEof),
        };
        if is_plain {
            return Self::Refused(PLAIN_PORT.to_owned());
        }
        Self::of_stream(error, has_certificate)
    }

    /// What to do where the broker was not reached, for whoever sets the board up.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        use std::io::ErrorKind::{
            ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
        };
        let kind = match self {
            Self::Io(error) => error.kind(),
            Self::Silent => TimedOut,
            Self::Lookup(_) => {
                return Some(
                    "check the name, or write the broker's IP address: a name in `.local` is not found from a container",
                );
            }
            _ => return None,
        };
        match kind {
            ConnectionRefused | ConnectionReset => Some(
                "start the broker, and check the port, and that HUMIDOR_MQTT_LISTEN there is not 127.0.0.1",
            ),
            HostUnreachable | NetworkUnreachable | TimedOut => Some(
                "check the address, that the machine is on, and that no firewall is between it and this board",
            ),
            _ => None,
        }
    }

    /// Whether the broker ended a connection that it had accepted, without a word.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}

/// A port without TLS was asked for it.
const PLAIN_PORT: &str = "the broker ended the handshake, as a port without TLS does: write mqtt:// into HUMIDOR_BROKER, or the port for TLS, which is 8883 as a rule";
/// A port with TLS was spoken to without: it answers with an alert (RFC 8446, 5.1: type 21, version 3.x).
const TLS_PORT: &str = "this port of the broker is for TLS: write mqtts:// into HUMIDOR_BROKER, or the port without TLS, which is 1883 as a rule";
const ALERT_RECORD: [u8; 2] = [21, 3];

/// A TLS alert in words (RFC 8446, 6.2).
fn refusal(alert: AlertDescription, has_certificate: bool) -> String {
    use AlertDescription as A;
    let remedy = "set HUMIDOR_TLS_CERT and HUMIDOR_TLS_KEY";
    match alert {
        A::CertificateRequired => format!("the broker asks for a client certificate: {remedy}"),
        A::HandshakeFailure if !has_certificate => {
            format!("the broker ended the handshake; if it asks for a client certificate, {remedy}")
        }
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied
        | A::DecryptError => format!(
            "the broker does not accept this node's certificate ({alert:?}): check HUMIDOR_TLS_CERT and which authority the broker trusts"
        ),
        A::CertificateExpired | A::CertificateRevoked => format!(
            "the broker does not accept this node's certificate any more ({alert:?}): renew HUMIDOR_TLS_CERT"
        ),
        A::ProtocolVersion | A::HandshakeFailure | A::InsufficientSecurity => {
            format!("the broker and this node have no TLS version or cipher in common ({alert:?})")
        }
        A::UnrecognisedName => "the broker does not serve the name in HUMIDOR_BROKER".to_owned(),
        other => format!("the broker ended the connection with alert {other:?}"),
    }
}

/// A connection to the broker, and the socket where rumqttc finds it.
#[derive(Debug)]
pub struct Tunnel {
    /// Name of rumqttc's end: an abstract Unix socket.
    pub entrance: String,
    /// What passes it.
    pub traffic: Arc<Traffic>,
    copying: JoinHandle<Result<(), TunnelError>>,
}

impl Tunnel {
    /// Connects to the broker; where its address asks for it, makes the TLS handshake.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub async fn open(tls: Option<&TlsFiles>, broker: &BrokerAddress) -> Result<Self, TunnelError> {
        let connecting = async {
            let found = lookup_host((broker.host.as_str(), broker.port)).await;
            let addresses: Vec<_> = found.map_err(TunnelError::Lookup)?.collect();
            let socket = TcpStream::connect(&addresses[..]).await.map_err(TunnelError::Io)?;
            socket.set_nodelay(true).map_err(TunnelError::Io)?;
            Ok::<_, TunnelError>(socket)
        };
        let Some(files) = tls.filter(|_| broker.tls) else {
            let stream =
                timeout(OPEN_TIMEOUT, connecting).await.map_err(|_| TunnelError::Silent)??;
            return Self::to(stream, false);
        };
        let has_certificate = files.identity.is_some();
        let files = files.clone();
        let read = spawn_blocking(move || client_config(&files)).await;
        let config = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let name = ServerName::try_from(broker.host.clone());
        let name = name.map_err(|_| TunnelError::Name(broker.host.clone()))?;
        let opening = async {
            let connected = TlsConnector::from(config).connect(name, connecting.await?).await;
            connected.map_err(|error| TunnelError::of_handshake(error, has_certificate))
        };
        let stream = timeout(OPEN_TIMEOUT, opening).await.map_err(|_| TunnelError::Silent)??;
        Self::to(stream, has_certificate)
    }

    fn to(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        has_certificate: bool,
    ) -> Result<Self, TunnelError> {
        let entrance =
            format!("humidor-tunnel-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let listen = || {
            let name = SocketAddr::from_abstract_name(&entrance)?;
            let listener = StdListener::bind_addr(&name)?;
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        let listener = listen().map_err(TunnelError::Io)?;
        let traffic = Arc::<Traffic>::default();
        let noted = Arc::clone(&traffic);
        let copying = tokio::spawn(async move {
            let Ok(Some(client)) = timeout(ACCEPT_TIMEOUT, own_client(listener)).await else {
                return Ok(());
            };
            copy(client, stream, &noted, has_certificate).await
        });
        // The leading zero byte means an abstract socket (unix(7)).
        Ok(Self { entrance: format!("\0{entrance}"), traffic, copying })
    }

    /// Waits until the last bytes are sent, after rumqttc has closed its end. Returns the error that ended the connection,
    /// which rumqttc sees as a closed socket: a broker that asks for the node's certificate refuses only after the
    /// handshake.
    pub async fn close(mut self) -> Option<TunnelError> {
        timeout(CLOSE_TIMEOUT, &mut self.copying).await.ok()?.ok()?.err()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.copying.abort();
    }
}

/// Copies both ways until either end closes.
async fn copy(
    client: UnixStream,
    broker: impl AsyncRead + AsyncWrite + Send,
    traffic: &Traffic,
    has_certificate: bool,
) -> Result<(), TunnelError> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = tokio::io::split(broker);
    let to_the_broker = async {
        let (mut outbound, mut chunk) = (Outbound::new(), vec![0; CHUNK_BYTES]);
        loop {
            let count = from_client.read(&mut chunk).await?;
            if count == 0 {
                return to_broker.shutdown().await;
            }
            let noted = outbound.note(&chunk[..count], traffic, Instant::now());
            noted.map_err(std::io::Error::other)?;
            to_broker.write_all(&chunk[..count]).await?;
            to_broker.flush().await?;
        }
    };
    let to_the_client = async {
        let (mut inbound, mut chunk) = (Inbound::new(), vec![0; CHUNK_BYTES]);
        let (mut passed, complaint) = (Vec::new(), ThrottledLog::new(COMPLAINT_INTERVAL));
        let mut is_first = true;
        loop {
            let read = from_broker.read(&mut chunk).await;
            let count = read.map_err(|error| TunnelError::of_stream(error, has_certificate))?;
            if count == 0 {
                return Ok(());
            }
            // No MQTT packet of a broker begins so.
            if std::mem::take(&mut is_first) && chunk[..count].starts_with(&ALERT_RECORD) {
                return Err(TunnelError::Refused(TLS_PORT.to_owned()));
            }
            passed.clear();
            let outcome = inbound.take(&chunk[..count], traffic, Instant::now(), &mut passed);
            if inbound.take_ignored() > 0
                && let Some(left_out) = complaint.due(std::time::Instant::now())
            {
                warn!(left_out, "the broker acknowledges what was not sent, or twice; ignored");
            }
            // rumqttc may be gone already; the broker's reason is still of interest.
            let _ = to_client.write_all(&passed).await;
            outcome?;
        }
    };
    let (mut up, mut down) = (pin!(to_the_broker), pin!(to_the_client));
    tokio::select! {
        ended = &mut down => ended,
        ended = &mut up => match ended {
            Ok(()) => down.await,
            // The broker has closed its end. It may have said why before.
            Err(error) => match timeout(REASON_TIMEOUT, down).await {
                Ok(Err(reason)) => Err(reason),
                _ => Err(TunnelError::of_stream(error, has_certificate)),
            },
        },
    }
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

//! TLS on the broker's side: the listener's settings, and its certificate, which is read again when it changes.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{error, info};

use crate::broker::net::admission::Handshake;
use crate::broker::net::reload::Watched;
use crate::shutdown::Shutdown;
use crate::tls::{TlsError, identity, provider, roots};

/// The settings of the TLS listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Address of the listener. Port 0 lets the system choose one.
    pub listen: SocketAddr,
    /// The broker's certificate chain, a PEM file.
    pub certificate: PathBuf,
    /// The key of the certificate, a PEM file.
    pub key: PathBuf,
    /// Authorities of client certificates, a PEM file; `None`: clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// The TLS configuration of the next handshake. It changes with the files.
#[derive(Debug, Clone)]
pub struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files, and again whenever they change or on SIGHUP, until `shutdown`.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub async fn start(config: TlsConfig, mut shutdown: Shutdown) -> Result<Self, TlsError> {
        let files = [Some(&config.certificate), Some(&config.key), config.client_ca.as_ref()];
        let files = files.into_iter().flatten().cloned().collect();
        let mut watched = Watched::new(files).map_err(|error| TlsError::File {
            path: config.certificate.clone(),
            cause: format!("cannot be watched: {error}"),
        })?;
        let (sender, current) = watch::channel(load(config.clone()).await?);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = watched.changed() => {}
                    () = shutdown.requested() => return,
                }
                match load(config.clone()).await {
                    Ok(new) => {
                        info!(file = %config.certificate.display(), "certificate read again");
                        sender.send_replace(new);
                    }
                    // While only one of the two files is replaced, they do not match.
                    Err(error) => error!(%error, "the broker keeps the previous certificate"),
                }
            }
        });
        Ok(Self { current })
    }

    /// Shakes hands over `socket`. `handshake` counts what arrives until then.
    ///
    /// # Errors
    /// The system's error, or that of TLS.
    pub fn accept(
        &self,
        socket: TcpStream,
        handshake: Handshake,
    ) -> impl Future<Output = io::Result<TlsStream<Counted>>> + use<> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.borrow()));
        let accept = acceptor.accept(Counted { socket, handshake: Some(handshake) });
        async {
            let mut stream = accept.await?;
            stream.get_mut().0.handshake = None;
            Ok(stream)
        }
    }
}

/// A socket that counts what it reads of a handshake.
#[derive(Debug)]
pub struct Counted {
    socket: TcpStream,
    handshake: Option<Handshake>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if let Some(handshake) = &mut self.handshake {
            handshake.arrived(buffer.filled().len() - before);
        }
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Reads the files on a thread that may wait for the disk.
async fn load(config: TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    match spawn_blocking(move || read(&config)).await {
        Ok(read) => read,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn read(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let identity = identity(&config.certificate, &config.key, UnixTime::now())?;
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(roots(Some(path))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            let verifier = verifier
                .map_err(|error| TlsError::File { path: path.clone(), cause: error.to_string() })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    Ok(Arc::new(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))))
}

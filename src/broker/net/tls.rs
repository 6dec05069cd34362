//! TLS on the broker's side: the listener's settings, and its certificate, which is read again when it changes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{error, info};

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

    /// The acceptor of the next handshake.
    #[must_use]
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        Arc::clone(&self.current.borrow()).into()
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

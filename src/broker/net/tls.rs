//! TLS on the broker's side: the certificate, read again when it changes, and the port it is for.

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

/// Where TLS is spoken, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Where MQTT clients connect. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The broker's certificate, with what stands between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs the certificates that clients must have; `None`: they need none.
    pub client_ca: Option<PathBuf>,
}

/// What a handshake begins with; another after the files have changed.
#[derive(Debug, Clone)]
pub struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files, and again whenever they change or on SIGHUP, until `shutdown`.
    ///
    /// # Errors
    /// Which file is wrong, and why.
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

    /// For the next handshake.
    #[must_use]
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        Arc::clone(&self.current.borrow()).into()
    }
}

/// Reads the files, on a thread that may wait for a disk.
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

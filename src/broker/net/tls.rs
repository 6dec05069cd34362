//! TLS on the broker's side: the listener's settings, and its certificate, which is read again when it changes.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use rustls::server::{Acceptor, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::{spawn_blocking, yield_now};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{error, info};

use crate::broker::net::admission::Handshake;
use crate::broker::net::reload::Watched;
use crate::shutdown::Shutdown;
use crate::tls::{TlsError, identity, provider, roots};

/// Handshakes whose keys are agreed before others have a turn. Each takes a fraction of a millisecond, on a board some.
const HANDSHAKES: usize = 2;

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
    turns: Arc<Semaphore>,
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
        Ok(Self { current, turns: Arc::new(Semaphore::new(HANDSHAKES)) })
    }

    /// Shakes hands over `socket`. `handshake` counts what arrives until its client has logged in.
    ///
    /// # Errors
    /// The system's error, or that of TLS.
    pub fn accept(
        &self,
        socket: TcpStream,
        handshake: Handshake,
    ) -> impl Future<Output = io::Result<TlsStream<Counted>>> + use<> {
        let (config, turns) = (Arc::clone(&self.current.borrow()), Arc::clone(&self.turns));
        let counted = Counted { socket, handshake: Some(handshake) };
        async move {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), counted).await?;
            // A key is agreed and signed at once: others have a turn before.
            let turn = turns.acquire().await.map_err(io::Error::other)?;
            yield_now().await;
            let accept = hello.into_stream(config);
            drop(turn);
            accept.await
        }
    }
}

/// A socket that counts what it reads before its client has logged in.
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
        if let Some(handshake) = &mut self.handshake
            && !handshake.arrived(buffer.filled().len() - before)
        {
            self.handshake = None;
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

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::net::TcpListener;

    use super::*;
    use crate::broker::net::admission::Admission;
    use crate::broker::net::limits::Limits;

    fn tls() -> Tls {
        let pair = rcgen::generate_simple_self_signed(vec!["here".to_owned()]).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], pair.signing_key.into())
            .unwrap();
        let (_, current) = watch::channel(Arc::new(config));
        Tls { current, turns: Arc::new(Semaphore::new(HANDSHAKES)) }
    }

    fn hello() -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut client =
            ClientConnection::new(Arc::new(config), "here".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    }

    /// However many clients begin at once, others have a turn between the answers.
    #[tokio::test]
    async fn handshakes_that_came_at_once_leave_others_their_turn() {
        const CLIENTS: usize = 32;
        let (tls, admission) = (tls(), Admission::new(Limits::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            io::Write::write_all(&mut client, &hello()).unwrap();
            client.set_nonblocking(true).unwrap();
            let (socket, peer) = listener.accept().await.unwrap();
            let permit = admission.enter(peer.ip());
            let accept = tls.accept(socket, permit.handshake());
            tokio::spawn(async move {
                let _ = accept.await;
                drop(permit);
            });
            clients.push(client);
        }
        let (mut answered, mut most) = (0, 0);
        while answered < CLIENTS {
            yield_now().await;
            let mut answers = 0;
            clients.retain_mut(|client| {
                let is_answered = client.read(&mut [0; 64]).is_ok();
                answers += usize::from(is_answered);
                !is_answered
            });
            answered += answers;
            most = most.max(answers);
        }
        assert!(most <= CLIENTS / 8, "{most} answers in a turn");
    }
}

//! TLS to PostgreSQL: rustls behind the interface of tokio-postgres, and what is wrong with a certificate in words.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use super::fault::CERTIFICATE;
use crate::tls::{TlsError, provider, roots};

/// How to make a certificate for a server that is its own authority.
const OPENSSL: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 -subj /CN=NAME -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:NAME,IP:ADDRESS -keyout server.key -out server.crt";

/// The settings of TLS for all connections. The authorities are those in `ca`, or the system's.
///
/// # Errors
/// When there are none.
pub fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Makes the TLS of one connection; without settings there is none.
pub struct Handshake {
    /// The settings.
    pub config: Option<Arc<ClientConfig>>,
    /// The server, as its certificate names it.
    pub host: String,
}

impl TlsConnect<TcpStream> for Handshake {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        Box::pin(async move {
            let config = self.config.ok_or_else(|| io::Error::other("TLS is not set"))?;
            let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
            match TlsConnector::from(config).connect(name, stream).await {
                Ok(stream) => Ok(Encrypted(stream)),
                Err(error) => Err(said(error, &self.host)),
            }
        })
    }
}

/// The error in words, where it is one of the certificate.
fn said(error: io::Error, host: &str) -> io::Error {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(fault)) = cause else { return error };
    io::Error::other(format!("{CERTIFICATE} is refused: {}", advice(fault, host)))
}

fn advice(fault: &CertificateError, host: &str) -> String {
    match fault {
        // A bad signature is one of another authority of the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "none of the authorities in HUMIDOR_UPSTREAM_CA has signed it".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "it is not for `{host}`: write a name of the certificate into HUMIDOR_UPSTREAM, or make one whose subjectAltName has this one"
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("{fault}; renew it, or is this machine's clock wrong?")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("{fault}; is this machine's clock set?")
        }
        // rustls has no names for these.
        CertificateError::Other(other) => {
            let other = format!("{other:?}");
            let cause = if other.contains("CaUsedAsEndEntity") {
                "it is an authority's (CA:TRUE), as `openssl req -x509` makes it by default"
            } else if other.contains("UnsupportedCertVersion") {
                "it is of version 1, without the names of the server, as `openssl x509 -req` makes it without -extfile"
            } else {
                return other;
            };
            format!(
                "{cause}; make another one and restart PostgreSQL: {OPENSSL}; HUMIDOR_UPSTREAM_CA is then a copy of server.crt"
            )
        }
        other => other.to_string(),
    }
}

/// An encrypted connection.
pub struct Encrypted(tokio_rustls::client::TlsStream<TcpStream>);

impl TlsStream for Encrypted {
    /// The certificate is checked, which is what the binding would be for.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

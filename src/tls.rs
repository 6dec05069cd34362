//! Certificates and keys in PEM files, for both roles: rustls with ring, and every mistake said with its file.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, RootCertStore};
use tracing::warn;

use crate::bounded_file;

/// Largest file of certificates or of a key, in bytes.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system or the PEM reader said.
        cause: String,
    },
    /// The time of a certificate is over.
    #[error("{}: the certificate has expired ({cause}); renew it, or is this machine's clock wrong?", .path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// When.
        cause: Error,
    },
    /// A key belongs to another certificate.
    #[error("{} is not the key of the certificate in {}", .key.display(), .certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The system has no certificates of authorities.
    #[error(
        "this system has no certificates of authorities to check the broker's by; HUMIDOR_TLS_CA names the file of the one that signed it"
    )]
    NoRoots,
    /// A key that only its passphrase opens.
    #[error("{}: the key is encrypted with a passphrase, which nobody can type at a start; write it without: openssl pkey -in {} -out plain.key", .path.display(), .path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// What else rustls says.
    #[error("{0}")]
    Rustls(#[from] Error),
}

/// The cryptography: ring, and nothing else in the binary.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn file(path: &Path, cause: impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), cause: cause.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    bounded_file::read(path, FILE_MAX_BYTES).map_err(|error| file(path, error))
}

/// All certificates in a file, the first of a chain first.
///
/// # Errors
/// When there is none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err(file(path, "no certificate in PEM form")),
        Ok(found) => Ok(found),
        Err(error) => Err(file(path, error)),
    }
}

/// Who signs certificates that are believed: those in `path`, or the system's.
///
/// # Errors
/// When there are none.
pub fn roots(path: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = path {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| file(path, error))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
    }
    Ok(roots)
}

/// Whether a file is a secret that an orchestrator has mounted: in a file system in memory that cannot be written to. Docker
/// and Kubernetes give such files mode 0444 and 0644, and the container that has the mount is all that sees them.
fn is_secret_mount(path: &Path) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994; // linux/magic.h
    let kind = rustix::fs::statfs(path).map(|fs| u64::try_from(fs.f_type));
    kind == Ok(Ok(TMPFS_MAGIC))
        && rustix::fs::statvfs(path)
            .is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// A certificate chain with its key, which fit each other and are not out of date at `now`.
///
/// # Errors
/// Which file is wrong, and why.
pub fn identity(
    certificate: &Path,
    key: &Path,
    now: UnixTime,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(certificate)?;
    let pem = read(key)?;
    if is_encrypted(&pem) {
        return Err(TlsError::Encrypted { path: key.to_owned() });
    }
    let secret = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        pem::Error::NoItemsFound => file(key, "no private key in PEM form"),
        error => file(key, error),
    })?;
    let mode = key.metadata().map_err(|error| file(key, error))?.permissions().mode();
    if mode & 0o004 != 0 && !is_secret_mount(key) {
        let cause = "every user of this machine can read this private key; run chmod 640, and give the file a group that \
                     the broker or node is in (Docker: uid \"65532\" and mode 0400 in the secret's long form; Kubernetes: \
                     defaultMode 0440 and fsGroup)";
        return Err(file(key, cause));
    }
    let first = chain.first().ok_or_else(|| file(certificate, "no certificate in PEM form"))?;
    let parsed = ParsedCertificate::try_from(first).map_err(|error| file(certificate, error))?;
    check_dates(certificate, &parsed, now)?;
    match CertifiedKey::from_der(chain, secret, &provider()) {
        Ok(identity) => Ok(Arc::new(identity)),
        Err(Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() })
        }
        Err(error) => Err(file(key, error)),
    }
}

/// Whether a PEM file has an encrypted key, in PKCS #8 (RFC 7468, 11) or in OpenSSL's older form (RFC 1421, 4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    let has = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// How to make a certificate that its own broker can show, and that its boards can trust.
const SELF_SIGNED: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 -subj /CN=broker -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:NAME,IP:ADDRESS -keyout broker.key -out broker.pem";

/// What is wrong with the other side's certificate, in words; `None` where rustls says it well.
#[must_use]
pub fn certificate_fault(error: &Error) -> Option<String> {
    match error {
        Error::InvalidCertificate(error) if is_authority(error) => Some(format!(
            "the other side's certificate is an authority's (CA:TRUE), which is not taken for a server's or a client's; make another one: {SELF_SIGNED}"
        )),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => Some(format!(
            "{error}: none of the authorities in HUMIDOR_TLS_CA has signed the broker's certificate"
        )),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some(format!(
            "{error}: write the name or address of the certificate into HUMIDOR_BROKER, or make a certificate whose subjectAltName has this one"
        )),
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => Some(format!("{error}: is this machine's clock set?")),
        _ => None,
    }
}

/// Whether the fault of a certificate is that it is an authority's. rustls has no name for it.
fn is_authority(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

/// Asks who signed it of nobody at all: the dates are looked at before that.
fn check_dates(
    path: &Path,
    certificate: &ParsedCertificate<'_>,
    now: UnixTime,
) -> Result<(), TlsError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms.all;
    let nobody = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(certificate, &nobody, &[], now, algorithms) {
        Err(
            cause @ Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ),
        ) => Err(TlsError::Expired { path: path.to_owned(), cause }),
        Err(
            cause @ Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ),
        ) => {
            // A board without a battery starts in the past, and its clock is set later.
            warn!(file = %path.display(), "not valid yet ({cause}); is the clock set?");
            Ok(())
        }
        Err(Error::InvalidCertificate(error)) if is_authority(&error) => {
            warn!(
                file = %path.display(),
                "the certificate is an authority's (CA:TRUE): humidor's boards and many other clients refuse it; make another one: {SELF_SIGNED}"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

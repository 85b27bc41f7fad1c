//! The certificate and key, read again at each reload.
//!
//! Invariant: a certificate that cannot be used is an error; nothing falls back to plain HTTP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::config::Tls;

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("[ssl] {key}: {path}: {problem}")]
    File {
        /// The setting that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not fit together, or are of a kind that is not supported.
    #[error("[ssl] certfile and keyfile do not work together: {0}")]
    Unusable(#[from] rustls::Error),
}

/// An acceptor for TLS 1.2 and 1.3 with the certificate and key that `tls` names.
///
/// # Errors
/// When they cannot be read or used.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor, TlsError> {
    let problem = |key, path: &Path, problem: &dyn std::fmt::Display| TlsError::File {
        key,
        path: path.to_owned(),
        problem: problem.to_string(),
    };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&tls.certfile)
        .and_then(Iterator::collect)
        .map_err(|error: pem::Error| problem("certfile", &tls.certfile, &error))?;
    if certificates.is_empty() {
        return Err(problem("certfile", &tls.certfile, &"holds no certificate in PEM form"));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.keyfile)
        .map_err(|error| problem("keyfile", &tls.keyfile, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

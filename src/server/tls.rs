//! The certificate, which may change while the server runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject as _;

use crate::config;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not PEM, or holds nothing of the kind.
    #[error("reading {file}")]
    Pem {
        /// Which.
        file: String,
        /// What is wrong.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key can't be used.
    #[error("using the certificate in {file}")]
    Certificate {
        /// Which.
        file: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// The certificate in use. Connections that are open keep theirs.
#[derive(Debug)]
pub struct Certificates(ArcSwap<ServerConfig>);

impl Certificates {
    /// Uses this one.
    ///
    /// # Errors
    ///
    /// What can't be read, or does not belong together.
    pub fn new(tls: &config::Tls) -> Result<Self, Error> {
        Ok(Self(ArcSwap::from_pointee(server(tls)?)))
    }

    /// Uses another one from now on.
    ///
    /// # Errors
    ///
    /// What can't be read, or does not belong together; the old one stays.
    pub fn reload(&self, tls: &config::Tls) -> Result<(), Error> {
        self.0.store(Arc::new(server(tls)?));
        Ok(())
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

fn server(tls: &config::Tls) -> Result<ServerConfig, Error> {
    let name = |file: &config::Contents| file.path.display().to_string();
    let certificate = |source| Error::Certificate { file: name(&tls.certificate), source };
    let chain = CertificateDer::pem_slice_iter(&tls.certificate.bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| Error::Pem { file: name(&tls.certificate), source })?;
    let key =
        PrivateKeyDer::from_pem_slice(&tls.key.bytes).map_err(|source| Error::Pem { file: name(&tls.key), source })?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(certificate)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(certificate)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}

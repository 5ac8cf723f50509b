//! Whom we trust.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The authorities that servers are checked against. Cheap to clone; loading the machine's takes some milliseconds, so
/// it is done once.
#[derive(Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

/// Certificates could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no PEM of certificates.
    #[error("reading certificates")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// There is none in it.
    #[error("there is no certificate in it")]
    Empty,
    /// One of them can't be an authority.
    #[error("trusting a certificate")]
    Certificate(#[source] rustls::Error),
}

impl Trust {
    /// The machine's authorities; those of Mozilla where the machine has none, as in an image from scratch.
    pub fn load() -> Self {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::debug!(%error, "reading the machine's certificates");
        }
        // Machines carry certificates that can't be parsed; they trust nobody.
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Self::of(roots)
    }

    /// Nobody: for what speaks plain HTTP only, and as the base of what trusts one authority alone.
    pub fn nobody() -> Self {
        Self::of(RootCertStore::empty())
    }

    /// These authorities and those of a PEM file.
    pub fn with(&self, pem: &[u8]) -> Result<Self, Error> {
        let mut roots = RootCertStore::clone(&self.roots);
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(Error::Pem)?).map_err(Error::Certificate)?;
            count += 1;
        }
        if count == 0 { Err(Error::Empty) } else { Ok(Self::of(roots)) }
    }

    fn of(roots: RootCertStore) -> Self {
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks the default versions of TLS")
            .with_root_certificates(Arc::clone(&roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { roots, config: Arc::new(config) }
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trust({} authorities)", self.roots.len())
    }
}

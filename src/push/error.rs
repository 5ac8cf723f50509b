//! What can go wrong with a push, in words of the domain.

use crate::oci::Digest;
use crate::oci::manifest::ManifestError;
use crate::store;

/// A push or a removal that was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository comes from an upstream: nothing is pushed to it here.
    #[error("the repository takes no pushes")]
    NotHosted,
    /// The bytes are no manifest that can be kept.
    #[error("the manifest can't be used")]
    NotAManifest(#[source] ManifestError),
    /// The bytes are not those of the digest that they were pushed by.
    #[error("the bytes have the digest {got}")]
    WrongDigest {
        /// The digest that they have.
        got: Digest,
    },
    /// There is no such tag or manifest.
    #[error("the manifest is not known")]
    ManifestUnknown,
    /// The repository has no such blob.
    #[error("the blob is not known")]
    BlobUnknown,
    /// The store refused it, or failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

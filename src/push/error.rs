//! What can go wrong with a push, in words of the domain.

use crate::oci::Digest;
use crate::oci::manifest::ManifestError;
use crate::store;

use super::Progress;

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
    /// There is no such upload in this repository, or it is somebody else's.
    #[error("the upload is not known")]
    UploadUnknown,
    /// The bytes begin elsewhere than the upload has come to, or another request writes to it.
    #[error("the upload has come to {}", .0.received)]
    Offset(Progress),
    /// The blob is larger than the configuration allows. The upload is over.
    #[error("the blob is larger than {limit} bytes")]
    TooLarge {
        /// The most bytes.
        limit: u64,
    },
    /// The principal has as many uploads open as the configuration allows.
    #[error("{limit} uploads are open already")]
    TooManyUploads {
        /// How many that are.
        limit: u32,
    },
    /// The machine gave no random bytes.
    #[error("no random bytes are to be had")]
    Random,
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

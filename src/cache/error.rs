//! What can go wrong with a pull, in words of the domain; what a client may learn of it is decided in `api`.

use std::sync::Arc;
use std::time::Duration;

use crate::oci::Digest;
use crate::repository;
use crate::store;
use crate::upstream;

/// A pull that could not be answered. Cheap to clone: everybody who waited for one request gets its error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The repository's upstream says that there is no such manifest, and so does the store.
    #[error("the manifest is not known")]
    ManifestUnknown,
    /// The hosted repository holds nothing.
    #[error("the repository is not known")]
    RepositoryUnknown,
    /// The repository has no such blob.
    #[error("the blob is not known")]
    BlobUnknown,
    /// The upstream has no list of referrers.
    #[error("the upstream has no referrers API")]
    NoReferrers,
    /// The repository is not to be pulled through larder.
    #[error(transparent)]
    Refused(Arc<repository::Refused>),
    /// The upstream could not be asked, or its answer was of no use.
    #[error("asking the upstream")]
    Upstream(#[source] Arc<upstream::Error>),
    /// The bytes that came are not those of the digest.
    #[error("the upstream sent bytes whose digest is not {wanted}")]
    WrongBytes {
        /// The digest that was asked for.
        wanted: Digest,
    },
    /// What came is not a manifest.
    #[error("the upstream's answer is not a manifest that can be used")]
    NotAManifest(#[source] Arc<crate::oci::manifest::ManifestError>),
    /// The upstream names another size than the manifest does, or sends more than that.
    #[error("the upstream sends {got} bytes of a blob of {wanted}")]
    WrongSize {
        /// What the manifest says, or the first answer.
        wanted: u64,
        /// What came.
        got: u64,
    },
    /// The blob is larger than the configuration allows.
    #[error("the blob of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// The blob's size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The transfer broke, and no more tries are left.
    #[error("the transfer from the upstream broke off")]
    BrokenOff(#[source] Option<Arc<upstream::Error>>),
    /// The range lies outside of the blob.
    #[error("the range lies outside of the {size} bytes")]
    Unsatisfiable {
        /// The blob's size.
        size: u64,
    },
    /// As many fills run as the configuration allows.
    #[error("too many transfers are under way")]
    Busy,
    /// The store could not answer.
    #[error(transparent)]
    Store(Arc<store::Error>),
    /// The request that this one waited for ended without an answer.
    #[error(transparent)]
    Lost(#[from] super::flight::Lost),
}

impl Error {
    /// Whether the upstream was not to be had, so that a held copy may be served in its stead (design: the status
    /// contract). Its own "no" (404, 403) is an answer; wrong or unusable bytes are none.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Upstream(error) => error.is_unavailable(),
            Self::WrongBytes { .. }
            | Self::NotAManifest(_)
            | Self::WrongSize { .. }
            | Self::BrokenOff(_)
            | Self::Busy
            | Self::Lost(_) => true,
            Self::ManifestUnknown
            | Self::RepositoryUnknown
            | Self::BlobUnknown
            | Self::NoReferrers
            | Self::Refused(_)
            | Self::TooLarge { .. }
            | Self::Unsatisfiable { .. }
            | Self::Store(_) => false,
        }
    }

    /// Whether the upstream was asked at all: while its circuit is open it is not.
    pub fn was_asked(&self) -> bool {
        match self {
            Self::Upstream(error) => error.was_asked(),
            _ => true,
        }
    }

    /// When to ask again, where the upstream said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Upstream(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl From<upstream::Error> for Error {
    fn from(error: upstream::Error) -> Self {
        Self::Upstream(Arc::new(error))
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<repository::Refused> for Error {
    fn from(refused: repository::Refused) -> Self {
        Self::Refused(Arc::new(refused))
    }
}

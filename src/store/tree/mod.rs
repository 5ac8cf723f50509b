//! The object tree: bytes and records, the truth of the store.

pub(crate) mod filesystem;
pub mod records;

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::body::FileRange;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::spool::Verified;

pub use records::Kind;
pub use records::LinkRecord;
pub use records::Origin;
pub use records::TagRecord;

/// Why the tree can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("{doing}")]
    Io {
        /// What was being done to what.
        doing: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A record is not what was written.
    #[error("the record is damaged")]
    Record(#[from] records::RecordError),
}

/// The result of an operation of the tree.
pub type Result<T> = std::result::Result<T, Error>;

/// Names stored bytes: a digest, and which storing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobKey {
    /// The digest.
    pub digest: Digest,
    /// Counts up when bytes are stored anew while the old ones are being removed.
    pub generation: u32,
}

/// Stored bytes that were opened.
#[derive(Clone, Debug)]
pub enum Opened {
    /// In a file.
    File(FileRange),
}

/// Names a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordPath {
    /// A repository's link to bytes.
    Link(RepositoryKey, Digest),
    /// A tag.
    Tag(RepositoryKey, Tag),
    /// Something else that must survive: its kind and what it is called, both words of ours.
    State(&'static str, &'static str),
}

impl RecordPath {
    /// The path of a repository's link.
    pub fn link(of: &RepositoryKey, digest: &Digest) -> Self {
        Self::Link(of.clone(), *digest)
    }

    /// The path of a tag.
    pub fn tag(of: &RepositoryKey, tag: &Tag) -> Self {
        Self::Tag(of.clone(), tag.clone())
    }
}

/// The contract of a tree.
#[async_trait]
pub trait Tree: Debug + Send + Sync {
    /// Opens stored bytes.
    async fn open(&self, key: &BlobKey) -> Result<Option<Opened>>;
    /// Makes verified bytes visible: all of them, durably, or nothing.
    async fn publish(&self, key: &BlobKey, blob: Verified) -> Result<Opened>;
    /// Removes bytes; removing the absent is success.
    async fn remove(&self, key: &BlobKey) -> Result<()>;
    /// All stored bytes with their sizes.
    fn blobs(&self) -> BoxStream<'_, Result<(BlobKey, u64)>>;
    /// Reads a record.
    async fn record(&self, path: &RecordPath) -> Result<Option<Bytes>>;
    /// Writes a record, durably.
    async fn put_record(&self, path: &RecordPath, record: Bytes) -> Result<()>;
    /// Removes a record, durably; removing the absent is success.
    async fn remove_record(&self, path: &RecordPath) -> Result<()>;
    /// All records of repositories.
    fn records(&self) -> BoxStream<'_, Result<RecordPath>>;
}

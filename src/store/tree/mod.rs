//! The object tree: bytes and records, the truth of the store.

pub(crate) mod filesystem;
#[cfg(test)]
pub(crate) mod memory;
mod paths;
pub mod records;
mod walk;

use std::fmt;
use std::fmt::Debug;
use std::str::FromStr;

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
pub use records::Standing;
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
    #[error("the record {record} is damaged")]
    Damaged {
        /// Its path, from the store's folder.
        record: String,
        /// What is wrong with it.
        #[source]
        source: records::RecordError,
    },
    /// A record is of a format that only a newer version knows. It is neither read nor written over.
    #[error(
        "the record {record} was written by a newer version of larder (format {version}), which this one can't read"
    )]
    Newer {
        /// Its path, from the store's folder.
        record: String,
        /// The format.
        version: u32,
    },
    /// A record can't be written as one.
    #[error("a record could not be encoded")]
    Record(#[from] records::RecordError),
    /// A record can't be called so.
    #[error("{0:?} is no name of a record: 1 to 200 of a-z, 0-9, '.', '_' and '-', no '.' first")]
    Name(String),
}

impl Error {
    /// The error of a record that can't be read.
    pub(in crate::store) fn of_record(path: &RecordPath, source: records::RecordError) -> Self {
        let record = path.to_string();
        match source {
            records::RecordError::Newer { version } => Self::Newer { record, version },
            source => Self::Damaged { record, source },
        }
    }
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
    /// Something else that must survive: its kind, a word of ours, and what it is called.
    State(&'static str, StateId),
}

/// What a record is called that is no repository's: 1 to 200 of `a-z`, `0-9`, `.`, `_` and `-`, with no `.` first. So it is
/// one file's name, whatever file system holds it. What has other names is hashed or written in hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(String);

/// The longest [`StateId`].
const STATE_ID_MAX: usize = 200;

impl StateId {
    /// What it is called.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StateId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let fits = (1..=STATE_ID_MAX).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_letter);
        if fits { Ok(Self(text.to_owned())) } else { Err(Error::Name(text.to_owned())) }
    }
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

    /// The path of something that is no repository's. [`Error::Name`] where it can't be called so.
    pub fn state(kind: &'static str, id: &str) -> Result<Self> {
        Ok(Self::State(kind, id.parse()?))
    }
}

/// Where it is, from the store's folder.
impl fmt::Display for RecordPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&paths::of_record(self))
    }
}

/// The contract of a tree.
///
/// What was written is durable on return, unless the store is relaxed, and is seen as a whole or not at all. Absence is
/// `Ok(None)` and said only where it is certain; a fault is an error. Each call may be repeated after an unknown outcome.
#[async_trait]
pub trait Tree: Debug + Send + Sync {
    /// Opens stored bytes.
    async fn open(&self, key: &BlobKey) -> Result<Option<Opened>>;
    /// Makes verified bytes visible: all of them, durably, or nothing. Over bytes of the same key it is a repair: who has
    /// those open goes on reading them.
    async fn publish(&self, key: &BlobKey, blob: Verified) -> Result<Opened>;
    /// Removes bytes, durably; removing the absent is success. Who has them open goes on reading them.
    async fn remove(&self, keys: &[BlobKey]) -> Result<()>;
    /// All stored bytes with their sizes, in no order. An error in between means that they are not all there is.
    fn blobs(&self) -> BoxStream<'_, Result<(BlobKey, u64)>>;
    /// Reads a record.
    async fn record(&self, path: &RecordPath) -> Result<Option<Bytes>>;
    /// Writes a record, durably.
    async fn put_record(&self, path: &RecordPath, record: Bytes) -> Result<()>;
    /// Writes a record that need not survive a power cut: the end of the process alone.
    async fn note_record(&self, path: &RecordPath, record: Bytes) -> Result<()>;
    /// Removes records in this order, all of them durably on return; removing the absent is success. After a power cut
    /// before that, any of them may be gone.
    async fn remove_records(&self, paths: &[RecordPath]) -> Result<()>;
    /// Removes a record that may be there again after a power cut; removing the absent is success.
    async fn forget_record(&self, path: &RecordPath) -> Result<()>;
    /// All records of repositories, in no order. An error in between means that they are not all there is.
    fn records(&self) -> BoxStream<'_, Result<RecordPath>>;
    /// The names of all records of a kind that are no repository's, in no order. An error in between means that they are
    /// not all there is.
    fn states(&self, kind: &'static str) -> BoxStream<'_, Result<StateId>>;
}

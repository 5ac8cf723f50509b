//! What can go wrong when bytes and facts are kept or looked up.

use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::index;
use super::tree;

/// Why the store can't answer. Absence is never an error: it is `Ok(None)`, and said only when it is established.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reserve of the file system is reached: no bytes and no records are taken until there is room again.
    #[error("the store is full")]
    Full(#[source] Option<tree::Error>),
    /// The file system takes no writes.
    #[error("the store is read-only")]
    ReadOnly(#[source] Option<tree::Error>),
    /// The index is being rebuilt, and this can't be told from the tree by name.
    #[error("the index is being rebuilt")]
    Incomplete,
    /// The bytes are not what they were, and there is no upstream to fetch them from again.
    #[error("the stored bytes of {digest} are damaged")]
    Damaged {
        /// What they should be.
        digest: Digest,
    },
    /// The repository was to name bytes that are not here.
    #[error("the bytes of {digest} are not here")]
    Missing {
        /// Their digest.
        digest: Digest,
    },
    /// The tag was pushed here: what an upstream says never overwrites it.
    #[error("{of}:{tag} was pushed here and is not taken from an upstream")]
    Pushed {
        /// The repository.
        of: RepositoryKey,
        /// The tag.
        tag: Tag,
    },
    /// The tree could not be read or written.
    #[error("the object tree failed")]
    Tree(#[source] tree::Error),
    /// The index could not be read or written.
    #[error("the index failed")]
    Index(#[source] index::Error),
    /// Bytes could not be staged or read.
    #[error("bytes could not be staged or read")]
    Bytes(#[source] std::io::Error),
    /// Work was given up because larder stops.
    #[error("the store is being closed")]
    Closed,
}

impl From<index::Error> for Error {
    fn from(error: index::Error) -> Self {
        match error {
            index::Error::Full(_) => Self::Full(None),
            index::Error::Closed => Self::Closed,
            other => Self::Index(other),
        }
    }
}

impl From<tree::Error> for Error {
    fn from(error: tree::Error) -> Self {
        use std::io::ErrorKind;
        match &error {
            tree::Error::Io { source, .. } => match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full(Some(error)),
                ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(Some(error)),
                _ => Self::Tree(error),
            },
            tree::Error::Record(_) => Self::Tree(error),
        }
    }
}

impl From<tree::records::RecordError> for Error {
    fn from(error: tree::records::RecordError) -> Self {
        Self::Tree(error.into())
    }
}

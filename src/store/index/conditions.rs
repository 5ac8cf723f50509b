//! What ails an index.

use std::sync::Arc;

/// Why the index can't answer or be written. What one transaction meets is told to every caller that shares it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The file system has no room for it.
    #[error("no room to write the index")]
    Full(#[source] Arc<redb::Error>),
    /// The file system takes no writes, or none of ours.
    #[error("the index can't be written")]
    ReadOnly(#[source] Arc<redb::Error>),
    /// A row or page is not what was written.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    /// It is being opened anew after a fault.
    #[error("the index is being opened anew")]
    Reopening,
    /// The file could not be read or written.
    #[error("the index could not be read or written")]
    Storage(#[source] Arc<redb::Error>),
    /// A row could not be written as JSON.
    #[error("a row of the index could not be encoded")]
    Encoding(#[source] Arc<serde_json::Error>),
    /// Rows of a rebuild were lost with a fault before they were on disk: it must begin again.
    #[error("rows of the index were lost while it was made anew")]
    Lost,
    /// The writer has ended.
    #[error("the index is closed")]
    Closed,
}

impl Error {
    /// Whether only a rebuild helps.
    pub(in crate::store) fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

impl From<redb::Error> for Error {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(what) => Self::Damaged(what),
            // A page that lies outside of the file, and what redb can't read at all, is no fault of the disk.
            redb::Error::Io(ref io)
                if matches!(
                    io.kind(),
                    std::io::ErrorKind::UnexpectedEof
                        | std::io::ErrorKind::InvalidData
                        | std::io::ErrorKind::InvalidInput
                ) =>
            {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(ref io)
                if matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) =>
            {
                Self::Full(Arc::new(error))
            }
            redb::Error::Io(ref io)
                if matches!(
                    io.kind(),
                    std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied
                ) =>
            {
                Self::ReadOnly(Arc::new(error))
            }
            // Types of tables that are not ours: another program's file, or one of another version.
            redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableIsNotMultimap(_)
            | redb::Error::LockPoisoned(_) => Self::Damaged(error.to_string()),
            other => Self::Storage(Arc::new(other)),
        }
    }
}

/// How the index fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It works.
    Well,
    /// It is being opened anew; the tree answers meanwhile.
    Reopening,
    /// It can't be relied on: it must be rebuilt.
    Damaged,
}

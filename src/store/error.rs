//! What can go wrong when bytes and facts are kept or looked up.

use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::index;
use super::spool;
use super::tree;

/// Why the store can't answer. Absence is never an error: it is `Ok(None)`, and said only when it is established.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reserve of the file system is reached: no bytes and no records are taken until there is room again.
    #[error("the store is full")]
    Full(#[source] Option<Source>),
    /// The file system takes no writes.
    #[error("the store is read-only")]
    ReadOnly(#[source] Option<Source>),
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
    /// The repository lacks what a manifest names.
    #[error("the repository has no {digest}")]
    Unlinked {
        /// What it lacks.
        digest: Digest,
    },
    /// The tag may not be moved or removed.
    #[error("the tag {tag} is immutable")]
    Fixed {
        /// The tag.
        tag: Tag,
    },
    /// A manifest of the repository names what was to be removed.
    #[error("the manifest {by} names it")]
    Named {
        /// What names it.
        by: Digest,
    },
    /// A tag means what was to be removed.
    #[error("the tag {tag} means it")]
    Tagged {
        /// The tag.
        tag: Tag,
    },
    /// Others changed it again and again meanwhile.
    #[error("it is changed by others at the same time")]
    Contended,
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
    #[error("bytes could not be staged")]
    Spool(#[source] spool::Error),
    /// The file system could not be looked at, or the folder not be locked.
    #[error("{doing}")]
    Folder {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the folder.
    #[error("{} has the store in {}", holder.map_or("another process".to_owned(), |pid| format!("process {pid}")), folder.display())]
    InUse {
        /// The folder.
        folder: std::path::PathBuf,
        /// The process, where the kernel says so.
        holder: Option<u32>,
    },
    /// The folder is of a format that this version does not know.
    #[error("{} is of a format that this version does not know: {format}", folder.display())]
    Format {
        /// The folder.
        folder: std::path::PathBuf,
        /// What it says of itself.
        format: String,
    },
    /// Work was given up because larder stops.
    #[error("the store is being closed")]
    Closed,
}

/// What showed that there is no room.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// Whether the error says that there is no room, or that the file system takes no writes.
fn of_room(kind: std::io::ErrorKind) -> Option<fn(Option<Source>) -> Error> {
    use std::io::ErrorKind;
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Some(Error::Full),
        // What may not be written by its mode or flags (`chattr +i`) is read-only to us; a read that is not allowed is a fault
        // that may pass, and never an absence.
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Some(Error::ReadOnly),
        _ => None,
    }
}

impl From<spool::Error> for Error {
    fn from(error: spool::Error) -> Self {
        match of_room(error.source.kind()) {
            Some(room) => room(Some(error.into())),
            None => Self::Spool(error),
        }
    }
}

impl Error {
    /// Whether it says that nothing can be written now.
    pub(super) fn is_of_room(&self) -> bool {
        matches!(self, Self::Full(_) | Self::ReadOnly(_))
    }

    /// Whether a record of the tree is not what was written.
    pub fn is_damaged_record(&self) -> bool {
        matches!(self, Self::Tree(tree::Error::Damaged { .. }))
    }

    /// A fault of the folder itself.
    pub(super) fn folder(doing: &str, source: std::io::Error) -> Self {
        match of_room(source.kind()) {
            Some(room) => room(Some(source.into())),
            None => Self::Folder { doing: doing.to_owned(), source },
        }
    }
}

impl From<index::Error> for Error {
    fn from(error: index::Error) -> Self {
        match error {
            index::Error::Full(source) => Self::Full(Some(Box::new(source))),
            index::Error::ReadOnly(source) => Self::ReadOnly(Some(Box::new(source))),
            index::Error::Closed => Self::Closed,
            other => Self::Index(other),
        }
    }
}

impl From<tree::Error> for Error {
    fn from(error: tree::Error) -> Self {
        let room = match &error {
            tree::Error::Io { source, .. } => of_room(source.kind()),
            tree::Error::Damaged { .. } | tree::Error::Newer { .. } | tree::Error::Record(_) | tree::Error::Name(_) => {
                None
            }
        };
        match room {
            Some(room) => room(Some(error.into())),
            None => Self::Tree(error),
        }
    }
}

impl From<tree::records::RecordError> for Error {
    fn from(error: tree::records::RecordError) -> Self {
        Self::Tree(error.into())
    }
}

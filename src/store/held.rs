//! What lookups give: tags with their last validation, and bytes that are held.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::body::Content;
use crate::body::FileRange;
use crate::clock::Timestamp;
use crate::oci::Class;
use crate::oci::Manifest;

use super::Kind;
use super::Result;
use super::tree::LinkRecord;
use super::tree::TagRecord;
use super::truth;

/// A tag as it is known here. It is shared: a validation shows in every copy at once.
#[derive(Debug)]
pub struct TagState {
    /// What the tree has of it.
    pub record: TagRecord,
    validated: AtomicU64,
}

impl TagState {
    /// The tag with the time of its last validation.
    pub fn new(record: TagRecord, validated_at: Timestamp) -> Self {
        Self { record, validated: AtomicU64::new(validated_at.0) }
    }

    /// When the upstream last said that the tag is what the record says; for a pushed tag, when it was pushed.
    pub fn validated_at(&self) -> Timestamp {
        Timestamp(self.validated.load(Ordering::Relaxed))
    }

    pub(super) fn validate(&self, at: Timestamp) {
        self.validated.fetch_max(at.0, Ordering::Relaxed);
    }
}

/// What a file looks like from outside. Its time of change can't be set back by a program: the same stamp means the same
/// bytes, as far as the file system knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// The file's now.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn of(file: &File) -> io::Result<Self> {
        let seen = file.metadata()?;
        Ok(Self { inode: seen.ino(), size: seen.size(), changed: (seen.ctime(), seen.ctime_nsec()) })
    }
}

/// Bytes of a blob or manifest that a repository names.
#[derive(Clone, Debug)]
pub struct Held {
    /// The repository's record of it: size, kind, media type, origin.
    pub link: LinkRecord,
    /// The bytes.
    pub bytes: HeldBytes,
}

/// Where held bytes are.
#[derive(Clone, Debug)]
pub enum HeldBytes {
    /// In memory: manifests.
    Memory(Bytes),
    /// In an open file: blobs. The descriptor outlives an eviction: unlinking a file leaves its readers alone.
    File {
        /// All of it.
        range: FileRange,
        /// What it looked like when it was opened, and still did when it was looked up.
        stamp: Stamp,
    },
}

impl Held {
    /// What a manifest is; none for a blob, and for bytes that are none.
    pub fn class(&self) -> Option<Class> {
        let Kind::Manifest { media_type, artifact_type, .. } = &self.link.kind else { return None };
        // Only an index has to be read for it.
        let single = Class::of_single(media_type, artifact_type.as_deref());
        single.or_else(|| Some(Manifest::parse(self.manifest()?.clone(), media_type.as_str()).ok()?.class()))
    }

    /// The bytes from `start` on, `length` of them, cut to what is there.
    pub fn content(&self, start: u64, length: u64) -> Content {
        match &self.bytes {
            HeldBytes::Memory(bytes) => {
                let count = bytes.len();
                let start = usize::try_from(start).unwrap_or(count).min(count);
                let end = usize::try_from(length).map_or(count, |length| start.saturating_add(length)).min(count);
                Content::Bytes(bytes.slice(start..end))
            }
            HeldBytes::File { range, .. } => Content::File(range.slice(start, length)),
        }
    }

    /// Whether the file looks as it did: one that was cut under us would break every transfer of it, one that was
    /// written to has other bytes.
    pub(super) fn is_unchanged(&self) -> bool {
        match &self.bytes {
            HeldBytes::Memory(_) => true,
            HeldBytes::File { range, stamp } => Stamp::of(&range.file).is_ok_and(|now| now == *stamp),
        }
    }

    /// All of the bytes.
    pub fn whole(&self) -> Content {
        self.content(0, u64::MAX)
    }

    /// All of the bytes in memory: for documents, whose size the caller has looked at.
    ///
    /// # Errors
    ///
    /// The file can't be read.
    pub async fn read(&self) -> Result<Bytes> {
        match &self.bytes {
            HeldBytes::Memory(bytes) => Ok(bytes.clone()),
            HeldBytes::File { range, .. } => truth::read(range.clone()).await,
        }
    }

    /// The bytes of a manifest, which are always in memory.
    pub fn manifest(&self) -> Option<&Bytes> {
        match &self.bytes {
            HeldBytes::Memory(bytes) => Some(bytes),
            HeldBytes::File { .. } => None,
        }
    }
}

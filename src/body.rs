//! Content: what every layer passes along, and what may be sent without a copy.

use std::fmt;
use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;

/// A stream of bytes that may break off; an item that is an error means that the transfer must be broken, never ended cleanly.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A part of an open file that never changes: published blobs don't.
#[derive(Clone)]
pub struct FileRange {
    /// The open file.
    pub file: Arc<File>,
    /// The first byte.
    pub offset: u64,
    /// The count of bytes.
    pub length: u64,
}

impl FileRange {
    /// The part of it that begins `start` bytes in and has `length` bytes, cut to what is there.
    #[must_use]
    pub fn slice(&self, start: u64, length: u64) -> Self {
        let start = start.min(self.length);
        Self { file: Arc::clone(&self.file), offset: self.offset + start, length: length.min(self.length - start) }
    }
}

impl fmt::Debug for FileRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileRange({} bytes from {})", self.length, self.offset)
    }
}

/// Bytes to be sent.
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In a file.
    File(FileRange),
    /// As they come; the length where it is known.
    Stream {
        /// The bytes.
        bytes: ByteStream,
        /// Their count, where it is known.
        length: Option<u64>,
    },
}

impl Content {
    /// The count of bytes, where it is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File(range) => Some(range.length),
            Self::Stream { length, .. } => *length,
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::File(range) => range.fmt(f),
            Self::Stream { length, .. } => write!(f, "Stream({length:?})"),
        }
    }
}

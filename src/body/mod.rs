//! Content: what every layer passes along, and what may be sent without a copy.

mod file;
mod outlet;

use std::fmt;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;

pub use file::CHUNK_BYTES;
pub use file::FileRange;
pub use file::Reading;
pub use outlet::Outlet;
pub use outlet::PIECE_BYTES;
pub use outlet::Tally;
pub use outlet::Turn;

/// A stream of bytes that may break off; an item that is an error means that the transfer must be broken, never ended cleanly.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Bytes that come one part after the other.
pub trait Parts: Send + 'static {
    /// The next part; `None` at the end. After an error nothing is asked any more.
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
}

/// The parts as a stream, which an error ends.
pub fn stream<P: Parts>(parts: P) -> ByteStream {
    Box::pin(stream::unfold(Some(parts), |parts| async move {
        let mut parts = parts?;
        match parts.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(parts))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }))
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

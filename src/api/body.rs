//! The body of an answer: [`Content`] as hyper takes it, and its account.
//!
//! Files are read in chunks of 64 KiB, allocated for each poll and not for each connection: a thousand slow readers
//! cost nothing while they wait. What is in the page cache is read on the spot; what is not, on the blocking pool, so
//! that a slow disk never holds up the other requests of this thread.

use std::fs::File;
use std::future::Future as _;
use std::io;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use http_body::Frame;
use http_body::SizeHint;
use rustix::io::Errno;
use rustix::io::ReadWriteFlags;
use tokio::task::JoinHandle;

use crate::body::ByteStream;
use crate::body::Content;
use crate::body::FileRange;

use super::account::Account;

/// Bytes read from a file at a time. 4 KiB would cost seven times the processor time a byte, 1 MiB brings nothing and
/// costs that much memory for each slow reader.
const CHUNK_BYTES: usize = 64 << 10;

/// The body of an answer.
#[derive(Debug)]
pub struct Body {
    content: Inner,
    account: Option<Box<Account>>,
}

enum Inner {
    Bytes(Bytes),
    File(Reading),
    Stream { bytes: ByteStream, left: Option<u64> },
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::File(reading) => reading.range.fmt(f),
            Self::Stream { left, .. } => write!(f, "Stream({left:?})"),
        }
    }
}

/// A file being sent: what is left of it, and the read that is under way where the disk is asked.
struct Reading {
    range: FileRange,
    read: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::from(Bytes::new())
    }

    /// Counts what is sent, and closes the account when the body is done with or dropped.
    #[must_use]
    pub(super) fn accounted(mut self, account: Account) -> Self {
        self.account = Some(Box::new(account));
        self
    }

    /// The count of bytes to come, where it is known.
    pub fn length(&self) -> Option<u64> {
        match &self.content {
            Inner::Bytes(bytes) => Some(bytes.len() as u64),
            Inner::File(reading) => Some(reading.range.length),
            Inner::Stream { left, .. } => *left,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { content: Inner::Bytes(bytes), account: None }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl From<Content> for Body {
    fn from(content: Content) -> Self {
        let content = match content {
            Content::Bytes(bytes) => Inner::Bytes(bytes),
            Content::File(range) => Inner::File(Reading { range, read: None }),
            Content::Stream { bytes, length } => Inner::Stream { bytes, left: length },
        };
        Self { content, account: None }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let next = ready!(this.content.poll_next(cx));
        if let Some(account) = &mut this.account {
            match &next {
                Some(Ok(bytes)) => account.sent(bytes.len() as u64),
                Some(Err(error)) => account.broken(error),
                None => account.whole(),
            }
            // hyper does not ask again where the length says that this was all.
            if matches!(next, Some(Ok(_))) && this.content.is_done() {
                account.whole();
            }
        }
        Poll::Ready(next.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Inner {
    fn is_done(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::File(reading) => reading.range.length == 0,
            Self::Stream { left, .. } => *left == Some(0),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.is_done() {
            return Poll::Ready(None);
        }
        match self {
            Self::Bytes(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::File(reading) => reading.poll_next(cx).map(Some),
            Self::Stream { bytes, left } => {
                let next = ready!(bytes.as_mut().poll_next(cx));
                Poll::Ready(match (next, left) {
                    (Some(Ok(bytes)), Some(left)) => match left.checked_sub(bytes.len() as u64) {
                        Some(rest) => {
                            *left = rest;
                            Some(Ok(bytes))
                        }
                        None => Some(Err(io::Error::other("the body has more bytes than were announced"))),
                    },
                    // A body that ends early is broken off, never ended cleanly.
                    (None, Some(_)) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                    (next, _) => next,
                })
            }
        }
    }
}

impl Reading {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let result = match &mut self.read {
            Some(read) => {
                let result = ready!(Pin::new(read).poll(cx));
                self.read = None;
                result.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            None => match self.read_at_once() {
                Ok(Some(bytes)) => Ok(bytes),
                Ok(None) => {
                    let (file, offset, length) = (Arc::clone(&self.range.file), self.range.offset, self.next_length());
                    let read = self.read.insert(tokio::task::spawn_blocking(move || read(&file, offset, length)));
                    let result = ready!(Pin::new(read).poll(cx));
                    self.read = None;
                    result.unwrap_or_else(|error| Err(io::Error::other(error)))
                }
                Err(error) => Err(error),
            },
        };
        if let Ok(bytes) = &result {
            let count = bytes.len() as u64;
            self.range.offset += count;
            self.range.length = self.range.length.saturating_sub(count);
        }
        Poll::Ready(result)
    }

    fn next_length(&self) -> usize {
        usize::try_from(self.range.length).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)
    }

    /// Reads what the page cache has; `None` where the disk would have to be waited for.
    fn read_at_once(&self) -> io::Result<Option<Bytes>> {
        let mut buffer = vec![0; self.next_length()];
        let slices = &mut [IoSliceMut::new(&mut buffer)];
        match rustix::io::preadv2(&*self.range.file, slices, self.range.offset, ReadWriteFlags::NOWAIT) {
            // The file is shorter than it was: damaged, so the transfer breaks.
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer.truncate(count);
                Ok(Some(Bytes::from(buffer)))
            }
            // Not in the page cache; or a file system that can't tell.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn read(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, offset)?;
    Ok(Bytes::from(buffer))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    fn file_of(bytes: &[u8]) -> FileRange {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        FileRange { file: Arc::new(file), offset: 0, length: bytes.len() as u64 }
    }

    #[tokio::test]
    async fn a_file_arrives_byte_for_byte() {
        let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let body = Body::from(Content::File(file_of(&bytes)));
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(1_200_000));
        assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
        let slice = Body::from(Content::File(file_of(&bytes).slice(131_071, 200_000)));
        assert_eq!(slice.collect().await.unwrap().to_bytes(), bytes[131_071..331_071]);
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_breaks_the_body() {
        let mut range = file_of(&[7; 1000]);
        range.length = 2000;
        assert!(Body::from(Content::File(range)).collect().await.is_err());
    }

    #[tokio::test]
    async fn a_stream_must_have_the_bytes_that_were_announced() {
        let parts = |count: usize| -> ByteStream {
            Box::pin(stream::iter((0..count).map(|_| Ok(Bytes::from_static(b"1234")))))
        };
        for (count, length, fine) in [(3, Some(12), true), (2, Some(12), false), (3, Some(10), false), (2, None, true)]
        {
            let body = Body::from(Content::Stream { bytes: parts(count), length });
            assert_eq!(body.collect().await.is_ok(), fine, "{count} {length:?}");
        }
    }
}

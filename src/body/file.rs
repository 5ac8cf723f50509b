//! A range of an open file, and the one way to read it where it can't be sent as it is.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::io::ReadWriteFlags;
use tokio::task::JoinHandle;

/// Bytes that are read at a time. 4 KiB would cost seven times the processor time a byte, 1 MiB brings nothing and costs
/// that much memory for each slow reader.
pub const CHUNK_BYTES: usize = 64 << 10;

/// How far apart the bytes are by which it is told whether a range is in the page cache: the kernel reads ahead and
/// takes back about so much at once.
const STRIDE_BYTES: u64 = 128 << 10;

/// Bytes that are looked through at a time.
const STEP_BYTES: usize = 1 << 20;

/// A part of an open file whose bytes never change: those of published blobs don't, nor what was written to a spool.
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

    /// Takes `count` bytes off the front, or all there are.
    pub fn advance(&mut self, count: u64) {
        let count = count.min(self.length);
        self.offset += count;
        self.length -= count;
    }

    /// Reads the first bytes of it, [`CHUNK_BYTES`] at most: on the spot what the page cache has, else on the blocking
    /// pool, so that a slow disk never holds up what else this thread does.
    ///
    /// # Errors
    ///
    /// The file can't be read, or is shorter than it was: what was promised of it can't be kept.
    pub fn read(&self) -> Reading {
        let length = usize::try_from(self.length).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let mut buffer = vec![0; length];
        let slices = &mut [IoSliceMut::new(&mut buffer)];
        match rustix::io::preadv2(&*self.file, slices, self.offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => Reading::Done(filled(buffer, count)),
            // Not in the page cache; or a file system that can't tell.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => {
                let (file, offset) = (Arc::clone(&self.file), self.offset);
                Reading::Waiting(tokio::task::spawn_blocking(move || {
                    let count = file.read_at(&mut buffer, offset)?;
                    filled(buffer, count)
                }))
            }
            Err(error) => Reading::Done(Err(error.into())),
        }
    }

    /// Gives all of it to `take`, in order, a MiB at most at a time. It waits for the disk where it is called: on the blocking
    /// pool.
    ///
    /// # Errors
    ///
    /// The file can't be read, or is shorter than it was.
    pub fn each(&self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut rest = self.clone();
        let mut buffer = vec![0; usize::try_from(rest.length).unwrap_or(STEP_BYTES).min(STEP_BYTES)];
        while rest.length > 0 {
            let wanted = usize::try_from(rest.length).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            rest.file.read_exact_at(part, rest.offset)?;
            take(part);
            rest.advance(wanted as u64);
        }
        Ok(())
    }

    /// Whether the page cache has it, as far as single bytes tell; no where the file system can't say. It may be taken
    /// back right afterwards: then somebody waits for the disk once.
    pub fn is_at_hand(&self) -> bool {
        let mut at = 0;
        while at < self.length {
            let mut byte = [0];
            let slices = &mut [IoSliceMut::new(&mut byte)];
            match rustix::io::preadv2(&*self.file, slices, self.offset + at, ReadWriteFlags::NOWAIT) {
                Ok(1) => at += STRIDE_BYTES,
                _ => return false,
            }
        }
        true
    }
}

impl fmt::Debug for FileRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileRange({} bytes from {})", self.length, self.offset)
    }
}

/// The bytes that were read, of those that there was room for.
fn filled(mut buffer: Vec<u8>, count: usize) -> io::Result<Bytes> {
    if count == 0 && !buffer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
    }
    buffer.truncate(count);
    Ok(buffer.into())
}

/// A read under way; see [`FileRange::read`].
#[derive(Debug)]
pub enum Reading {
    /// It needed no wait.
    Done(io::Result<Bytes>),
    /// The disk is asked.
    Waiting(JoinHandle<io::Result<Bytes>>),
}

impl Future for Reading {
    type Output = io::Result<Bytes>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match self.get_mut() {
            Self::Done(result) => Poll::Ready(std::mem::replace(result, Ok(Bytes::new()))),
            Self::Waiting(read) => {
                let read = ready!(Pin::new(read).poll(cx));
                Poll::Ready(read.unwrap_or_else(|error| Err(io::Error::other(error))))
            }
        }
    }
}

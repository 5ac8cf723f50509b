//! Following a file of the spool: what is there, and then as it comes.

use std::fs::File;
use std::io;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use rustix::io::Errno;
use rustix::io::ReadWriteFlags;

use crate::body::ByteStream;
use crate::oci::range::Extent;

use super::Spooled;
use super::State;

/// Bytes read at a time: one chunk is all that a reader holds.
const CHUNK_BYTES: u64 = 128 << 10;

pub(super) fn follow(spooled: Arc<Spooled>, extent: Option<Extent>) -> ByteStream {
    let at = extent.map_or(0, |e| e.start);
    let progress = spooled.progress();
    let reader = Reader { spooled, extent, at, progress };
    Box::pin(stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }))
}

struct Reader {
    spooled: Arc<Spooled>,
    extent: Option<Extent>,
    at: u64,
    progress: tokio::sync::watch::Receiver<super::Progress>,
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Seen before the look, so that what is written after it wakes the wait below.
            let state = self.progress.borrow_and_update().state;
            if self.is_at_the_end(state) {
                return Ok(None);
            }
            if state == State::Failed {
                return Err(self.spooled.failure());
            }
            let readable = self.spooled.readable(self.at, self.extent);
            if readable > self.at {
                let bytes = read(self.spooled.file(), self.at, (readable - self.at).min(CHUNK_BYTES)).await?;
                self.at += bytes.len() as u64;
                return Ok(Some(bytes));
            }
            if self.progress.changed().await.is_err() {
                return Err(self.spooled.failure());
            }
        }
    }

    fn is_at_the_end(&self, state: State) -> bool {
        let size = if state == State::Verified { self.spooled.size() } else { None };
        let end = match (self.extent.map(|e| e.end), size) {
            (Some(end), Some(size)) => Some(end.min(size)),
            (end, size) => end.or(size),
        };
        end.is_some_and(|end| self.at >= end)
    }
}

/// Reads on the spot what is in the page cache, which is what was just written; what is not, on the blocking pool.
async fn read(file: &Arc<File>, at: u64, length: u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let at_once = rustix::io::preadv2(&**file, &mut [IoSliceMut::new(&mut buffer)], at, ReadWriteFlags::NOWAIT);
    let read = match at_once {
        Ok(read) if read > 0 => read,
        // A file system in memory knows no such flag, and does not wait either.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.read_at(&mut buffer, at)?,
        _ => {
            let file = Arc::clone(file);
            let slow = tokio::task::spawn_blocking(move || file.read_at(&mut buffer, at).map(|read| (read, buffer)));
            let (read, filled) = slow.await.map_err(io::Error::other)??;
            buffer = filled;
            read
        }
    };
    if read == 0 {
        let why = "a file of the spool is shorter than what was written to it";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    buffer.truncate(read);
    Ok(buffer.into())
}

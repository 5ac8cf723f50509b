//! Following a file of the spool: what is there, and then as it comes.

use std::fs::File;
use std::io;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
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
            if state == State::Failed {
                return Err(self.spooled.failure());
            }
            let readable = self.spooled.readable(self.at, self.extent);
            if readable > self.at {
                let bytes = read(&self.spooled.file, self.at, (readable - self.at).min(CHUNK_BYTES)).await?;
                self.at += bytes.len() as u64;
                return Ok(Some(bytes));
            }
            let end = match self.extent {
                Some(extent) => Some(extent.end),
                None if state == State::Verified => self.spooled.size(),
                None => None,
            };
            if end.is_some_and(|end| self.at >= end) {
                return Ok(None);
            }
            if self.progress.changed().await.is_err() {
                return Err(self.spooled.failure());
            }
        }
    }
}

/// Reads on the spot what is in the page cache, and on the blocking pool what is not.
async fn read(file: &Arc<File>, at: u64, length: u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let read = match rustix::io::preadv2(&**file, &mut [IoSliceMut::new(&mut buffer)], at, ReadWriteFlags::NOWAIT) {
        Ok(read) if read > 0 => read,
        _ => {
            let file = Arc::clone(file);
            let slow = tokio::task::spawn_blocking(move || file.read_at(&mut buffer, at).map(|read| (read, buffer)));
            let (read, filled) = slow.await.map_err(io::Error::other)??;
            buffer = filled;
            read
        }
    };
    if read == 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "a file of the spool is shorter than what was written to it",
        ));
    }
    buffer.truncate(read);
    Ok(buffer.into())
}

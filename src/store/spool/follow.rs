//! Following a file of the spool: what is there, and then as it comes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::body;
use crate::body::ByteStream;
use crate::body::FileRange;
use crate::body::Parts;
use crate::oci::range::Extent;

use super::Spooled;
use super::State;

pub(super) fn follow(spooled: Arc<Spooled>, extent: Option<Extent>) -> ByteStream {
    let at = extent.map_or(0, |e| e.start);
    let progress = spooled.progress();
    body::stream(Reader { spooled, extent, at, progress })
}

struct Reader {
    spooled: Arc<Spooled>,
    extent: Option<Extent>,
    at: u64,
    progress: tokio::sync::watch::Receiver<super::Progress>,
}

impl Parts for Reader {
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
                let file = Arc::clone(self.spooled.file());
                // What was just written is in the page cache.
                let bytes = FileRange { file, offset: self.at, length: readable - self.at }.read().await?;
                self.at += bytes.len() as u64;
                return Ok(Some(bytes));
            }
            if self.progress.changed().await.is_err() {
                return Err(self.spooled.failure());
            }
        }
    }
}

impl Reader {
    fn is_at_the_end(&self, state: State) -> bool {
        let size = if state == State::Verified { self.spooled.size() } else { None };
        let end = match (self.extent.map(|e| e.end), size) {
            (Some(end), Some(size)) => Some(end.min(size)),
            (end, size) => end.or(size),
        };
        end.is_some_and(|end| self.at >= end)
    }
}

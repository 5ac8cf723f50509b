//! One file of the spool while it is written: sparse, hashed in order, watched.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::body::ByteStream;
use crate::oci::Algorithm;
use crate::oci::Digest;
use crate::oci::range::Extent;

use super::Error;
use super::HELD_BACK_BYTES;
use super::Staged;
use super::Verified;
use super::batch::Filling;
use super::follow;
use super::inbox::PENDING_BYTES_MAX;

/// How far a file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are there without a hole from the beginning.
    pub watermark: u64,
    /// Counts up with every write, so that readers of parts ahead of the watermark wake too.
    pub writes: u64,
    /// What it has come to.
    pub state: State,
}

/// What a file has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Bytes come in.
    Filling,
    /// The digest is right.
    Verified,
    /// It will not become whole, or is wrong: readers break off.
    Failed,
}

/// Why a file can't be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The bytes have another digest.
    #[error("the bytes have the digest {got}")]
    Mismatch {
        /// The digest that they have.
        got: Digest,
    },
    /// Bytes are missing.
    #[error("bytes are missing from {from} on")]
    Short {
        /// The first that is missing.
        from: u64,
    },
    /// The file could not be written or read.
    #[error(transparent)]
    Spool(#[from] Error),
}

/// A file of the spool while it is written. With its last holder that of a fill is removed, unless it was sealed; that of
/// an upload stays, to be taken up again.
#[derive(Debug)]
pub struct Spooled(Arc<Filling>);

impl Spooled {
    pub(super) fn new(staged: Staged, size: Option<u64>, algorithm: Algorithm) -> Self {
        Self(Arc::new(Filling::new(staged, 0, size, algorithm)))
    }

    /// A file that is taken up again with the bytes before `here`, of a size that nobody told.
    pub(super) fn resumed(staged: Staged, here: u64, algorithm: Algorithm) -> Self {
        Self(Arc::new(Filling::new(staged, here, None, algorithm)))
    }

    /// Gives it up and removes the file at once. What was sealed is nobody's to give up.
    pub async fn discard(&self) {
        self.fail("it was given up");
        let filling = Arc::clone(&self.0);
        let remove = move || {
            if let Some(mut staged) = filling.staged().take() {
                staged.remove();
            }
        };
        drop(tokio::task::spawn_blocking(remove).await);
    }

    /// Leaves the file as it is, to be taken up again by another holder: this one takes no more.
    pub fn park(&self) {
        self.fail("it was left");
        drop(self.0.staged().take());
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.0.file
    }

    /// The size of the whole, where it is known.
    pub fn size(&self) -> Option<u64> {
        self.0.writing().size
    }

    /// Sets the size, where the upstream told it with the end of the body only.
    pub fn set_size(&self, size: u64) {
        self.0.writing().size = Some(size);
        self.0.progress.send_modify(|p| p.writes += 1);
    }

    /// The next byte that a fetch from the front needs: what came and is not written yet counts as here. `u64::MAX` when
    /// all is here.
    pub fn cursor(&self) -> u64 {
        self.missing(0).map_or(u64::MAX, |hole| hole.start)
    }

    /// The first hole at or after `at`; its end is open (`u64::MAX`) while the size is not known. `None`: all is here.
    pub fn missing(&self, at: u64) -> Option<Extent> {
        let hole = self.0.inbox().hole(at);
        let size = self.size().unwrap_or(u64::MAX);
        (hole.start < size).then_some(Extent { start: hole.start, end: hole.end.min(size) })
    }

    /// Whether bytes came that are not written yet; they want a [`Spooled::flush`] when no more come for a while.
    pub fn is_pending(&self) -> bool {
        self.0.inbox().pending() > 0
    }

    /// Takes bytes for the place `at`, in whatever order. Of two that overlap the first are kept. They are written in
    /// batches beside the caller, who waits only when more than a batch lies there already.
    ///
    /// # Errors
    ///
    /// Bytes beyond the size; or the file could not be written, now or before: then it is of no use any more.
    pub async fn write(&self, at: u64, bytes: Bytes) -> Result<(), Error> {
        let size = {
            let writing = self.0.writing();
            writing.check()?;
            writing.size
        };
        let end = at.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| size.is_some_and(|size| end > size)) {
            return Err(Error::new("taking bytes beyond the size", io::ErrorKind::InvalidData.into()));
        }
        let is_much = {
            let mut inbox = self.0.inbox();
            inbox.accept(at, &bytes, size);
            self.0.begin_batch(&inbox);
            inbox.pending() >= PENDING_BYTES_MAX
        };
        drop(bytes);
        if is_much { self.flush().await } else { Ok(()) }
    }

    /// Writes and hashes everything that came.
    pub async fn flush(&self) -> Result<(), Error> {
        let turn = Arc::clone(&self.0.turn).lock_owned().await;
        if !self.is_pending() {
            return self.0.writing().check();
        }
        let filling = Arc::clone(&self.0);
        let write = move || {
            let written = filling.write_all();
            drop(turn);
            written
        };
        super::on_the_pool(write).await
    }

    /// How far it has come, and what changes about that.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.0.progress.subscribe()
    }

    /// Whether the digest was found right.
    pub fn is_verified(&self) -> bool {
        self.0.progress.borrow().state == State::Verified
    }

    /// Waits until the digest is found right, or it failed.
    pub async fn wait_verified(&self) -> Result<(), io::Error> {
        let mut progress = self.0.progress.subscribe();
        let state = progress.wait_for(|p| p.state != State::Filling).await.map(|p| p.state);
        match state {
            Ok(State::Verified) => Ok(()),
            _ => Err(self.failure()),
        }
    }

    /// The bytes of `extent`, or all of them, as they come. Readers hold the descriptor and one chunk each; none of them
    /// holds up the writer. The last [`HELD_BACK_BYTES`] come when the digest is found right; a part that ends before the
    /// last byte may be read as soon as it is there.
    pub fn follow(self: &Arc<Self>, extent: Option<Extent>) -> ByteStream {
        follow::follow(Arc::clone(self), extent)
    }

    /// How far a reader at `at` may read; see [`readable`].
    pub(super) fn readable(&self, at: u64, extent: Option<Extent>) -> u64 {
        // Looked at first: bytes that come in between are read the next time.
        let verified = self.is_verified();
        let writing = self.0.writing();
        readable(at, writing.written.reach(at), extent.map(|e| e.end), writing.size, verified)
    }

    /// Why it failed, for readers.
    pub(super) fn failure(&self) -> io::Error {
        let writing = self.0.writing();
        io::Error::other(writing.failure.as_deref().unwrap_or("the transfer ended").to_owned())
    }

    /// Gives it up: readers break off. A file that was sealed stays what it is.
    pub fn fail(&self, why: &str) {
        self.0.fail(why);
    }

    /// Takes up again what was given up for want of bytes; not what was found wrong or could not be written.
    pub fn revive(&self) -> bool {
        let mut writing = self.0.writing();
        if !writing.is_sound() || self.0.staged().is_none() {
            return false;
        }
        writing.failure = None;
        drop(writing);
        self.0.progress.send_if_modified(|p| {
            let failed = p.state == State::Failed;
            if failed {
                p.state = State::Filling;
            }
            failed
        });
        true
    }

    /// Checks the whole against `digest`. The readers get the rest at once, before anything is brought to disk; that is for
    /// whoever publishes it. Where the size was never told, it is what came.
    pub async fn seal(&self, digest: Digest) -> Result<Verified, SealError> {
        let turn = Arc::clone(&self.0.turn).lock_owned().await;
        let filling = Arc::clone(&self.0);
        let seal = move || {
            let sealed = filling.seal(digest);
            drop(turn);
            sealed
        };
        let sealed = tokio::task::spawn_blocking(seal).await;
        sealed.map_err(|e| Error::new("sealing a file of the spool", io::Error::other(e)))?
    }
}

/// How far a reader at `at` may read, of bytes that are here without a hole up to `here`. Pure.
///
/// Until the digest is found right nobody gets the last bytes: the last ones of the size, or of what is here where the
/// size is not known. A part that is known to end before the last byte is no whole body, and goes out as it comes.
fn readable(at: u64, here: u64, end: Option<u64>, size: Option<u64>, verified: bool) -> u64 {
    let free = match (end, size) {
        _ if verified => here,
        (Some(end), Some(size)) if end < size => here,
        (_, Some(size)) => here.min(size.saturating_sub(HELD_BACK_BYTES)),
        (_, None) => here.saturating_sub(HELD_BACK_BYTES),
    };
    free.min(end.unwrap_or(u64::MAX)).max(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_held_back_and_nothing_else() {
        let k = 1024;
        for (at, here, end, size, verified, want) in [
            (0, 300 * k, None, Some(1000 * k), false, 300 * k),
            (0, 990 * k, None, Some(1000 * k), false, 936 * k),
            (936 * k, 1000 * k, None, Some(1000 * k), false, 936 * k),
            (936 * k, 1000 * k, None, Some(1000 * k), true, 1000 * k),
            (0, 1000 * k, Some(1000 * k), Some(1000 * k), false, 936 * k),
            (950 * k, 1000 * k, Some(999 * k), Some(1000 * k), false, 999 * k),
            (0, 300 * k, None, None, false, 236 * k),
            (0, 300 * k, Some(100 * k), None, false, 100 * k),
            (0, 10 * k, None, None, false, 0),
            (0, 10 * k, None, Some(10 * k), false, 0),
            (5 * k, 5 * k, Some(8 * k), Some(1000 * k), false, 5 * k),
        ] {
            assert_eq!(readable(at, here, end, size, verified), want, "{at} {here} {end:?} {size:?} {verified}");
        }
    }
}

//! One file of the spool while it is written: sparse, hashed in order, watched.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use bytes::Bytes;
use tokio::sync::watch;

use crate::body::ByteStream;
use crate::oci::Algorithm;
use crate::oci::Digest;
use crate::oci::Hasher;
use crate::oci::range::Extent;

use super::Error;
use super::Staged;
use super::Verified;
use super::extents::Extents;
use super::follow;
use super::on_the_pool;

/// Bytes are written when so many came: hashing and writing 16 KiB at a time costs four times the processor time.
const BATCH_BYTES: usize = 256 << 10;

/// The first bytes are written at once, so that a client's first byte does not wait for a batch.
const FIRST_BYTES: u64 = 64 << 10;

/// Bytes hashed from the file at a time, where they were written ahead of the hash.
const CATCH_UP_BYTES: usize = 1 << 20;

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

/// A file of the spool while it is written.
#[derive(Debug)]
pub struct Spooled {
    staged: Mutex<Option<Staged>>,
    pub(super) file: Arc<std::fs::File>,
    writing: Mutex<Writing>,
    progress: watch::Sender<Progress>,
    /// One batch is written at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Writing {
    size: Option<u64>,
    extents: Extents,
    /// What came and is not written yet, in the order in which it came.
    pending: Vec<(u64, Bytes)>,
    pending_bytes: usize,
    /// Away while a batch is hashed.
    hasher: Option<Hasher>,
    /// The next byte to be hashed.
    hashed: u64,
    failure: Option<Arc<str>>,
}

impl Spooled {
    pub(super) fn new(staged: Staged, size: Option<u64>, algorithm: Algorithm) -> Self {
        let writing = Writing {
            size,
            extents: Extents::default(),
            pending: Vec::new(),
            pending_bytes: 0,
            hasher: Some(Hasher::new(algorithm)),
            hashed: 0,
            failure: None,
        };
        Self {
            file: Arc::clone(&staged.file),
            staged: Mutex::new(Some(staged)),
            writing: Mutex::new(writing),
            progress: watch::Sender::new(Progress { watermark: 0, writes: 0, state: State::Filling }),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The size of the whole, where it is known.
    pub fn size(&self) -> Option<u64> {
        self.writing().size
    }

    /// Sets the size, where the upstream told it with the end of the body only.
    pub fn set_size(&self, size: u64) {
        self.writing().size = Some(size);
        self.progress.send_modify(|p| p.writes += 1);
    }

    /// The next byte that a fetch from the front needs: what came and is not written yet counts as here.
    pub fn cursor(&self) -> u64 {
        self.missing(0).map_or(u64::MAX, |hole| hole.start)
    }

    /// The first hole at or after `at`; its end is open (`u64::MAX`) while the size is not known. `None`: all is here.
    pub fn missing(&self, at: u64) -> Option<Extent> {
        let writing = self.writing();
        let mut hole = writing.extents.hole(at);
        // Few batches are pending, and most of them follow each other.
        while let Some((start, bytes)) =
            writing.pending.iter().find(|(s, b)| *s <= hole.start && hole.start < s + b.len() as u64)
        {
            hole = writing.extents.hole(start + bytes.len() as u64);
        }
        let size = writing.size.unwrap_or(u64::MAX);
        (hole.start < size).then_some(Extent { start: hole.start, end: hole.end.min(size) })
    }

    /// Whether bytes came that are not written yet; they want a [`Spooled::flush`] when no more come for a while.
    pub fn is_pending(&self) -> bool {
        self.writing().pending_bytes > 0
    }

    /// Takes bytes for the place `at`, and writes a batch where enough came.
    pub async fn write(&self, at: u64, bytes: Bytes) -> Result<(), Error> {
        let full = {
            let mut writing = self.writing();
            writing.pending_bytes += bytes.len();
            writing.pending.push((at, bytes));
            writing.pending_bytes >= BATCH_BYTES || writing.extents.reach(0) < FIRST_BYTES
        };
        if full { self.flush().await } else { Ok(()) }
    }

    /// Writes and hashes what came.
    pub async fn flush(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let (batch, hasher, mut hashed) = {
            let mut writing = self.writing();
            writing.pending_bytes = 0;
            (std::mem::take(&mut writing.pending), writing.hasher.take(), writing.hashed)
        };
        let Some(mut hasher) = hasher else { return Ok(()) };
        if batch.is_empty() {
            self.writing().hasher = Some(hasher);
            return Ok(());
        }
        let file = Arc::clone(&self.file);
        let written = on_the_pool(move || {
            for (at, bytes) in &batch {
                file.write_all_at(bytes, *at).map_err(|e| Error::new("writing to the spool", e))?;
                if *at == hashed {
                    hasher.update(bytes);
                    hashed += bytes.len() as u64;
                }
            }
            Ok((batch, hasher, hashed))
        })
        .await;
        let (batch, hasher, hashed) = written.inspect_err(|e| self.fail(&e.to_string()))?;
        let watermark = {
            let mut writing = self.writing();
            for (at, bytes) in &batch {
                writing.extents.insert(*at, at + bytes.len() as u64);
            }
            writing.hasher = Some(hasher);
            writing.hashed = hashed;
            writing.extents.reach(0)
        };
        if let Some(staged) = self.staged.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            staged.grow_to(watermark);
        }
        self.progress.send_modify(|p| {
            p.watermark = watermark;
            p.writes += 1;
        });
        Ok(())
    }

    /// How far it has come, and what changes about that.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Whether the digest was found right.
    pub fn is_verified(&self) -> bool {
        self.progress.borrow().state == State::Verified
    }

    /// Waits until the digest is found right, or it failed.
    pub async fn wait_verified(&self) -> Result<(), io::Error> {
        let mut progress = self.progress.subscribe();
        let state = progress.wait_for(|p| p.state != State::Filling).await.map(|p| p.state);
        match state {
            Ok(State::Verified) => Ok(()),
            _ => Err(self.failure()),
        }
    }

    /// The bytes of `extent`, or all of them, as they come. Readers hold the descriptor and one chunk each; none of them
    /// holds up the writer.
    pub fn follow(self: &Arc<Self>, extent: Option<Extent>) -> ByteStream {
        follow::follow(Arc::clone(self), extent)
    }

    /// How far a reader at `at` may read: bytes that are here, less what is held back from readers of the end.
    pub(super) fn readable(&self, at: u64, extent: Option<Extent>) -> u64 {
        let writing = self.writing();
        let here = writing.extents.reach(at);
        match (extent, writing.size) {
            _ if self.is_verified() => extent.map_or(here, |e| e.end.min(here)),
            // A slice that does not reach the last byte may go out before the blob is verified.
            (Some(extent), Some(size)) if extent.end < size => here.min(extent.end),
            (_, Some(size)) => here.min(size.saturating_sub(super::HELD_BACK_BYTES)).max(at),
            (_, None) => here.saturating_sub(super::HELD_BACK_BYTES).max(at),
        }
    }

    /// Why it failed, for readers.
    pub(super) fn failure(&self) -> io::Error {
        let writing = self.writing();
        io::Error::other(writing.failure.as_deref().unwrap_or("the transfer ended").to_owned())
    }

    /// Gives it up: readers break off.
    pub fn fail(&self, why: &str) {
        self.writing().failure = Some(why.into());
        self.progress.send_if_modified(|p| {
            let fails = p.state == State::Filling;
            if fails {
                p.state = State::Failed;
            }
            fails
        });
    }

    /// Takes up again what was given up for want of bytes; not what was found wrong or could not be written.
    pub fn revive(&self) -> bool {
        let mut writing = self.writing();
        if writing.hasher.is_none() || self.staged.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return false;
        }
        writing.failure = None;
        drop(writing);
        self.progress.send_if_modified(|p| {
            let failed = p.state == State::Failed;
            if failed {
                p.state = State::Filling;
            }
            failed
        });
        true
    }

    /// Checks the whole against `digest`. The readers get the rest at once; what becomes of the file is the caller's.
    pub async fn seal(&self, digest: Digest) -> Result<Verified, SealError> {
        self.flush().await?;
        if let Some(hole) = self.missing(0) {
            return Err(SealError::Short { from: hole.start });
        }
        let (hasher, hashed, size) = {
            let mut writing = self.writing();
            (writing.hasher.take(), writing.hashed, writing.extents.reach(0))
        };
        let Some(hasher) = hasher else { return Err(SealError::Short { from: 0 }) };
        let file = Arc::clone(&self.file);
        let got = on_the_pool(move || catch_up(&file, hasher, hashed, size)).await?;
        if got != digest {
            self.fail(&format!("the bytes have the digest {got}"));
            return Err(SealError::Mismatch { got });
        }
        let staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(staged) = staged else { return Err(SealError::Short { from: 0 }) };
        self.writing().size = Some(size);
        self.progress.send_modify(|p| p.state = State::Verified);
        Ok(Verified { staged, digest, size })
    }
}

/// Hashes what was written ahead of the hash.
fn catch_up(file: &std::fs::File, mut hasher: Hasher, mut at: u64, size: u64) -> Result<Digest, Error> {
    let mut buffer = vec![0; CATCH_UP_BYTES];
    while at < size {
        let wanted = usize::try_from(size - at).unwrap_or(usize::MAX).min(CATCH_UP_BYTES);
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let read = file.read_at(part, at).map_err(|e| Error::new("reading back from the spool", e))?;
        if read == 0 {
            return Err(Error::new("reading back from the spool", io::ErrorKind::UnexpectedEof.into()));
        }
        hasher.update(part.get(..read).unwrap_or_default());
        at += read as u64;
    }
    Ok(hasher.finish())
}

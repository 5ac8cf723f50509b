//! Writing what came and hashing it in order: on the blocking pool, a batch at a time.
//!
//! A batch runs to its end whatever becomes of who began it, so that a caller that goes away leaves nothing half done.
//! The first bytes for a place win; later ones for it are passed over. So what was hashed, what readers got and what is
//! in the file are the same bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::sync::OwnedMutexGuard;
use tokio::sync::watch;

use crate::body::FileRange;
use crate::oci::Algorithm;
use crate::oci::Digest;
use crate::oci::Hasher;
use crate::store::space::PressureState;

use super::Error;
use super::Progress;
use super::SealError;
use super::Staged;
use super::State;
use super::Unpublished;
use super::Verified;
use super::extents::Extents;
use super::inbox::Inbox;
use super::inbox::Piece;

/// A file that is being filled: what its writer, its batches and its readers share.
#[derive(Debug)]
pub(super) struct Filling {
    pub(super) file: Arc<File>,
    pub(super) staged: Mutex<Option<Staged>>,
    pub(super) progress: watch::Sender<Progress>,
    /// One batch is written at a time.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Looked into before `writing`, where both are: readers need only that one.
    inbox: Mutex<Inbox>,
    writing: Mutex<Writing>,
    algorithm: Algorithm,
    /// Whether the room for all of it was reserved at the beginning.
    reserved: bool,
}

#[derive(Debug)]
pub(super) struct Writing {
    pub(super) size: Option<u64>,
    /// What is in the file.
    pub(super) written: Extents,
    written_bytes: u64,
    /// Away while a batch is hashed, and for good once it was asked for the digest.
    hasher: Option<Hasher>,
    /// Whether it is away for good: a file that is given up while a batch is hashed can be taken up again.
    spent: bool,
    /// The next byte to be hashed.
    hashed: u64,
    /// Why it was given up.
    pub(super) failure: Option<Arc<str>>,
    /// Why the file can't be written: what was accepted is lost, so nothing takes it up again.
    broken: Option<(io::ErrorKind, Arc<str>)>,
}

impl Writing {
    /// Whether it can be taken up again after it was given up.
    pub(super) fn is_sound(&self) -> bool {
        self.broken.is_none() && !self.spent
    }

    /// The error that ended the writing, if one did.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.broken {
            Some((kind, why)) => Err(Error::new("writing to the spool", io::Error::new(*kind, &**why))),
            None => Ok(()),
        }
    }
}

impl Filling {
    /// A file that has the bytes before `here` already, none of them hashed.
    pub(super) fn new(staged: Staged, here: u64, size: Option<u64>, algorithm: Algorithm) -> Self {
        let mut written = Extents::default();
        written.insert(0, here);
        let writing = Writing {
            size,
            written,
            written_bytes: here,
            hasher: Some(Hasher::new(algorithm)),
            spent: false,
            hashed: 0,
            failure: None,
            broken: None,
        };
        Self {
            file: Arc::clone(&staged.file),
            staged: Mutex::new(Some(staged)),
            progress: watch::Sender::new(Progress { watermark: here, writes: 0, state: State::Filling }),
            turn: Arc::default(),
            inbox: Mutex::new(Inbox::after(here)),
            writing: Mutex::new(writing),
            algorithm,
            reserved: size.is_some(),
        }
    }

    pub(super) fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn staged(&self) -> MutexGuard<'_, Option<Staged>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a batch if one is due and none is being written. Called with the inbox locked, as the batch before looks for
    /// more and gives up its turn under the same lock: so nothing that is due is left lying.
    pub(super) fn begin_batch(self: &Arc<Self>, inbox: &Inbox) {
        if !inbox.is_due() {
            return;
        }
        if let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() {
            let filling = Arc::clone(self);
            drop(tokio::task::spawn_blocking(move || filling.write_due(turn)));
        }
    }

    fn write_due(&self, turn: OwnedMutexGuard<()>) {
        loop {
            let batch = {
                let mut inbox = self.inbox();
                if !inbox.is_due() || self.writing().broken.is_some() {
                    drop(turn);
                    return;
                }
                inbox.take()
            };
            if self.write(batch).is_err() {
                // It is remembered for the next call.
                return;
            }
        }
    }

    /// Writes everything that came. The caller has the turn, and is on the blocking pool.
    pub(super) fn write_all(&self) -> Result<(), Error> {
        loop {
            self.writing().check()?;
            let batch = self.inbox().take();
            if batch.is_empty() {
                return Ok(());
            }
            self.write(batch)?;
        }
    }

    fn write(&self, batch: Vec<Piece>) -> Result<(), Error> {
        let done = self.put(&batch).and_then(|()| self.hash(&batch));
        self.inbox().reuse(batch);
        done.map_err(|error| {
            if let Some(staged) = self.staged().as_mut() {
                staged.refused(&error);
                self.leave(staged, &error);
            }
            self.writing().broken = Some((error.kind(), error.to_string().into()));
            self.fail(&error.to_string());
            Error::new("writing to the spool", error)
        })
    }

    /// After a failed write: a file that is kept has what was written before it, where that was for want of room. After
    /// any other fault what is in it can't be relied on [a later fsync of the same file would say that all is well].
    fn leave(&self, staged: &mut Staged, error: &io::Error) {
        let room = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        let here = self.progress.borrow().watermark;
        if staged.unpublished == Unpublished::Kept && (!room || self.file.set_len(here).is_err()) {
            staged.unpublished = Unpublished::Removed;
        }
    }

    /// Writes the bytes and tells the readers: they need not wait for the hash, as nobody gets the last bytes before it.
    fn put(&self, batch: &[Piece]) -> io::Result<()> {
        let full = !self.reserved && self.staged().as_ref().is_some_and(|s| s.pressure() != PressureState::Ok);
        if full {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the reserve of the file system is reached"));
        }
        for piece in batch {
            self.file.write_all_at(&piece.bytes, piece.at)?;
        }
        let (watermark, bytes) = {
            let mut writing = self.writing();
            for piece in batch {
                writing.written.insert(piece.at, piece.end());
                writing.written_bytes += piece.bytes.len() as u64;
            }
            (writing.written.reach(0), writing.written_bytes)
        };
        if let Some(staged) = self.staged().as_mut() {
            staged.grow_to(bytes);
        }
        self.progress.send_modify(|p| {
            p.watermark = watermark;
            p.writes += 1;
        });
        Ok(())
    }

    /// Takes the hash on as far as there is no hole: from memory what just came, from the file what came ahead of it.
    fn hash(&self, batch: &[Piece]) -> io::Result<()> {
        let (hasher, mut at, end) = {
            let mut writing = self.writing();
            (writing.hasher.take(), writing.hashed, writing.written.reach(writing.hashed))
        };
        let mut hasher = hasher.ok_or_else(|| io::Error::other("its digest was asked for already"))?;
        while at < end {
            let next = batch.partition_point(|piece| piece.at < at);
            match batch.get(next) {
                Some(piece) if piece.at == at => {
                    hasher.update(&piece.bytes);
                    at = piece.end();
                }
                ahead => {
                    let until = ahead.map_or(end, |piece| end.min(piece.at));
                    let read = self.span(at, until).each(|bytes| hasher.update(bytes));
                    read.inspect_err(|_| self.writing().spent = true)?;
                    at = until;
                }
            }
        }
        let mut writing = self.writing();
        writing.hasher = Some(hasher);
        writing.hashed = at;
        Ok(())
    }

    /// Gives it up: readers break off.
    pub(super) fn fail(&self, why: &str) {
        self.writing().failure = Some(why.into());
        self.progress.send_if_modified(|p| {
            let fails = p.state == State::Filling;
            if fails {
                p.state = State::Failed;
            }
            fails
        });
    }

    /// Writes what is left and checks the whole. The caller has the turn, and is on the blocking pool.
    pub(super) fn seal(&self, digest: Digest) -> Result<Verified, SealError> {
        self.write_all()?;
        // What an earlier process wrote was not hashed by this one.
        self.hash(&[]).map_err(|e| Error::new("reading back from the spool", e))?;
        let (hasher, size) = {
            let mut writing = self.writing();
            if let Some(why) = &writing.failure {
                return Err(Error::new("sealing a file of the spool", io::Error::other(why.to_string())).into());
            }
            let (here, end) = (writing.written.reach(0), writing.written.end());
            let size = writing.size.unwrap_or(end);
            if here < size {
                return Err(SealError::Short { from: here });
            }
            writing.size = Some(size);
            writing.spent = true;
            // More than the size is not what was promised, whatever its digest.
            (writing.hasher.take().filter(|_| end == size), size)
        };
        let Some(hasher) = hasher else {
            self.fail("the body is longer than its size");
            return Err(Error::new("sealing a file of the spool", io::ErrorKind::InvalidData.into()).into());
        };
        let got = self.finish(hasher, digest.algorithm(), size)?;
        if got != digest {
            self.fail(&format!("the bytes have the digest {got}"));
            return Err(SealError::Mismatch { got });
        }
        let staged = self.staged().take();
        let Some(staged) = staged else { return Err(SealError::Short { from: 0 }) };
        self.progress.send_modify(|p| p.state = State::Verified);
        Ok(Verified { staged, digest, size })
    }

    /// The digest; all of the file is hashed again where an uploader names one of another algorithm at its end.
    fn finish(&self, hasher: Hasher, algorithm: Algorithm, size: u64) -> Result<Digest, Error> {
        if algorithm == self.algorithm {
            return Ok(hasher.finish());
        }
        let mut hasher = Hasher::new(algorithm);
        let read = self.span(0, size).each(|bytes| hasher.update(bytes));
        read.map_err(|e| Error::new("reading back from the spool", e))?;
        Ok(hasher.finish())
    }

    /// What was written from `start` to `end`.
    fn span(&self, start: u64, end: u64) -> FileRange {
        FileRange { file: Arc::clone(&self.file), offset: start, length: end.saturating_sub(start) }
    }
}

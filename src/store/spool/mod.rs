//! Bytes being written: appended, hashed, followed while they grow, sealed into [`Verified`].
//!
//! `spool/` lies on the file system of `blobs/`, so that sealing needs no copy, and holds `fills/` and `uploads/` and
//! nothing else. Only this module can make a [`Verified`]: bytes reach the tree in no other way.

mod batch;
mod extents;
mod follow;
mod inbox;
mod spooled;
mod upload;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::fs::FallocateFlags;

use crate::oci::Algorithm;
use crate::oci::Digest;

use super::space::PressureState;
use super::space::Space;

pub use spooled::Progress;
pub use spooled::SealError;
pub use spooled::Spooled;
pub use spooled::State;

/// The last bytes of a blob, which nobody gets before its digest is known to be right: so a wrong blob is a broken
/// transfer, never a complete one.
pub const HELD_BACK_BYTES: u64 = 64 << 10;

/// Why bytes can't be staged.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct Error {
    /// What was being done.
    pub doing: &'static str,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl Error {
    fn new(doing: &'static str, source: io::Error) -> Self {
        Self { doing, source }
    }
}

/// The folder of bytes being written. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    fills: PathBuf,
    uploads: PathBuf,
    /// The file system's reserve, which no file of the spool may take.
    space: Option<Space>,
    /// Bytes that the open files of the spool take or will take.
    bytes: AtomicU64,
    /// Bytes of uploads that nobody has open just now.
    parked: AtomicU64,
}

impl Spool {
    /// Opens the spool in `folder`, and removes what fills of an earlier process left.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let (fills, uploads) = (folder.join("fills"), folder.join("uploads"));
        for area in [&fills, &uploads] {
            match std::fs::create_dir_all(area) {
                // What is held is served all the same; each file that can't be made says so.
                Err(error) if refuses_writes(error.kind()) => {
                    tracing::warn!(%error, "the spool could not be made");
                }
                made => made.map_err(|e| Error::new("making the spool", e))?,
            }
        }
        let left = match std::fs::read_dir(&fills) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            listed => Some(listed.map_err(|e| Error::new("reading the spool", e))?),
        };
        for entry in left.into_iter().flatten() {
            let left = entry.and_then(|entry| std::fs::remove_file(entry.path()));
            // A full or read-only file system keeps them: they are in nobody's way.
            if let Err(error) = left {
                tracing::warn!(%error, "a file that an earlier fill left could not be removed");
            }
        }
        let parked = upload::sizes(&uploads).map_err(|e| Error::new("reading the spool", e))?;
        let parked = AtomicU64::new(parked.into_iter().map(|(_, size)| size).sum());
        Ok(Self(Arc::new(Shared { fills, uploads, space: None, bytes: AtomicU64::new(0), parked })))
    }

    /// The same spool, which keeps off the reserve of `space` from now on: it begins nothing that does not fit beside it.
    #[must_use]
    pub fn within(self, space: &Space) -> Self {
        let (fills, uploads) = (self.0.fills.clone(), self.0.uploads.clone());
        let parked = AtomicU64::new(self.0.parked.load(Ordering::Relaxed));
        Self(Arc::new(Shared { fills, uploads, space: Some(space.clone()), bytes: AtomicU64::new(0), parked }))
    }

    /// Begins the file of a fill. Where the size is known its room is reserved at once, so that a full disk shows before anybody was
    /// promised anything.
    pub async fn create(&self, size: Option<u64>, algorithm: Algorithm) -> Result<Arc<Spooled>, Error> {
        let spool = self.clone();
        on_the_pool(move || {
            let staged = spool.begin(size)?;
            Ok(Arc::new(Spooled::new(staged, size, algorithm)))
        })
        .await
    }

    /// Stages bytes that are whole already and were found to have this digest: manifests.
    pub async fn stage(&self, bytes: Bytes, digest: Digest) -> Result<Verified, Error> {
        let spool = self.clone();
        on_the_pool(move || {
            if Digest::of_with(digest.algorithm(), &bytes) != digest {
                return Err(Error::new("staging bytes", io::Error::other("the bytes have another digest")));
            }
            let size = bytes.len() as u64;
            let staged = spool.begin(Some(size))?;
            staged.file.write_all_at(&bytes, 0).map_err(|e| Error::new("writing a staged file", e))?;
            Ok(Verified { staged, digest, size })
        })
        .await
    }

    /// Bytes that the files of the spool take or will take.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed) + self.0.parked.load(Ordering::Relaxed)
    }

    /// Whether `bytes` more fit beside the reserve, as the file system is right now.
    pub fn look_for_room(&self, bytes: u64) -> Result<(), Error> {
        self.0.look_for_room(bytes).map_err(|e| Error::new("looking for room", e))
    }

    fn begin(&self, size: Option<u64>) -> Result<Staged, Error> {
        self.look_for_room(size.unwrap_or(0))?;
        // Drawn, not counted: in a container each start has the same process number.
        let path = self.0.fills.join(format!("{:016x}", fastrand::u64(..)));
        let mut staged = self.make(path, Unpublished::Removed)?;
        if let Some(size) = size.filter(|s| *s > 0) {
            match rustix::fs::fallocate(&staged.file, FallocateFlags::KEEP_SIZE, 0, size) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => {
                    let error = error.into();
                    self.0.refused(&error);
                    return Err(Error::new("reserving room in the spool", error));
                }
            }
            staged.grow_to(size);
        }
        Ok(staged)
    }

    /// Makes a file that is not there yet.
    fn make(&self, path: PathBuf, unpublished: Unpublished) -> Result<Staged, Error> {
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = Arc::new(file.map_err(|e| {
            self.0.refused(&e);
            Error::new("making a file in the spool", e)
        })?);
        Ok(Staged { file, path: Some(path), spool: Arc::clone(&self.0), bytes: 0, unpublished })
    }
}

impl Shared {
    /// Whether `bytes` fit beside the reserve, asked of the file system right now.
    fn look_for_room(&self, bytes: u64) -> io::Result<()> {
        let Some(space) = &self.space else { return Ok(()) };
        match space.look()? {
            now if now.state == PressureState::ReadOnly => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            now if now.state == PressureState::Full || now.free < bytes => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("{bytes} bytes do not fit beside the reserve of the file system"),
            )),
            _ => Ok(()),
        }
    }

    /// Tells whoever watches the room that the file system took no more.
    fn refused(&self, error: &io::Error) {
        if let Some(space) = &self.space {
            space.refused(error);
        }
    }
}

/// What becomes of a file that is dropped before it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unpublished {
    /// It goes.
    Removed,
    /// It stays, to be taken up again.
    Kept,
}

/// A file of the spool.
#[derive(Debug)]
struct Staged {
    file: Arc<File>,
    /// None once it was published or removed.
    path: Option<PathBuf>,
    spool: Arc<Shared>,
    bytes: u64,
    unpublished: Unpublished,
}

impl Staged {
    fn refused(&self, error: &io::Error) {
        self.spool.refused(error);
    }

    fn pressure(&self) -> PressureState {
        self.spool.space.as_ref().map_or(PressureState::Ok, Space::state)
    }

    fn grow_to(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.spool.bytes.fetch_add(bytes - self.bytes, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }

    /// Removes the file, whoever has it open.
    fn remove(&mut self) {
        if let Some(path) = self.path.take()
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(%error, "a file of the spool could not be removed");
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.spool.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        match self.unpublished {
            Unpublished::Removed => self.remove(),
            Unpublished::Kept if self.path.is_some() => {
                self.spool.parked.fetch_add(self.bytes, Ordering::Relaxed);
            }
            Unpublished::Kept => {}
        }
    }
}

/// Bytes whose digest was computed and found right: what the tree takes.
#[derive(Debug)]
pub struct Verified {
    staged: Staged,
    digest: Digest,
    size: u64,
}

impl Verified {
    /// Their digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Their count.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The open file: its descriptor stays good when it is renamed.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.staged.file
    }

    /// What is in the file can't be relied on: it goes, whatever it is of, so that nothing takes it up again.
    pub(super) fn spoil(mut self) {
        self.staged.unpublished = Unpublished::Removed;
    }

    /// Makes the file `target`, by renaming it. The caller has its bytes on disk before, and the folder after.
    pub(super) fn rename_to(mut self, target: &Path) -> io::Result<Arc<File>> {
        if let Some(path) = &self.staged.path {
            std::fs::rename(path, target)?;
        }
        self.staged.path = None;
        Ok(Arc::clone(&self.staged.file))
    }
}

fn refuses_writes(kind: io::ErrorKind) -> bool {
    use io::ErrorKind;
    matches!(kind, ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied | ErrorKind::StorageFull)
}

/// Runs blocking work; a panic in it goes on in the caller.
async fn on_the_pool<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::new("working on the spool", io::Error::other(e)))?
}

#[cfg(test)]
mod tests;

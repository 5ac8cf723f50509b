//! The tree in a folder.
//!
//! ```text
//! blobs/sha256/ab/<hex>.<generation>
//! repositories/<registry>/<name>/_links/sha256/<hex>
//! repositories/<registry>/<name>/_tags/<tag>
//! state/<kind>/<id>
//! ```
//!
//! Parts of paths that are no names begin with `_`; no repository's name has a part that does. A registry's port stands
//! behind a `_`, which no host has. Everything is written in the spool, brought to disk, renamed, and its folder brought to
//! disk: a reader sees all of it or nothing, and what was acknowledged survives a power cut. `relaxed` leaves the bringing
//! to disk to the kernel; the order stays.
//!
//! Opening a file and reading a record are a few microseconds where the kernel has seen them lately, less than handing
//! them to another thread; so they happen in place. What writes happens on the blocking pool.

use std::collections::BTreeSet;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::body::FileRange;
use crate::config::store::Durability;

use super::super::space::BALLAST;
use super::super::spool::Verified;
use super::BlobKey;
use super::Error;
use super::Opened;
use super::RecordPath;
use super::Result;
use super::StateId;
use super::Tree;
use super::paths;
use super::walk::walk;

/// Folders that are remembered as being on disk; beyond it some are brought there again.
const KEPT_MAX: usize = 10_000;

/// The tree in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Filesystem(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    blobs: PathBuf,
    repositories: PathBuf,
    /// Where records are written before they are renamed.
    staging: PathBuf,
    /// Let go where a record could not be written otherwise.
    ballast: PathBuf,
    durability: Durability,
    /// Folders whose own entries are on disk, as far as this process knows.
    kept: Mutex<HashSet<PathBuf>>,
}

impl Filesystem {
    /// The tree in `folder`; its parts are made where they are missing.
    pub(crate) fn open(folder: &Path, durability: Durability) -> Result<Self> {
        let tree = Folder {
            root: folder.to_owned(),
            blobs: folder.join("blobs"),
            repositories: folder.join("repositories"),
            staging: folder.join("spool").join("fills"),
            ballast: folder.join(BALLAST),
            durability,
            kept: Mutex::default(),
        };
        for part in [&tree.blobs, &tree.repositories, &tree.staging] {
            match std::fs::create_dir_all(part) {
                // What is held can be read all the same.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ReadOnlyFilesystem
                            | io::ErrorKind::PermissionDenied
                            | io::ErrorKind::StorageFull
                    ) => {}
                made => made.map_err(|e| failed("making", part, e))?,
            }
        }
        Ok(Self(Arc::new(tree)))
    }

    async fn on_the_pool<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let folder = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&folder)).await;
        done.map_err(|e| Error::Io { doing: "working on the tree".to_owned(), source: io::Error::other(e) })?
    }
}

pub(super) fn failed(doing: &str, path: &Path, source: io::Error) -> Error {
    Error::Io { doing: format!("{doing} {}", path.display()), source }
}

impl Folder {
    fn blob(&self, key: &BlobKey) -> PathBuf {
        let hex = key.digest.hex();
        let shard = hex.get(..2).unwrap_or_default();
        self.blobs.join(key.digest.algorithm().as_str()).join(shard).join(format!("{hex}.{}", key.generation))
    }

    fn record(&self, path: &RecordPath) -> PathBuf {
        self.root.join(paths::of_record(path))
    }

    /// Brings a file's bytes to disk. After a failure the file is of no use: a later success of the same descriptor
    /// would say nothing of the bytes that were lost.
    fn keep(&self, file: &File, path: &Path) -> Result<()> {
        match self.durability {
            Durability::Strict => file.sync_all().map_err(|e| failed("bringing to disk", path, e)),
            Durability::Relaxed => Ok(()),
        }
    }

    /// Brings what a folder lists to disk.
    fn keep_listing(&self, folder: &Path) -> Result<()> {
        match self.durability {
            Durability::Strict => {
                let opened = File::open(folder).map_err(|e| failed("opening", folder, e))?;
                opened.sync_all().map_err(|e| failed("bringing to disk", folder, e))
            }
            Durability::Relaxed => Ok(()),
        }
    }

    /// Makes a folder and those above it, and brings each one's entry to disk. A folder that is there may still be only in
    /// memory, made by another thread or before a crash; so the first use of each by this process brings it to disk.
    fn make(&self, folder: &Path) -> Result<()> {
        // One at a time: whoever finds a folder there must not go on before it is on disk.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !folder.is_dir() {
            // Somebody removed it by hand, and perhaps others.
            kept.clear();
        }
        let new: Vec<&Path> = folder.ancestors().take_while(|f| *f != self.root && !kept.contains(*f)).collect();
        for folder in new.into_iter().rev() {
            match std::fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("making", folder, error));
                }
                _ => self.keep_listing(folder.parent().unwrap_or(&self.root))?,
            }
            if kept.len() >= KEPT_MAX {
                kept.clear();
            }
            kept.insert(folder.to_owned());
        }
        Ok(())
    }

    fn publish(&self, key: &BlobKey, blob: Verified) -> Result<Opened> {
        let (path, size) = (self.blob(key), blob.size());
        if let Err(error) = self.keep(blob.file(), &path) {
            // A later fsync of the file may say that all is well where bytes were lost.
            blob.spoil();
            return Err(error);
        }
        let folder = path.parent().unwrap_or(&self.blobs);
        self.make(folder)?;
        let was_there = path.exists();
        let file = blob.rename_to(&path).map_err(|e| failed("publishing", &path, e))?;
        if let Err(error) = self.keep_listing(folder) {
            // A later success of the folder would say nothing of this entry: it is taken back.
            if !was_there {
                drop(std::fs::remove_file(&path));
            }
            return Err(error);
        }
        Ok(Opened::File(FileRange { file, offset: 0, length: size }))
    }

    /// Writes a record. Where there is no room the ballast is let go: new content was refused before that, so what still
    /// writes is a delete, the settling of a commit, or a start.
    fn put(&self, path: &RecordPath, record: &[u8]) -> Result<()> {
        match self.put_once(path, record) {
            Err(Error::Io { source, .. })
                if source.kind() == io::ErrorKind::StorageFull && std::fs::remove_file(&self.ballast).is_ok() =>
            {
                tracing::warn!("the file system is full to its last bytes; the ballast was let go");
                self.put_once(path, record)
            }
            done => done,
        }
    }

    fn put_once(&self, path: &RecordPath, record: &[u8]) -> Result<()> {
        self.write_record(path, record, |file, staged| self.keep(file, staged))?;
        self.keep_listing(self.record(path).parent().unwrap_or(&self.repositories))
    }

    /// Writes a record, and leaves to the kernel when it comes to disk.
    fn note(&self, path: &RecordPath, record: &[u8]) -> Result<()> {
        self.write_record(path, record, |_, _| Ok(()))
    }

    /// Writes a record beside its place and renames it; `keep` is asked to bring it to disk before that.
    fn write_record(
        &self,
        path: &RecordPath,
        record: &[u8],
        keep: impl FnOnce(&File, &Path) -> Result<()>,
    ) -> Result<()> {
        let target = self.record(path);
        let folder = target.parent().unwrap_or(&self.repositories);
        self.make(folder)?;
        // Drawn, not counted: in a container each start has the same process number.
        let staged = self.staging.join(format!("{:016x}-record", fastrand::u64(..)));
        let written = write_staged(&staged, record, keep)
            .and_then(|()| std::fs::rename(&staged, &target).map_err(|e| failed("writing", &target, e)));
        if written.is_err() {
            // Nothing is there, or a half of it that the next start removes.
            drop(std::fs::remove_file(&staged));
        }
        written
    }

    /// Removes files in this order. Each folder is brought to disk once, however many of its files went.
    fn remove(&self, paths: impl Iterator<Item = PathBuf>) -> Result<()> {
        let mut folders = BTreeSet::new();
        for path in paths {
            if forget(&path)? {
                folders.extend(path.parent().map(Path::to_owned));
            }
        }
        folders.iter().try_for_each(|folder| self.keep_listing(folder))
    }
}

/// Removes a file, and leaves to the kernel when that comes to disk. Whether it was there.
fn forget(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if is_absence(&error) => Ok(false),
        Err(error) => Err(failed("removing", path, error)),
    }
}

fn write_staged(staged: &Path, record: &[u8], keep: impl FnOnce(&File, &Path) -> Result<()>) -> Result<()> {
    let file = File::options().write(true).create_new(true).open(staged);
    let mut file = file.map_err(|e| failed("making", staged, e))?;
    file.write_all(record).map_err(|e| failed("writing", staged, e))?;
    keep(&file, staged)
}

/// Whether the error says that there is no such file; one that it can't be looked at is another thing.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[async_trait]
impl Tree for Filesystem {
    async fn open(&self, key: &BlobKey) -> Result<Option<Opened>> {
        let path = self.0.blob(key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if is_absence(&error) => return Ok(None),
            Err(error) => return Err(failed("opening", &path, error)),
        };
        let length = file.metadata().map_err(|e| failed("looking at", &path, e))?.len();
        Ok(Some(Opened::File(FileRange { file: Arc::new(file), offset: 0, length })))
    }

    async fn publish(&self, key: &BlobKey, blob: Verified) -> Result<Opened> {
        let key = *key;
        self.on_the_pool(move |folder| folder.publish(&key, blob)).await
    }

    async fn remove(&self, keys: &[BlobKey]) -> Result<()> {
        let keys = keys.to_vec();
        self.on_the_pool(move |folder| folder.remove(keys.iter().map(|key| folder.blob(key)))).await
    }

    fn blobs(&self) -> BoxStream<'_, Result<(BlobKey, u64)>> {
        walk(self.0.blobs.clone(), |path| sized(&path).transpose())
    }

    async fn record(&self, path: &RecordPath) -> Result<Option<Bytes>> {
        let path = self.0.record(path);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(failed("reading", &path, error)),
        }
    }

    async fn put_record(&self, path: &RecordPath, record: Bytes) -> Result<()> {
        let path = path.clone();
        self.on_the_pool(move |folder| folder.put(&path, &record)).await
    }

    async fn note_record(&self, path: &RecordPath, record: Bytes) -> Result<()> {
        let path = path.clone();
        self.on_the_pool(move |folder| folder.note(&path, &record)).await
    }

    async fn remove_records(&self, paths: &[RecordPath]) -> Result<()> {
        let paths = paths.to_vec();
        self.on_the_pool(move |folder| folder.remove(paths.iter().map(|path| folder.record(path)))).await
    }

    async fn forget_record(&self, path: &RecordPath) -> Result<()> {
        let path = path.clone();
        self.on_the_pool(move |folder| forget(&folder.record(&path)).map(drop)).await
    }

    fn records(&self) -> BoxStream<'_, Result<RecordPath>> {
        let root = self.0.repositories.clone();
        walk(root.clone(), move |path| path.strip_prefix(&root).ok().and_then(paths::record_of).map(Ok))
    }

    fn states(&self, kind: &'static str) -> BoxStream<'_, Result<StateId>> {
        let folder = self.0.root.join(paths::STATE).join(kind);
        walk(folder.clone(), move |path| path.strip_prefix(&folder).ok().and_then(paths::state_of).map(Ok))
    }
}

/// A stored blob and its size; files of other names are none of ours and left alone.
fn sized(path: &Path) -> Result<Option<(BlobKey, u64)>> {
    let Some(key) = paths::blob_of(path) else { return Ok(None) };
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some((key, metadata.len()))),
        // It went while the folder was being read.
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(failed("looking at", path, error)),
    }
}

#[cfg(test)]
mod tests;

//! The tree in a folder.
//!
//! ```text
//! blobs/sha256/ab/<hex>.<generation>
//! repositories/<registry>/<name>/_links/sha256/<hex>
//! repositories/<registry>/<name>/_tags/<tag>
//! state/<kind>/<id>
//! ```
//!
//! Parts of paths that are no names begin with `_`; no repository's name has a part that does. Everything is written
//! beside its place in the spool, brought to disk, renamed, and its folder brought to disk: a reader sees all of it or
//! nothing, and what was acknowledged survives a power cut. `relaxed` leaves the bringing to disk to the kernel; the
//! order stays.
//!
//! Opening a file and reading a record are a few microseconds where the kernel has seen them lately, less than handing
//! them to another thread; so they happen in place. What writes happens on the blocking pool.

use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use futures_util::stream::BoxStream;

use crate::body::FileRange;
use crate::config::store::Durability;
use crate::oci::Digest;
use crate::oci::RepositoryKey;

use super::super::spool::Verified;
use super::BlobKey;
use super::Error;
use super::Opened;
use super::RecordPath;
use super::Result;
use super::Tree;

/// The tree in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Filesystem(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    blobs: PathBuf,
    repositories: PathBuf,
    state: PathBuf,
    /// Where records are written before they are renamed.
    staging: PathBuf,
    durability: Durability,
    next: AtomicU64,
}

impl Filesystem {
    /// The tree in `folder`; its parts are made where they are missing.
    pub(crate) fn open(folder: &Path, durability: Durability) -> Result<Self> {
        let tree = Folder {
            blobs: folder.join("blobs"),
            repositories: folder.join("repositories"),
            state: folder.join("state"),
            staging: folder.join("spool").join("fills"),
            durability,
            next: AtomicU64::new(0),
        };
        for part in [&tree.blobs, &tree.repositories, &tree.state, &tree.staging] {
            std::fs::create_dir_all(part).map_err(|e| failed("making", part, e))?;
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

fn failed(doing: &str, path: &Path, source: io::Error) -> Error {
    Error::Io { doing: format!("{doing} {}", path.display()), source }
}

impl Folder {
    fn blob(&self, key: &BlobKey) -> PathBuf {
        let hex = key.digest.hex();
        let shard = hex.get(..2).unwrap_or_default();
        self.blobs.join(key.digest.algorithm().as_str()).join(shard).join(format!("{hex}.{}", key.generation))
    }

    fn repository(&self, of: &RepositoryKey) -> PathBuf {
        self.repositories.join(of.path())
    }

    fn record(&self, path: &RecordPath) -> PathBuf {
        match path {
            RecordPath::Link(of, digest) => {
                self.repository(of).join("_links").join(digest.algorithm().as_str()).join(digest.hex())
            }
            RecordPath::Tag(of, tag) => self.repository(of).join("_tags").join(tag.as_str()),
            RecordPath::State(kind, id) => self.state.join(kind).join(id),
        }
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

    /// Makes a folder and those above it, and brings each new one's entry to disk.
    fn make(&self, folder: &Path) -> Result<()> {
        match std::fs::create_dir(folder) {
            Ok(()) => folder.parent().map_or(Ok(()), |parent| self.keep_listing(parent)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = folder.parent().ok_or_else(|| failed("making", folder, error))?;
                self.make(parent)?;
                self.make(folder)
            }
            Err(error) => Err(failed("making", folder, error)),
        }
    }

    fn publish(&self, key: &BlobKey, blob: Verified) -> Result<Opened> {
        let (path, size) = (self.blob(key), blob.size());
        self.keep(blob.file(), &path)?;
        let folder = path.parent().unwrap_or(&self.blobs);
        self.make(folder)?;
        let file = blob.rename_to(&path).map_err(|e| failed("publishing", &path, e))?;
        self.keep_listing(folder)?;
        Ok(Opened::File(FileRange { file, offset: 0, length: size }))
    }

    fn put(&self, path: &RecordPath, record: &[u8]) -> Result<()> {
        let target = self.record(path);
        let folder = target.parent().unwrap_or(&self.repositories);
        self.make(folder)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let staged = self.staging.join(format!("{}-record-{number}", std::process::id()));
        let written = (|| {
            std::fs::write(&staged, record).map_err(|e| failed("writing", &staged, e))?;
            if self.durability == Durability::Strict {
                let file = File::open(&staged).map_err(|e| failed("opening", &staged, e))?;
                self.keep(&file, &staged)?;
            }
            std::fs::rename(&staged, &target).map_err(|e| failed("writing", &target, e))
        })();
        if written.is_err() {
            // Nothing is there, or a half of it that the next start removes.
            drop(std::fs::remove_file(&staged));
        }
        written?;
        self.keep_listing(folder)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match std::fs::remove_file(path) {
            Ok(()) => path.parent().map_or(Ok(()), |folder| self.keep_listing(folder)),
            Err(error) if is_absence(&error) => Ok(()),
            Err(error) => Err(failed("removing", path, error)),
        }
    }
}

/// Whether the error says that there is no such file; one that it can't be looked at is another thing.
fn is_absence(error: &io::Error) -> bool {
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

    async fn remove(&self, key: &BlobKey) -> Result<()> {
        let key = *key;
        self.on_the_pool(move |folder| folder.remove(&folder.blob(&key))).await
    }

    fn blobs(&self) -> BoxStream<'_, Result<(BlobKey, u64)>> {
        let files = walk(self.0.blobs.clone());
        files
            .map(|found| found.and_then(|path| blob_of(&path)))
            .filter_map(|found| async move { found.transpose() })
            .boxed()
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

    async fn remove_record(&self, path: &RecordPath) -> Result<()> {
        let path = path.clone();
        self.on_the_pool(move |folder| folder.remove(&folder.record(&path))).await
    }

    fn records(&self) -> BoxStream<'_, Result<RecordPath>> {
        let root = self.0.repositories.clone();
        let files = walk(root.clone());
        files
            .filter_map(move |found| {
                let record = match found {
                    Ok(path) => path.strip_prefix(&root).ok().and_then(record_of).map(Ok),
                    Err(error) => Some(Err(error)),
                };
                std::future::ready(record)
            })
            .boxed()
    }
}

/// All files below a folder, read one folder at a time on the blocking pool. A folder that can't be read is an error of
/// the stream: what follows from it must not be taken for all there is.
fn walk(root: PathBuf) -> BoxStream<'static, Result<PathBuf>> {
    stream::unfold(vec![root], |mut folders| async move {
        let folder = folders.pop()?;
        let listed = tokio::task::spawn_blocking(move || list(&folder)).await;
        let (below, files) = match listed.map_err(io::Error::other) {
            Ok(Ok((below, files))) => (below, files.into_iter().map(Ok).collect::<Vec<_>>()),
            Ok(Err(error)) => (Vec::new(), vec![Err(error)]),
            Err(error) => (Vec::new(), vec![Err(failed("listing", Path::new("the tree"), error))]),
        };
        folders.extend(below);
        Some((stream::iter(files), folders))
    })
    .flatten()
    .boxed()
}

fn list(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => return Ok((Vec::new(), Vec::new())),
        Err(error) => return Err(failed("listing", folder, error)),
    };
    let (mut below, mut files) = (Vec::new(), Vec::new());
    for entry in entries {
        let entry = entry.map_err(|e| failed("listing", folder, e))?;
        let kind = entry.file_type().map_err(|e| failed("looking at", &entry.path(), e))?;
        if kind.is_dir() { below.push(entry.path()) } else { files.push(entry.path()) }
    }
    Ok((below, files))
}

/// What a file below `blobs` is, by its name; files of other names are none of ours and left alone.
fn blob_of(path: &Path) -> Result<Option<(BlobKey, u64)>> {
    let key = (|| {
        let (hex, generation) = path.file_name()?.to_str()?.split_once('.')?;
        let algorithm = path.parent()?.parent()?.file_name()?.to_str()?;
        let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
        Some(BlobKey { digest, generation: generation.parse().ok()? })
    })();
    let Some(key) = key else { return Ok(None) };
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some((key, metadata.len()))),
        // It went while the folder was being read.
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(failed("looking at", path, error)),
    }
}

/// What a file below `repositories` is, by its path.
fn record_of(path: &Path) -> Option<RecordPath> {
    let parts: Vec<&str> = path.iter().map(|p| p.to_str()).collect::<Option<_>>()?;
    match parts.as_slice() {
        [name @ .., "_links", algorithm, hex] => {
            let digest = format!("{algorithm}:{hex}").parse().ok()?;
            Some(RecordPath::Link(RepositoryKey::from_path(&name.join("/")).ok()?, digest))
        }
        [name @ .., "_tags", tag] => {
            Some(RecordPath::Tag(RepositoryKey::from_path(&name.join("/")).ok()?, tag.parse().ok()?))
        }
        _ => None,
    }
}

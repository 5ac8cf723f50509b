//! The tree as the store uses it: typed records by repository and name.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::body::FileRange;
use crate::clock::Timestamp;
use crate::oci::Descriptor;
use crate::oci::Digest;
use crate::oci::Manifest;
use crate::oci::MediaType;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::BlobKey;
use super::Error;
use super::Kind;
use super::LinkRecord;
use super::Origin;
use super::Result;
use super::Standing;
use super::TagRecord;
use super::Verified;
use super::index::Facts;
use super::open::Epoch;
use super::tree;
use super::tree::Opened;
use super::tree::RecordPath;
use super::tree::Tree;
use super::tree::records;

/// No manifest is larger.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// The tree, spoken to in records.
#[derive(Clone, Debug)]
pub(super) struct Truth(pub(super) Arc<dyn Tree>);

impl Truth {
    pub(super) async fn tag(&self, of: &RepositoryKey, tag: &Tag) -> Result<Option<TagRecord>> {
        let path = RecordPath::tag(of, tag);
        match self.0.record(&path).await? {
            Some(bytes) => Ok(Some(TagRecord::decode(&bytes).map_err(|e| tree::Error::of_record(&path, e))?)),
            None => Ok(None),
        }
    }

    pub(super) async fn link(&self, of: &RepositoryKey, digest: &Digest) -> Result<Option<LinkRecord>> {
        let path = RecordPath::link(of, digest);
        match self.0.record(&path).await? {
            Some(bytes) => Ok(Some(LinkRecord::decode(&bytes).map_err(|e| tree::Error::of_record(&path, e))?)),
            None => Ok(None),
        }
    }

    pub(super) async fn put_tag(&self, of: &RepositoryKey, record: &TagRecord) -> Result<()> {
        Ok(self.0.put_record(&RecordPath::tag(of, &record.tag), record.encode()?).await?)
    }

    pub(super) async fn put_link(&self, of: &RepositoryKey, record: &LinkRecord) -> Result<()> {
        Ok(self.0.put_record(&RecordPath::link(of, &record.digest), record.encode()?).await?)
    }

    pub(super) async fn drop_tag(&self, of: &RepositoryKey, tag: &Tag) -> Result<()> {
        self.drop_records(&[RecordPath::tag(of, tag)]).await
    }

    pub(super) async fn drop_link(&self, of: &RepositoryKey, digest: &Digest) -> Result<()> {
        self.drop_records(&[RecordPath::link(of, digest)]).await
    }

    pub(super) async fn drop_records(&self, paths: &[RecordPath]) -> Result<()> {
        Ok(self.0.remove_records(paths).await?)
    }

    pub(super) async fn publish(&self, key: &BlobKey, verified: Verified) -> Result<()> {
        self.0.publish(key, verified).await?;
        Ok(())
    }

    pub(super) async fn remove(&self, keys: &[BlobKey]) -> Result<()> {
        Ok(self.0.remove(keys).await?)
    }

    /// The open file of stored bytes.
    pub(super) async fn file(&self, key: &BlobKey) -> Result<Option<FileRange>> {
        match self.0.open(key).await? {
            Some(Opened::File(range)) => Ok(Some(range)),
            None => Ok(None),
        }
    }

    /// A link's record from the bytes alone: a manifest says so itself. None where the bytes are gone.
    pub(super) async fn recognise(&self, key: &BlobKey, origin: Origin, at: Timestamp) -> Result<Option<LinkRecord>> {
        let Some(range) = self.file(key).await? else { return Ok(None) };
        let size = range.length;
        let mut kind = Kind::Blob;
        if size <= MANIFEST_BYTES_MAX {
            // Without a type that the sender named, only the document's own counts.
            let manifest = Manifest::parse(read(range).await?, "").ok();
            kind = manifest
                .filter(|manifest| manifest.media_type.is_manifest())
                .map_or(kind, |manifest| self::kind(&manifest));
        }
        let (digest, generation, standing) = (key.digest, key.generation, Standing::default());
        Ok(Some(LinkRecord { digest, generation, size, kind, origin, at, standing }))
    }

    /// What the tree says of the last start. One that can't be read is as good as none: the index is made anew.
    pub(super) async fn epoch(&self) -> Result<Option<Epoch>> {
        match self.state("store", "epoch").await {
            Err(error) if error.is_damaged_record() => Ok(None),
            other => other,
        }
    }

    pub(super) async fn put_epoch(&self, epoch: &Epoch) -> Result<()> {
        self.put_state("store", "epoch", epoch).await
    }

    pub(super) async fn state<T: DeserializeOwned>(&self, kind: &'static str, id: &str) -> Result<Option<T>> {
        let path = RecordPath::state(kind, id)?;
        match self.0.record(&path).await? {
            Some(bytes) => Ok(Some(records::decode(&bytes).map_err(|e| tree::Error::of_record(&path, e))?)),
            None => Ok(None),
        }
    }

    pub(super) async fn put_state<T: Serialize + Sync>(&self, kind: &'static str, id: &str, state: &T) -> Result<()> {
        Ok(self.0.put_record(&RecordPath::state(kind, id)?, records::encode(state)?).await?)
    }

    pub(super) async fn note_state<T: Serialize + Sync>(&self, kind: &'static str, id: &str, state: &T) -> Result<()> {
        Ok(self.0.note_record(&RecordPath::state(kind, id)?, records::encode(state)?).await?)
    }

    pub(super) async fn drop_state(&self, kind: &'static str, id: &str) -> Result<()> {
        self.drop_records(&[RecordPath::state(kind, id)?]).await
    }

    pub(super) async fn forget_state(&self, kind: &'static str, id: &str) -> Result<()> {
        Ok(self.0.forget_record(&RecordPath::state(kind, id)?).await?)
    }

    pub(super) fn states(&self, kind: &'static str) -> BoxStream<'_, Result<String>> {
        self.0.states(kind).map(|id| Ok(id?.as_str().to_owned())).boxed()
    }

    /// Whether there is nothing at all.
    pub(super) async fn is_empty(&self) -> Result<bool> {
        let bytes = self.0.blobs().next().await.transpose()?.is_some();
        Ok(!bytes && self.0.records().next().await.transpose()?.is_none())
    }

    /// What a manifest that is stored names: read from its bytes, on the thread of the caller. None where they are gone or are not what they were.
    pub(super) async fn facts(&self, record: &LinkRecord) -> Result<Option<Facts>> {
        let Kind::Manifest { media_type, .. } = &record.kind else { return Ok(None) };
        let Some(range) = self.file(&record.blob()).await? else { return Ok(None) };
        let bytes = read_here(&range)?;
        if Digest::of_with(record.digest.algorithm(), &bytes) != record.digest {
            return Ok(None);
        }
        Ok(Manifest::parse(bytes, media_type.as_str()).ok().map(|manifest| facts(&manifest, record.digest)))
    }
}

/// Reads a whole manifest.
pub(super) async fn read(range: FileRange) -> Result<Bytes> {
    tokio::task::spawn_blocking(move || read_here(&range)).await.map_err(|_| Error::Closed)?
}

/// The same on the spot, as records are read.
fn read_here(range: &FileRange) -> Result<Bytes> {
    use std::os::unix::fs::FileExt;
    let failed = |source| Error::Folder { doing: "reading stored bytes".to_owned(), source };
    let length = usize::try_from(range.length).map_err(|error| failed(std::io::Error::other(error)))?;
    let mut bytes = vec![0; length];
    range.file.read_exact_at(&mut bytes, range.offset).map_err(failed)?;
    Ok(bytes.into())
}

/// What the index keeps of a manifest.
pub(super) fn facts(manifest: &Manifest, digest: Digest) -> Facts {
    let mut children: Vec<_> = manifest.links.children().map(|child| child.digest).collect();
    children.sort_unstable();
    // An index may list one child twice, thirty levels deep.
    children.dedup();
    let referrer = manifest.links.subject.as_ref().map(|subject| {
        let descriptor = Descriptor {
            media_type: manifest.media_type.clone(),
            digest,
            size: manifest.size(),
            artifact_type: manifest.links.artifact_type.clone(),
            annotations: manifest.links.annotations.clone(),
            platform: None,
        };
        (subject.digest, descriptor)
    });
    Facts { children, referrer }
}

/// The kind of a link to a manifest.
pub(super) fn kind(manifest: &Manifest) -> Kind {
    Kind::Manifest {
        media_type: MediaType::clone(&manifest.media_type),
        subject: manifest.links.subject.as_ref().map(|subject| subject.digest),
        artifact_type: manifest.links.artifact_type.clone(),
    }
}

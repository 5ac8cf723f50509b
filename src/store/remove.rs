//! What clients remove: each removal is checked and done with its names locked, so that nothing is ever named that is
//! not there.

use std::sync::Arc;

use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::BlobKey;
use super::Drop;
use super::Error;
use super::Inner;
use super::Kind;
use super::Result;
use super::names::Name;

/// How often a removal looks again, where the tags of its manifest change beside it.
const LOOKS_MAX: u32 = 16;

/// The most tags that go with one manifest.
const TAGS_MAX: usize = 10_000;

/// What is to be removed from a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A tag; what it means stays.
    Tag(Tag),
    /// A manifest with all tags that mean it. [`Error::Named`] where another manifest of the repository names it.
    Manifest(Digest),
    /// A blob. [`Error::Named`] where a manifest of the repository names it.
    Blob(Digest),
}

/// Tells which tags may not go.
pub(super) type Fixed = dyn Fn(&Tag) -> bool + Send + Sync;

/// Runs the removal as work of its own, as a commit does. Gives whether there was anything to remove.
pub(super) async fn remove(store: &Arc<Inner>, of: RepositoryKey, removal: Removal, fixed: Arc<Fixed>) -> Result<bool> {
    let inner = Arc::clone(store);
    let work = async move {
        let gone = match removal {
            Removal::Tag(tag) => inner.remove_tag(&of, tag, &*fixed).await?,
            Removal::Manifest(digest) => inner.remove_manifest(&of, digest, &*fixed).await?,
            Removal::Blob(digest) => inner.remove_blob(&of, digest).await?,
        };
        inner.collect_all(gone.as_deref().unwrap_or_default()).await;
        Ok(gone.is_some())
    };
    store.tasks.spawn("remove", work).await.map_err(|_| Error::Closed)?
}

impl Inner {
    async fn remove_tag(self: &Arc<Self>, of: &RepositoryKey, tag: Tag, fixed: &Fixed) -> Result<Option<Vec<BlobKey>>> {
        let _gate = self.gate.pass().await;
        let _locked = self.names.lock(of, [&Name::Tag(tag.clone())]).await;
        if self.tag_record(of, &tag).await?.is_none() {
            return Ok(None);
        }
        if fixed(&tag) {
            return Err(Error::Fixed { tag });
        }
        self.make_room();
        self.unlink(of, vec![Drop::Tag(tag)]).await.map(Some)
    }

    async fn remove_blob(self: &Arc<Self>, of: &RepositoryKey, digest: Digest) -> Result<Option<Vec<BlobKey>>> {
        let _gate = self.gate.pass().await;
        let _locked = self.names.lock(of, [&Name::Digest(digest)]).await;
        match self.link(of, &digest).await? {
            Some(link) if link.kind == Kind::Blob => self.remove_unnamed(of, digest, Vec::new()).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Finds the tags that go with the manifest, locks all of it, and looks whether they are still the same.
    async fn remove_manifest(
        self: &Arc<Self>,
        of: &RepositoryKey,
        digest: Digest,
        fixed: &Fixed,
    ) -> Result<Option<Vec<BlobKey>>> {
        for _ in 0..LOOKS_MAX {
            let tags = self.tags_of(of, &digest).await?;
            let mut names: Vec<Name> = tags.iter().cloned().map(Name::Tag).collect();
            names.push(Name::Digest(digest));
            let _gate = self.gate.pass().await;
            let _locked = self.names.lock(of, &names).await;
            if self.tags_of(of, &digest).await? != tags {
                continue;
            }
            let link = self.link(of, &digest).await?;
            if !link.is_some_and(|link| matches!(link.kind, Kind::Manifest { .. })) {
                return Ok(None);
            }
            if let Some(tag) = tags.iter().find(|tag| fixed(tag)) {
                return Err(Error::Fixed { tag: tag.clone() });
            }
            return self.remove_unnamed(of, digest, tags).await.map(Some);
        }
        Err(Error::Contended)
    }

    /// Removes the tags and the link, unless a manifest names it. The names are locked, that of the digest among them:
    /// so is whoever would push a manifest that names it.
    async fn remove_unnamed(
        self: &Arc<Self>,
        of: &RepositoryKey,
        digest: Digest,
        tags: Vec<Tag>,
    ) -> Result<Vec<BlobKey>> {
        self.complete()?;
        if let Some(by) = self.index.parents(of, &digest, 1).await?.first() {
            return Err(Error::Named { by: *by });
        }
        self.make_room();
        let drops = tags.into_iter().map(Drop::Tag).chain([Drop::Link(digest)]);
        self.unlink(of, drops.collect()).await
    }

    /// The tags that mean a digest.
    async fn tags_of(&self, of: &RepositoryKey, digest: &Digest) -> Result<Vec<Tag>> {
        self.complete()?;
        Ok(self.index.tags_of(of, digest, TAGS_MAX).await?)
    }
}

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
use super::commit::Plan;
use super::names::Name;

/// How often a removal looks again, where the tags of its manifest change beside it.
const LOOKS_MAX: u32 = 16;

/// The most tags that go with one manifest.
const TAGS_MAX: usize = 10_000;

/// What is to be removed from a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A tag; what it means stays until it is collected.
    Tag(Tag),
    /// A tag, if it still means this.
    TagMeaning(Tag, Digest),
    /// A manifest with all tags that mean it. [`Error::Named`] where another manifest of the repository names it.
    Manifest(Digest),
    /// A manifest that no tag means. [`Error::Tagged`] where one does, [`Error::Named`] where another manifest of the
    /// repository names it.
    Untagged(Digest),
    /// A blob. [`Error::Named`] where a manifest of the repository names it.
    Blob(Digest),
}

/// What becomes of the tags of a manifest that is to go.
#[derive(Clone, Copy)]
enum Tags<'a> {
    /// They go with it, unless one of them may not.
    Go(&'a Fixed),
    /// They keep it.
    Keep,
}

/// Tells which tags may not go.
pub(super) type Fixed = dyn Fn(&Tag) -> bool + Send + Sync;

/// Runs the removal as work of its own, as a commit does. Gives whether there was anything to remove.
pub(super) async fn remove(store: &Arc<Inner>, of: RepositoryKey, removal: Removal, fixed: Arc<Fixed>) -> Result<bool> {
    let inner = Arc::clone(store);
    let work = async move {
        let gone = match removal {
            Removal::Tag(tag) => inner.remove_tag(&of, tag, None, &*fixed).await?,
            Removal::TagMeaning(tag, digest) => inner.remove_tag(&of, tag, Some(digest), &*fixed).await?,
            Removal::Manifest(digest) => inner.remove_manifest(&of, digest, Tags::Go(&*fixed)).await?,
            Removal::Untagged(digest) => inner.remove_manifest(&of, digest, Tags::Keep).await?,
            Removal::Blob(digest) => inner.remove_blob(&of, digest).await?,
        };
        inner.collect_all(gone.as_deref().unwrap_or_default()).await;
        if gone.is_some() {
            inner.loosened.note(&of);
        }
        Ok(gone.is_some())
    };
    store.tasks.spawn("remove", work).await.map_err(|_| Error::Closed)?
}

impl Inner {
    /// Removes a tag; a manifest that loses its last one goes as soon as nothing else keeps it.
    async fn remove_tag(
        self: &Arc<Self>,
        of: &RepositoryKey,
        tag: Tag,
        meaning: Option<Digest>,
        fixed: &Fixed,
    ) -> Result<Option<Vec<BlobKey>>> {
        for _ in 0..LOOKS_MAX {
            let Some(found) = self.tag_record(of, &tag).await? else { return Ok(None) };
            let _gate = self.gate.pass().await;
            let _locked = self.names.lock(of, [&Name::Tag(tag.clone()), &Name::Digest(found.digest)]).await;
            let Some(before) = self.tree.tag(of, &tag).await? else { return Ok(None) };
            if before.digest != found.digest {
                continue;
            }
            if meaning.is_some_and(|meaning| meaning != before.digest) {
                return Ok(None);
            }
            if fixed(&tag) {
                return Err(Error::Fixed { tag });
            }
            self.make_room();
            let mut plan = Plan::default();
            // While the index is being rebuilt other tags are not known: then it counts as replaced, and goes later.
            if self.is_complete() && self.index.tags_of(of, &before.digest, 2).await? == [tag] {
                self.release_one(of, &before.digest, &mut plan).await?;
            }
            plan.drop_tag(of, before);
            self.note_epoch(self.is_complete()).await?;
            self.carry_out(of, plan, self.leases.pin(Vec::new()).await).await?;
            return Ok(Some(Vec::new()));
        }
        Err(Error::Contended)
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
        rule: Tags<'_>,
    ) -> Result<Option<Vec<BlobKey>>> {
        self.release_children(of, &digest).await?;
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
            match rule {
                Tags::Go(fixed) => {
                    if let Some(tag) = tags.iter().find(|tag| fixed(tag)) {
                        return Err(Error::Fixed { tag: tag.clone() });
                    }
                }
                Tags::Keep => {
                    if let Some(tag) = tags.first() {
                        return Err(Error::Tagged { tag: tag.clone() });
                    }
                }
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

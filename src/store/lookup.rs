//! Lookups: memory, then the index, then the tree by name. What the index lacks is absent only if the tree lacks it too.

use std::sync::Arc;

use crate::body::FileRange;
use crate::oci::Descriptor;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::Blob;
use super::BlobKey;
use super::Completeness;
use super::Error;
use super::Held;
use super::HeldBytes;
use super::Inner;
use super::LinkRecord;
use super::Linked;
use super::Page;
use super::Result;
use super::Stamp;
use super::TagRecord;
use super::TagState;
use super::Tagged;
use super::index::BlobState;
use super::index::TagRow;
use super::names::Name;
use super::repair;
use super::tree::Kind;
use super::truth;

impl Inner {
    pub(super) fn is_complete(&self) -> bool {
        *self.completeness.borrow() == Completeness::Complete
    }

    pub(super) async fn tag(&self, of: &RepositoryKey, tag: &Tag) -> Result<Option<Arc<TagState>>> {
        if let Some(state) = self.hot.tag(of, tag) {
            return Ok(Some(state));
        }
        self.hot.tag_or(of, tag, self.load_tag(of, tag)).await
    }

    async fn load_tag(&self, of: &RepositoryKey, tag: &Tag) -> Result<Option<Arc<TagState>>> {
        let row = match self.index.tag(of, tag).await {
            Ok(Some(row)) => Some((row.record, row.validated_at)),
            // Damage is told to the keeper by the index itself; by name the tree answers.
            answer => {
                let record = self.tree.tag(of, tag).await?;
                if answer.is_ok() && record.is_some() {
                    self.doubt_tag(of, tag).await;
                }
                record.map(|record| {
                    let at = record.at;
                    (record, at)
                })
            }
        };
        let Some((record, validated_at)) = row else { return Ok(None) };
        let validated_at = self.uses.last_validation(of, tag).map_or(validated_at, |at| at.max(validated_at));
        Ok(Some(Arc::new(TagState::new(record, validated_at))))
    }

    pub(super) async fn held(&self, of: &RepositoryKey, digest: &Digest) -> Result<Option<Arc<Held>>> {
        if let Some(held) = self.hot.held(of, digest) {
            return Ok(Some(held));
        }
        self.hot.held_or(of, digest, self.load_held(of, digest)).await
    }

    async fn load_held(&self, of: &RepositoryKey, digest: &Digest) -> Result<Option<Arc<Held>>> {
        let Some(link) = self.link(of, digest).await? else { return Ok(None) };
        let key = link.blob();
        if self
            .index
            .blob(digest)
            .await
            .is_ok_and(|row| row.is_some_and(|row| row.key == key && row.state == BlobState::Damaged))
        {
            return repair::damaged(self, of, &link).await;
        }
        let opened = self.tree.file(&key).await?;
        match opened {
            Some(range) if range.length == link.size => {
                let bytes = match link.kind {
                    Kind::Blob => {
                        let stamp = Stamp::of(&range.file);
                        let stamp = stamp
                            .map_err(|source| Error::Folder { doing: "looking at stored bytes".to_owned(), source })?;
                        HeldBytes::File { range, stamp }
                    }
                    Kind::Manifest { .. } => {
                        let bytes = truth::read(range).await?;
                        // A manifest is small: whether it is what it was is seen at once.
                        if Digest::of_with(digest.algorithm(), &bytes) != *digest {
                            return repair::damaged(self, of, &link).await;
                        }
                        HeldBytes::Memory(bytes)
                    }
                };
                Ok(Some(Arc::new(Held { link, bytes })))
            }
            _ => repair::damaged(self, of, &link).await,
        }
    }

    /// The record of a link: from the index, else from the tree.
    pub(super) async fn link(&self, of: &RepositoryKey, digest: &Digest) -> Result<Option<LinkRecord>> {
        match self.index.link(of, digest).await {
            Ok(Some(link)) => Ok(Some(link)),
            answer => {
                let link = self.tree.link(of, digest).await?;
                if answer.is_ok() && link.is_some() {
                    self.doubt_link(of, digest).await;
                }
                Ok(link)
            }
        }
    }

    /// The tree has a tag that the index lacks. Unless a commit is just between the two, the index has lost it.
    async fn doubt_tag(&self, of: &RepositoryKey, tag: &Tag) {
        let Some(_locked) = self.names.try_lock(of, &Name::Tag(tag.clone())) else { return };
        let lost = self.is_complete()
            && matches!(self.index.tag(of, tag).await, Ok(None))
            && matches!(self.tree.tag(of, tag).await, Ok(Some(_)));
        self.doubt(lost, of);
    }

    /// The same for a link.
    async fn doubt_link(&self, of: &RepositoryKey, digest: &Digest) {
        let Some(_locked) = self.names.try_lock(of, &Name::Digest(*digest)) else { return };
        let lost = self.is_complete()
            && matches!(self.index.link(of, digest).await, Ok(None))
            && matches!(self.tree.link(of, digest).await, Ok(Some(_)));
        self.doubt(lost, of);
    }

    fn doubt(&self, lost: bool, of: &RepositoryKey) {
        if lost {
            tracing::warn!(repository = %of, "the index lacks what the tree has; it is made anew");
            self.completeness.send_replace(Completeness::Rebuilding { done: 0 });
            self.doubt.notify_one();
        }
    }

    pub(super) async fn tags(&self, of: &RepositoryKey, after: Option<&Tag>, limit: usize) -> Result<Page<Tagged>> {
        self.complete()?;
        let (mut rows, mut after) = (Vec::new(), after.cloned());
        loop {
            let page = self.index.tags(of, after.as_ref(), limit - rows.len()).await?;
            after = page.rows.last().map(|row| row.record.tag.clone());
            for row in page.rows.into_iter().filter(|row| row.record.gone.is_none()) {
                rows.push(self.tagged_row(of, row).await?);
            }
            if !page.more || rows.len() >= limit {
                return Ok(Page { rows, more: page.more });
            }
        }
    }

    async fn tagged_row(&self, of: &RepositoryKey, row: TagRow) -> Result<Tagged> {
        let name = Name::Tag(row.record.tag.clone());
        let used = self.last_use(of, &name).await?;
        let validated_at = self.uses.last_validation(of, &row.record.tag).unwrap_or_default().max(row.validated_at);
        Ok(Tagged { record: row.record, validated_at, used })
    }

    pub(super) async fn referrers(
        &self,
        of: &RepositoryKey,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Descriptor>> {
        self.complete()?;
        Ok(self.index.referrers(of, subject, after, limit).await?)
    }

    pub(super) async fn is_named(&self, of: &RepositoryKey, digest: &Digest) -> Result<bool> {
        self.complete()?;
        Ok(!self.index.parents(of, digest, 1).await?.is_empty())
    }

    pub(super) async fn present(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.index.blob(digest).await? {
            Some(row) if row.state == BlobState::Live => Ok(Some(row.size)),
            Some(_) => Ok(None),
            None if self.is_complete() => Ok(None),
            None => Err(Error::Incomplete),
        }
    }

    pub(super) async fn lease(&self, digest: &Digest) -> Result<bool> {
        // Leased first, then looked at: the other way round it could be condemned in between.
        Ok(self.leases.lease(*digest) && self.present(digest).await?.is_some())
    }

    pub(super) async fn repositories(
        &self,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Page<RepositoryKey>> {
        self.complete()?;
        Ok(self.index.repositories(after, limit).await?)
    }

    pub(super) async fn links(&self, of: &RepositoryKey, after: Option<&Digest>, limit: usize) -> Result<Page<Linked>> {
        self.complete()?;
        let page = self.index.links(of, after, limit).await?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for link in page.rows {
            let used = self.last_use(of, &Name::Digest(link.digest)).await?;
            let facts = self.index.facts(of, &link.digest).await?.unwrap_or_default();
            let subject = facts.referrer.map(|(subject, _)| subject);
            rows.push(Linked { link, used, children: facts.children, subject });
        }
        Ok(Page { rows, more: page.more })
    }

    pub(super) async fn blobs(&self, after: Option<&BlobKey>, limit: usize) -> Result<Page<Blob>> {
        self.complete()?;
        let (mut rows, mut after) = (Vec::new(), after.copied());
        loop {
            let page = self.index.blobs(after.as_ref(), limit - rows.len()).await?;
            after = page.rows.last().map(|row| row.key);
            rows.extend(page.rows.into_iter().filter(|row| row.state != BlobState::Going).map(|row| Blob {
                key: row.key,
                size: row.size,
                links: row.hosted.saturating_add(row.proxied),
                hosted: row.hosted > 0,
            }));
            if !page.more || rows.len() >= limit {
                return Ok(Page { rows, more: page.more });
            }
        }
    }

    pub(super) async fn linked_in(&self, digest: &Digest, limit: usize) -> Result<Vec<RepositoryKey>> {
        self.complete()?;
        match self.index.blob(digest).await?.filter(|row| row.state == BlobState::Live) {
            Some(row) => Ok(self.index.holders(&row.key, limit).await?),
            None => Ok(Vec::new()),
        }
    }

    pub(super) async fn holders(&self, key: &BlobKey, limit: usize) -> Result<Vec<RepositoryKey>> {
        self.complete()?;
        Ok(self.index.holders(key, limit).await?)
    }

    pub(super) async fn open_blob(&self, key: &BlobKey) -> Result<Option<FileRange>> {
        self.tree.file(key).await
    }

    /// The last use: the map in memory knows it exactly, the index to the hour.
    async fn last_use(&self, of: &RepositoryKey, name: &Name) -> Result<Option<crate::clock::Timestamp>> {
        match self.uses.last(of, name) {
            Some(at) => Ok(Some(at)),
            None => Ok(self.index.used(of, name).await?),
        }
    }

    /// The record of a tag, gone ones included: from the index, else from the tree.
    pub(super) async fn tag_record(&self, of: &RepositoryKey, tag: &Tag) -> Result<Option<TagRecord>> {
        match self.index.tag(of, tag).await {
            Ok(Some(row)) => Ok(Some(row.record)),
            Ok(None) | Err(_) => self.tree.tag(of, tag).await,
        }
    }

    /// Fails while the index has not a row for everything.
    pub(super) fn complete(&self) -> Result<()> {
        if self.is_complete() { Ok(()) } else { Err(Error::Incomplete) }
    }
}

//! Removal: links go by a commit like any other; bytes go only after they were condemned, and are buried afterwards.
//!
//! Nothing else in larder removes bytes. An open stream needs no protection: on a file system an unlinked file stays
//! readable for whoever has it open.

use std::sync::Arc;
use std::time::Duration;

use super::BlobKey;
use super::Drop;
use super::Error;
use super::Inner;
use super::Result;
use super::index::BlobRow;
use super::index::BlobState;
use super::index::Change;
use super::index::Intent;
use super::index::Step;
use super::index::Verdict;
use super::leases::Refetch;
use super::names::Name;
use super::settle;

/// How often what nothing links is looked at.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// Bytes that one step of a sweep looks at.
const STEP: usize = 500;

/// Runs the removal as work of its own, as a commit does.
pub(super) async fn evict(store: &Arc<Inner>, of: crate::oci::RepositoryKey, drops: Vec<Drop>) -> Result<u64> {
    let inner = Arc::clone(store);
    let work = async move { inner.evict(of, drops).await };
    store.tasks.spawn("evict", work).await.map_err(|_| Error::Closed)?
}

impl Inner {
    async fn evict(self: Arc<Self>, of: crate::oci::RepositoryKey, drops: Vec<Drop>) -> Result<u64> {
        let names: Vec<_> = drops
            .iter()
            .map(|drop| match drop {
                Drop::Tag(tag) => Name::Tag(tag.clone()),
                Drop::Link(digest) => Name::Digest(*digest),
            })
            .collect();
        self.make_room();
        let gone = {
            let _gate = self.gate.pass().await;
            let _locked = self.names.lock(&of, &names).await;
            self.unlink(&of, drops).await?
        };
        let mut freed = 0;
        for key in gone {
            freed += self.collect(&key).await?.unwrap_or(0);
        }
        if freed > 0 {
            self.metrics.evicted(freed);
        }
        Ok(freed)
    }

    /// Removes tags, then links: the reverse of a commit, so that nothing is ever named that is not there.
    pub(super) async fn unlink(
        self: &Arc<Self>,
        of: &crate::oci::RepositoryKey,
        drops: Vec<Drop>,
    ) -> Result<Vec<BlobKey>> {
        let (mut tags, mut links) = (Vec::new(), Vec::new());
        for drop in drops {
            match drop {
                Drop::Tag(tag) => tags.extend(self.tree.tag(of, &tag).await?.map(|before| Step::DropTag { before })),
                Drop::Link(digest) => links.extend(self.tree.link(of, &digest).await?),
            }
        }
        let gone: Vec<_> = links.iter().map(super::LinkRecord::blob).collect();
        tags.extend(links.into_iter().map(|before| Step::DropLink { before }));
        if tags.is_empty() {
            return Ok(gone);
        }
        self.note_epoch(self.is_complete()).await?;
        let intent = Intent { of: of.clone(), steps: tags };
        let pins = self.leases.pin(Vec::new()).await;
        let id = self.index.begin(intent.clone()).await?;
        match self.remove(&intent).await {
            Ok(changes) => match self.index.apply(Some(id), changes).await {
                Ok(()) => self.show(&intent),
                Err(error) => {
                    settle::later(self, id, intent, pins);
                    return Err(error.into());
                }
            },
            Err(error) => {
                settle::later(self, id, intent, pins);
                return Err(error);
            }
        }
        Ok(gone)
    }

    async fn remove(&self, intent: &Intent) -> Result<Vec<Change>> {
        let of = &intent.of;
        let mut changes = Vec::with_capacity(intent.steps.len());
        for step in &intent.steps {
            match step {
                Step::DropTag { before } => {
                    self.tree.drop_tag(of, &before.tag).await?;
                    changes.push(Change::DropTag { of: of.clone(), tag: before.tag.clone() });
                }
                Step::DropLink { before } => {
                    self.tree.drop_link(of, &before.digest).await?;
                    changes.push(Change::DropLink { of: of.clone(), digest: before.digest });
                }
                Step::Bytes { .. } | Step::Link { .. } | Step::Tag { .. } => {}
            }
        }
        Ok(changes)
    }

    /// Removes the bytes of `key` if nothing keeps them. What was freed; none where something does.
    pub(super) async fn collect(&self, key: &BlobKey) -> Result<Option<u64>> {
        let Some(row) = self.index.blob(&key.digest).await? else { return Ok(None) };
        if row.key == *key && row.state != BlobState::Going {
            return self.collect_row(&row).await;
        }
        Ok(None)
    }

    /// Removes those of the bytes that nothing keeps. What can't be removed now is found by a sweep.
    pub(super) async fn collect_all(&self, keys: &[BlobKey]) {
        let mut freed = 0;
        for key in keys {
            match self.collect(key).await {
                Ok(bytes) => freed += bytes.unwrap_or(0),
                Err(error) => {
                    tracing::warn!(error = %crate::telemetry::chain(&error), "collecting what was removed broke off");
                }
            }
        }
        self.metrics.collected(freed);
    }

    async fn collect_row(&self, row: &BlobRow) -> Result<Option<u64>> {
        if !self.is_complete() || row.hosted > 0 || row.proxied > 0 {
            return Ok(None);
        }
        let refetch = if row.precious { Refetch::Impossible } else { Refetch::Possible };
        let verdict = {
            // Whoever would pin the digest waits here, and stores it anew under the next generation.
            let Some(_claim) = self.leases.claim(row.key.digest, refetch) else { return Ok(None) };
            self.index.condemn(&row.key).await?
        };
        match verdict {
            Verdict::Condemned { size } => {
                self.finish(&row.key).await?;
                Ok(Some(size))
            }
            Verdict::Kept | Verdict::Incomplete => Ok(None),
        }
    }

    /// Removes what was condemned, and buries it.
    async fn finish(&self, key: &BlobKey) -> Result<()> {
        self.tree.remove(key).await?;
        Ok(self.index.bury(key).await?)
    }

    /// Finishes what a sweep before the start had condemned.
    pub(super) async fn finish_going(&self) -> Result<()> {
        loop {
            let going = self.index.going(STEP).await?;
            if going.is_empty() {
                return Ok(());
            }
            for key in going {
                self.finish(&key).await?;
            }
        }
    }

    /// Looks at everything that no repository links, in small steps.
    pub(super) async fn sweep(&self) -> Result<u64> {
        let (mut freed, mut after) = (0, None);
        while self.is_complete() {
            let orphans = self.index.orphans(after.as_ref(), STEP).await?;
            let Some(last) = orphans.last() else { break };
            after = Some(last.key);
            for row in orphans {
                freed += self.collect_row(&row).await?.unwrap_or(0);
            }
            tokio::task::yield_now().await;
        }
        self.metrics.collected(freed);
        Ok(freed)
    }
}

/// Sweeps until the store is gone or larder stops.
pub(super) async fn keep_sweeping(store: std::sync::Weak<Inner>, stopping: tokio_util::sync::CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        let Some(store) = store.upgrade() else { return };
        if let Err(error) = store.sweep().await {
            tracing::warn!(error = %crate::telemetry::chain(&error), "collecting what nothing names broke off");
        }
    }
}

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
use super::commit::Plan;
use super::index::BlobRow;
use super::index::BlobState;
use super::index::Verdict;
use super::leases::Refetch;
use super::names::Name;

/// How often what nothing links is looked at.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// Bytes that one step of a sweep looks at.
const STEP: usize = 500;
/// Bytes that are removed together: the index and each folder are brought to disk once for all of them.
const TOGETHER: usize = 64;

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

    /// Removes tags, then links: the reverse of a commit, so that nothing is ever named that is not there. The names are
    /// locked. Gives the bytes that were linked.
    pub(super) async fn unlink(
        self: &Arc<Self>,
        of: &crate::oci::RepositoryKey,
        drops: Vec<Drop>,
    ) -> Result<Vec<BlobKey>> {
        let (mut plan, mut links) = (Plan::default(), Vec::new());
        for drop in drops {
            match drop {
                Drop::Tag(tag) => {
                    if let Some(before) = self.tree.tag(of, &tag).await? {
                        plan.drop_tag(of, before);
                    }
                }
                Drop::Link(digest) => links.extend(self.tree.link(of, &digest).await?),
            }
        }
        let gone = links.iter().map(super::LinkRecord::blob).collect();
        for before in links {
            plan.drop_link(of, before);
        }
        if !plan.steps.is_empty() {
            self.note_epoch(self.is_complete()).await?;
            self.carry_out(of, plan, self.leases.pin(Vec::new()).await).await?;
        }
        Ok(gone)
    }

    /// Removes the bytes of `key` if nothing keeps them. What was freed; none where something does.
    pub(super) async fn collect(&self, key: &BlobKey) -> Result<Option<u64>> {
        let Some(row) = self.index.blob(&key.digest).await? else { return Ok(None) };
        if row.key == *key && row.state != BlobState::Going {
            return self.collect_row(&row).await;
        }
        Ok(None)
    }

    /// Removes those of the bytes that nothing keeps; gives how many became free. What can't be removed now is found by a
    /// sweep.
    pub(super) async fn collect_all(&self, keys: &[BlobKey]) -> u64 {
        let mut freed = 0;
        for some in keys.chunks(TOGETHER) {
            match self.collect_some(some).await {
                Ok(bytes) => freed += bytes,
                Err(error) => {
                    tracing::warn!(error = %crate::telemetry::chain(&error), "collecting what was removed broke off");
                }
            }
        }
        self.metrics.collected(freed);
        freed
    }

    async fn collect_some(&self, keys: &[BlobKey]) -> Result<u64> {
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            rows.extend(self.index.blob(&key.digest).await?.filter(|row| row.key == *key));
        }
        self.collect_rows(&rows).await
    }

    async fn collect_row(&self, row: &BlobRow) -> Result<Option<u64>> {
        match self.condemn(row).await? {
            Some(size) => {
                self.finish(&[row.key]).await?;
                Ok(Some(size))
            }
            None => Ok(None),
        }
    }

    /// The same for several at once, which costs the disk little more than one.
    async fn collect_rows(&self, rows: &[BlobRow]) -> Result<u64> {
        let verdicts = futures_util::future::join_all(rows.iter().map(|row| self.condemn(row))).await;
        let (mut condemned, mut freed, mut failed) = (Vec::new(), 0, None);
        for (row, verdict) in rows.iter().zip(verdicts) {
            match verdict {
                Ok(Some(size)) => {
                    condemned.push(row.key);
                    freed += size;
                }
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        self.finish(&condemned).await?;
        failed.map_or(Ok(freed), Err)
    }

    /// Moves bytes from live to going, if nothing keeps them; gives their count then.
    async fn condemn(&self, row: &BlobRow) -> Result<Option<u64>> {
        if !self.is_complete() || row.hosted > 0 || row.proxied > 0 || row.state == BlobState::Going {
            return Ok(None);
        }
        let refetch = if row.precious { Refetch::Impossible } else { Refetch::Possible };
        // Whoever would pin the digest waits here, and stores it anew under the next generation.
        let Some(_claim) = self.leases.claim(row.key.digest, refetch) else { return Ok(None) };
        match self.index.condemn(&row.key).await? {
            Verdict::Condemned { size } => Ok(Some(size)),
            Verdict::Kept | Verdict::Incomplete => Ok(None),
        }
    }

    /// Removes what was condemned, and buries it.
    async fn finish(&self, keys: &[BlobKey]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.tree.remove(keys).await?;
        let buried = futures_util::future::join_all(keys.iter().map(|key| self.index.bury(key))).await;
        Ok(buried.into_iter().collect::<super::index::Result<()>>()?)
    }

    /// Finishes what a sweep before the start had condemned.
    pub(super) async fn finish_going(&self) -> Result<()> {
        loop {
            let going = self.index.going(STEP).await?;
            if going.is_empty() {
                return Ok(());
            }
            for some in going.chunks(TOGETHER) {
                self.finish(some).await?;
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
            for some in orphans.chunks(TOGETHER) {
                freed += self.collect_rows(some).await?;
                tokio::task::yield_now().await;
            }
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

//! Making the index anew from the tree, while pulls are served from the tree by name.
//!
//! Records are read a batch at a time with the gate closed, so that no commit comes between the reading of a record and
//! the writing of its row: a row never is older than its record.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::TryStreamExt;
use tokio::time::Instant;

use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::store::BlobKey;
use crate::store::Completeness;
use crate::store::Error;
use crate::store::Inner;
use crate::store::Origin;
use crate::store::Result;
use crate::store::index::Change;
use crate::store::index::Health;
use crate::store::index::Identity;
use crate::store::tree::RecordPath;

/// Rows that one transaction writes, and records that are read with the gate closed.
const BATCH: usize = 500;
/// Between two lines of the log about how far it has come.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Records that are read at the same time.
const READERS: usize = 8;

/// Rebuilds the index; returns when it is complete. Where one is under way, as a start begins it, it is that one which is
/// waited for.
pub(in crate::store) async fn rebuild(store: &Arc<Inner>) -> Result<()> {
    let before = store.rebuilt.load(Ordering::Acquire);
    let _one = store.rebuilding.lock().await;
    if store.rebuilt.load(Ordering::Acquire) == before { make_anew(store).await } else { Ok(()) }
}

/// Rebuilds the index if it can't be relied on.
pub(in crate::store) async fn mend(store: &Arc<Inner>) -> Result<()> {
    let _one = store.rebuilding.lock().await;
    let damaged = *store.index.health().borrow() == Health::Damaged;
    if damaged || !store.is_complete() { make_anew(store).await } else { Ok(()) }
}

async fn make_anew(store: &Arc<Inner>) -> Result<()> {
    let mut work = Rebuild { store, done: 0, told: Instant::now() };
    work.begin().await?;
    work.bytes().await?;
    work.records().await?;
    work.end().await
}

struct Rebuild<'a> {
    store: &'a Arc<Inner>,
    done: u64,
    told: Instant,
}

impl Rebuild<'_> {
    async fn begin(&self) -> Result<()> {
        // From here on nothing is condemned; what is being condemned right now is in the tree or not, which is read below.
        self.store.completeness.send_replace(Completeness::Rebuilding { done: 0 });
        let _closed = self.store.gate.write().await;
        self.store.index.clear().await?;
        self.store.note_epoch(false).await?;
        self.identify(false).await
    }

    async fn identify(&self, complete: bool) -> Result<()> {
        let epoch = self.store.epoch.name().to_owned();
        Ok(self.store.index.identify(Identity::new(epoch, String::new(), complete)).await?)
    }

    /// Bytes first: a link to bytes that are nowhere is told from others by the row that is missing.
    async fn bytes(&mut self) -> Result<()> {
        let blobs = self.store.tree.0.blobs();
        let mut batches = blobs.chunks(BATCH);
        while let Some(batch) = batches.next().await {
            let mut changes = Vec::with_capacity(batch.len());
            for blob in batch {
                let (key, size) = blob?;
                changes.push(Change::Found { key, size });
            }
            self.write(changes).await?;
        }
        Ok(())
    }

    async fn records(&mut self) -> Result<()> {
        let mut batches = self.store.tree.0.records().chunks(BATCH);
        while let Some(batch) = batches.next().await {
            let paths = batch.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
            let _closed = self.store.gate.write().await;
            let store = self.store;
            let read = futures_util::stream::iter(paths).map(|path| change(store, path)).buffer_unordered(READERS);
            let changes: Vec<Vec<Change>> = read.try_collect().await?;
            self.write(changes.into_iter().flatten().collect()).await?;
        }
        Ok(())
    }

    async fn write(&mut self, changes: Vec<Change>) -> Result<()> {
        if self.store.tasks.stopping().is_cancelled() {
            return Err(Error::Closed);
        }
        self.done += changes.len() as u64;
        self.store.index.fill_in(changes).await?;
        self.store.completeness.send_replace(Completeness::Rebuilding { done: self.done });
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            tracing::info!(rows = self.done, "the index is being made anew from the tree");
        }
        Ok(())
    }

    async fn end(&self) -> Result<()> {
        let _closed = self.store.gate.write().await;
        self.identify(true).await?;
        self.store.leases.restart();
        self.store.completeness.send_replace(Completeness::Complete);
        self.store.rebuilt.fetch_add(1, Ordering::Release);
        tracing::info!(rows = self.done, "the index was made anew from the tree");
        Ok(())
    }
}

/// The rows of one record; none where it was removed meanwhile.
async fn change(store: &Inner, path: RecordPath) -> Result<Vec<Change>> {
    match path {
        RecordPath::Link(of, digest) => link(store, of, digest).await,
        RecordPath::Tag(of, tag) => tag_of(store, of, tag).await,
        RecordPath::State(..) => Ok(Vec::new()),
    }
}

async fn tag_of(store: &Inner, of: RepositoryKey, tag: Tag) -> Result<Vec<Change>> {
    match store.tree.tag(&of, &tag).await {
        Ok(Some(record)) => {
            let validated_at = record.at;
            Ok(vec![Change::Tag { of, record, validated_at }])
        }
        Ok(None) => Ok(Vec::new()),
        Err(error) if error.is_damaged_record() => {
            tracing::error!(repository = %of, %tag, "the record of a tag is damaged");
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

async fn link(store: &Inner, of: RepositoryKey, digest: Digest) -> Result<Vec<Change>> {
    match store.tree.link(&of, &digest).await {
        Ok(Some(record)) => {
            let facts = store.tree.facts(&record).await?.map(Box::new);
            Ok(vec![Change::Link { of, record, facts }])
        }
        Ok(None) => Ok(Vec::new()),
        Err(error) if error.is_damaged_record() => Ok(mended(store, of, digest).await?.into_iter().collect()),
        Err(error) => Err(error),
    }
}

/// A damaged record of a link: its path says what it links. What came from an upstream is fetched again; what was pushed is
/// written anew from the bytes, as nothing may be collected because a record can't be read.
async fn mended(store: &Inner, of: RepositoryKey, digest: Digest) -> Result<Option<Change>> {
    tracing::error!(repository = %of, %digest, "the record of a link is damaged; it is made anew");
    if !of.is_hosted() {
        store.tree.drop_link(&of, &digest).await?;
        return Ok(None);
    }
    let row = store.index.blob(&digest).await?;
    let key = row.map_or(BlobKey { digest, generation: 0 }, |row| row.key);
    let record = store.tree.recognise(&key, Origin::Pushed, store.clock.now()).await?;
    let Some(record) = record else { return Ok(None) };
    store.tree.put_link(&of, &record).await?;
    let facts = store.tree.facts(&record).await?.map(Box::new);
    Ok(Some(Change::Link { of, record, facts }))
}

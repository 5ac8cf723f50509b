//! Making the index anew from the tree, while pulls are served from the tree by name.
//!
//! A row never is older than its record: no change comes between the reading of a record and the writing of its row.
//! Records are read ahead, a batch at a time, and their rows are written with the gate closed; where a change passed the
//! gate since the reading began, the batch is read again before. Only the end waits for the disk: a crash before it makes
//! the next start begin again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::oci::Digest;
use crate::oci::RepositoryKey;
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
/// Batches that were read and wait to be written.
const AHEAD: usize = 2;

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
        let _closed = self.store.gate.close().await;
        self.store.index.clear().await?;
        self.store.note_epoch(false).await?;
        self.store.forget_uses().await;
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
        let (ahead, mut batches) = mpsc::channel(AHEAD);
        let (store, runtime) = (Arc::clone(self.store), Handle::current());
        // Files are opened one after the other there: not on a thread that pulls are served on. It ends with the channel.
        let reader = tokio::task::spawn_blocking(move || runtime.block_on(read_ahead(&store, &ahead)));
        while let Some(batch) = batches.recv().await {
            let Batch { paths, passed, changes } = batch;
            let _closed = self.store.gate.close().await;
            let changes = match changes {
                Some(changes) if passed == self.store.gate.passed() => changes,
                _ => read(self.store, &paths).await?,
            };
            self.write(changes).await?;
        }
        reader.await.map_err(|_| Error::Closed)?
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
        let _closed = self.store.gate.close().await;
        self.identify(true).await?;
        self.store.leases.restart();
        self.store.rebuilt.fetch_add(1, Ordering::Release);
        self.store.completeness.send_replace(Completeness::Complete);
        tracing::info!(rows = self.done, "the index was made anew from the tree");
        Ok(())
    }
}

/// Records that were read before it was their turn.
struct Batch {
    paths: Vec<RecordPath>,
    /// Changes that had passed the gate when the reading began.
    passed: u64,
    /// Their rows; none where a record can't be read, as mending it takes a closed gate.
    changes: Option<Vec<Change>>,
}

async fn read_ahead(store: &Arc<Inner>, ahead: &mpsc::Sender<Batch>) -> Result<()> {
    let mut records = store.tree.0.records().chunks(BATCH);
    while let Some(batch) = records.next().await {
        let paths = batch.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
        let passed = store.gate.passed();
        let changes = match rows(store, &paths).await {
            Err(error) if error.is_damaged_record() => None,
            rows => Some(rows?),
        };
        if ahead.send(Batch { paths, passed, changes }).await.is_err() {
            // The rebuild broke off, and says why.
            return Ok(());
        }
    }
    Ok(())
}

/// The rows of these records, if none is damaged.
async fn rows(store: &Inner, paths: &[RecordPath]) -> Result<Vec<Change>> {
    let mut changes = Vec::with_capacity(paths.len());
    for path in paths {
        changes.extend(row(store, path).await?);
    }
    Ok(changes)
}

/// The rows of these records. What is damaged is mended: the gate is closed.
async fn read(store: &Inner, paths: &[RecordPath]) -> Result<Vec<Change>> {
    let mut changes = Vec::with_capacity(paths.len());
    for path in paths {
        match (row(store, path).await, path) {
            (Err(error), RecordPath::Link(of, digest)) if error.is_damaged_record() => {
                changes.extend(mended(store, of.clone(), *digest).await?);
            }
            (Err(error), RecordPath::Tag(of, tag)) if error.is_damaged_record() => {
                tracing::error!(repository = %of, %tag, "the record of a tag is damaged");
            }
            (row, _) => changes.extend(row?),
        }
    }
    Ok(changes)
}

/// The row of one record; none where it was removed meanwhile.
async fn row(store: &Inner, path: &RecordPath) -> Result<Option<Change>> {
    match path {
        RecordPath::Link(of, digest) => {
            let Some(record) = store.tree.link(of, digest).await? else { return Ok(None) };
            let facts = store.tree.facts(&record).await?.map(Box::new);
            Ok(Some(Change::Link { of: of.clone(), record, facts }))
        }
        RecordPath::Tag(of, tag) => Ok(store.tree.tag(of, tag).await?.map(|record| {
            let validated_at = record.at;
            Change::Tag { of: of.clone(), record, validated_at }
        })),
        RecordPath::State(..) => Ok(None),
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

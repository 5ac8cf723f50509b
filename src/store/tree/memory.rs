//! The tree in memory, for tests: what the contract says and nothing more.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use futures_util::stream::BoxStream;

use crate::body::FileRange;

use super::super::spool::Verified;
use super::BlobKey;
use super::Opened;
use super::RecordPath;
use super::Result;
use super::StateId;
use super::Tree;

/// The tree in memory. Bytes are in files that nothing names any more.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    blobs: Mutex<BTreeMap<BlobKey, FileRange>>,
    records: Mutex<HashMap<RecordPath, Bytes>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Tree for Memory {
    async fn open(&self, key: &BlobKey) -> Result<Option<Opened>> {
        Ok(locked(&self.blobs).get(key).cloned().map(Opened::File))
    }

    async fn publish(&self, key: &BlobKey, blob: Verified) -> Result<Opened> {
        let range = FileRange { file: Arc::clone(blob.file()), offset: 0, length: blob.size() };
        locked(&self.blobs).insert(*key, range.clone());
        Ok(Opened::File(range))
    }

    async fn remove(&self, keys: &[BlobKey]) -> Result<()> {
        locked(&self.blobs).retain(|key, _| !keys.contains(key));
        Ok(())
    }

    fn blobs(&self) -> BoxStream<'_, Result<(BlobKey, u64)>> {
        let blobs: Vec<_> = locked(&self.blobs).iter().map(|(key, range)| Ok((*key, range.length))).collect();
        stream::iter(blobs).boxed()
    }

    async fn record(&self, path: &RecordPath) -> Result<Option<Bytes>> {
        Ok(locked(&self.records).get(path).cloned())
    }

    async fn put_record(&self, path: &RecordPath, record: Bytes) -> Result<()> {
        locked(&self.records).insert(path.clone(), record);
        Ok(())
    }

    async fn note_record(&self, path: &RecordPath, record: Bytes) -> Result<()> {
        self.put_record(path, record).await
    }

    async fn remove_records(&self, paths: &[RecordPath]) -> Result<()> {
        locked(&self.records).retain(|path, _| !paths.contains(path));
        Ok(())
    }

    async fn forget_record(&self, path: &RecordPath) -> Result<()> {
        self.remove_records(std::slice::from_ref(path)).await
    }

    fn records(&self) -> BoxStream<'_, Result<RecordPath>> {
        let all: Vec<_> = locked(&self.records).keys().cloned().map(Ok).collect();
        stream::iter(all)
            .filter(|path| {
                let counts = !matches!(path, Ok(RecordPath::State(..)));
                std::future::ready(counts)
            })
            .boxed()
    }

    fn states(&self, kind: &'static str) -> BoxStream<'_, Result<StateId>> {
        let records = locked(&self.records);
        let all = records.keys().filter_map(|path| match path {
            RecordPath::State(of, id) if *of == kind => Some(Ok(id.clone())),
            _ => None,
        });
        stream::iter(all.collect::<Vec<_>>()).boxed()
    }
}

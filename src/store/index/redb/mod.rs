//! The index in one file, by redb.

mod backend;
mod database;
mod keys;
mod overlay;
mod riding;
mod rows;
mod tables;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use ::redb::ReadTransaction;
use ::redb::ReadableTable;
use ::redb::ReadableTableMetadata;
use async_trait::async_trait;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::config::store::Durability;
use crate::oci::Descriptor;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::store::index::BlobRow;
use crate::store::index::BlobState;
use crate::store::index::Change;
use crate::store::index::Error;
use crate::store::index::Facts;
use crate::store::index::Health;
use crate::store::index::Identity;
use crate::store::index::Index;
use crate::store::index::Intent;
use crate::store::index::IntentId;
use crate::store::index::Moment;
use crate::store::index::Page;
use crate::store::index::Result;
use crate::store::index::TagRow;
use crate::store::index::Totals;
use crate::store::index::Verdict;
use crate::store::names::Name;
use crate::store::tree::BlobKey;
use crate::store::tree::LinkRecord;
use crate::store::tree::TagRecord;
use crate::tasks::Tasks;

use database::Shared;
use tables::Definition;
use tables::failed;
use writer::Answer;
use writer::Job;
use writer::Request;

/// What the file is opened with.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The file.
    pub(crate) path: PathBuf,
    /// Whether a commit waits for the disk.
    pub(crate) durability: Durability,
    /// Requests that may wait for the writer.
    pub(crate) queue: usize,
    /// Bytes of pages that are kept in memory.
    pub(crate) cache_bytes: usize,
}

/// The index in one file. Reads run where they are called; one thread writes.
#[derive(Debug)]
pub(crate) struct Redb {
    shared: Arc<Shared>,
    urgent: mpsc::Sender<Request>,
    patient: mpsc::Sender<Request>,
    next: AtomicU64,
}

impl Redb {
    /// Opens the file, or makes a new one. [`Error::Damaged`] where it is no index that could be read.
    pub(crate) fn open(options: Options, tasks: &Tasks) -> Result<Self> {
        let shared = Arc::new(Shared::open(options.path, options.durability, options.cache_bytes)?);
        let (urgent, urgent_queue) = mpsc::channel(options.queue);
        let (patient, patient_queue) = mpsc::channel(options.queue);
        let queues = writer::Queues { urgent: urgent_queue, patient: patient_queue };
        let runtime = tokio::runtime::Handle::current();
        let written = Arc::clone(&shared);
        tasks
            .thread("index-writer", move || writer::run(&written, queues, &runtime))
            .map_err(|error| failed(::redb::Error::Io(error)))?;
        let last = shared.read(last_intent)?;
        Ok(Self { shared, urgent, patient, next: AtomicU64::new(last + 1) })
    }

    async fn ask(&self, queue: &mpsc::Sender<Request>, job: Job) -> Result<Answer> {
        let (answer, answered) = oneshot::channel();
        queue.send(Request { job, answer }).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }

    fn row<T: DeserializeOwned>(&self, table: Definition, key: &[u8]) -> Result<Option<T>> {
        self.shared.read(|transaction| row(transaction, table, key))
    }

    /// The rows of `table` from past `after` (or `prefix` itself) to the last that begins with `prefix`.
    fn page<T>(
        &self,
        table: Definition,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        read: impl Fn(&ReadTransaction, &[u8], &[u8]) -> Result<T>,
    ) -> Result<Page<T>> {
        self.shared.read(|transaction| {
            let end = keys::after(prefix);
            let mut rows = Vec::new();
            let table = transaction.open_table(table).map_err(failed)?;
            let start = after.unwrap_or(prefix);
            for row in table.range(start..).map_err(failed)? {
                let (key, value) = row.map_err(failed)?;
                if after == Some(key.value()) {
                    continue;
                }
                if !end.is_empty() && key.value() >= end.as_slice() {
                    break;
                }
                if rows.len() == limit {
                    return Ok(Page { rows, more: true });
                }
                rows.push(read(transaction, key.value(), value.value())?);
            }
            Ok(Page { rows, more: false })
        })
    }
}

/// Every row is what was written, and none is out of reach.
fn verified(transaction: &ReadTransaction, table: Definition) -> Result<()> {
    let table = transaction.open_table(table).map_err(failed)?;
    let mut count = 0;
    for row in table.iter().map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        rows::unseal(key.value(), value.value())?;
        count += 1;
    }
    if count == table.len().map_err(failed)? { Ok(()) } else { Err(Error::Damaged("rows are out of reach".into())) }
}

fn last_intent(transaction: &ReadTransaction) -> Result<u64> {
    let table = transaction.open_table(tables::INTENTS).map_err(failed)?;
    let Some((key, _)) = table.last().map_err(failed)? else { return Ok(0) };
    intent_id(key.value()).map(|id| id.0)
}

fn intent_id(key: &[u8]) -> Result<IntentId> {
    let number = key.first_chunk().ok_or_else(|| Error::Damaged("an intent has no number".into()))?;
    Ok(IntentId(u64::from_be_bytes(*number)))
}

fn row<T: DeserializeOwned>(transaction: &ReadTransaction, table: Definition, key: &[u8]) -> Result<Option<T>> {
    let table = transaction.open_table(table).map_err(failed)?;
    match table.get(key).map_err(failed)? {
        Some(row) => rows::read(key, row.value()).map(Some),
        None => Ok(None),
    }
}

fn number(transaction: &ReadTransaction, table: Definition, key: &[u8]) -> Result<Option<Timestamp>> {
    let table = transaction.open_table(table).map_err(failed)?;
    match table.get(key).map_err(failed)? {
        Some(row) => rows::read_number(key, row.value()).map(|number| Some(Timestamp(number))),
        None => Ok(None),
    }
}

fn tag_row(transaction: &ReadTransaction, key: &[u8], record: TagRecord) -> Result<TagRow> {
    let validated_at = number(transaction, tables::VALIDATIONS, key)?.unwrap_or(record.at);
    Ok(TagRow { record, validated_at })
}

#[async_trait]
impl Index for Redb {
    async fn tag(&self, of: &RepositoryKey, tag: &Tag) -> Result<Option<TagRow>> {
        let key = keys::tag(of, tag);
        self.shared.read(|transaction| match row::<TagRecord>(transaction, tables::TAGS, &key)? {
            Some(record) => tag_row(transaction, &key, record).map(Some),
            None => Ok(None),
        })
    }

    async fn link(&self, of: &RepositoryKey, digest: &Digest) -> Result<Option<LinkRecord>> {
        self.row(tables::LINKS, &keys::link(of, digest))
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<BlobRow>> {
        let prefix = keys::digest(digest);
        let end = keys::after(&prefix);
        self.shared.read(|transaction| {
            let table = transaction.open_table(tables::BLOBS).map_err(failed)?;
            let mut range = table.range(prefix.as_slice()..end.as_slice()).map_err(failed)?;
            match range.next_back() {
                Some(row) => {
                    let (key, value) = row.map_err(failed)?;
                    rows::read_blob(key.value(), value.value()).map(Some)
                }
                None => Ok(None),
            }
        })
    }

    async fn facts(&self, of: &RepositoryKey, digest: &Digest) -> Result<Option<Facts>> {
        self.row(tables::FACTS, &keys::link(of, digest))
    }

    async fn tags(&self, of: &RepositoryKey, after: Option<&Tag>, limit: usize) -> Result<Page<TagRow>> {
        let after = after.map(|tag| keys::tag(of, tag));
        self.page(tables::TAGS, &keys::repository(of), after.as_deref(), limit, |transaction, key, value| {
            tag_row(transaction, key, rows::read(key, value)?)
        })
    }

    async fn links(&self, of: &RepositoryKey, after: Option<&Digest>, limit: usize) -> Result<Page<LinkRecord>> {
        let after = after.map(|digest| keys::link(of, digest));
        self.page(tables::LINKS, &keys::repository(of), after.as_deref(), limit, |_, key, value| rows::read(key, value))
    }

    async fn repositories(&self, after: Option<&RepositoryKey>, limit: usize) -> Result<Page<RepositoryKey>> {
        self.shared.read(|transaction| {
            let table = transaction.open_table(tables::LINKS).map_err(failed)?;
            let mut start = after.map(|of| keys::after(&keys::repository(of))).unwrap_or_default();
            let mut rows = Vec::new();
            // From one repository straight to the next, however many rows the one has.
            while let Some(row) = table.range(start.as_slice()..).map_err(failed)?.next() {
                if rows.len() == limit {
                    return Ok(Page { rows, more: true });
                }
                let of = keys::read_repository(row.map_err(failed)?.0.value())?;
                start = keys::after(&keys::repository(&of));
                rows.push(of);
            }
            Ok(Page { rows, more: false })
        })
    }

    async fn blobs(&self, after: Option<&BlobKey>, limit: usize) -> Result<Page<BlobRow>> {
        self.page(tables::BLOBS, &[], after.map(keys::blob).as_deref(), limit, |_, key, value| {
            rows::read_blob(key, value)
        })
    }

    async fn referrers(
        &self,
        of: &RepositoryKey,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Descriptor>> {
        let after = after.map(|digest| keys::pair(of, subject, digest));
        self.page(tables::REFERRERS, &keys::link(of, subject), after.as_deref(), limit, |_, key, value| {
            rows::read(key, value)
        })
    }

    async fn parents(&self, of: &RepositoryKey, child: &Digest, limit: usize) -> Result<Vec<Digest>> {
        let page =
            self.page(tables::PARENTS, &keys::link(of, child), None, limit, |_, key, _| keys::second_of_pair(key, of))?;
        Ok(page.rows)
    }

    async fn tags_of(&self, of: &RepositoryKey, digest: &Digest, limit: usize) -> Result<Vec<Tag>> {
        let prefix = keys::link(of, digest);
        let page = self.page(tables::MEANINGS, &prefix, None, limit, |_, key, _| keys::read_meaning(key, of))?;
        Ok(page.rows)
    }

    async fn holders(&self, key: &BlobKey, limit: usize) -> Result<Vec<RepositoryKey>> {
        let page = self.page(tables::HOLDERS, &keys::blob(key), None, limit, |_, key, _| keys::read_holder(key))?;
        Ok(page.rows)
    }

    async fn used(&self, of: &RepositoryKey, name: &Name) -> Result<Option<Timestamp>> {
        self.shared.read(|transaction| number(transaction, tables::USES, &keys::name(of, name)))
    }

    async fn intents(&self) -> Result<Vec<(IntentId, Intent)>> {
        let page = self.page(tables::INTENTS, &[], None, usize::MAX, |_, key, value| {
            Ok((intent_id(key)?, rows::read(key, value)?))
        })?;
        Ok(page.rows)
    }

    async fn going(&self, limit: usize) -> Result<Vec<BlobKey>> {
        let page = self.page(tables::GOING, &[], None, limit, |_, key, _| keys::read_blob(key))?;
        Ok(page.rows)
    }

    async fn orphans(&self, after: Option<&BlobKey>, limit: usize) -> Result<Vec<BlobRow>> {
        let page =
            self.page(tables::ORPHANS, &[], after.map(keys::blob).as_deref(), limit, |transaction, key, _| {
                let table = transaction.open_table(tables::BLOBS).map_err(failed)?;
                let row = table.get(key).map_err(failed)?;
                row.map(|row| rows::read_blob(key, row.value())).transpose()
            })?;
        Ok(page.rows.into_iter().flatten().filter(|row| row.state != BlobState::Going).collect())
    }

    async fn begin(&self, intent: Intent) -> Result<IntentId> {
        let id = IntentId(self.next.fetch_add(1, Ordering::Relaxed));
        self.ask(&self.urgent, Job::Begin(id, intent)).await?;
        Ok(id)
    }

    async fn apply(&self, id: Option<IntentId>, changes: Vec<Change>) -> Result<()> {
        self.ask(&self.urgent, Job::Apply(id, changes)).await.map(|_| ())
    }

    async fn fill_in(&self, changes: Vec<Change>) -> Result<()> {
        self.ask(&self.patient, Job::Fill(changes)).await.map(|_| ())
    }

    async fn condemn(&self, key: &BlobKey) -> Result<Verdict> {
        match self.ask(&self.urgent, Job::Condemn(*key)).await? {
            Answer::Verdict(verdict) => Ok(verdict),
            Answer::Done => Ok(Verdict::Kept),
        }
    }

    async fn bury(&self, key: &BlobKey) -> Result<()> {
        self.ask(&self.urgent, Job::Bury(*key)).await.map(|_| ())
    }

    async fn touch(&self, moments: Vec<Moment>) -> Result<()> {
        self.ask(&self.patient, Job::Touch(moments)).await.map(|_| ())
    }

    async fn identity(&self) -> Result<Option<Identity>> {
        self.row(tables::META, tables::IDENTITY)
    }

    async fn identify(&self, identity: Identity) -> Result<()> {
        self.ask(&self.urgent, Job::Identify(identity)).await.map(|_| ())
    }

    async fn clear(&self) -> Result<()> {
        self.ask(&self.urgent, Job::Clear).await.map(|_| ())
    }

    async fn verify(&self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let verify =
            move || tables::ALL.iter().try_for_each(|table| shared.read(|transaction| verified(transaction, *table)));
        tokio::task::spawn_blocking(verify).await.map_err(|_| Error::Closed)?
    }

    fn totals(&self) -> Totals {
        self.shared.totals()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health()
    }
}

//! Which images clients pulled, and when: append-only, compact, bounded.
//!
//! A use is noted in memory, which no pull waits for, and written down every few seconds. What finds no room, is lost with a
//! process that was killed, or was removed as too old, is never taken for "not pulled": [`History::covered_since`] says from
//! when on every use is here. Nothing says who pulled.

mod last;
mod log;
mod pending;
mod read;
mod segment;
mod sums;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config;
use crate::oci::Digest;
use crate::oci::Manifest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::store::Completeness;
use crate::store::Kind;
use crate::store::Store;
use crate::telemetry;
use crate::telemetry::Metrics;

pub use last::LastPulls;
pub use read::Error;
pub use read::Pulls;
pub use sums::Sums;

use log::Log;
use pending::Loss;
use pending::Note;
use pending::Pending;
use pending::Taken;
use pending::Traffic;
use segment::Entry;

/// How often uses are written down.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// How many entries are one frame: a segment ends between two of them.
const FRAME_ENTRIES: usize = 4096;
/// What an entry takes at most, with all names.
const ENTRY_BYTES_MAX: u64 = 600;
/// The kind and the name of the record that says how the last process ended.
const RECORD: (&str, &str) = ("history", "log");

/// An image that clients used within some seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// The last of these uses, to the second.
    pub at: Timestamp,
    /// The repository.
    pub repository: RepositoryKey,
    /// The tag that it was asked by; none where it was asked by its digest.
    pub tag: Option<Tag>,
    /// The manifest.
    pub digest: Digest,
    /// What a client without any of it transfers: the manifest and its blobs, without the manifests that an index names.
    pub bytes: u64,
    /// How often its bytes were asked for; 0 where only what the tag means was.
    pub pulls: u32,
    /// How many of them were answered without a pull of the upstream's.
    pub hits: u32,
}

/// Blobs that went out of a repository within some seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The last of them, to the second.
    pub at: Timestamp,
    /// The repository.
    pub repository: RepositoryKey,
    /// Their bytes, as they were asked for.
    pub bytes: u64,
    /// Those of them that were here.
    pub from_here: u64,
}

/// What policies deleted in a repository within some seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// The last of it, to the second.
    pub at: Timestamp,
    /// The repository.
    pub repository: RepositoryKey,
    /// The tags and untagged manifests.
    pub deleted: u64,
    /// The bytes that nothing needs any more.
    pub freed: u64,
}

/// How an image was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// What a tag means was asked for.
    Resolved,
    /// Its bytes were.
    Pulled {
        /// Whether no upstream had to be asked for them.
        from_here: bool,
    },
}

/// What is known of the pulls so far. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct History(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    settings: config::History,
    folder: PathBuf,
    pending: Pending,
    /// One at a time takes what is pending and writes it down.
    flushing: tokio::sync::Mutex<()>,
    /// None where the folder could not be read.
    log: Mutex<Option<Log>>,
    covered: Mutex<Option<Timestamp>>,
    /// Whether it is written down that this process writes here.
    begun: AtomicBool,
    /// Whether it was said that uses can't be written down.
    failing: AtomicBool,
}

/// How the process that wrote here last ended.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// From when on every use is here.
    covered_since: Option<Timestamp>,
    /// Whether it wrote down all that it knew.
    closed: bool,
    /// The last segment.
    last: Option<u64>,
}

impl History {
    /// The history in the store's folder `folder`. That it can't be read or written is no reason not to serve: it is said
    /// in the log, and nothing counts as known then.
    pub async fn open(
        store: Store,
        folder: &Path,
        clock: Clock,
        metrics: Arc<Metrics>,
        settings: config::History,
    ) -> Self {
        let history = Self(Arc::new(Inner {
            pending: Pending::new(usize::try_from(settings.queue).unwrap_or(usize::MAX)),
            folder: folder.join("history"),
            store,
            clock,
            metrics,
            settings,
            flushing: tokio::sync::Mutex::default(),
            log: Mutex::default(),
            covered: Mutex::default(),
            begun: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        }));
        history.begin().await;
        history
    }

    async fn begin(&self) {
        let inner = &self.0;
        let last: Option<Record> = match inner.store.state(RECORD.0, RECORD.1).await {
            Ok(last) => last,
            Err(error) => {
                tracing::warn!(error = %telemetry::chain(&error), "how the history of pulls ended can't be read");
                None
            }
        };
        let (folder, now) = (inner.folder.clone(), inner.clock.now());
        let opened = tokio::task::spawn_blocking(move || Log::open(&folder)).await.unwrap_or_else(|e| Err(e.into()));
        match opened {
            Ok(mut log) => {
                let known = last.filter(|last| last.closed && last.last == log.last());
                let since = known.and_then(|last| Some(last.covered_since?.max(log.whole_since()?)));
                *inner.covered() = Some(since.unwrap_or(now));
                // The first one begins before the first use, so that a time without any is known as such.
                if log.segments().is_empty()
                    && let Err(error) = log.make_ready(now)
                {
                    inner.say(&error);
                }
                inner.metrics.history_bytes(log.bytes());
                *inner.log() = Some(log);
            }
            Err(error) => inner.say(&error),
        }
        inner.note_beginning().await;
    }

    /// Notes that a client used an image. It waits for nothing.
    pub fn note(&self, of: &RepositoryKey, tag: Option<&Tag>, digest: &Digest, how: Use, at: Timestamp) {
        self.0.pending.used(of, tag, digest, how, at);
    }

    /// Notes bytes of a blob that go out. It waits for nothing.
    pub fn sent(&self, of: &RepositoryKey, bytes: u64, from_here: bool, at: Timestamp) {
        self.0.pending.sent(of, bytes, from_here, at);
    }

    /// Notes what policies deleted, and how many bytes nothing needs any more for it.
    pub fn pruned(&self, of: &RepositoryKey, deleted: u64, freed: u64, at: Timestamp) {
        self.0.pending.pruned(of, deleted, freed, at);
    }

    /// From when on every use of an image is here; none where nothing is known. An image without a use since then was not
    /// used since then.
    pub fn covered_since(&self) -> Option<Timestamp> {
        *self.0.covered()
    }

    /// The pulls since then, the oldest first, those included that were noted just now. Reading them takes the disk: off the
    /// runtime's threads.
    pub async fn read(&self, since: Timestamp) -> Pulls {
        self.flush().await;
        Pulls::new(self.0.segments(), since)
    }

    /// What was pulled and sent since then, by repository.
    pub async fn sums(&self, since: Timestamp) -> BTreeMap<RepositoryKey, Sums> {
        self.flush().await;
        let segments = self.0.segments();
        // A thread that panicked has said so.
        tokio::task::spawn_blocking(move || sums::sums(segments, since)).await.unwrap_or_default()
    }

    /// The last use of each image of these repositories.
    pub async fn last_pulls(&self, wanted: impl Fn(&RepositoryKey) -> bool + Send + 'static) -> LastPulls {
        self.flush().await;
        let (segments, covered) = (self.0.segments(), self.covered_since());
        let read = tokio::task::spawn_blocking(move || LastPulls::read(segments, covered, wanted));
        read.await.unwrap_or_default()
    }

    /// Writes uses down until larder stops, and tells the store the times that it lost with its index.
    pub async fn keep(self, stopping: CancellationToken) {
        let mut index = self.0.store.completeness();
        let mut flush = tokio::time::interval(FLUSH_EVERY);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Counted, not watched: an index of a few rows is made anew before anybody looks.
        let mut restored = 0;
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                _ = flush.tick() => self.flush().await,
                changed = index.changed() => if changed.is_err() { break },
            }
            let complete = *index.borrow_and_update() == Completeness::Complete;
            let rebuilds = self.0.store.rebuilds();
            if complete && rebuilds != restored {
                self.restore_uses().await;
                restored = rebuilds;
            }
        }
        self.close().await;
    }

    /// Tells the store when images were used last: an index that was made anew does not know.
    async fn restore_uses(&self) {
        let (last, store) = (self.last_pulls(|_| true).await, self.0.store.clone());
        let tell = move || {
            last.tags().for_each(|(of, tag, at)| store.used_tag(of, tag, at));
            last.digests().for_each(|(of, digest, at)| store.used(of, digest, at));
        };
        // A thread that panicked has said so.
        drop(tokio::task::spawn_blocking(tell).await);
    }

    async fn flush(&self) {
        let _one = self.0.flushing.lock().await;
        self.0.note_beginning().await;
        let taken = self.0.pending.take();
        let (inner, runtime) = (Arc::clone(&self.0), Handle::current());
        // A thread that panicked has said so.
        drop(tokio::task::spawn_blocking(move || inner.write(taken, &runtime)).await);
    }

    /// Writes down all that is known, and that nothing is missing.
    async fn close(&self) {
        self.flush().await;
        let record = {
            let log = self.0.log();
            let Some(log) = log.as_ref() else { return };
            if let Err(error) = log.sync() {
                return self.0.say(&error);
            }
            Record { covered_since: self.covered_since(), closed: true, last: log.last() }
        };
        if let Err(error) = self.0.store.put_state(RECORD.0, RECORD.1, &record).await {
            tracing::warn!(error = %telemetry::chain(&error), "the history of pulls could not be closed; it begins anew");
        }
    }
}

impl Inner {
    fn log(&self) -> MutexGuard<'_, Option<Log>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn covered(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.covered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn segments(&self) -> Vec<log::Segment> {
        self.log().as_ref().map(|log| log.segments().to_vec()).unwrap_or_default()
    }

    /// Writes down that from now on there are uses that only this process knows. Until that is done an end without a close
    /// would not be noticed, so it is tried again with each flush.
    async fn note_beginning(&self) {
        if self.begun.load(Ordering::Acquire) || self.store.look_for_room(ENTRY_BYTES_MAX).is_err() {
            return;
        }
        let record = Record { covered_since: None, closed: false, last: None };
        match self.store.put_state(RECORD.0, RECORD.1, &record).await {
            Ok(()) => self.begun.store(true, Ordering::Release),
            Err(error) => tracing::debug!(error = %telemetry::chain(&error), "the history of pulls could not be begun"),
        }
    }

    /// Writes down what was taken: on a thread that may wait.
    fn write(&self, taken: Taken, runtime: &Handle) {
        let (now, mut lost) = (self.clock.now(), taken.dropped);
        let mut log = self.log();
        let mut unwritten = taken.notes.len() as u64;
        match self.write_all(&mut log, taken, now, &mut unwritten, runtime) {
            Ok(()) => self.failing.store(false, Ordering::Relaxed),
            Err(error) => self.say(&error),
        }
        lost += unwritten;
        self.metrics.history_dropped(lost);
        self.metrics.history_bytes(log.as_ref().map_or(0, Log::bytes));
        let mut covered = self.covered();
        if lost > 0 || covered.is_none() {
            *covered = log.is_some().then_some(now);
        }
        let whole = log.as_ref().and_then(Log::whole_since);
        *covered = covered.map(|since| whole.map_or(since, |whole| since.max(whole)));
    }

    /// `unwritten` tells how many notes are not written, also where it fails.
    fn write_all(
        &self,
        log: &mut Option<Log>,
        taken: Taken,
        now: Timestamp,
        unwritten: &mut u64,
        runtime: &Handle,
    ) -> std::io::Result<()> {
        let log = match log {
            Some(log) => log,
            none => none.insert(Log::open(&self.folder)?),
        };
        // By a clock that was set nothing is old.
        let keep = if self.clock.jumped().is_some() { Duration::MAX } else { self.settings.keep };
        log.trim(now, keep, self.settings.max_size)?;
        let mut notes = taken.notes;
        notes.sort_by_key(|note| note.at);
        for notes in notes.chunks(FRAME_ENTRIES) {
            self.append(log, now, |log| notes.iter().map(|note| self.entry(log, note, runtime)).collect())?;
            *unwritten -= notes.len() as u64;
        }
        let sent = taken.sent.into_iter().map(|(repository, traffic)| {
            let Traffic { at, bytes, from_here } = traffic;
            Entry::Sent(Sent { at, repository, bytes, from_here })
        });
        let pruned = taken.pruned.into_iter().map(|(repository, loss)| {
            let Loss { at, deleted, freed } = loss;
            Entry::Pruned(Pruned { at, repository, deleted, freed })
        });
        let figures: Vec<Entry> = sent.chain(pruned).collect();
        for figures in figures.chunks(FRAME_ENTRIES) {
            self.append(log, now, |_| figures.to_vec())?;
        }
        Ok(())
    }

    fn append(&self, log: &mut Log, now: Timestamp, entries: impl FnOnce(&Log) -> Vec<Entry>) -> std::io::Result<()> {
        // What is left of the disk is for the index and for deletes.
        self.store.look_for_room(FRAME_ENTRIES as u64 * ENTRY_BYTES_MAX).map_err(std::io::Error::other)?;
        log.make_ready(now)?;
        let entries = entries(log);
        log.append(&entries)
    }

    fn entry(&self, log: &Log, note: &Note, runtime: &Handle) -> Entry {
        let known = log.knows(&note.repository, note.tag.as_ref(), &note.digest);
        let bytes = if known { 0 } else { runtime.block_on(self.size_of(&note.repository, &note.digest)) };
        let Note { repository, tag, digest, at, pulls, hits } = note.clone();
        Entry::Pull(Pull { at, repository, tag, digest, bytes, pulls, hits })
    }

    /// What a client transfers that has nothing of it; 0 where the manifest is not here any more.
    async fn size_of(&self, of: &RepositoryKey, digest: &Digest) -> u64 {
        let Ok(Some(held)) = self.store.held(of, digest).await else { return 0 };
        let (Kind::Manifest { media_type, .. }, Some(bytes)) = (&held.link.kind, held.manifest()) else { return 0 };
        let Ok(manifest) = Manifest::parse(bytes.clone(), media_type.as_str()) else { return held.link.size };
        let blobs = manifest.links.children().filter(|child| !child.media_type.is_manifest());
        blobs.fold(held.link.size, |sum, child| sum.saturating_add(child.size))
    }

    /// Says once that uses can't be written down, until they are.
    fn say(&self, error: &std::io::Error) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "pulls are not written down: rules by last pull keep what they can't tell");
        }
    }
}

#[cfg(test)]
mod tests;

//! Opening and closing the store.
//!
//! Tree and index both carry the epoch of the last start. An index whose epoch is not the tree's is an older copy or
//! another folder's, and is made anew; so is one that is missing, damaged, or was relaxed when the machine went down.

use std::path::Path;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::store::Durability;
use crate::tasks::Tasks;
use crate::telemetry;
use crate::telemetry::Metrics;

use super::Completeness;
use super::Error;
use super::Inner;
use super::Result;
use super::Spool;
use super::Store;
use super::StoreOptions;
use super::collect;
use super::folder::Lock;
use super::gate::Gate;
use super::hot::Hot;
use super::index;
use super::index::Identity;
use super::index::Index;
use super::index::rebuild;
use super::index::redb::Options;
use super::index::redb::Redb;
use super::leases::Leases;
use super::loose::Loosened;
use super::names::Name;
use super::names::Names;
use super::repair::Reported;
use super::settle;
use super::space::Pressure;
use super::space::PressureState;
use super::space::Space;
use super::tree::filesystem::Filesystem;
use super::truth::Truth;
use super::uses;
use super::uses::Uses;

/// The share of the memory that goes to the index's pages.
const PAGES_SHARE: u64 = 4;
/// Files that hits keep open at most.
const FILES_MAX: u64 = 1024;
/// Between two looks at the file system: what is written in between must fit into the reserve.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two tries of a rebuild that broke off.
const RETRY: Duration = Duration::from_secs(5);
/// The same where it was for want of room, unless there is room before.
const RETRY_FULL: Duration = Duration::from_mins(1);

/// What the tree says of the last start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Epoch {
    /// Drawn at each start, so that no two are alike.
    name: String,
    /// The machine's start at that time.
    boot: String,
    /// Whether fsync was left out.
    relaxed: bool,
    /// Whether the store was closed in order.
    clean: bool,
}

impl Epoch {
    /// What it is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The same, as if the machine had been started since.
    #[cfg(test)]
    pub(super) fn before_another_boot(&self) -> Self {
        Self { boot: "another".into(), ..self.clone() }
    }
}

/// What a store is put together from.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) tree: Truth,
    pub(super) index: Arc<dyn Index>,
    pub(super) spool: Spool,
    pub(super) space: Space,
    pub(super) lock: Lock,
}

/// Opens the folder and puts the store together.
pub(super) async fn open(options: StoreOptions, clock: Clock, tasks: Tasks, metrics: Arc<Metrics>) -> Result<Store> {
    let folder = &options.store.path;
    let lock = Lock::take(folder)?;
    let space = Space::open(folder, options.store.reserve_free)
        .map_err(|e| Error::folder("looking at the file system of the store", e))?;
    let tree = Filesystem::open(folder, options.store.durability)?;
    let spool = Spool::open(&folder.join("spool"))?.within(&space);
    if space.state() == PressureState::Full {
        // Opening the index writes a few pages. It comes back when there is room.
        drop(space.drop_ballast());
    }
    let index = Arc::new(open_index(&options, &tasks)?);
    let parts = Parts { tree: Truth(Arc::new(tree)), index, spool, space, lock };
    assemble(parts, &options, clock, tasks, metrics).await
}

/// Opens the index's file; what can't be read is put aside, and made anew from the tree.
pub(super) fn open_index(options: &StoreOptions, tasks: &Tasks) -> Result<Redb> {
    let redb = Options {
        path: options.store.path.join("index.redb"),
        durability: options.store.durability,
        queue: usize::try_from(options.store.queue).unwrap_or(usize::MAX),
        cache_bytes: usize::try_from(options.store.memory / PAGES_SHARE).unwrap_or(usize::MAX),
    };
    match Redb::open(redb.clone(), tasks) {
        Err(error) if error.is_damage() => {
            tracing::warn!(error = %telemetry::chain(&error), "the index can't be read; it is made anew from the tree");
            let aside = redb.path.with_extension("damaged");
            std::fs::rename(&redb.path, aside).map_err(|e| Error::folder("putting a damaged index aside", e))?;
            Ok(Redb::open(redb, tasks)?)
        }
        other => Ok(other?),
    }
}

/// Puts a store together, settles what a crash left, and starts its background work.
pub(super) async fn assemble(
    parts: Parts,
    options: &StoreOptions,
    clock: Clock,
    tasks: Tasks,
    metrics: Arc<Metrics>,
) -> Result<Store> {
    let memory = options.store.memory - options.store.memory / PAGES_SHARE;
    let inner = Arc::new(Inner {
        tree: parts.tree,
        index: parts.index,
        spool: parts.spool,
        space: parts.space,
        _lock: parts.lock,
        hot: Hot::new(memory, open_files()),
        names: Names::new(),
        leases: Leases::new(options.lease),
        uses: Uses::new(usize::try_from(options.store.uses).unwrap_or(usize::MAX)),
        loosened: Loosened::default(),
        uses_since: std::sync::atomic::AtomicU64::new(0),
        gate: Gate::default(),
        rebuilding: tokio::sync::Mutex::default(),
        rebuilt: std::sync::atomic::AtomicU64::new(0),
        doubt: Arc::default(),
        folder: options.store.path.clone(),
        epoch: Epoch {
            name: format!("{:032x}", fastrand::u128(..)),
            boot: boot(),
            relaxed: options.store.durability == Durability::Relaxed,
            clean: false,
        },
        completeness: watch::Sender::new(Completeness::Rebuilding { done: 0 }),
        noted: tokio::sync::OnceCell::new(),
        reported: Reported::default(),
        clock,
        tasks,
        metrics,
    });
    let complete = inner.enter_epoch().await?;
    if complete {
        inner.completeness.send_replace(Completeness::Complete);
        inner.settle_all().await?;
        if let Err(error) = inner.finish_going().await {
            tracing::warn!(error = %telemetry::chain(&error), "removing what was condemned broke off");
        }
    }
    let (tasks, stopping) = (inner.tasks.clone(), inner.tasks.stopping());
    tasks.spawn("index-keeper", keep_index(Arc::downgrade(&inner), stopping.clone()));
    tasks.spawn("uses", uses::keep_flushing(Arc::downgrade(&inner), stopping.clone()));
    tasks.spawn("sweep", collect::keep_sweeping(Arc::downgrade(&inner), stopping.clone()));
    tasks.spawn("space", keep_looking(Arc::downgrade(&inner), stopping));
    Ok(Store(inner))
}

/// Files that hits may keep open: a quarter of what the process may have, as connections need theirs.
fn open_files() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    (limit.unwrap_or(u64::MAX) / 4).clamp(1, FILES_MAX)
}

/// The machine's start; empty where it can't be told, which is never taken for the same one.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl Inner {
    /// Draws a new epoch and writes it down. Gives whether the index can be relied on.
    async fn enter_epoch(&self) -> Result<bool> {
        self.make_room();
        let last = self.tree.epoch().await?;
        let identity = self.index.identity().await;
        let mut valid = match (&last, &identity) {
            (Some(last), Ok(Some(identity))) => is_valid(last, identity, &self.epoch.boot),
            _ => false,
        };
        if !valid && last.is_none() && matches!(identity, Ok(None)) {
            // A new folder: there is nothing to be read.
            valid = self.tree.is_empty().await?;
        } else if !valid && !matches!(identity, Err(index::Error::Reopening)) {
            tracing::warn!(
                "the index is missing, older, another folder's, of another version or incomplete; it is made anew from the tree"
            );
            // Where nothing can be written it is made anew later; until then nobody takes it for complete.
            let cleared = self.index.clear().await.map_err(Error::from);
            cleared.or_else(|error| if error.is_of_room() { Ok(()) } else { Err(error) })?;
        }
        self.read_uses_since(valid).await?;
        match self.note_epoch(valid).await {
            Ok(()) => {}
            // Held content is served all the same; the first change writes it down.
            Err(error @ (Error::Full(_) | Error::ReadOnly(_) | Error::Index(index::Error::Reopening))) => {
                tracing::warn!(error = %telemetry::chain(&error), "the start could not be written down");
            }
            Err(error) => return Err(error),
        }
        Ok(valid)
    }

    /// Since when uses are known: since the index is there that has them.
    async fn read_uses_since(&self, valid: bool) -> Result<()> {
        let known: Option<Timestamp> = if valid { self.tree.state("store", "uses").await? } else { None };
        match known {
            Some(since) => self.uses_since.store(since.0, std::sync::atomic::Ordering::Release),
            None => self.forget_uses().await,
        }
        Ok(())
    }

    /// The index that had them is lost. What can't be written down is known to this process all the same.
    pub(super) async fn forget_uses(&self) {
        let now = self.clock.now();
        self.uses_since.store(now.0, std::sync::atomic::Ordering::Release);
        if let Err(error) = self.tree.put_state("store", "uses", &now).await {
            tracing::debug!(error = %telemetry::chain(&error), "since when uses are known can't be written down");
        }
    }

    /// Writes the epoch down, once: at the start, or before the first change where the start could not. In the index first:
    /// the tree's decides, and a start that breaks off between the two leaves an index that knows the tree's.
    pub(super) async fn note_epoch(&self, complete: bool) -> Result<()> {
        let note = async || {
            let previous = self.tree.epoch().await?.map(|last| last.name).unwrap_or_default();
            self.index.identify(Identity::new(self.epoch.name.clone(), previous, complete)).await?;
            self.tree.put_epoch(&self.epoch).await?;
            if self.epoch.relaxed { sync(&self.folder).await } else { Ok(()) }
        };
        self.noted.get_or_try_init(note).await?;
        Ok(())
    }

    /// Settles every commit that broke off.
    async fn settle_all(self: &Arc<Self>) -> Result<()> {
        for (id, intent) in self.index.intents().await? {
            let digests = settle::names(&intent).into_iter().filter_map(|name| match name {
                Name::Digest(digest) => Some(digest),
                Name::Tag(_) => None,
            });
            let pins = self.leases.pin(digests.collect()).await;
            if let Err(error) = self.settle(id, &intent).await {
                tracing::warn!(error = %telemetry::chain(&error), "a commit that broke off waits to be settled");
                settle::later(self, id, intent, pins);
            }
        }
        Ok(())
    }

    /// Looks at the file system again, lays ballast by where there is room, and tells the metrics.
    pub(super) fn look(&self) {
        match self.space.look().and_then(|seen| self.space.take_ballast().map(|()| seen)) {
            Ok(seen) => self.metrics.store_free(seen.free),
            Err(error) => tracing::debug!(%error, "the file system could not be looked at"),
        }
        let totals = self.index.totals();
        self.metrics.store_bytes("hosted", totals.hosted);
        self.metrics.store_bytes("proxied", totals.proxied);
        self.metrics.store_bytes("spool", self.spool.bytes());
    }

    /// On a full disk, lets go of what was laid by for deletes and for what a start must write.
    pub(super) fn make_room(&self) {
        if matches!(self.room(), Err(Error::Full(_)))
            && let Err(error) = self.space.drop_ballast()
        {
            tracing::warn!(%error, "the ballast could not be let go");
        }
    }

    /// Whether writes are taken.
    pub(super) fn room(&self) -> Result<()> {
        match self.space.pressure().borrow().state {
            PressureState::Ok => Ok(()),
            PressureState::Full => Err(Error::Full(None)),
            PressureState::ReadOnly => Err(Error::ReadOnly(None)),
        }
    }
}

fn is_valid(tree: &Epoch, index: &Identity, boot: &str) -> bool {
    let same = index.epoch == tree.name || index.previous == tree.name;
    // Without fsync, what the machine had not written when it went down is lost in any order.
    let torn = tree.relaxed && !tree.clean && (tree.boot != boot || boot.is_empty());
    index.is_current() && index.complete && same && !torn
}

/// Once, where durability is relaxed: the mark that tells an unclean end must itself survive it.
async fn sync(path: &Path) -> Result<()> {
    let path = path.to_owned();
    let sync = move || -> std::io::Result<()> {
        let folder = std::fs::File::open(path)?;
        rustix::fs::syncfs(folder).map_err(Into::into)
    };
    let synced = tokio::task::spawn_blocking(sync).await.map_err(|_| Error::Closed)?;
    synced.map_err(|e| Error::folder("bringing the folder to disk", e))
}

/// Looks at the file system, and says what it saw.
async fn keep_looking(store: Weak<Inner>, stopping: CancellationToken) {
    loop {
        let Some(inner) = store.upgrade() else { return };
        inner.look();
        drop(inner);
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Makes the index anew whenever it can't be relied on. It does not keep the store alive.
async fn keep_index(store: Weak<Inner>, stopping: CancellationToken) {
    let Some((mut health, doubt, mut pressure)) =
        store.upgrade().map(|store| (store.index.health(), Arc::clone(&store.doubt), store.space.pressure()))
    else {
        return;
    };
    let mut verified = false;
    loop {
        let Some(inner) = store.upgrade() else { return };
        if !std::mem::replace(&mut verified, true) && inner.is_complete() {
            // Damage is told through the health, as that which a lookup meets.
            drop(inner.index.verify().await);
        }
        health.mark_unchanged();
        pressure.mark_unchanged();
        let mended = rebuild::mend(&inner).await;
        drop(inner);
        let pause = match mended {
            Ok(()) => Duration::MAX,
            Err(Error::Closed) => return,
            Err(error) => {
                tracing::warn!(error = %telemetry::chain(&error), "rebuilding the index broke off; it is tried again");
                if error.is_of_room() { RETRY_FULL } else { RETRY }
            }
        };
        tokio::select! {
            () = stopping.cancelled() => return,
            changed = health.changed() => if changed.is_err() { return },
            () = doubt.notified() => verified = false,
            () = room_again(&mut pressure), if pause == RETRY_FULL => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Waits until the file system takes writes again.
async fn room_again(pressure: &mut watch::Receiver<Pressure>) {
    while pressure.changed().await.is_ok() {
        if pressure.borrow_and_update().state == PressureState::Ok {
            return;
        }
    }
    // The store is going; whoever waits ends with it.
    std::future::pending::<()>().await;
}

/// Writes down what may be lost, and that the store was closed in order.
pub(super) async fn close(store: &Arc<Inner>) -> Result<()> {
    store.uses.flush(&*store.index, true).await;
    if !store.noted.initialized() {
        // Nothing was written; so the last end is still that of an earlier process.
        return Ok(());
    }
    if store.epoch.relaxed {
        sync(&store.folder).await?;
    }
    match store.tree.put_epoch(&Epoch { clean: true, ..store.epoch.clone() }).await {
        Err(error) if error.is_of_room() => {
            tracing::warn!(error = %telemetry::chain(&error), "the end could not be written down");
            Ok(())
        }
        done => done,
    }
}

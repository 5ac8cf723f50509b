//! The collection of what nothing names any more: online, in small steps, and able to stop and go on at any of them.
//!
//! A manifest of a hosted repository is kept by a tag, by an index that names it, by a subject that it refers to, by a run
//! that saw it, by a lease. What lost its last tag by a removal goes at once; what was replaced, after `untagged_keep`
//! (build caches: `replaced_grace`); what never had a tag stays. Nothing is read-only meanwhile, and nobody waits for more
//! than one step. What came from upstreams is not looked at here: the bound on its size is another thing.

mod caches;
mod cycle;

#[cfg(test)]
mod tests;

pub use cycle::Cycle;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config;
use crate::oci::RepositoryKey;
use crate::store;
use crate::store::Completeness;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry;
use crate::telemetry::Metrics;
use crate::views::Views;

/// Between two steps it rests for as long as the last one took, and not longer than this.
const REST_MAX: Duration = Duration::from_millis(50);

/// Why a collection broke off. Nothing is removed on the strength of what could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed, or its index is being rebuilt.
    #[error("collecting broke off")]
    Store(#[from] store::Error),
    /// What runs hold is not known before their records are read.
    #[error("the runs' records are still being read")]
    Runs,
    /// larder stops.
    #[error("larder is stopping")]
    Stopping,
}

/// What the configuration says of collecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often everything is looked at; zero: only when asked.
    pub every: Duration,
    /// Which repositories are hosted, and for how long they keep what was replaced.
    pub hosted: Vec<config::Hosted>,
    /// Which of them hold build caches.
    pub caches: Vec<config::BuildCache>,
}

impl Settings {
    /// What the whole configuration says of it.
    pub fn of(config: &config::Config) -> Self {
        Self { every: config.gc.every, hosted: config.hosted.clone(), caches: config.build_caches.clone() }
    }

    /// How long a replaced manifest of the repository stays.
    fn keep(&self, of: &RepositoryKey, is_cache: bool) -> Duration {
        let name = of.name.as_str();
        let hosted = self.hosted.iter().find(|hosted| hosted.pattern.matches(name));
        let keep = hosted.map_or(config::Hosted::UNTAGGED_KEEP, |hosted| hosted.untagged_keep);
        if is_cache {
            self.cache(of).map_or(config::BuildCache::REPLACED_GRACE, |cache| cache.replaced_grace)
        } else {
            keep
        }
    }

    /// What is said of the repository's build caches.
    fn cache(&self, of: &RepositoryKey) -> Option<&config::BuildCache> {
        self.caches.iter().find(|cache| cache.pattern.matches(of.name.as_str()))
    }
}

/// What a collection did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Links that were looked at.
    pub looked_at: u64,
    /// Manifests that were removed.
    pub manifests: u64,
    /// Links to blobs that were removed.
    pub blobs: u64,
    /// Bytes that became free.
    pub freed: u64,
    /// Tags of build caches that went because nobody imported them, or because there were too many bytes of them.
    pub cache_tags: u64,
    /// Manifests without a tag that stay for now: their time is not over, a run saw them, a client was told that they are here.
    pub waiting: u64,
    /// Why it took no age into account, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// Why it broke off; none while it goes on and where it came to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Whether it ended.
    pub done: bool,
}

/// Collects. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gc(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    views: Views,
    clock: Clock,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    settings: ArcSwap<Settings>,
    /// The collection of everything that runs, or ran last.
    told: watch::Sender<Option<Progress>>,
    /// One works at a time: two would only find what the other takes.
    turn: tokio::sync::Mutex<()>,
}

impl Gc {
    /// Nothing runs yet.
    pub fn new(
        store: Store,
        views: Views,
        clock: Clock,
        tasks: Tasks,
        metrics: Arc<Metrics>,
        settings: Settings,
    ) -> Self {
        let (settings, told) = (ArcSwap::from_pointee(settings), watch::Sender::new(None));
        Self(Arc::new(Inner {
            store,
            views,
            clock,
            tasks,
            metrics,
            settings,
            told,
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Takes up a new configuration.
    pub fn reload(&self, settings: Settings) {
        self.0.settings.store(Arc::new(settings));
    }

    /// Begins a collection of everything, or joins the one that runs. The last progress is done; a receiver that ends
    /// before tells of one that the end of larder broke off.
    pub fn start(&self) -> watch::Receiver<Option<Progress>> {
        let told = self.0.told.subscribe();
        let begins = self.0.told.send_if_modified(|now| {
            let begins = now.as_ref().is_none_or(|progress| progress.done);
            if begins {
                *now = Some(Progress::default());
            }
            begins
        });
        if begins {
            let gc = self.clone();
            self.0.tasks.spawn("gc", async move { gc.everything().await });
        }
        told
    }

    async fn everything(&self) {
        let mut cycle = self.cycle(None);
        let outcome = self.run(&mut cycle).await;
        let mut progress = cycle.progress().clone();
        progress.done = true;
        match outcome {
            Ok(()) => tracing::info!(
                looked_at = progress.looked_at,
                manifests = progress.manifests,
                blobs = progress.blobs,
                freed = progress.freed,
                "collected what nothing names"
            ),
            Err(error) => {
                let why = telemetry::chain(&error);
                tracing::warn!(error = why, "collecting broke off; it begins again with the next one");
                progress.failed = Some(why);
                self.0.metrics.collection_failed();
            }
        }
        self.0.told.send_replace(Some(progress));
    }

    /// The steps of a collection: of some repositories, or of everything.
    pub fn cycle(&self, of: Option<HashSet<RepositoryKey>>) -> Cycle {
        Cycle::new(self.0.store.clone(), self.0.views.clone(), self.0.clock.clone(), self.0.settings.load_full(), of)
    }

    async fn run(&self, cycle: &mut Cycle) -> Result<(), Error> {
        let _turn = self.0.turn.lock().await;
        let stopping = self.0.tasks.stopping();
        let of_everything = cycle.is_of_everything();
        loop {
            let began = Instant::now();
            if !cycle.step().await? {
                return Ok(());
            }
            if of_everything {
                self.0.told.send_replace(Some(cycle.progress().clone()));
            }
            // Half of the time is others'.
            tokio::select! {
                () = stopping.cancelled() => return Err(Error::Stopping),
                () = tokio::time::sleep(began.elapsed().min(REST_MAX)) => {}
            }
        }
    }

    /// Collects what was loosened by removals at once, and everything as often as the configuration says, until larder stops.
    pub async fn keep(self) {
        let stopping = self.0.tasks.stopping();
        let mut next = Instant::now() + self.0.settings.load().every;
        loop {
            let every = self.0.settings.load().every;
            tokio::select! {
                () = stopping.cancelled() => return,
                repositories = self.0.store.loosened() => {
                    let mut cycle = self.cycle(Some(repositories));
                    match self.run(&mut cycle).await {
                        Ok(()) => {
                            let freed = cycle.progress().freed;
                            if freed > 0 {
                                tracing::info!(freed, "collected what a removal let go");
                            }
                        }
                        // What is left is found by the next collection of everything.
                        Err(error) => {
                            tracing::debug!(error = %telemetry::chain(&error), "collecting after a removal broke off");
                        }
                    }
                }
                () = tokio::time::sleep_until(next), if !every.is_zero() => {
                    next = Instant::now() + every;
                    if *self.0.store.completeness().borrow() == Completeness::Complete {
                        drop(self.start());
                    }
                }
            }
        }
    }
}

//! Run views: what a tag meant when a pipeline's run first saw it, it means for all of the run.
//!
//! Nothing begins a run but its first answer. What a tag means is written down before that answer goes out, one record a
//! run, with memory in front of it; where the store takes no writes it is kept in memory and served all the same. A run
//! lives for `runs.keep` from its last use.

mod keeper;
mod one;

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::sync::OnceCell;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::store;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

pub use one::Pin;

use one::Mode;
use one::Noted;
use one::Record;
use one::Run;

/// The kind of the records.
const KIND: &str = "runs";

/// Why a tag can't be pinned, or a run not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are as many runs as may be.
    #[error("there are {limit} runs, as many as limits.runs allows")]
    Runs {
        /// The limit.
        limit: u32,
    },
    /// The run saw as many tags as it may.
    #[error("the run saw {limit} tags, as many as limits.run_tags allows")]
    Tags {
        /// The limit.
        limit: u32,
    },
    /// The run's record can't be read or removed.
    #[error("the run's record")]
    Store(#[source] store::Error),
}

/// A run, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub id: Arc<str>,
    /// Its first answer.
    pub began: Timestamp,
    /// Its last use.
    pub used: Timestamp,
    /// When it is over, if nobody uses it before.
    pub expires: Timestamp,
    /// What it saw, by repository and tag.
    pub pins: Vec<Pin>,
}

/// The runs that live. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Clock,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    settings: ArcSwap<config::Runs>,
    runs_max: u32,
    tags_max: u32,
    runs: Mutex<HashMap<Arc<str>, Arc<Run>>>,
    /// Read while a record is read and its run taken in; written while a run is removed: what was read before never comes
    /// back after it.
    reading: tokio::sync::RwLock<()>,
    /// Set when every record was read.
    loaded: OnceCell<()>,
    /// Reading every record was tried.
    tried: AtomicBool,
    /// Told when there may be something to look after.
    woken: Notify,
    /// The last record could not be written; that is said once.
    failing: AtomicBool,
}

impl Runs {
    /// No run is read yet; `keep` reads them.
    pub fn new(
        store: Store,
        clock: Clock,
        tasks: Tasks,
        metrics: Arc<Metrics>,
        settings: config::Runs,
        limits: &config::Limits,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            clock,
            tasks,
            metrics,
            settings: ArcSwap::from_pointee(settings),
            runs_max: limits.runs,
            tags_max: limits.run_tags,
            runs: Mutex::default(),
            reading: tokio::sync::RwLock::default(),
            loaded: OnceCell::new(),
            tried: AtomicBool::new(false),
            woken: Notify::new(),
            failing: AtomicBool::new(false),
        }))
    }

    /// Takes up a new configuration.
    pub fn reload(&self, settings: config::Runs) {
        self.0.settings.store(Arc::new(settings));
        self.0.woken.notify_one();
    }

    /// What the tag means for the run, if it saw it. What is told here is written down, or can't be.
    ///
    /// # Errors
    ///
    /// The run's record can't be read.
    pub async fn pinned(&self, run: &str, repository: &RepositoryKey, tag: &Tag) -> Result<Option<Digest>, Error> {
        let Some(run) = self.0.find(run).await? else { return Ok(None) };
        let meaning = self.0.living(&run).meaning(&(repository.clone(), tag.clone()));
        let Some((digest, change)) = meaning else { return Ok(None) };
        self.0.settle(&run, change).await;
        Ok(Some(digest))
    }

    /// Notes what the tag means for the run, unless it saw it before; gives what it means from now on.
    ///
    /// # Errors
    ///
    /// There is no room for another run or tag, or the run's record can't be read.
    pub async fn pin(&self, run: &str, repository: &RepositoryKey, tag: &Tag, digest: Digest) -> Result<Digest, Error> {
        if repository.is_hosted() && !self.0.protect(repository, &digest).await? {
            // The tag went meanwhile and took it along: what is served is in memory, and there is nothing to be held.
            return Ok(digest);
        }
        self.0.note(run, (repository, tag), digest, Mode::First).await
    }

    /// Notes what the tag means for the run that has just pushed it.
    ///
    /// # Errors
    ///
    /// As for [`Runs::pin`].
    pub async fn repin(&self, run: &str, repository: &RepositoryKey, tag: &Tag, digest: Digest) -> Result<(), Error> {
        self.0.note(run, (repository, tag), digest, Mode::Pushed).await.map(drop)
    }

    /// Whether the run has room for these tags: asked before a push is taken.
    ///
    /// # Errors
    ///
    /// There is no room for another run or tag, or the run's record can't be read.
    pub async fn admit(&self, run: &str, repository: &RepositoryKey, tags: &[&Tag]) -> Result<(), Error> {
        let Some(run) = self.0.find(run).await? else { return self.0.room_for_a_run() };
        let state = self.0.living(&run);
        let new = tags.iter().filter(|tag| state.meaning(&(repository.clone(), (**tag).clone())).is_none()).count();
        if state.tags() + new > self.0.tags_max as usize {
            return Err(self.0.no_room_for_tags());
        }
        Ok(())
    }

    /// The run is used.
    pub fn touch(&self, run: &str) {
        if let Some(run) = self.0.map().get(run) {
            drop(self.0.living(run));
        }
    }

    /// The manifest was deleted by its digest: no run holds it any more.
    ///
    /// # Errors
    ///
    /// The records of runs can't be read.
    pub async fn forget(&self, repository: &RepositoryKey, digest: &Digest) -> Result<(), Error> {
        self.0.load_all().await?;
        let runs: Vec<Arc<Run>> = self.0.map().values().cloned().collect();
        for run in runs {
            let gone = run.state().forget(repository, digest);
            if let Some((count, change)) = gone {
                self.0.count_pins(-signed(count));
                self.0.settle(&run, change).await;
            }
        }
        Ok(())
    }

    /// What runs hold, the newest use first; none while that is not known yet.
    pub fn held(&self) -> Option<Vec<(RepositoryKey, Digest)>> {
        if !self.0.tried.load(Ordering::Acquire) {
            return None;
        }
        let (now, keep) = (self.0.clock.now(), self.0.settings.load().keep);
        let mut held = Vec::new();
        let runs: Vec<Arc<Run>> = self.0.map().values().cloned().collect();
        for run in runs {
            let state = run.state();
            if !state.is_over(now, keep) {
                held.extend(state.pins().into_iter().map(|pin| (state.used, pin)));
            }
        }
        held.sort_by(|(used, a), (other, b)| (other, b.at).cmp(&(used, a.at)));
        Some(held.into_iter().map(|(_, pin)| (pin.repository, pin.digest)).collect())
    }

    /// What runs hold in one repository; none while that is not known yet.
    pub fn held_in(&self, repository: &RepositoryKey) -> Option<HashSet<Digest>> {
        let held = self.held()?.into_iter().filter(|(of, _)| of == repository);
        Some(held.map(|(_, digest)| digest).collect())
    }

    /// Every run, the newest use first.
    ///
    /// # Errors
    ///
    /// The records can't be read.
    pub async fn list(&self) -> Result<Vec<Shown>, Error> {
        self.0.load_all().await?;
        let runs: Vec<Arc<Run>> = self.0.map().values().cloned().collect();
        let mut shown: Vec<Shown> = runs.iter().filter_map(|run| self.0.shown(run)).collect();
        shown.sort_by(|a, b| (b.used, &a.id).cmp(&(a.used, &b.id)));
        Ok(shown)
    }

    /// One run; looking at it is no use of it.
    ///
    /// # Errors
    ///
    /// Its record can't be read.
    pub async fn show(&self, run: &str) -> Result<Option<Shown>, Error> {
        let found = self.0.find(run).await?;
        Ok(found.and_then(|run| self.0.shown(&run)))
    }

    /// Ends a run: its next request begins it anew. Tells whether it was there.
    ///
    /// # Errors
    ///
    /// Its record can't be removed.
    pub async fn end(&self, run: &str) -> Result<bool, Error> {
        let Some(found) = self.0.find_record(run).await? else { return Ok(false) };
        let inner = Arc::clone(&self.0);
        // It goes on to its end when its caller goes away: two writers of one record must never meet.
        let ending = self.0.tasks.spawn("end of a run", async move { inner.end(&found).await });
        ending.await.map_err(|_| Error::Store(store::Error::Closed))?.map_err(Error::Store)?;
        Ok(true)
    }

    /// Reads what is written down, looks after it until the process stops, and writes down the last uses then.
    pub async fn keep(self) {
        keeper::keep(&self.0).await;
    }
}

impl Inner {
    fn map(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run, if it lives or is written down.
    async fn find(&self, id: &str) -> Result<Option<Arc<Run>>, Error> {
        let found = self.map().get(id).cloned();
        if found.is_some() || self.loaded.initialized() {
            return Ok(found);
        }
        // Boxed, so that a request of a run that is known is not as large in memory as this.
        let read = Box::pin(self.read(&name(id))).await.map_err(Error::Store)?;
        Ok(read.filter(|run| *run.id == *id))
    }

    /// A run that was written down lives again.
    async fn read(&self, name: &str) -> store::Result<Option<Arc<Run>>> {
        let _reading = self.reading.read().await;
        let record = self.store.state::<Record>(KIND, name).await?;
        Ok(record.map(|record| self.insert(Run::of_record(record))))
    }

    /// The run, also where its record can't be read: then as one that saw nothing, so that it can be ended.
    async fn find_record(&self, id: &str) -> Result<Option<Arc<Run>>, Error> {
        match self.find(id).await {
            Err(Error::Store(error)) if error.is_damaged_record() => {
                let run = Run::new(id.into(), self.clock.now());
                Ok(Some(self.insert(run)))
            }
            other => other,
        }
    }

    fn insert(&self, run: Run) -> Arc<Run> {
        let mut runs = self.map();
        if let Some(known) = runs.get(&run.id) {
            return Arc::clone(known);
        }
        self.metrics.runs(1);
        self.count_pins(signed(run.state().tags()));
        let run = Arc::new(run);
        runs.insert(Arc::clone(&run.id), Arc::clone(&run));
        run
    }

    /// The state of a run that is being used; one that was over begins anew.
    fn living<'a>(&self, run: &'a Run) -> MutexGuard<'a, one::State> {
        let now = self.clock.now();
        let mut state = run.state();
        if state.is_over(now, self.settings.load().keep) {
            let gone = state.begin_anew(now);
            self.count_pins(-signed(gone));
        }
        state.used = state.used.max(now);
        state
    }

    async fn note(
        self: &Arc<Self>,
        id: &str,
        (repository, tag): (&RepositoryKey, &Tag),
        digest: Digest,
        mode: Mode,
    ) -> Result<Digest, Error> {
        loop {
            let run = if let Some(run) = self.find(id).await? {
                run
            } else {
                self.room_for_a_run()?;
                self.woken.notify_one();
                self.insert(Run::new(id.into(), self.clock.now()))
            };
            let of = (repository.clone(), tag.clone());
            let (noted, more) = {
                let mut state = self.living(&run);
                let before = state.tags();
                let noted = state.note(of, digest, self.clock.now(), (mode, self.tags_max as usize));
                (noted, state.tags() - before)
            };
            self.count_pins(signed(more));
            match noted {
                Noted::Means(digest, change) => {
                    self.settle(&run, change).await;
                    return Ok(digest);
                }
                Noted::Full => return Err(self.no_room_for_tags()),
                // Until it is gone; then it begins anew.
                Noted::Ended => drop(run.writing.lock().await),
            }
        }
    }

    /// Keeps a manifest from the collector until it sees what the run notes. False where it is gone.
    async fn protect(&self, repository: &RepositoryKey, digest: &Digest) -> Result<bool, Error> {
        match self.store.lease(digest).await {
            // While the index is being rebuilt nothing is collected.
            Err(store::Error::Incomplete) => return Ok(true),
            Err(error) => return Err(Error::Store(error)),
            Ok(false) => return Ok(false),
            Ok(true) => {}
        }
        Ok(self.store.held(repository, digest).await.map_err(Error::Store)?.is_some())
    }

    fn room_for_a_run(&self) -> Result<(), Error> {
        if self.map().len() < self.runs_max as usize {
            return Ok(());
        }
        self.metrics.run_refused("runs");
        Err(Error::Runs { limit: self.runs_max })
    }

    fn no_room_for_tags(&self) -> Error {
        self.metrics.run_refused("tags");
        Error::Tags { limit: self.tags_max }
    }

    fn shown(&self, run: &Run) -> Option<Shown> {
        let (now, keep) = (self.clock.now(), self.settings.load().keep);
        let state = run.state();
        if state.ended || state.is_over(now, keep) {
            return None;
        }
        let (began, used, expires) = (state.began, state.used, state.used.after(keep));
        Some(Shown { id: Arc::clone(&run.id), began, used, expires, pins: state.pins() })
    }

    fn count_pins(&self, delta: i64) {
        self.metrics.run_pins(delta);
    }
}

/// The name of a run's record: names of runs have letters and lengths that names of records don't.
fn name(id: &str) -> String {
    Digest::of(id.as_bytes()).hex()
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

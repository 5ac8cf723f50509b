//! Size pressure: what came from upstreams is bounded, and the least popular images go when the bound is reached.

mod plan;
mod popularity;
mod units;

pub use plan::Holding;
pub use plan::Kept;
pub use plan::Victim;
pub use plan::plan;
pub use popularity::Place;
pub use popularity::Popularity;

use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::RepositoryKey;
use crate::store;
use crate::store::Completeness;
use crate::store::Drop;
use crate::views::Runs;

use super::Cache;
use super::error::Error;

/// Rows read at a time.
const PAGE: usize = 500;

/// The store's size is looked at this often when nothing tells of growth.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// When eviction begins, and where it ends: in bytes of proxied content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// Above this, eviction begins.
    pub high: u64,
    /// Down to this.
    pub low: u64,
    /// So much of it is kept for runs that saw it.
    pub held: u64,
}

impl Watermarks {
    /// The marks of a configured store, and of what runs may hold of it.
    pub fn of(store: &config::Store, runs: &config::Runs) -> Self {
        let part = |percent: u8| store.max_size / 100 * u64::from(percent);
        Self { high: part(store.high_watermark), low: part(store.low_watermark), held: part(runs.max_share) }
    }
}

impl Cache {
    /// Keeps the store within its bounds until the process stops.
    ///
    /// What a run saw stays while the run lives and there is room for it. `remembered` bounds the images whose popularity is
    /// in memory.
    pub async fn evict_under_pressure(
        self,
        runs: Runs,
        remembered: usize,
        marks: impl Fn() -> Option<Watermarks> + Send + Sync + 'static,
    ) {
        let mut popularity = Popularity::new(remembered);
        let stopping = self.tasks.stopping();
        let grown = Arc::clone(&self.grown);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = grown.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let Some(marks) = marks() else { continue };
            // What is where is not known before the index is whole again.
            if *self.store.completeness().borrow() != Completeness::Complete {
                continue;
            }
            let held = self.store.stored().proxied;
            if held <= marks.high {
                continue;
            }
            // What runs hold is not known before their records are read.
            let Some(of_runs) = runs.held() else { continue };
            popularity = self.brought_up(popularity).await;
            match self.make_room(held - marks.low, (&of_runs, marks.held), &popularity).await {
                Ok(freed) => {
                    tracing::info!(freed, held, "evicted the least popular images");
                }
                Err(error) => tracing::warn!(error = %crate::telemetry::chain(&error), "could not evict"),
            }
        }
    }

    /// Takes up the uses that were noted since the last time.
    async fn brought_up(&self, mut popularity: Popularity) -> Popularity {
        // To the second: what comes later in this one is as good as told.
        let since = popularity.upto().after(Duration::from_secs(1));
        let (pulls, capacity) = (self.history.read(since).await, popularity.capacity());
        let told = tokio::task::spawn_blocking(move || {
            for pull in pulls {
                match pull {
                    Ok(pull) => popularity.note(&pull),
                    Err(error) => {
                        tracing::warn!(error = %crate::telemetry::chain(&error), "some uses don't count for eviction");
                    }
                }
            }
            popularity
        });
        // A thread that panicked has said so.
        told.await.unwrap_or_else(|_| Popularity::new(capacity))
    }

    /// Frees `wanted` bytes, or what there is; returns how many it freed. What `of_runs` names, the newest first, stays up to
    /// `room` bytes.
    async fn make_room(
        &self,
        wanted: u64,
        (of_runs, room): (&[(RepositoryKey, Digest)], u64),
        popularity: &Popularity,
    ) -> Result<u64, store::Error> {
        let holdings = self.holdings().await?;
        let victims = plan(&holdings, wanted, &Kept::new(&holdings, of_runs, room), popularity);
        drop(holdings);
        let mut freed = 0;
        for victim in victims {
            freed += self.drop_all(&victim).await?;
        }
        Ok(freed)
    }

    /// All that came from upstreams, read page by page.
    async fn holdings(&self) -> Result<Vec<Holding>, store::Error> {
        let mut holdings = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.repositories(after.as_ref(), PAGE).await?;
            for repository in page.rows.iter().filter(|r| !r.is_hosted()) {
                holdings.push(self.holding(repository).await?);
            }
            after = page.rows.last().cloned();
            if !page.more || after.is_none() {
                return Ok(holdings);
            }
        }
    }

    async fn holding(&self, repository: &RepositoryKey) -> Result<Holding, store::Error> {
        let mut holding = Holding { repository: repository.clone(), tags: Vec::new(), links: Vec::new() };
        loop {
            let after = holding.tags.last().map(|t| t.record.tag.clone());
            let page = self.store.tags(repository, after.as_ref(), PAGE).await?;
            let done = !page.more || page.rows.is_empty();
            holding.tags.extend(page.rows);
            if done {
                break;
            }
        }
        loop {
            let after = holding.links.last().map(|l| l.link.digest);
            let page = self.store.links(repository, after.as_ref(), PAGE).await?;
            let done = !page.more || page.rows.is_empty();
            holding.links.extend(page.rows);
            if done {
                return Ok(holding);
            }
        }
    }

    async fn drop_all(&self, victim: &Victim) -> Result<u64, store::Error> {
        let tags = victim.tags.iter().cloned().map(Drop::Tag);
        let links = victim.links.iter().copied().map(Drop::Link);
        for digest in &victim.links {
            // It is looked after again when it comes back.
            self.looked_after.remove(&(victim.repository.clone(), *digest));
            self.recent.remove(&(victim.repository.clone(), *digest));
        }
        self.store.evict(&victim.repository, tags.chain(links).collect()).await
    }

    /// Drops what is held of one reference, and of what it names where nothing else here needs it: `larder evict`.
    /// Returns the bytes that became free, `None` where nothing is held.
    pub async fn evict(&self, repository: &RepositoryKey, reference: Option<&Reference>) -> Result<Option<u64>, Error> {
        let holdings = self.holdings().await?;
        let Some(at) = holdings.iter().position(|h| h.repository == *repository) else { return Ok(None) };
        let mut freed = None;
        for victim in named(&holdings, at, reference) {
            freed = Some(freed.unwrap_or(0) + self.drop_all(&victim).await?);
        }
        Ok(freed)
    }
}

/// What goes when `reference` of the repository `at` goes, or all of the repository.
fn named(holdings: &[Holding], at: usize, reference: Option<&Reference>) -> Vec<Victim> {
    let Some(holding) = holdings.get(at) else { return Vec::new() };
    let root = match reference {
        None => return plan::only(holdings, at, &holding.links.iter().map(|l| l.link.digest).collect::<Vec<_>>()),
        Some(Reference::Digest(digest)) => Some(*digest),
        Some(Reference::Tag(tag)) => holding.tags.iter().find(|t| t.record.tag == *tag).map(|t| t.record.digest),
    };
    let Some(root) = root else { return Vec::new() };
    let mut wanted = vec![root];
    if let Some(index) = holding.links.iter().find(|l| l.link.digest == root) {
        // The images of an index are units of their own; its blobs come with them.
        wanted.extend(&index.children);
    }
    plan::only(holdings, at, &wanted)
}

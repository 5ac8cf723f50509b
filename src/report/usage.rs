//! What storage comes to and what it saves: per repository, branch and tag.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::BuildCache;
use crate::config::Config;
use crate::config::Retention;
use crate::config::retention::Money;
use crate::config::retention::Price;
use crate::config::retention::Select;
use crate::history::History;
use crate::history::Sums;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::retention::hosted;
use crate::retention::hosted::Hosted;
use crate::retention::plan::naming;
use crate::retention::records::Holding;
use crate::retention::records::Pulled;
use crate::retention::sizes;
use crate::retention::sizes::Graph;
use crate::retention::sizes::OTHERS;
use crate::retention::sizes::Root;
use crate::retention::sizes::Taken;
use crate::store::Store;

/// The most repositories, branches and tags that are told.
const ROWS_MAX: usize = 10_000;

/// What is configured of prices, branches and bounds.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// What bytes cost, and how policies read branches from tags.
    pub retention: Retention,
    /// How build caches read them.
    pub build_caches: Vec<BuildCache>,
    /// The most tags and manifests that are looked at.
    pub entries: u32,
}

/// Tells what storage comes to. Cheap to clone; clones share the terms.
#[derive(Clone, Debug)]
pub struct Ledger {
    store: Store,
    history: History,
    clock: Clock,
    terms: Arc<ArcSwap<Terms>>,
}

/// What storage comes to.
#[derive(Debug, Serialize)]
pub struct Usage {
    since: String,
    until: String,
    /// From when on every pull is known; none where none is.
    known_since: Option<String>,
    /// What all of it takes, each byte counted once.
    bytes: u64,
    hosted_bytes: u64,
    /// Of those the part that came from upstreams.
    proxied_bytes: u64,
    /// What keeping them costs in a month, in millionths; none where there is no price.
    month_micros: Option<u64>,
    #[serde(flatten)]
    traffic: Traffic,
    repositories: Vec<RepositoryUsage>,
    /// Whether there are more repositories, which take less.
    more: bool,
}

/// What clients took, what of it spared an upstream, and what policies freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Traffic {
    pulls: u64,
    /// Those that an upstream was not asked for.
    saved_pulls: u64,
    sent_bytes: u64,
    /// Those that did not leave an upstream for it.
    saved_bytes: u64,
    /// What these would have cost, in millionths; none where there is no price.
    saved_micros: Option<u64>,
    /// Tags and untagged manifests that policies deleted.
    pruned: u64,
    /// Bytes that nothing needed any more after that.
    freed_bytes: u64,
}

/// What one repository comes to.
#[derive(Debug, Serialize)]
struct RepositoryUsage {
    repository: String,
    origin: &'static str,
    tag_count: usize,
    #[serde(flatten)]
    size: Size,
    used_at: Option<String>,
    #[serde(flatten)]
    traffic: Traffic,
    /// Where this one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    branches: Option<Vec<BranchUsage>>,
    /// Where this one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<TagUsage>>,
}

/// What something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Size {
    /// All that it needs.
    bytes: u64,
    /// What nothing else needs.
    exclusive_bytes: u64,
    /// What others need too.
    shared_bytes: u64,
    /// What `exclusive_bytes` cost in a month, in millionths; none where there is no price.
    month_micros: Option<u64>,
}

#[derive(Debug, Serialize)]
struct BranchUsage {
    branch: String,
    tag_count: usize,
    #[serde(flatten)]
    size: Size,
    used_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct TagUsage {
    tag: String,
    branch: Option<String>,
    digest: String,
    #[serde(flatten)]
    size: Size,
    pushed_at: Option<String>,
    used_at: Option<String>,
}

impl Terms {
    /// What the whole configuration says of it.
    pub fn of(config: &Config) -> Self {
        let (retention, build_caches) = (config.retention.clone(), config.build_caches.clone());
        Self { retention, build_caches, entries: config.limits.plan_entries }
    }
}

impl Ledger {
    /// Tells what is in `store` and what `history` knows of it.
    pub fn new(store: Store, history: History, clock: Clock, terms: Terms) -> Self {
        Self { store, history, clock, terms: Arc::new(ArcSwap::from_pointee(terms)) }
    }

    /// Takes up what changed in the configuration.
    pub fn reload(&self, terms: Terms) {
        self.terms.store(Arc::new(terms));
    }

    /// What storage comes to and what it saved within `window`. Of the repository that is named its branches and tags too.
    ///
    /// # Errors
    ///
    /// The store can't be read, or there is more in it than may be looked at at once.
    pub async fn usage(&self, window: Duration, named: Option<&RepositoryKey>) -> Result<Usage, hosted::Error> {
        let now = self.clock.now();
        let since = Timestamp(now.0.saturating_sub(u64::try_from(window.as_millis()).unwrap_or(u64::MAX)));
        let (sums, pulls) = (self.history.sums(since).await, self.history.last_pulls(|_| true).await);
        let (terms, stored) = (self.terms.load_full(), self.store.stored());
        let names = hosted::names(&self.store, |_| true).await?;
        let holdings = Hosted::read(&self.store, names, &pulls, terms.entries).await?.holdings;
        let month = terms.retention.price.storage(stored.hosted + stored.proxied);
        let named = named.cloned();
        let tell = move || {
            let counted = Counted { holdings: &holdings, graph: &Graph::of(&holdings, |_| false), terms: &terms };
            counted.told(sums, named.as_ref())
        };
        // A thread that panicked has said so.
        let (repositories, traffic) = tokio::task::spawn_blocking(tell).await.unwrap_or_default();
        Ok(Usage {
            since: since.to_string(),
            until: now.to_string(),
            known_since: pulls.covered_since().map(|at| at.to_string()),
            bytes: stored.hosted + stored.proxied,
            hosted_bytes: stored.hosted,
            proxied_bytes: stored.proxied,
            month_micros: micros(month),
            traffic,
            more: repositories.len() > ROWS_MAX,
            repositories: first(repositories),
        })
    }
}

/// What is counted, over all repositories: they share their bytes.
struct Counted<'a> {
    holdings: &'a [Holding],
    graph: &'a Graph,
    terms: &'a Terms,
}

impl Counted<'_> {
    /// The repositories, what takes most first, and what clients took of all.
    fn told(
        &self,
        mut sums: BTreeMap<RepositoryKey, Sums>,
        named: Option<&RepositoryKey>,
    ) -> (Vec<RepositoryUsage>, Traffic) {
        let roots: Vec<Root> = (0..).zip(self.holdings).flat_map(|(owner, _)| self.all_of(owner, owner)).collect();
        let taken = self.graph.taken(&roots, self.holdings.len());
        let mut total = Traffic::default();
        let mut all = Vec::new();
        for ((number, holding), taken) in self.holdings.iter().enumerate().zip(taken) {
            let sums = sums.remove(&holding.repository).unwrap_or_default();
            let mut one = self.repository(&holding.repository, holding.tags.len(), taken, &sums);
            if named == Some(&holding.repository) {
                let branches: Vec<Option<String>> =
                    holding.tags.iter().map(|tag| self.terms.branch_of(&holding.repository, &tag.tag)).collect();
                one.branches = Some(self.branches(number, holding, &branches));
                one.tags = Some(self.tags(number, holding, branches));
            }
            total.add(&one.traffic);
            if named.is_none_or(|named| *named == holding.repository) {
                all.push(one);
            }
        }
        // What is not held any more was pulled all the same.
        for (repository, sums) in sums {
            let one = self.repository(&repository, 0, Taken::default(), &sums);
            total.add(&one.traffic);
            if named.is_none_or(|named| *named == repository) {
                all.push(one);
            }
        }
        all.sort_by_key(|one| std::cmp::Reverse((one.size.exclusive_bytes, one.size.bytes)));
        (all, total)
    }

    fn repository(&self, of: &RepositoryKey, tags: usize, taken: Taken, sums: &Sums) -> RepositoryUsage {
        RepositoryUsage {
            repository: of.to_string(),
            origin: if of.is_hosted() { "hosted" } else { "proxied" },
            tag_count: tags,
            size: Size::of(taken, self.terms.retention.price),
            used_at: sums.last.map(|at| at.to_string()),
            traffic: Traffic::of(of, sums, self.terms.retention.price),
            branches: None,
            tags: None,
        }
    }

    /// All manifests of a repository, whose they be.
    fn all_of(&self, number: u32, owner: u32) -> impl Iterator<Item = Root> + use<> {
        let start = self.graph.start(number as usize);
        let count = self.holdings.get(number as usize).map_or(0, |holding| holding.manifests.len());
        (start..).take(count).map(move |entry| Root { entry, owner })
    }

    /// What parts of a repository take, where `owners` says whose each tag is. What no tag of it needs is the others'.
    fn parts(&self, number: usize, owners: &[u32], count: usize) -> Vec<Taken> {
        let Some(holding) = self.holdings.get(number) else { return Vec::new() };
        let start = self.graph.start(number);
        let places = sizes::places(holding, start);
        let own = holding.tags.iter().zip(owners);
        let mut roots: Vec<Root> =
            own.filter_map(|(tag, owner)| Some(Root { entry: *places.get(&tag.digest)?, owner: *owner })).collect();
        let mut reached = vec![false; self.graph.entries() as usize];
        self.graph.reach(roots.iter().map(|root| root.entry), &mut reached);
        for (other, _) in (0..).zip(self.holdings) {
            let elsewhere = other as usize != number;
            let free = |root: &Root| elsewhere || !reached.get(root.entry as usize).copied().unwrap_or(false);
            roots.extend(self.all_of(other, OTHERS).filter(|root| free(root)));
        }
        self.graph.taken(&roots, count)
    }

    fn branches(&self, number: usize, holding: &Holding, branches: &[Option<String>]) -> Vec<BranchUsage> {
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut rows: Vec<(&str, usize, Option<Timestamp>)> = Vec::new();
        let mut owners = Vec::with_capacity(branches.len());
        for (tag, branch) in holding.tags.iter().zip(branches) {
            let Some(branch) = branch else {
                owners.push(OTHERS);
                continue;
            };
            let next = u32::try_from(rows.len()).unwrap_or(OTHERS);
            let owner = *numbers.entry(branch).or_insert_with(|| {
                rows.push((branch, 0, None));
                next
            });
            owners.push(owner);
            if let Some((_, tags, used)) = rows.get_mut(owner as usize) {
                *tags += 1;
                *used = (*used).max(used_at(tag.pulled));
            }
        }
        let taken = self.parts(number, &owners, rows.len());
        let row = |((branch, tag_count, used), taken): ((&str, usize, Option<Timestamp>), Taken)| BranchUsage {
            branch: branch.to_owned(),
            tag_count,
            size: Size::of(taken, self.terms.retention.price),
            used_at: used.map(|at| at.to_string()),
        };
        let mut told: Vec<BranchUsage> = rows.into_iter().zip(taken).map(row).collect();
        told.sort_by_key(|one| std::cmp::Reverse((one.size.exclusive_bytes, one.size.bytes)));
        first(told)
    }

    fn tags(&self, number: usize, holding: &Holding, branches: Vec<Option<String>>) -> Vec<TagUsage> {
        let owners: Vec<u32> = (0..).take(holding.tags.len()).collect();
        let taken = self.parts(number, &owners, holding.tags.len());
        let rows = holding.tags.iter().zip(branches).zip(taken).map(|((tag, branch), taken)| TagUsage {
            tag: tag.tag.to_string(),
            branch,
            digest: tag.digest.to_string(),
            size: Size::of(taken, self.terms.retention.price),
            pushed_at: tag.pushed_at.map(|at| at.to_string()),
            used_at: used_at(tag.pulled).map(|at| at.to_string()),
        });
        let mut told: Vec<TagUsage> = rows.collect();
        told.sort_by_key(|one| std::cmp::Reverse((one.size.exclusive_bytes, one.size.bytes)));
        first(told)
    }
}

impl Terms {
    /// The branch that a tag is of, as the policies of its repository or its build cache write it.
    fn branch_of(&self, of: &RepositoryKey, tag: &Tag) -> Option<String> {
        let name = of.to_string();
        let policies = naming(&self.retention.policies, &name);
        let selects = policies.iter().flat_map(|(_, policy, _)| &policy.select);
        let templates = selects.filter_map(|select| match select {
            Select::Template(template) => Some(template),
            Select::Semver | Select::Untagged | Select::BuildCache | Select::All => None,
        });
        let caches = self.build_caches.iter().filter(|cache| cache.pattern.matches(&name)).map(|cache| &cache.tag);
        templates.chain(caches).find_map(|template| template.split(tag.as_str())?.remove("branch"))
    }
}

impl Size {
    fn of(taken: Taken, price: Price) -> Self {
        let month_micros = micros(price.storage(taken.exclusive));
        Self { bytes: taken.total, exclusive_bytes: taken.exclusive, shared_bytes: taken.shared(), month_micros }
    }
}

impl Traffic {
    /// What lives here alone spares no upstream.
    fn of(repository: &RepositoryKey, sums: &Sums, price: Price) -> Self {
        let saved = if repository.is_hosted() { Sums::default() } else { *sums };
        Self {
            pulls: sums.pulls,
            saved_pulls: saved.hits,
            sent_bytes: sums.sent,
            saved_bytes: saved.from_here,
            saved_micros: micros(price.egress(saved.from_here)),
            pruned: sums.pruned,
            freed_bytes: sums.freed,
        }
    }

    fn add(&mut self, other: &Self) {
        self.pulls += other.pulls;
        self.saved_pulls += other.saved_pulls;
        self.sent_bytes += other.sent_bytes;
        self.saved_bytes += other.saved_bytes;
        self.pruned += other.pruned;
        self.freed_bytes += other.freed_bytes;
        self.saved_micros = match (self.saved_micros, other.saved_micros) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (one, other) => one.or(other),
        };
    }
}

fn micros(money: Option<Money>) -> Option<u64> {
    money.map(|money| money.0)
}

fn used_at(pulled: Pulled) -> Option<Timestamp> {
    match pulled {
        Pulled::At(at) => Some(at),
        Pulled::NotSince(_) | Pulled::Unknown => None,
    }
}

fn first<T>(mut rows: Vec<T>) -> Vec<T> {
    rows.truncate(ROWS_MAX);
    rows
}

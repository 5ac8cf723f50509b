//! Runs of retention: plans that are asked for, plans that are carried out, and those of the schedule.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config;
use crate::config::Retention;
use crate::config::duration;
use crate::config::retention::Mode;
use crate::config::retention::Policy;
use crate::events::Event;
use crate::events::Events;
use crate::forge::Forges;
use crate::history::History;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::repository::Repositories;
use crate::store;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry;
use crate::telemetry::Metrics;
use crate::upstream;

use super::apply::Applied;
use super::document::Document;
use super::document::Kept;
use super::gather::Gathered;
use super::plan::Names;
use super::plan::Verdict;
use super::plan_file::PlanFile;
use super::plan_file::Seal;
use super::remote;
use super::remote::Remote;

/// How old a plan may be that is carried out.
pub(super) const PLAN_AGE_MAX: Duration = Duration::from_hours(24);
/// The longest sleep until a scheduled run: a clock that is set meanwhile, or a machine that slept, is noticed by then.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// What the configuration says of retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Policies, protection, prices, other registries.
    pub retention: Retention,
    /// The upstreams: what a registry leaves out is as its upstream has it.
    pub upstreams: BTreeMap<String, Arc<config::Upstream>>,
    /// The most tags and manifests that a plan looks at.
    pub entries: u32,
}

impl Settings {
    /// What the whole configuration says of it.
    pub fn of(config: &config::Config) -> Self {
        Self {
            retention: config.retention.clone(),
            upstreams: config.upstreams.clone(),
            entries: config.limits.plan_entries,
        }
    }
}

/// What runs stand on.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is what its type says")]
pub struct Deps {
    pub store: Store,
    pub history: History,
    pub repositories: Arc<Repositories>,
    pub forges: Forges,
    pub clock: Clock,
    pub tasks: Tasks,
    pub metrics: Arc<Metrics>,
    pub events: Events,
    /// What clients of other registries are made with.
    pub clients: upstream::Deps,
}

/// What a plan is to cover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only what this policy lets go; what others keep stays all the same.
    pub policy: Option<String>,
    /// Only this registry; none: hosted repositories, and all registries that policies name.
    pub remote: Option<String>,
    /// Only this repository, for whoever only wants to know.
    pub(super) repository: Option<RepositoryKey>,
}

/// Why there is no plan, or why one was not carried out. Nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed, or its index is being rebuilt.
    #[error("what is stored can't be listed")]
    Store(#[source] store::Error),
    /// There is too much to look at.
    #[error("there are more than {most} tags and manifests; raise limits.plan_entries")]
    TooMany {
        /// The bound.
        most: u32,
    },
    /// There is no such policy.
    #[error("there is no policy `{policy}`; there are: {known}")]
    Policy {
        /// What was asked for.
        policy: String,
        /// What there is.
        known: String,
    },
    /// There is no such registry.
    #[error("`{host}` is not among retention.remotes: {known}")]
    Remote {
        /// What was asked for.
        host: String,
        /// What there is.
        known: String,
    },
    /// The plan is not one that this server made, or not as it made it.
    #[error(
        "this plan was edited, or another server made it: nothing was deleted; make it anew with larder prune --out"
    )]
    Edited,
    /// The plan is too old.
    #[error("this plan is {age} old, and may be 1d: nothing was deleted; make it anew with larder prune --out")]
    Old {
        /// How old it is.
        age: String,
    },
    /// Something forbids to delete anything.
    #[error("nothing was deleted: {0}")]
    Blocked(String),
    /// The plan could not be written as a document.
    #[error("the plan can't be written")]
    Json(#[from] serde_json::Error),
    /// larder stops.
    #[error("larder is stopping")]
    Stopping,
}

/// A plan that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// The plan, sealed.
    pub file: PlanFile,
    /// What stays, where that was asked for.
    pub kept: Vec<Kept>,
}

/// Retention. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prune(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) deps: Deps,
    pub(super) settings: ArcSwap<Settings>,
    pub(super) remotes: ArcSwap<BTreeMap<String, Other>>,
    pub(super) seal: Seal,
    /// One run at a time: what two delete together no bound would hold.
    pub(super) turn: Mutex<()>,
    changed: Notify,
}

/// Another registry, with what it was made from.
#[derive(Clone, Debug)]
pub(super) struct Other {
    config: config::retention::Remote,
    upstream: Option<Arc<config::Upstream>>,
    pub(super) adapter: Arc<dyn Remote>,
}

impl Prune {
    /// Retention as configured. Asks nobody yet.
    ///
    /// # Errors
    ///
    /// The key of plans can't be read, or a registry can't be set up.
    pub async fn open(settings: Settings, deps: Deps) -> Result<Self, OpenError> {
        let remotes = open_remotes(&settings, &BTreeMap::new(), &deps)?;
        let seal = Seal::open(&deps.store).await?;
        let inner = Inner {
            deps,
            settings: ArcSwap::from_pointee(settings),
            remotes: ArcSwap::from_pointee(remotes),
            seal,
            turn: Mutex::new(()),
            changed: Notify::new(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Takes up changed settings. A registry whose settings are the same stays as it is.
    ///
    /// # Errors
    ///
    /// A registry can't be set up; then everything stays as it was.
    pub fn reload(&self, settings: Settings) -> Result<(), OpenError> {
        let remotes = open_remotes(&settings, &self.0.remotes.load(), &self.0.deps)?;
        self.0.remotes.store(Arc::new(remotes));
        self.0.settings.store(Arc::new(settings));
        self.0.changed.notify_one();
        Ok(())
    }

    /// What would go now. `with_kept`: what stays too, each with its reason.
    pub async fn plan(&self, scope: &Scope, with_kept: bool) -> Result<Made, Error> {
        let gathered = self.0.gather(scope).await?;
        let kept = if with_kept { gathered.kept() } else { Vec::new() };
        let document = gathered.document(scope, &self.0);
        Ok(Made { file: self.0.seal.seal(document)?, kept })
    }

    /// Carries a plan out: exactly what it names, less what moved or is kept by now. It goes on when its caller goes away.
    pub async fn apply(&self, file: PlanFile, at_most: Option<u64>) -> Result<Applied, Error> {
        let inner = Arc::clone(&self.0);
        let work = async move { inner.apply(&file, at_most).await };
        self.0.deps.tasks.spawn("prune", work).await.map_err(|_| Error::Stopping)?
    }

    /// What becomes of a hosted tag, in sentences; none where it is not there, or no policy names its repository.
    pub async fn explain(&self, of: &RepositoryKey, tag: &Tag) -> Result<Vec<String>, Error> {
        let settings = self.0.settings.load();
        let named = super::plan::naming(&settings.retention.policies, &of.to_string());
        if named.is_empty() {
            return Ok(Vec::new());
        }
        if !of.is_hosted() {
            let host = &of.registry;
            return Ok(vec![format!(
                "the policy {} names its repository at {host}: larder prune --remote {host} says what goes there",
                named.iter().map(|(_, policy, _)| policy.name.as_str()).collect::<Vec<_>>().join(", ")
            )]);
        }
        let scope = Scope { repository: Some(of.clone()), ..Scope::default() };
        let gathered = self.0.gather(&scope).await?;
        let mut said: Vec<String> =
            gathered.verdict_of(of, tag).map(|verdict| gathered.names().sentence(verdict)).into_iter().collect();
        said.extend(gathered.blocked.iter().map(|why| format!("nothing is deleted now: {why}")));
        Ok(said)
    }

    /// Runs as the schedule says, until larder stops.
    pub async fn keep(self) {
        let stopping = self.0.deps.tasks.stopping();
        let mut from = self.0.deps.clock.now();
        loop {
            let now = self.0.deps.clock.now();
            let schedule = self.0.settings.load().retention.schedule.clone();
            let due = schedule.and_then(|schedule| schedule.next_after(from.0));
            if due.is_some_and(|due| due <= now.0) {
                // A run that was missed by much, because the machine slept, is one run.
                from = now;
                self.scheduled().await;
                continue;
            }
            let wait = due.map_or(SLEEP_MAX, |due| Duration::from_millis(due - now.0).min(SLEEP_MAX));
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.0.changed.notified() => from = self.0.deps.clock.now(),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One run of the schedule. It says what it did in the log, and tells when it refused.
    async fn scheduled(&self) {
        let mode = self.0.settings.load().retention.mode;
        let outcome = match self.scheduled_in(mode).await {
            Ok(outcome) => outcome,
            Err(error) => {
                self.0.tell_refused("all", &telemetry::chain(&error));
                "failed"
            }
        };
        self.0.deps.metrics.prune_run(outcome);
    }

    async fn scheduled_in(&self, mode: Mode) -> Result<&'static str, Error> {
        let made = self.plan(&Scope::default(), false).await?;
        let plan = &made.file.plan;
        tracing::info!(
            tags = plan.deletes.len(),
            freed_bytes = plan.freed_bytes,
            waiting = plan.waiting,
            unknown = plan.unknown,
            "the plan of retention"
        );
        for failed in &plan.failed {
            tracing::warn!(what = failed.what, why = failed.why, "nothing is deleted there");
        }
        let refusals = plan.in_the_way(None);
        for (policy, why) in &refusals {
            self.0.tell_refused(policy, why);
        }
        if !refusals.is_empty() {
            return Ok("refused");
        }
        if mode == Mode::Report || plan.deletes.is_empty() {
            return Ok("reported");
        }
        let applied = self.apply(made.file, None).await?;
        let (deleted, all) = (applied.deleted(), applied.results.len() as u64);
        tracing::info!(deleted, skipped = all - deleted, broken = applied.broken.len(), "the plan was carried out");
        if !applied.broken.is_empty() {
            let why = format!("after it, these are not whole: {}", applied.broken.join(", "));
            self.0.tell_refused("all", &why);
        }
        Ok("applied")
    }
}

/// Why retention can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The key of plans can't be read.
    #[error("reading the key of plans")]
    Store(#[from] store::Error),
    /// A registry can't be set up.
    #[error("setting up retention.remotes.{host}")]
    Remote {
        /// Which.
        host: String,
        /// Why.
        #[source]
        source: remote::Error,
    },
}

fn open_remotes(
    settings: &Settings,
    before: &BTreeMap<String, Other>,
    deps: &Deps,
) -> Result<BTreeMap<String, Other>, OpenError> {
    let mut remotes = BTreeMap::new();
    for (host, config) in &settings.retention.remotes {
        let upstream = settings.upstreams.get(host).cloned();
        let same = before.get(host).filter(|other| other.config == *config && other.upstream == upstream);
        let other = if let Some(other) = same {
            other.clone()
        } else {
            let adapter = remote::open(host, config, upstream.as_deref(), &deps.clients)
                .map_err(|source| OpenError::Remote { host: host.clone(), source })?;
            Other { config: config.clone(), upstream, adapter }
        };
        remotes.insert(host.clone(), other);
    }
    Ok(remotes)
}

impl Inner {
    fn tell_refused(&self, policy: &str, why: &str) {
        tracing::warn!(policy, why, "a run of retention deleted nothing");
        self.deps.events.emit(Event::PruneRefused { policy: policy.to_owned(), why: why.to_owned() });
    }

    /// What bytes of a registry cost in a month, in millionths.
    pub(super) fn storage_price(&self, host: Option<&str>, bytes: u64) -> Option<u64> {
        let settings = self.settings.load();
        let own = host.and_then(|host| settings.retention.remotes.get(host)).and_then(|remote| remote.price);
        own.unwrap_or(settings.retention.price).storage(bytes).map(|money| money.0)
    }
}

impl Scope {
    /// What this policy lets go, in this registry; none: all of them.
    pub fn new(policy: Option<String>, remote: Option<String>) -> Self {
        Self { policy, remote, repository: None }
    }

    /// The policies, that which is asked for first: what it selects counts as its.
    pub(super) fn order(&self, policies: &[Policy]) -> Result<Vec<Policy>, Error> {
        let mut ordered = policies.to_vec();
        if let Some(wanted) = &self.policy {
            let at = policies.iter().position(|policy| policy.name == *wanted).ok_or_else(|| Error::Policy {
                policy: wanted.clone(),
                known: policies.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>().join(", "),
            })?;
            ordered.rotate_left(at);
        }
        Ok(ordered)
    }
}

impl Gathered {
    pub(super) fn names(&self) -> Names<'_> {
        Names { policies: &self.policies, protect: &self.protections.configured }
    }

    /// The plan in writing.
    fn document(&self, scope: &Scope, inner: &Inner) -> Document {
        let mut document = Document::new(self.now, scope.policy.clone(), scope.remote.clone());
        let mut saved = None;
        for domain in &self.domains {
            let before = document.freed_bytes;
            document.add(domain, self.names());
            let host = Some(domain.registry.as_str()).filter(|_| !domain.registry.is_hosted());
            let price = inner.storage_price(host, document.freed_bytes - before);
            saved = [saved, price].into_iter().flatten().reduce(|a, b| a + b);
        }
        inner.add_calls(self, &mut document);
        document.saved_a_month_micros = saved;
        document.sum(&self.policies, &self.sums);
        document.blocked.clone_from(&self.blocked);
        document.failed.clone_from(&self.failed);
        document.remarks.clone_from(&self.remarks);
        document
    }

    /// What stays, and what waits for its grace.
    fn kept(&self) -> Vec<Kept> {
        let names = self.names();
        let mut kept = Vec::new();
        for (domain, decided) in self.decided() {
            let Some(place) = domain.places.get(decided.place) else { continue };
            let (holding, repository) = (&place.holding, place.holding.repository.to_string());
            let mut add = |tag: Option<&Tag>, digest, verdict: &Verdict| {
                if verdict.goes().is_none() {
                    let (repository, why) = (repository.clone(), names.sentence(verdict));
                    kept.push(Kept { repository, tag: tag.cloned(), digest, why });
                }
            };
            for (fact, verdict) in holding.tags.iter().zip(&decided.tags) {
                add(Some(&fact.tag), fact.digest, verdict);
            }
            for (at, verdict) in &decided.untagged {
                if let Some(fact) = holding.manifests.get(*at) {
                    add(None, fact.digest, verdict);
                }
            }
        }
        kept
    }

    fn verdict_of(&self, of: &RepositoryKey, tag: &Tag) -> Option<&Verdict> {
        self.decided().find_map(|(domain, decided)| {
            let holding = &domain.places.get(decided.place)?.holding;
            let at = holding.tags.iter().position(|fact| fact.tag == *tag).filter(|_| holding.repository == *of)?;
            decided.tags.get(at)
        })
    }
}

/// How long ago a plan was made.
pub(super) fn age(made: Timestamp, now: Timestamp) -> Result<(), Error> {
    let age = now.since(made);
    // One from the future is of another clock.
    if age > PLAN_AGE_MAX || made.since(now) > PLAN_AGE_MAX {
        return Err(Error::Old { age: duration::show(Duration::from_secs(age.as_secs())) });
    }
    Ok(())
}

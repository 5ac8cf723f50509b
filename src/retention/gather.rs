//! Reads all that a plan is made from: what is there, what forges say, what is in use, since when things are in the plan.
//!
//! What can't be read as a whole is left out and named: nothing is deleted there.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt as _;
use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::config::retention::Condition;
use crate::config::retention::Policy;
use crate::config::retention::host_of;
use crate::history::LastPulls;
use crate::oci::Digest;
use crate::oci::RegistryName;
use crate::oci::RepositoryKey;
use crate::oci::RepositoryName;
use crate::store;
use crate::telemetry;

use super::document::Failed;
use super::hosted;
use super::hosted::Hosted;
use super::in_use;
use super::plan;
use super::plan::First;
use super::plan::Firsts;
use super::plan::Knowledge;
use super::plan::Place;
use super::plan::Plan;
use super::plan::PolicySum;
use super::plan::Protections;
use super::plan::Question;
use super::plan::known::BranchBook;
use super::plan::known::BranchSource;
use super::plan::known::PullBook;
use super::plan::known::Wanted;
use super::records::Holding;
use super::records::Pulled;
use super::run::Error;
use super::run::Inner;
use super::run::Scope;
use super::sizes::Graph;

/// Questions to forges and registries at the same time; each has its own bounds besides.
const ASKED_AT_ONCE: usize = 8;
/// The kind of the records that say since when things are in the plan.
const FIRST: &str = "prune";

/// Repositories that share their storage, with what was decided of them.
#[derive(Debug)]
pub(super) struct Domain {
    pub(super) registry: RegistryName,
    /// What is there.
    pub(super) places: Vec<Place>,
    /// Their manifests.
    pub(super) graph: Graph,
    /// What was decided.
    pub(super) plan: Plan,
}

/// All that was read, and what was decided from it.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Before anything was looked at.
    pub(super) now: Timestamp,
    /// The policies, in the order in which the plan numbers them.
    pub(super) policies: Vec<Policy>,
    pub(super) protections: Protections,
    pub(super) domains: Vec<Domain>,
    /// What each policy comes to.
    pub(super) sums: Vec<PolicySum>,
    pub(super) blocked: Vec<String>,
    pub(super) failed: Vec<Failed>,
    pub(super) remarks: Vec<String>,
}

/// Since when things of a repository are in the plan, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct FirstRecord {
    repository: String,
    since: BTreeMap<String, (Digest, Timestamp)>,
}

/// The name of its record.
fn first_id(of: &RepositoryKey) -> String {
    format!("first-{}", Digest::of(of.path().as_bytes()).hex())
}

impl Inner {
    /// Reads what the scope covers, and decides. What is newly in the plan is noted, unless one only wants to know. It ends
    /// when larder stops.
    pub(super) async fn gather(&self, scope: &Scope) -> Result<Gathered, Error> {
        let stopping = self.deps.tasks.stopping();
        tokio::select! {
            () = stopping.cancelled() => Err(Error::Stopping),
            gathered = self.gather_all(scope) => gathered,
        }
    }

    async fn gather_all(&self, scope: &Scope) -> Result<Gathered, Error> {
        let settings = self.settings.load_full();
        let policies = scope.order(&settings.retention.policies)?;
        let mut gathered = Gathered {
            now: self.deps.clock.now(),
            protections: Protections { configured: settings.retention.protect.clone(), ..Protections::default() },
            domains: Vec::new(),
            sums: vec![PolicySum::default(); policies.len()],
            policies,
            blocked: self.clock_jumped().into_iter().collect(),
            failed: Vec::new(),
            remarks: Vec::new(),
        };
        let pulls = self.last_pulls(&gathered.policies).await;
        if scope.remote.is_none() && scope.repository.as_ref().is_none_or(RepositoryKey::is_hosted) {
            let domain = self.hosted(scope, &pulls, settings.entries).await?;
            gathered.domains.push(domain);
        }
        for host in self.hosts(scope, &gathered.policies)? {
            let domain = self.remote(&host, &pulls, &mut gathered).await;
            gathered.domains.push(domain);
        }
        let knowledge = self.knowledge(&gathered).await;
        self.read_lists(&mut gathered).await;
        let first = self.first(&gathered).await?;
        gathered.decide(&knowledge, &first);
        if scope.repository.is_none() {
            self.note_first(&gathered, &first).await;
            self.forget_first(&gathered, scope).await?;
            gathered.remark(scope);
        }
        Ok(gathered)
    }

    fn clock_jumped(&self) -> Option<String> {
        self.deps.clock.jumped().map(|by| {
            format!(
                "the clock was set by {} since larder began, so no age can be told; restart larder when the clock is right",
                crate::config::duration::show(std::time::Duration::from_secs(by.as_secs()))
            )
        })
    }

    /// The pull log, where a policy asks for pulls.
    async fn last_pulls(&self, policies: &[Policy]) -> LastPulls {
        let mut conditions = policies.iter().flat_map(|policy| &policy.keep).flat_map(|item| &item.conditions);
        if conditions.any(|condition| matches!(condition, Condition::PulledWithin(_))) {
            self.deps.history.last_pulls(|_| true).await
        } else {
            LastPulls::default()
        }
    }

    async fn hosted(&self, scope: &Scope, pulls: &LastPulls, most: u32) -> Result<Domain, Error> {
        let store = &self.deps.store;
        let names = match &scope.repository {
            Some(one) => vec![one.clone()],
            None => hosted::names(store, RepositoryKey::is_hosted).await?,
        };
        let hosted = Hosted::read(store, names, pulls, most).await?;
        // For one repository alone nobody asks what becomes free.
        let elsewhere = if scope.repository.is_some() { HashSet::new() } else { hosted.elsewhere(store).await? };
        let place = |holding: Holding| {
            let fixed = self.deps.repositories.immutable_tags(&holding.repository);
            Place { holding, fixed }
        };
        let places: Vec<Place> = hosted.holdings.into_iter().map(place).collect();
        Ok(Domain::of(RegistryName::hosted(), places, |digest| elsewhere.contains(digest)))
    }

    /// The other registries that the scope covers: those that policies name and that are configured.
    fn hosts(&self, scope: &Scope, policies: &[Policy]) -> Result<BTreeSet<String>, Error> {
        let remotes = self.remotes.load();
        if scope.repository.is_some() {
            return Ok(BTreeSet::new());
        }
        if let Some(host) = &scope.remote {
            if remotes.contains_key(host) {
                return Ok(BTreeSet::from([host.clone()]));
            }
            let known = remotes.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::Remote { host: host.clone(), known });
        }
        let named =
            policies.iter().flat_map(|policy| &policy.repositories).filter_map(|pattern| host_of(pattern.as_str()));
        Ok(named.filter(|host| remotes.contains_key(*host)).map(str::to_owned).collect())
    }

    /// What policies name in another registry.
    async fn remote(&self, host: &str, pulls: &LastPulls, gathered: &mut Gathered) -> Domain {
        let remotes = self.remotes.load_full();
        let registry: Option<RegistryName> = host.parse().ok();
        let (Some(remote), Some(registry)) = (remotes.get(host), registry) else {
            return Domain::of(RegistryName::hosted(), Vec::new(), |_| false);
        };
        let mut names: BTreeSet<RepositoryName> = BTreeSet::new();
        let mut listed = None;
        let of_host = |policy: &Policy| {
            let here = policy.repositories.iter().filter(|pattern| host_of(pattern.as_str()) == Some(host));
            here.cloned().collect::<Vec<_>>()
        };
        for pattern in gathered.policies.iter().flat_map(of_host).collect::<Vec<_>>() {
            let below = pattern.as_str().strip_prefix(host).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
            if pattern.glob().is_literal() {
                names.extend(below.parse::<RepositoryName>().ok());
                continue;
            }
            if listed.is_none() {
                listed = Some(remote.adapter.repositories().await);
            }
            let why = match listed.as_ref() {
                Some(Ok(Some(all))) => {
                    let matching = all.iter().filter(|name| pattern.glob().matches_parts(&[host, "/", name.as_str()]));
                    names.extend(matching.cloned());
                    continue;
                }
                Some(Ok(None)) | None => {
                    format!("{host} lists no repositories; write the names out, without a pattern")
                }
                Some(Err(error)) => telemetry::chain(error),
            };
            gathered.failed.push(Failed { what: pattern.to_string(), why });
        }
        let ask = |name: RepositoryName| async move { (remote.adapter.list(&name).await, name) };
        let answers: Vec<_> = futures_util::stream::iter(names).map(ask).buffered(ASKED_AT_ONCE).collect().await;
        let mut places = Vec::new();
        for (answer, name) in answers {
            let repository = RepositoryKey::new(registry.clone(), name);
            match answer {
                Ok(mut holding) => {
                    holding.repository = repository;
                    add_pulls(&mut holding, pulls);
                    places.push(Place { holding, fixed: Arc::default() });
                }
                Err(error) => {
                    gathered.failed.push(Failed { what: repository.to_string(), why: telemetry::chain(&error) });
                }
            }
        }
        Domain::of(registry, places, |_| false)
    }

    /// What forges and files say of the branches and pull requests that policies ask for.
    pub(super) async fn knowledge(&self, gathered: &Gathered) -> Knowledge {
        let mut wanted = Wanted::default();
        for place in gathered.domains.iter().flat_map(|domain| &domain.places) {
            let name = place.holding.repository.to_string();
            for (_, policy, captures) in plan::naming(&gathered.policies, &name) {
                wanted.add(policy, &captures);
            }
        }
        let forges = &self.deps.forges;
        let branches = futures_util::stream::iter(wanted.branches).map(|source| async move {
            let answer = match &source {
                BranchSource::Forge(of) => forges.branches(&of.forge, &of.repository).await,
                BranchSource::File(path) => forges.branches_of_file(path).await,
            };
            let book = answer.map(|known| {
                let dead = known.dead.iter().map(|(branch, since)| (branch.as_str(), *since));
                BranchBook::new(known.alive.iter().map(String::as_str), dead, known.first_listed, known.listed)
            });
            (source, book.map_err(|error| telemetry::chain(&error).into()))
        });
        let branches = branches.buffer_unordered(ASKED_AT_ONCE).collect().await;
        let pulls = futures_util::stream::iter(wanted.pulls).map(|of| async move {
            let answer = forges.pulls(&of.forge, &of.repository).await;
            let book = answer.map(|known| {
                let mut book = PullBook::new(known.listed);
                known.open.iter().for_each(|pull| book.add_open(pull.number, &pull.branch, &pull.sha));
                known.closed.iter().for_each(|(pull, at)| book.add_closed(pull.number, &pull.branch, *at));
                book
            });
            (of, book.map_err(|error| telemetry::chain(&error).into()))
        });
        Knowledge { branches, pulls: pulls.buffer_unordered(ASKED_AT_ONCE).collect().await }
    }

    /// The lists of what is in use; one that can't be relied on forbids everything.
    async fn read_lists(&self, gathered: &mut Gathered) {
        let (repositories, now) = (Arc::clone(&self.deps.repositories), gathered.now);
        let mut protections = std::mem::take(&mut gathered.protections);
        let read = tokio::task::spawn_blocking(move || {
            let mut blocked = Vec::new();
            for file in &protections.configured.files.clone() {
                blocked.extend(in_use::read(file, now, &repositories, &mut protections).err());
            }
            (protections, blocked)
        });
        match read.await {
            Ok((protections, blocked)) => {
                gathered.protections = protections;
                gathered.blocked.extend(blocked);
            }
            Err(_) => gathered.blocked.push("the lists of what is in use could not be read".to_owned()),
        }
    }

    async fn first(&self, gathered: &Gathered) -> Result<First, Error> {
        let mut first = First::new();
        for place in gathered.domains.iter().flat_map(|domain| &domain.places) {
            let of = &place.holding.repository;
            let record = self.deps.store.state::<FirstRecord>(FIRST, &first_id(of)).await;
            match record {
                Ok(Some(record)) => drop(first.insert(of.clone(), record.since)),
                Ok(None) => {}
                // One that is damaged is as good as none: the grace begins anew.
                Err(error) if error.is_damaged_record() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(first)
    }

    /// Writes down what is newly in the plan, and forgets what is no more.
    async fn note_first(&self, gathered: &Gathered, before: &First) {
        let store = &self.deps.store;
        for (domain, decided) in gathered.decided() {
            let Some(place) = domain.places.get(decided.place) else { continue };
            let of = &place.holding.repository;
            if before.get(of).unwrap_or(&Firsts::new()) == &decided.first {
                continue;
            }
            let written = if decided.first.is_empty() {
                store.drop_state(FIRST, &first_id(of)).await
            } else {
                let record = FirstRecord { repository: of.to_string(), since: decided.first.clone() };
                store.put_state(FIRST, &first_id(of), &record).await
            };
            if let Err(error) = written {
                tracing::warn!(repository = %of, error = %telemetry::chain(&error),
                    "since when tags are in the plan can't be kept: their grace begins anew with the next one");
            }
        }
    }
}

impl Inner {
    /// Forgets since when things of hosted repositories were in the plan that are not there any more.
    async fn forget_first(&self, gathered: &Gathered, scope: &Scope) -> Result<(), Error> {
        if scope.remote.is_some() {
            return Ok(());
        }
        let store = &self.deps.store;
        let places = gathered.domains.iter().flat_map(|domain| &domain.places);
        let there: HashSet<String> = places.map(|place| first_id(&place.holding.repository)).collect();
        let mut ids = store.states(FIRST);
        while let Some(id) = ids.next().await {
            let id = id?;
            if !id.starts_with("first-") || there.contains(&id) {
                continue;
            }
            // What another registry holds is not known where it could not be listed.
            let record = store.state::<FirstRecord>(FIRST, &id).await;
            if record.is_ok_and(|record| record.is_some_and(|record| host_of(&record.repository).is_none())) {
                store.drop_state(FIRST, &id).await?;
            }
        }
        Ok(())
    }
}

/// Adds the pulls that went through here to what a registry knows of pulls.
fn add_pulls(holding: &mut Holding, pulls: &LastPulls) {
    let of = &holding.repository;
    let add = |pulled: &mut Pulled, seen: Option<Timestamp>| {
        *pulled = match (*pulled, seen) {
            (Pulled::At(at), Some(seen)) => Pulled::At(at.max(seen)),
            (Pulled::NotSince(since), Some(seen)) if seen > since => Pulled::At(seen),
            // Who does not know of pulls that went elsewhere knows nothing of the last.
            (known, _) => known,
        };
    };
    for fact in &mut holding.tags {
        add(&mut fact.pulled, pulls.of_tag(of, &fact.tag));
    }
    for fact in &mut holding.manifests {
        add(&mut fact.pulled, pulls.of_digest(of, &fact.digest));
    }
}

impl Domain {
    fn of(registry: RegistryName, places: Vec<Place>, elsewhere: impl Fn(&Digest) -> bool) -> Self {
        let graph = Graph::of(places.iter().map(|place| &place.holding), elsewhere);
        Self { registry, places, graph, plan: Plan::default() }
    }
}

impl Gathered {
    fn decide(&mut self, knowledge: &Knowledge, first: &First) {
        for domain in &mut self.domains {
            domain.plan = plan::plan(&Question {
                now: self.now,
                policies: &self.policies,
                protections: &self.protections,
                places: &domain.places,
                graph: &domain.graph,
                knowledge,
                first,
            });
            for (sum, part) in self.sums.iter_mut().zip(&domain.plan.policies) {
                sum.repositories += part.repositories;
                sum.selected += part.selected;
                sum.deletes += part.deletes;
                sum.of += part.of;
            }
        }
    }

    /// Every repository that a policy names, with its registry.
    pub(super) fn decided(&self) -> impl Iterator<Item = (&Domain, &plan::RepositoryPlan)> {
        self.domains.iter().flat_map(|domain| domain.plan.repositories.iter().map(move |decided| (domain, decided)))
    }

    /// Says which policies and patterns name nothing that is there.
    fn remark(&mut self, scope: &Scope) {
        if scope.remote.is_some() {
            return;
        }
        if self.policies.is_empty() {
            self.remarks.push("there is no policy: retention.policies says which tags go".to_owned());
        }
        for (policy, sum) in self.policies.iter().zip(&self.sums) {
            if sum.repositories == 0 {
                self.remarks.push(format!("the policy {} names no repository that is there", policy.name));
            } else if sum.selected == 0 {
                self.remarks.push(format!(
                    "the policy {} selects nothing in its {} repositories",
                    policy.name, sum.repositories
                ));
            }
        }
        for (number, pattern) in self.protections.configured.patterns.iter().enumerate() {
            let named = |domain: &Domain| domain.plan.protected.get(number).copied().unwrap_or(false);
            if !self.domains.iter().any(named) {
                self.remarks.push(format!("`{pattern}` of protect names nothing in the repositories of policies"));
            }
        }
    }
}

impl From<store::Error> for Error {
    fn from(source: store::Error) -> Self {
        Self::Store(source)
    }
}

impl From<hosted::Error> for Error {
    fn from(error: hosted::Error) -> Self {
        match error {
            hosted::Error::Store(source) => Self::Store(source),
            hosted::Error::TooMany { most } => Self::TooMany { most },
        }
    }
}

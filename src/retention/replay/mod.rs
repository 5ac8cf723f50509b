//! What policies would have done in the past, held against the pulls that were recorded: what would be free now, and who would
//! have found nothing. It deletes nothing.
//!
//! Each day of the time is one run. What was deleted since by somebody, and what came from other registries past larder, is not
//! in it; a branch counts as living until the end that is known of it.

mod past;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::history::Pulls;
use crate::oci::RepositoryKey;
use crate::store;
use crate::store::Store;
use crate::telemetry;

use super::document::Failed;
use super::gather::Gathered;
use super::plan::Knowledge;
use super::run::Error;
use super::run::Prune;
use super::run::Scope;

use past::Gone;
use past::Meanings;
use past::Miss;
use past::Past;

/// Between two runs.
const STEP: Duration = Duration::from_hours(24);
/// The pull of an image by its digest belongs to the look at its tag so long before it.
const ONE_PULL: Duration = Duration::from_mins(1);
/// Rows read at a time.
const PAGE: usize = 1_000;
/// The most images that are told as missed.
const MISSED_MAX: usize = 1_000;

/// What policies would have done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Replay {
    since: String,
    until: String,
    /// From when on every pull is known; none where none is.
    known_since: Option<String>,
    /// How many runs there would have been.
    runs: u64,
    policies: Vec<PolicyReplay>,
    /// The recorded pulls of the repositories that policies name.
    pulls: u64,
    /// Those of them that would have found nothing.
    missed_pulls: u64,
    /// The tags that would be gone now.
    tags: u64,
    /// The bytes that nothing would need without them.
    freed_bytes: u64,
    /// What they cost in a month, in millionths; none where there is no price.
    saved_a_month_micros: Option<u64>,
    /// What would have been missed, what was pulled most first.
    missed: Vec<Missed>,
    /// Whether more would have been.
    more: bool,
    /// What could not be looked at.
    failed: Vec<Failed>,
}

/// What one policy would have done.
#[derive(Clone, Debug, Serialize)]
struct PolicyReplay {
    policy: String,
    deletes: u64,
    missed_pulls: u64,
    /// The most that it would have deleted in one run.
    most_in_a_run: u64,
    /// The runs that its `at_most` would have refused; they are in the figures as if it had not.
    refused_runs: u64,
}

/// Pulls that would have found nothing.
#[derive(Clone, Debug, Serialize)]
struct Missed {
    repository: String,
    /// The tag or digest that was asked for.
    reference: String,
    pulls: u64,
    /// The last of them.
    pulled_at: String,
    /// When it would have been deleted, and by which policy.
    deleted_at: String,
    policy: String,
}

impl Prune {
    /// What the policies would have done within the last `window`.
    pub async fn replay(&self, scope: &Scope, window: Duration) -> Result<Replay, Error> {
        let inner = &self.0;
        let gathered = inner.gather(scope).await?;
        let knowledge = inner.knowledge(&gathered).await;
        let mut meanings = Meanings::new();
        let places = gathered.domains.iter().flat_map(|domain| &domain.places);
        for of in places.map(|place| &place.holding.repository).filter(|of| of.is_hosted()) {
            read_meanings(&inner.deps.store, of, &mut meanings).await?;
        }
        let history = &inner.deps.history;
        let (pulls, covered) = (history.read(Timestamp::default()).await, history.covered_since());
        let since = Timestamp(gathered.now.0.saturating_sub(u64::try_from(window.as_millis()).unwrap_or(u64::MAX)));
        let only = scope.policy.clone();
        let work = move || {
            let of_time = Time { since, covered, only, knowledge, meanings };
            of_time.replay(&gathered, pulls)
        };
        let (mut replay, freed) = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)?;
        for (host, bytes) in freed {
            let saved = inner.storage_price(host.as_deref(), bytes);
            replay.saved_a_month_micros =
                [replay.saved_a_month_micros, saved].into_iter().flatten().reduce(|a, b| a + b);
        }
        Ok(replay)
    }
}

/// Reads what the tags of a hosted repository meant before, as far as that is known.
async fn read_meanings(store: &Store, of: &RepositoryKey, meanings: &mut Meanings) -> Result<(), store::Error> {
    let mut after = None;
    loop {
        let page = store.tags(of, after.as_ref(), PAGE).await?;
        after = page.rows.last().map(|row| row.record.tag.clone());
        for row in page.rows.into_iter().filter(|row| row.record.history.len() > 1) {
            meanings.insert((of.clone(), row.record.tag), row.record.history);
        }
        if !page.more || after.is_none() {
            return Ok(());
        }
    }
}

/// What is known of the time.
struct Time {
    since: Timestamp,
    covered: Option<Timestamp>,
    only: Option<String>,
    knowledge: Knowledge,
    meanings: Meanings,
}

impl Time {
    /// Goes through it. Gives what would be free by registry, too; none is here.
    fn replay(&self, gathered: &Gathered, pulls: Pulls) -> (Replay, Vec<(Option<String>, u64)>) {
        let given = past::Given {
            policies: &gathered.policies,
            only: self.only.as_deref(),
            protections: &gathered.protections,
            knowledge: &self.knowledge,
            meanings: &self.meanings,
            covered: self.covered,
        };
        let mut pasts: Vec<Past<'_>> =
            gathered.domains.iter().map(|domain| Past::new(given, &domain.places, &domain.graph)).collect();
        let mut told = Told::new(gathered);
        let mut due = self.since;
        for pull in pulls {
            let pull = match pull {
                Ok(pull) => pull,
                Err(error) => {
                    told.replay.failed.push(Failed { what: "some pulls".to_owned(), why: telemetry::chain(&error) });
                    continue;
                }
            };
            while due <= pull.at && due <= gathered.now {
                told.run(&mut pasts, due);
                due = due.after(STEP);
            }
            let Some(past) = pasts.iter_mut().find(|past| past.covers(&pull.repository)) else { continue };
            let missed = past.pull(&pull);
            if pull.at >= self.since {
                told.pull(&pull, missed);
            }
        }
        while due <= gathered.now {
            told.run(&mut pasts, due);
            due = due.after(STEP);
        }
        let mut freed = Vec::new();
        for (past, domain) in pasts.iter().zip(&gathered.domains) {
            let (tags, bytes) = past.freed(gathered.now);
            told.replay.tags += tags;
            told.replay.freed_bytes += bytes;
            freed.push(((!domain.registry.is_hosted()).then(|| domain.registry.to_string()), bytes));
        }
        (told.end(self), freed)
    }
}

/// What was found so far.
struct Told<'a> {
    gathered: &'a Gathered,
    replay: Replay,
    missed: BTreeMap<(String, String), (Miss, u64)>,
    /// When which tag's image was asked for: what follows by its digest is the same pull.
    asked: HashMap<(RepositoryKey, crate::oci::Digest), Timestamp>,
}

impl<'a> Told<'a> {
    fn new(gathered: &'a Gathered) -> Self {
        let policy = |policy: &crate::config::retention::Policy| PolicyReplay {
            policy: policy.name.clone(),
            deletes: 0,
            missed_pulls: 0,
            most_in_a_run: 0,
            refused_runs: 0,
        };
        let policies = gathered.policies.iter().map(policy).collect();
        let replay = Replay { policies, failed: gathered.failed.clone(), ..Replay::default() };
        Self { gathered, replay, missed: BTreeMap::new(), asked: HashMap::new() }
    }

    /// One run in all registries.
    fn run(&mut self, pasts: &mut [Past<'_>], now: Timestamp) {
        let mut sums = vec![super::plan::PolicySum::default(); self.gathered.policies.len()];
        for past in pasts {
            for (sum, part) in sums.iter_mut().zip(past.run(now)) {
                sum.deletes += part.deletes;
                sum.of += part.of;
            }
        }
        for ((policy, sum), told) in self.gathered.policies.iter().zip(sums).zip(&mut self.replay.policies) {
            told.deletes += sum.deletes;
            told.most_in_a_run = told.most_in_a_run.max(sum.deletes);
            told.refused_runs += u64::from(sum.exceeds(policy));
        }
        self.replay.runs += 1;
    }

    fn pull(&mut self, pull: &crate::history::Pull, missed: Option<Miss>) {
        let key = (pull.repository.clone(), pull.digest);
        let count = if pull.tag.is_some() {
            self.asked.insert(key, pull.at);
            u64::from(pull.pulls.max(1))
        } else if self.asked.get(&key).is_some_and(|asked| pull.at.since(*asked) <= ONE_PULL) {
            return;
        } else {
            u64::from(pull.pulls)
        };
        self.replay.pulls += count;
        let Some(miss) = missed else { return };
        self.replay.missed_pulls += count;
        if let Some(policy) = self.replay.policies.get_mut(usize::from(miss.gone.policy)) {
            policy.missed_pulls += count;
        }
        let reference = pull.tag.as_ref().map_or_else(|| pull.digest.to_string(), ToString::to_string);
        let (last, pulls) =
            self.missed.entry((pull.repository.to_string(), reference)).or_insert_with(|| (miss.clone(), 0));
        *last = miss;
        *pulls += count;
    }

    fn end(mut self, time: &Time) -> Replay {
        let mut missed: Vec<_> = self.missed.into_iter().collect();
        missed.sort_by_key(|(_, (_, pulls))| std::cmp::Reverse(*pulls));
        let row = |((repository, reference), (Miss { pull, gone: Gone { at, policy } }, pulls))| Missed {
            repository,
            reference,
            pulls,
            pulled_at: pull.at.to_string(),
            deleted_at: at.to_string(),
            policy: self.gathered.policies.get(usize::from(policy)).map(|p| p.name.clone()).unwrap_or_default(),
        };
        self.replay.more = missed.len() > MISSED_MAX;
        self.replay.missed = missed.into_iter().take(MISSED_MAX).map(row).collect();
        if let Some(only) = &time.only {
            self.replay.policies.retain(|policy| policy.policy == *only);
        }
        Replay {
            since: time.since.to_string(),
            until: self.gathered.now.to_string(),
            known_since: time.covered.map(|at| at.to_string()),
            ..self.replay
        }
    }
}

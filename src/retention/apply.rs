//! Carries a plan out: exactly what it names, less what moved, is gone, or is kept by now. Each of these is said.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::store;
use crate::store::Removal;
use crate::telemetry;

use super::document::Delete;
use super::document::Document;
use super::document::Refusal;
use super::document::RemoteCall;
use super::gather::Domain;
use super::gather::Gathered;
use super::plan::Place;
use super::plan::RepositoryPlan;
use super::plan::Verdict;
use super::plan_file::PlanFile;
use super::records::Holding;
use super::records::TagFact;
use super::remote::Doomed;
use super::run;
use super::run::Error;
use super::run::Inner;
use super::run::Scope;

/// Why nothing more is tried.
const STOPPING: &str = "larder is stopping";

/// What became of one thing that a plan names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is deleted.
    Deleted,
    /// It means something else by now, and stays.
    Moved,
    /// It was gone already.
    Gone,
    /// Something keeps it by now.
    Kept,
    /// Its registry can't delete it without something else.
    Refused,
    /// It is not known whether it was deleted, or it was not tried after such a fault.
    Failed,
}

impl Outcome {
    /// The word for it in metrics and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Moved => "moved",
            Self::Gone => "gone",
            Self::Kept => "kept",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What became of one thing that a plan names, with why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The repository, with its host where it is not hosted.
    pub repository: String,
    /// The tag; none: an untagged manifest.
    pub tag: Option<Tag>,
    /// What it meant, or the manifest.
    pub digest: Digest,
    /// The policy.
    pub policy: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was not deleted.
    pub why: Option<String>,
}

/// What a plan came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Applied {
    /// Each thing that the plan names.
    pub results: Vec<Done>,
    /// The tags that stayed and were looked at again.
    pub verified: u64,
    /// What was whole before and is not any more; never anything, if all is well.
    pub broken: Vec<String>,
}

impl Applied {
    /// How many were deleted.
    pub fn deleted(&self) -> u64 {
        self.results.iter().filter(|done| done.outcome == Outcome::Deleted).count() as u64
    }
}

/// What is said of what could not be looked at.
type Ended = (Outcome, Option<String>);

impl Inner {
    pub(super) async fn apply(&self, file: &PlanFile, at_most: Option<u64>) -> Result<Applied, Error> {
        let _turn = self.turn.lock().await;
        let plan = &file.plan;
        if !self.seal.holds(file) || !plan.is_current() {
            return Err(Error::Edited);
        }
        run::age(Timestamp(plan.made_at_ms), self.deps.clock.now())?;
        let scope = Scope { policy: plan.policy.clone(), remote: plan.remote.clone(), repository: None };
        let gathered = self.gather(&scope).await?;
        let mut in_the_way = plan.in_the_way(at_most);
        in_the_way.extend(gathered.blocked.iter().map(|why| ("all".to_owned(), why.clone())));
        if let Some((policy, why)) = in_the_way.first() {
            return Err(Error::Blocked(if policy == "all" {
                why.clone()
            } else {
                format!("the policy {policy}: {why}")
            }));
        }
        let mut applied = Applied::default();
        let mut by_repository: Vec<(&str, Vec<&Delete>)> = Vec::new();
        for delete in &plan.deletes {
            match by_repository.last_mut().filter(|(repository, _)| **repository == delete.repository) {
                Some((_, deletes)) => deletes.push(delete),
                None => by_repository.push((&delete.repository, vec![delete])),
            }
        }
        let mut faults: HashMap<String, Ended> = HashMap::new();
        for (repository, deletes) in by_repository {
            let ended = match gathered.find(repository) {
                Some((domain, decided)) => {
                    let ended = self.repository(domain, decided, &deletes, &gathered, &mut faults, &mut applied).await;
                    if let Some(place) = domain.places.get(decided.place) {
                        self.note_freed(plan, &place.holding.repository, &deletes, &ended);
                    }
                    ended
                }
                None => deletes.iter().map(|_| gathered.absent(repository)).collect(),
            };
            for (delete, (outcome, why)) in deletes.into_iter().zip(ended) {
                applied.results.push(self.done(delete, outcome, why));
            }
        }
        Ok(applied)
    }

    /// Notes for reports what became free in one repository: as planned, or what was told of each where some of it stayed.
    fn note_freed(&self, plan: &Document, of: &RepositoryKey, deletes: &[&Delete], ended: &[Ended]) {
        let deleted = deletes.iter().zip(ended).filter(|(_, (outcome, _))| *outcome == Outcome::Deleted);
        let (count, each) = deleted.fold((0, 0), |(n, bytes), (delete, _)| (n + 1, bytes + delete.exclusive_bytes));
        let name = of.to_string();
        let planned = plan.repositories.iter().find(|part| part.repository == name);
        let whole = planned.filter(|_| count == deletes.len() as u64);
        if count > 0 {
            self.deps.history.pruned(of, count, whole.map_or(each, |part| part.freed_bytes), self.deps.clock.now());
        }
    }

    /// Counts and tells what became of one.
    fn done(&self, delete: &Delete, outcome: Outcome, why: Option<String>) -> Done {
        self.deps.metrics.pruned(&delete.policy, outcome.word());
        let tag = delete.tag.as_ref().map_or("", Tag::as_str);
        tracing::info!(
            repository = delete.repository,
            tag,
            digest = %delete.digest,
            policy = delete.policy,
            outcome = outcome.word(),
            why,
            "pruned"
        );
        Done {
            repository: delete.repository.clone(),
            tag: delete.tag.clone(),
            digest: delete.digest,
            policy: delete.policy.clone(),
            outcome,
            why,
        }
    }

    /// Deletes in one repository what still goes there, and looks at what stays afterwards.
    async fn repository(
        &self,
        domain: &Domain,
        decided: &RepositoryPlan,
        deletes: &[&Delete],
        gathered: &Gathered,
        faults: &mut HashMap<String, Ended>,
        applied: &mut Applied,
    ) -> Vec<Ended> {
        let Some(place) = domain.places.get(decided.place) else { return Vec::new() };
        let now = Now::of(&place.holding, decided);
        let ended: Vec<Option<Ended>> = deletes.iter().map(|delete| now.stays(delete, gathered)).collect();
        if place.holding.repository.is_hosted() {
            let before = self.broken_hosted(place, decided).await;
            let ended = self.hosted_deletes(place, &now, deletes, ended).await;
            let after = self.broken_hosted(place, decided).await;
            applied.add_verified(&place.holding.repository, before, after);
            return ended;
        }
        let ended = self.remote_deletes(domain, &place.holding, deletes, ended, faults).await;
        let stopping = self.deps.tasks.stopping();
        if ended.iter().any(|(outcome, _)| *outcome == Outcome::Deleted) && !stopping.is_cancelled() {
            let (looked_at, broken) = self.broken_remote(domain, &place.holding, decided, deletes).await;
            applied.verified += looked_at;
            applied.broken.extend(broken);
        }
        ended
    }

    async fn hosted_deletes(
        &self,
        place: &Place,
        now: &Now<'_>,
        deletes: &[&Delete],
        ended: Vec<Option<Ended>>,
    ) -> Vec<Ended> {
        let stopping = self.deps.tasks.stopping();
        let mut all = Vec::with_capacity(deletes.len());
        let mut fault: Option<String> = None;
        for (delete, ended) in deletes.iter().zip(ended) {
            if stopping.is_cancelled() {
                fault = fault.or_else(|| Some(STOPPING.to_owned()));
            }
            let ended = match (ended, &fault) {
                (Some(ended), _) => ended,
                (None, Some(fault)) => (Outcome::Failed, Some(format!("not tried: {fault}"))),
                (None, None) => match self.remove(place, now, delete).await {
                    Ok(ended) => ended,
                    Err(error) => {
                        let why = telemetry::chain(&error);
                        fault = Some(why.clone());
                        (Outcome::Failed, Some(why))
                    }
                },
            };
            all.push(ended);
        }
        all
    }

    /// Removes one thing from a hosted repository, if it still is what the plan says.
    async fn remove(&self, place: &Place, now: &Now<'_>, delete: &Delete) -> Result<Ended, store::Error> {
        let (store, of) = (&self.deps.store, &place.holding.repository);
        let anew = || (Outcome::Moved, Some("it was pushed anew".to_owned()));
        if let Some(tag) = &delete.tag
            && let Some(state) = store.tag(of, tag).await?
            && now.pushed_at(tag) != Some(state.record.at)
        {
            // The same again, while this was decided: it is as young as that.
            return Ok(anew());
        }
        let removal = match &delete.tag {
            Some(tag) => Removal::TagMeaning(tag.clone(), delete.digest),
            None => Removal::Untagged(delete.digest),
        };
        let fixed = Arc::clone(&place.fixed);
        let is_fixed = move |tag: &Tag| fixed.iter().any(|glob| glob.matches(tag.as_str()));
        match store.remove(of, removal, Arc::new(is_fixed)).await {
            Ok(true) => Ok((Outcome::Deleted, None)),
            Ok(false) => match &delete.tag {
                Some(tag) if store.tag(of, tag).await?.is_some() => Ok(anew()),
                _ => Ok((Outcome::Gone, Some("it was gone already".to_owned()))),
            },
            Err(store::Error::Fixed { .. }) => Ok((Outcome::Kept, Some("it is immutable".to_owned()))),
            Err(error @ (store::Error::Named { .. } | store::Error::Tagged { .. })) => {
                Ok((Outcome::Kept, Some(telemetry::chain(&error))))
            }
            Err(error) => Err(error),
        }
    }

    async fn remote_deletes(
        &self,
        domain: &Domain,
        holding: &Holding,
        deletes: &[&Delete],
        ended: Vec<Option<Ended>>,
        faults: &mut HashMap<String, Ended>,
    ) -> Vec<Ended> {
        let host = domain.registry.as_str();
        let remotes = self.remotes.load_full();
        let Some(remote) = remotes.get(host) else {
            let gone = || (Outcome::Kept, Some(format!("{host} is not among retention.remotes any more")));
            return deletes.iter().map(|_| gone()).collect();
        };
        let doomed: Vec<Doomed> =
            deletes.iter().zip(&ended).filter(|(_, ended)| ended.is_none()).map(|(delete, _)| doomed(delete)).collect();
        let (calls, refused) = remote.adapter.calls(holding, &doomed);
        let mut outcomes: HashMap<(Option<Tag>, Digest), Ended> = HashMap::new();
        for one in refused {
            outcomes.insert(key(&one.doomed), (Outcome::Refused, Some(one.why.to_string())));
        }
        let stopping = self.deps.tasks.stopping();
        for call in &calls {
            if stopping.is_cancelled() {
                let why = Some(format!("not tried: {STOPPING}"));
                faults.entry(host.to_owned()).or_insert((Outcome::Failed, why));
            }
            let ended = if let Some(fault) = faults.get(host) {
                fault.clone()
            } else {
                let (ended, is_fault) = carry_out(&*remote.adapter, holding, call).await;
                if is_fault {
                    let (outcome, why) = &ended;
                    let why = why.as_deref().unwrap_or_default();
                    faults.insert(host.to_owned(), (*outcome, Some(format!("not tried after: {why}"))));
                }
                ended
            };
            let digest = *call.target.digest();
            for tag in call.target.tags() {
                outcomes.insert((Some(tag.clone()), digest), ended.clone());
            }
            outcomes.insert((None, digest), ended);
        }
        let of = |delete: &Delete| {
            let found = outcomes.get(&(delete.tag.clone(), delete.digest)).cloned();
            // What went along with a tag's manifest is deleted with it where the registry does that by itself.
            found.unwrap_or((Outcome::Refused, Some("its registry deletes it by itself, or not at all".to_owned())))
        };
        deletes.iter().zip(ended).map(|(delete, ended)| ended.unwrap_or_else(|| of(delete))).collect()
    }

    /// Adds the requests that would delete what a plan names in other registries, and what they can't.
    pub(super) fn add_calls(&self, gathered: &Gathered, document: &mut Document) {
        let remotes = self.remotes.load();
        for (domain, decided) in gathered.decided() {
            let (Some(place), Some(remote)) = (domain.places.get(decided.place), remotes.get(domain.registry.as_str()))
            else {
                continue;
            };
            let repository = place.holding.repository.to_string();
            let (along, own): (Vec<&Delete>, Vec<&Delete>) = document
                .deletes
                .iter()
                .filter(|one| one.repository == repository)
                .partition(|one| one.along && one.tag.is_none());
            let all: Vec<Doomed> = own.iter().chain(&along).map(|delete| doomed(delete)).collect();
            let (calls, refused) = remote.adapter.calls(&place.holding, &all);
            let is_along = |digest: &Digest| along.iter().any(|delete| delete.digest == *digest);
            let (mut left_behind, mut refusals) = (Vec::new(), Vec::new());
            for one in refused {
                let (tag, digest) = key(&one.doomed);
                // A registry that deletes by tags collects what they leave by itself.
                if tag.is_none() && is_along(&digest) {
                    left_behind.push(digest);
                } else {
                    refusals.push(Refusal { repository: repository.clone(), tag, digest, why: one.why.to_string() });
                }
            }
            document.deletes.retain(|one| {
                one.repository != repository || one.tag.is_some() || !one.along || !left_behind.contains(&one.digest)
            });
            document.refused.extend(refusals);
            document.calls.extend(calls.into_iter().map(|call| RemoteCall { repository: repository.clone(), call }));
        }
    }
}

/// Carries a call out; whether it ended in what forbids to send more to its registry.
async fn carry_out(remote: &dyn super::remote::Remote, holding: &Holding, call: &super::remote::Call) -> (Ended, bool) {
    use super::remote::Outcome as Answer;
    match remote.carry_out(&holding.repository.name, call).await {
        Ok(Answer::Deleted) => ((Outcome::Deleted, None), false),
        Ok(Answer::Moved) => ((Outcome::Moved, Some("it means something else by now".to_owned())), false),
        Ok(Answer::AlreadyGone) => ((Outcome::Gone, Some("it was gone already".to_owned())), false),
        Ok(Answer::Refused(why)) => ((Outcome::Refused, Some(why)), false),
        Ok(Answer::Unsupported(why)) => ((Outcome::Refused, Some(why)), true),
        Err(error) => ((Outcome::Failed, Some(telemetry::chain(&error))), true),
    }
}

fn doomed(delete: &Delete) -> Doomed {
    match &delete.tag {
        Some(tag) => Doomed::Tag { tag: tag.clone(), digest: delete.digest },
        None => Doomed::Untagged { digest: delete.digest },
    }
}

fn key(doomed: &Doomed) -> (Option<Tag>, Digest) {
    match doomed {
        Doomed::Tag { tag, digest } => (Some(tag.clone()), *digest),
        Doomed::Untagged { digest } => (None, *digest),
    }
}

/// What is there now, and what becomes of it.
struct Now<'a> {
    tags: HashMap<&'a Tag, (&'a TagFact, &'a Verdict)>,
    untagged: HashMap<Digest, Option<&'a Verdict>>,
}

impl<'a> Now<'a> {
    fn of(holding: &'a Holding, decided: &'a RepositoryPlan) -> Self {
        let tags = holding.tags.iter().zip(&decided.tags);
        let digest = |at: &usize| holding.manifests.get(*at).map(|fact| fact.digest);
        let own = decided.untagged.iter().filter_map(|(at, verdict)| Some((digest(at)?, Some(verdict))));
        let along = decided.along.iter().filter_map(|(at, _)| Some((digest(at)?, None)));
        Self {
            tags: tags.map(|(fact, verdict)| (&fact.tag, (fact, verdict))).collect(),
            untagged: own.chain(along).collect(),
        }
    }

    fn pushed_at(&self, tag: &Tag) -> Option<Timestamp> {
        self.tags.get(tag).and_then(|(fact, _)| fact.pushed_at)
    }

    /// Why something that the plan names does not go any more; none where it still does.
    fn stays(&self, delete: &Delete, gathered: &Gathered) -> Option<Ended> {
        let verdict = match &delete.tag {
            Some(tag) => match self.tags.get(tag) {
                None => return Some((Outcome::Gone, Some("it was gone already".to_owned()))),
                Some((fact, _)) if fact.digest != delete.digest => {
                    return Some((Outcome::Moved, Some(format!("it means {} by now", fact.digest))));
                }
                Some((_, verdict)) => Some(*verdict),
            },
            None => match self.untagged.get(&delete.digest) {
                None => return Some((Outcome::Kept, Some("it is gone, or something needs it by now".to_owned()))),
                Some(verdict) => *verdict,
            },
        };
        let verdict = verdict.filter(|verdict| verdict.goes().is_none())?;
        Some((Outcome::Kept, Some(gathered.names().sentence(verdict))))
    }
}

impl Gathered {
    fn find(&self, repository: &str) -> Option<(&Domain, &RepositoryPlan)> {
        self.decided().find(|(domain, decided)| {
            let place = domain.places.get(decided.place);
            place.is_some_and(|place| place.holding.repository.to_string() == repository)
        })
    }

    /// What is said of a repository that was in the plan and can't be decided now.
    fn absent(&self, repository: &str) -> Ended {
        let failed = self.failed.iter().find(|failed| failed.what == repository);
        let why =
            failed.map_or("no policy names its repository any more, or nothing is left of it", |failed| &failed.why);
        (Outcome::Kept, Some(why.to_owned()))
    }
}

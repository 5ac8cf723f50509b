//! A plan in writing: what it deletes, what each policy and repository comes to, and why something is in its way.

use std::collections::BTreeMap;
use std::collections::HashMap;

use serde::Deserialize;
use serde::Serialize;

use crate::config::retention::Policy;
use crate::oci::Digest;
use crate::oci::Tag;

use super::gather::Domain;
use super::plan::Doom;
use super::plan::Names;
use super::plan::PolicySum;
use super::plan::Verdict;
use super::records::ManifestFact;
use super::records::TagFact;
use super::remote::Call;
use super::sizes;
use super::sizes::Entry;
use super::sizes::OTHERS;
use super::sizes::Root;
use super::sizes::Taken;

/// The form of what this version writes.
const VERSION: u32 = 1;

/// A plan in writing. What it deletes is bound to the server that made it by the code of its [`PlanFile`](super::PlanFile).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The form of the document.
    pub version: u32,
    /// When it was made, for people.
    pub made_at: String,
    /// The same in milliseconds since the Unix epoch.
    pub made_at_ms: u64,
    /// Only what this policy lets go; none: what any does.
    pub policy: Option<String>,
    /// Only this registry; none: hosted repositories and all registries that policies name.
    pub remote: Option<String>,
    /// What goes, in the order in which it does.
    pub deletes: Vec<Delete>,
    /// The requests that delete in other registries.
    pub calls: Vec<RemoteCall>,
    /// What goes and can't be deleted where it is, with why.
    pub refused: Vec<Refusal>,
    /// What each policy comes to.
    pub policies: Vec<PolicyPart>,
    /// What each repository comes to.
    pub repositories: Vec<RepositoryPart>,
    /// What each branch comes to.
    pub branches: Vec<BranchPart>,
    /// How many stay, by what keeps them.
    pub keepers: BTreeMap<String, u64>,
    /// How many wait for their grace.
    pub waiting: u64,
    /// How many stay only because something is not known.
    pub unknown: u64,
    /// Bytes that become free, as far as that is known.
    pub freed_bytes: u64,
    /// What they cost in a month, in millionths; none where there is no price.
    pub saved_a_month_micros: Option<u64>,
    /// Why nothing at all may be deleted now.
    pub blocked: Vec<String>,
    /// What could not be looked at: there nothing is deleted.
    pub failed: Vec<Failed>,
    /// What deserves a look: policies and patterns that name nothing.
    pub remarks: Vec<String>,
}

/// A tag or an untagged manifest that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// The repository, with its host where it is not hosted.
    pub repository: String,
    /// The tag; none: an untagged manifest.
    pub tag: Option<Tag>,
    /// What it means, or the manifest.
    pub digest: Digest,
    /// The policy that selects it.
    pub policy: String,
    /// Whether it goes along with what it belongs to.
    pub along: bool,
    /// When it was pushed; none where that is not known.
    pub pushed_at: Option<String>,
    /// What nothing else in its registry needs.
    pub exclusive_bytes: u64,
    /// What something else needs too.
    pub shared_bytes: u64,
}

/// A request that deletes in another registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteCall {
    /// The repository, with its host.
    pub repository: String,
    /// The request.
    pub call: Call,
}

/// Something that goes and can't be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The repository, with its host.
    pub repository: String,
    /// The tag; none: an untagged manifest.
    pub tag: Option<Tag>,
    /// What it means, or the manifest.
    pub digest: Digest,
    /// Why.
    pub why: String,
}

/// What a policy comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyPart {
    /// Its name.
    pub policy: String,
    /// The repositories that it names.
    pub repositories: u64,
    /// What it selects.
    pub selected: u64,
    /// What of that goes.
    pub deletes: u64,
    /// All tags of its repositories.
    pub of: u64,
    /// The most that it lets go in one run, and the most of all tags, in percent.
    pub at_most: (u32, u8),
    /// Whether that is more.
    pub exceeded: bool,
}

/// What a repository comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryPart {
    /// The repository, with its host where it is not hosted.
    pub repository: String,
    /// Its tags.
    pub tags: u64,
    /// Those that go.
    pub deletes: u64,
    /// What nothing else in its registry needs.
    pub exclusive_bytes: u64,
    /// What something else needs too.
    pub shared_bytes: u64,
    /// What becomes free there.
    pub freed_bytes: u64,
}

/// What a branch comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchPart {
    /// The repository, with its host where it is not hosted.
    pub repository: String,
    /// The branch, as its tags write it.
    pub branch: String,
    /// Its tags.
    pub tags: u64,
    /// Those that go.
    pub deletes: u64,
    /// What nothing else in its registry needs.
    pub exclusive_bytes: u64,
    /// What something else needs too.
    pub shared_bytes: u64,
}

/// What could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// A repository, or a pattern of several.
    pub what: String,
    /// Why.
    pub why: String,
}

/// A tag or untagged manifest that stays, or waits for its grace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The repository, with its host where it is not hosted.
    pub repository: String,
    /// The tag; none: an untagged manifest.
    pub tag: Option<Tag>,
    /// What it means, or the manifest.
    pub digest: Digest,
    /// Why, in a sentence.
    pub why: String,
}

impl Document {
    /// The document of nothing, yet.
    pub(super) fn new(now: crate::clock::Timestamp, policy: Option<String>, remote: Option<String>) -> Self {
        Self {
            version: VERSION,
            made_at: now.to_string(),
            made_at_ms: now.0,
            policy,
            remote,
            deletes: Vec::new(),
            calls: Vec::new(),
            refused: Vec::new(),
            policies: Vec::new(),
            repositories: Vec::new(),
            branches: Vec::new(),
            keepers: BTreeMap::new(),
            waiting: 0,
            unknown: 0,
            freed_bytes: 0,
            saved_a_month_micros: None,
            blocked: Vec::new(),
            failed: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Whether it is in the form that this version writes.
    pub(super) fn is_current(&self) -> bool {
        self.version == VERSION
    }

    /// Adds what was decided of the repositories that share their storage.
    pub(super) fn add(&mut self, domain: &Domain, names: Names<'_>) {
        let only = self.policy.clone();
        let goes = |verdict: &Verdict| {
            verdict.goes().filter(|doom| only.as_deref().is_none_or(|only| names.policy(doom.policy) == only))
        };
        let Parts { of_tags, of_repositories, of_branches, branches, freed_in, freed } = Parts::of(domain, &goes);
        self.freed_bytes += freed;
        let mut taken = of_tags.into_iter();
        for (decided, (whole, freed)) in domain.plan.repositories.iter().zip(of_repositories.iter().zip(&freed_in)) {
            let Some(place) = domain.places.get(decided.place) else { continue };
            let holding = &place.holding;
            let (repository, before) = (holding.repository.to_string(), self.deletes.len());
            let delete = |tag: Option<&TagFact>, manifest: Option<&ManifestFact>, doom: Doom, taken: Taken| {
                let digest = tag.map(|fact| fact.digest).or_else(|| manifest.map(|fact| fact.digest))?;
                let pushed_at = tag.map_or_else(|| manifest.and_then(|fact| fact.pushed_at), |fact| fact.pushed_at);
                Some(Delete {
                    repository: repository.clone(),
                    tag: tag.map(|fact| fact.tag.clone()),
                    digest,
                    policy: names.policy(doom.policy).to_owned(),
                    along: doom.along,
                    pushed_at: pushed_at.map(|at| at.to_string()),
                    exclusive_bytes: taken.exclusive,
                    shared_bytes: taken.shared(),
                })
            };
            for (fact, verdict) in holding.tags.iter().zip(&decided.tags) {
                let taken = taken.next().unwrap_or_default();
                self.count(verdict, names);
                self.deletes.extend(goes(verdict).and_then(|doom| delete(Some(fact), None, doom, taken)));
            }
            decided.untagged.iter().for_each(|(_, verdict)| self.count(verdict, names));
            let own = decided.untagged.iter().filter_map(|(at, verdict)| Some((*at, goes(verdict)?)));
            // What a hosted manifest leads to is collected with it; elsewhere it has to be deleted too.
            let along = decided.along.iter().filter(|_| !holding.repository.is_hosted());
            let along = along.filter_map(|(at, doom)| Some((*at, goes(&Verdict::Goes(*doom))?)));
            for (at, doom) in own.chain(along) {
                let Some(fact) = holding.manifests.get(at) else { continue };
                let total = fact.size + fact.blobs.iter().map(|(_, size)| size).sum::<u64>();
                self.deletes.extend(delete(None, Some(fact), doom, Taken { exclusive: 0, total }));
            }
            self.repositories.push(RepositoryPart {
                repository: repository.clone(),
                tags: holding.tags.len() as u64,
                deletes: (self.deletes.len() - before) as u64,
                exclusive_bytes: whole.exclusive,
                shared_bytes: whole.shared(),
                freed_bytes: *freed,
            });
        }
        let branches = branches.into_iter().zip(of_branches);
        self.branches.extend(branches.map(|(part, taken)| BranchPart {
            exclusive_bytes: taken.exclusive,
            shared_bytes: taken.shared(),
            ..part
        }));
    }

    fn count(&mut self, verdict: &Verdict, names: Names<'_>) {
        match verdict {
            Verdict::Goes(_) => {}
            Verdict::Waits { .. } => self.waiting += 1,
            Verdict::Stays(why) => {
                *self.keepers.entry(names.keeper(why)).or_default() += 1;
                self.unknown += u64::from(verdict.is_unknown());
            }
        }
    }

    /// What forbids to carry it out, by policy. `at_most`: the most deletions that somebody allows by hand, in place of what
    /// policies say.
    pub(super) fn in_the_way(&self, at_most: Option<u64>) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = self.blocked.iter().map(|why| ("all".to_owned(), why.clone())).collect();
        let all = self.deletes.len() as u64;
        match at_most {
            Some(most) if all > most => {
                found.push(("all".to_owned(), format!("the plan deletes {all}, more than --at-most {most}")));
            }
            Some(_) => {}
            None => found.extend(self.policies.iter().filter(|part| part.exceeded).map(|part| {
                let PolicyPart { policy, deletes, of, at_most: (most, share), .. } = part;
                let why = format!(
                    "it would delete {deletes} of {of}, and at_most lets {most} go, and {share}% of all; if that is meant, \
                     --at-most {all} lets it"
                );
                (policy.clone(), why)
            })),
        }
        found
    }

    /// What policies come to, over all registries.
    pub(super) fn sum(&mut self, policies: &[Policy], sums: &[PolicySum]) {
        self.policies = policies
            .iter()
            .zip(sums)
            .filter(|(policy, _)| self.policy.as_deref().is_none_or(|only| only == policy.name))
            .map(|(policy, sum)| PolicyPart {
                policy: policy.name.clone(),
                repositories: sum.repositories,
                selected: sum.selected,
                deletes: sum.deletes,
                of: sum.of,
                at_most: (policy.at_most.deletes, policy.at_most.share),
                exceeded: sum.exceeds(policy),
            })
            .collect();
    }
}

/// What tags, branches and repositories of one storage take.
struct Parts {
    /// For each tag of each repository that a policy names.
    of_tags: Vec<Taken>,
    of_repositories: Vec<Taken>,
    of_branches: Vec<Taken>,
    branches: Vec<BranchPart>,
    /// What becomes free in each repository if that alone is done.
    freed_in: Vec<u64>,
    /// What becomes free in all.
    freed: u64,
}

/// What keeps manifests, by whose it is.
#[derive(Default)]
struct Roots {
    of_tags: Vec<Root>,
    of_repositories: Vec<Root>,
    of_branches: Vec<Root>,
    going: Vec<Root>,
}

impl Roots {
    /// An untagged manifest: nobody's, unless it goes.
    fn untagged(&mut self, entry: Entry, going: u32) {
        let root = Root { entry, owner: OTHERS };
        for roots in [&mut self.of_tags, &mut self.of_repositories, &mut self.of_branches] {
            roots.push(root);
        }
        self.going.push(Root { entry, owner: going });
    }
}

impl Parts {
    fn of(domain: &Domain, goes: &impl Fn(&Verdict) -> Option<Doom>) -> Self {
        let mut roots = Roots::default();
        let (mut numbers, mut branches): (HashMap<(usize, &str), u32>, Vec<BranchPart>) = (HashMap::new(), Vec::new());
        let mut tags = 0_u32;
        for (number, decided) in (0_u32..).zip(&domain.plan.repositories) {
            let Some(place) = domain.places.get(decided.place) else { continue };
            let start = domain.graph.start(decided.place);
            let known = sizes::places(&place.holding, start);
            for ((fact, verdict), branch) in place.holding.tags.iter().zip(&decided.tags).zip(&decided.branches) {
                let doomed = goes(verdict).is_some();
                let branch = branch.as_deref().map(|name| {
                    *numbers.entry((decided.place, name)).or_insert_with(|| {
                        branches.push(BranchPart::named(place.holding.repository.to_string(), name.to_owned()));
                        u32::try_from(branches.len() - 1).unwrap_or(OTHERS)
                    })
                });
                if let Some(part) = branch.and_then(|branch| branches.get_mut(branch as usize)) {
                    part.tags += 1;
                    part.deletes += u64::from(doomed);
                }
                if let Some(entry) = known.get(&fact.digest).copied() {
                    roots.of_tags.push(Root { entry, owner: tags });
                    roots.of_repositories.push(Root { entry, owner: number });
                    roots.of_branches.push(Root { entry, owner: branch.unwrap_or(OTHERS) });
                    roots.going.push(Root { entry, owner: if doomed { number } else { OTHERS } });
                }
                tags += 1;
            }
            let entry = |at: usize| start + u32::try_from(at).unwrap_or(u32::MAX);
            decided.others.iter().for_each(|at| roots.untagged(entry(*at), OTHERS));
            for (at, verdict) in &decided.untagged {
                roots.untagged(entry(*at), if goes(verdict).is_some() { number } else { OTHERS });
            }
        }
        let (graph, repositories) = (&domain.graph, domain.plan.repositories.len());
        let freed_in = graph.taken(&roots.going, repositories).iter().map(|one| one.exclusive).collect();
        let together = |root: &Root| Root { owner: if root.owner == OTHERS { OTHERS } else { 0 }, ..*root };
        let together: Vec<Root> = roots.going.iter().map(together).collect();
        Self {
            of_tags: graph.taken(&roots.of_tags, tags as usize),
            of_repositories: graph.taken(&roots.of_repositories, repositories),
            of_branches: graph.taken(&roots.of_branches, branches.len()),
            branches,
            freed_in,
            freed: graph.taken(&together, 1).first().map_or(0, |one| one.exclusive),
        }
    }
}

impl BranchPart {
    fn named(repository: String, branch: String) -> Self {
        Self { repository, branch, tags: 0, deletes: 0, exclusive_bytes: 0, shared_bytes: 0 }
    }
}

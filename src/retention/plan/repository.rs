//! The decision in one repository.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::retention::Condition;
use crate::config::retention::Policy;
use crate::config::retention::Select;
use crate::oci::Digest;
use crate::pattern::Variables;
use crate::retention::records::ManifestFact;
use crate::retention::records::Pulled;
use crate::retention::records::TagFact;
use crate::retention::sizes;
use crate::retention::sizes::Entry;

use super::Firsts;
use super::Place;
use super::PolicySum;
use super::Question;
use super::RepositoryPlan;
use super::family::Family;
use super::family::Refers;
use super::keep;
use super::keep::Candidate;
use super::keep::Sources;
use super::keep::Used;
use super::protect::Shield;
use super::rank;
use super::rank::Counted;
use super::rank::Rank;
use super::select;
use super::select::Reading;
use super::verdict::Because;
use super::verdict::Doom;
use super::verdict::Verdict;
use super::verdict::Why;

/// What `newest` counts untagged manifests to.
const UNTAGGED: &str = "what has no tag";

/// A repository that is being decided.
pub(super) struct Work<'a> {
    question: &'a Question<'a>,
    place: usize,
    there: &'a Place,
    name: &'a str,
    policies: Vec<(u16, &'a Policy, Variables, Sources<'a>)>,
    start: Entry,
    family: Family<'a>,
    /// The last use of each manifest, with all that it leads to and what names it.
    used: Vec<Used>,
}

/// Something that policies may select: a tag, or a manifest without one.
#[derive(Clone, Copy)]
struct Item<'a> {
    tag: Option<(usize, &'a TagFact)>,
    manifest: Option<(usize, &'a ManifestFact)>,
    /// Whether `untagged` selects it, and nothing else: it has no tag, or one that refers to nothing.
    loose: bool,
}

/// What was found of an item.
#[derive(Clone, Default)]
struct Finding {
    /// The first policy that selects it.
    policy: Option<u16>,
    /// The longest grace of those that do.
    grace: Duration,
    /// What keeps it.
    why: Option<Why>,
    branch: Option<Arc<str>>,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        question: &'a Question<'a>,
        place: usize,
        name: &'a str,
        naming: Vec<(u16, &'a Policy, Variables)>,
    ) -> Self {
        let there = question.places.get(place).unwrap_or_else(|| unreachable!("the place is one of the question's"));
        let start = question.graph.start(place);
        let places = sizes::places(&there.holding, start);
        let policies: Vec<_> = naming
            .into_iter()
            .map(|(number, policy, captures)| {
                let sources = Sources::of(policy, &captures, question.knowledge);
                (number, policy, captures, sources)
            })
            .collect();
        let family = Family::of(&there.holding, &places, question.graph, start);
        let mut work = Self { question, place, there, name, policies, start, family, used: Vec::new() };
        work.used = work.uses(&places);
        work
    }

    pub(super) fn decide(&self, sums: &mut [PolicySum], protected: &mut [bool]) -> RepositoryPlan {
        let holding = &self.there.holding;
        let shield = Shield::of(self.question.protections, self.there, self.name);
        let (items, others) = self.items();
        let mut found = vec![Finding::default(); items.len()];
        let selected: Vec<Vec<usize>> =
            (0..self.policies.len()).map(|policy| self.apply(policy, &items, &mut found)).collect();
        let mut first = Firsts::new();
        let mut verdicts: Vec<Verdict> = items
            .iter()
            .zip(&found)
            .map(|(item, finding)| {
                let shielded = match (item.tag, item.manifest) {
                    (Some((_, fact)), manifest) => shield.tag(&fact.tag, manifest.map(|(at, _)| at), protected),
                    (None, Some((at, fact))) => shield.untagged(&fact.digest, at, protected),
                    (None, None) => None,
                };
                self.verdict(item, finding, shielded, &mut first)
            })
            .collect();
        let mut plan = RepositoryPlan {
            place: self.place,
            tags: vec![Verdict::Stays(Why::Follows); holding.tags.len()],
            branches: vec![None; holding.tags.len()],
            untagged: Vec::new(),
            others,
            along: Vec::new(),
            first,
        };
        for (number, fact) in holding.tags.iter().enumerate().filter(|(number, _)| self.is_follower(*number)) {
            let manifest = self.family.means.get(number).copied().flatten().map(|entry| self.local(entry));
            if let (Some(why), Some(place)) = (shield.tag(&fact.tag, manifest, protected), plan.tags.get_mut(number)) {
                *place = Verdict::Stays(why);
            }
        }
        self.follow(&items, &mut verdicts, &mut plan, sums);
        for ((number, policy, ..), selected) in self.policies.iter().zip(&selected) {
            let Some(sum) = sums.get_mut(usize::from(*number)) else { continue };
            sum.repositories += 1;
            sum.selected += selected.len() as u64;
            let goes = |item: &&usize| verdicts.get(**item).is_some_and(|verdict| verdict.goes().is_some());
            sum.deletes += selected.iter().filter(goes).count() as u64;
            let loose = items.iter().filter(|item| item.tag.is_none()).count();
            let counts_loose = policy.select.contains(&Select::Untagged);
            sum.of += holding.tags.len() as u64 + if counts_loose { loose as u64 } else { 0 };
        }
        for ((item, verdict), finding) in items.iter().zip(verdicts).zip(found) {
            match (item.tag, item.manifest) {
                (Some((number, _)), _) => {
                    if let Some(place) = plan.tags.get_mut(number) {
                        *place = verdict;
                    }
                    if let Some(place) = plan.branches.get_mut(number) {
                        *place = finding.branch;
                    }
                }
                (None, Some((at, _))) => plan.untagged.push((at, verdict)),
                (None, None) => {}
            }
        }
        plan
    }

    fn local(&self, entry: Entry) -> usize {
        entry.wrapping_sub(self.start) as usize
    }

    /// Whether a tag refers to something that is here: it follows that, and is neither selected nor counted.
    fn is_follower(&self, tag: usize) -> bool {
        matches!(self.family.refers(tag), Refers::To(_))
    }

    /// What policies may select; and the untagged manifests that none of them speaks of.
    fn items(&self) -> (Vec<Item<'a>>, Vec<usize>) {
        let holding = &self.there.holding;
        let manifest = |at: usize| holding.manifests.get(at).map(|fact| (at, fact));
        let mut items = Vec::with_capacity(holding.tags.len());
        for (number, fact) in holding.tags.iter().enumerate().filter(|(number, _)| !self.is_follower(*number)) {
            let means = self.family.means.get(number).copied().flatten();
            let loose = self.family.refers(number) == Refers::ToTheAbsent;
            let manifest = means.and_then(|entry| manifest(self.local(entry)));
            items.push(Item { tag: Some((number, fact)), manifest, loose });
        }
        let untagged: Vec<usize> = self.family.untagged().into_iter().map(|entry| self.local(entry)).collect();
        if self.policies.iter().any(|(_, policy, ..)| policy.select.contains(&Select::Untagged)) {
            items.extend(untagged.iter().map(|at| Item { tag: None, manifest: manifest(*at), loose: true }));
            return (items, Vec::new());
        }
        (items, untagged)
    }

    /// What one policy says of all items; those that it selects.
    fn apply(&self, policy: usize, items: &[Item<'a>], found: &mut [Finding]) -> Vec<usize> {
        let Some((number, policy, captures, sources)) = self.policies.get(policy) else { return Vec::new() };
        // A branch that any of the policies here knows is one, whichever of them asks.
        let is_branch = |tag: &str| self.policies.iter().any(|(.., other)| other.books().any(|book| book.knows(tag)));
        let mut selected: Vec<(usize, Reading)> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let reading = match item.tag {
                _ if item.loose => policy.select.contains(&Select::Untagged).then(loose_reading),
                Some((_, fact)) => {
                    let class = item.manifest.and_then(|(_, manifest)| manifest.class);
                    select::read(policy, captures, &fact.tag, class, is_branch)
                }
                None => None,
            };
            selected.extend(reading.map(|reading| (at, reading)));
        }
        let ranks = Self::ranks(policy, items, &selected);
        for ((at, reading), (newest, version)) in selected.iter().zip(ranks) {
            let (Some(item), Some(finding)) = (items.get(*at), found.get_mut(*at)) else { continue };
            finding.policy = finding.policy.or(Some(*number));
            finding.grace = finding.grace.max(policy.grace);
            finding.branch = finding.branch.take().or_else(|| reading.branches.first().cloned());
            if finding.why.as_ref().is_some_and(|why| !is_doubtful(why)) {
                continue;
            }
            let tag = item.tag.map(|(_, fact)| &fact.tag);
            let (pushed_at, there_at, used) = (item.pushed_at(), self.there_at(item), self.used(item));
            let candidate = Candidate { tag, pushed_at, there_at, used, reading, newest, version };
            if let Some((keep, because)) = keep::kept(policy, sources, &candidate, self.question.now) {
                let why = Why::Kept { policy: *number, item: keep, because };
                if finding.why.is_none() || !is_doubtful(&why) {
                    finding.why = Some(why);
                }
            }
        }
        selected.into_iter().map(|(at, _)| at).collect()
    }

    /// Where each of the selected stands, as far as the policy asks.
    fn ranks(policy: &Policy, items: &[Item<'a>], selected: &[(usize, Reading)]) -> Vec<(Rank, Option<u32>)> {
        let asks = |asked: fn(&Condition) -> bool| policy.keep.iter().flat_map(|item| &item.conditions).any(asked);
        let mut ranks = vec![(Rank::Unknown, None); selected.len()];
        if asks(|condition| matches!(condition, Condition::Newest(_))) {
            let counted: Vec<Counted<'_>> = selected
                .iter()
                .filter_map(|(at, reading)| {
                    let item = items.get(*at)?;
                    Some(Counted { count: reading.count.as_ref(), pushed_at: item.pushed_at(), digest: item.digest()? })
                })
                .collect();
            for (place, rank) in ranks.iter_mut().zip(rank::newest(&counted)) {
                place.0 = rank;
            }
        }
        if asks(|condition| matches!(condition, Condition::NewestVersions(_))) {
            let tag = |at: &usize| items.get(*at).and_then(|item| item.tag).map_or("", |(_, fact)| fact.tag.as_str());
            let tags: Vec<&str> = selected.iter().map(|(at, _)| tag(at)).collect();
            for (place, rank) in ranks.iter_mut().zip(rank::highest(&tags)) {
                place.1 = rank;
            }
        }
        ranks
    }

    /// What becomes of an item by itself.
    fn verdict(&self, item: &Item<'a>, finding: &Finding, shielded: Option<Why>, first: &mut Firsts) -> Verdict {
        let Some(policy) = finding.policy else {
            let why = if item.loose && item.tag.is_some() { Why::NoSubject } else { Why::Unselected };
            return Verdict::Stays(shielded.unwrap_or(why));
        };
        if let Some(why) = shielded.or_else(|| finding.why.clone()) {
            return Verdict::Stays(why);
        }
        let Some((key, digest)) = item.key() else { return Verdict::Stays(Why::Unselected) };
        let now = self.question.now;
        // A push begins the grace anew, even of what was in a plan before.
        let planned = self.first_planned(&key, &digest);
        let since = planned.map_or(now, |since| item.pushed_at().map_or(since, |at| at.max(since)));
        first.insert(key, (digest, since));
        let (doom, until) = (Doom { policy, along: false }, since.after(finding.grace));
        if now >= until { Verdict::Goes(doom) } else { Verdict::Waits { doom, until } }
    }

    /// Since when it has been in the plan. A tag that moved is another one, whose grace begins anew.
    fn first_planned(&self, key: &str, digest: &Digest) -> Option<Timestamp> {
        let known = self.question.first.get(&self.there.holding.repository)?.get(key);
        known.filter(|(before, _)| before == digest).map(|(_, since)| *since)
    }

    /// A moment when it was there already: its push, or the first plan that it was in.
    fn there_at(&self, item: &Item<'a>) -> Option<Timestamp> {
        let planned = || item.key().and_then(|(key, digest)| self.first_planned(&key, &digest));
        item.pushed_at().or_else(planned)
    }

    /// What goes along with what goes, and what stays because something that stays needs it.
    fn follow(&self, items: &[Item<'a>], verdicts: &mut [Verdict], plan: &mut RepositoryPlan, sums: &mut [PolicySum]) {
        let entry = |at: usize| self.start + u32::try_from(at).unwrap_or(u32::MAX);
        let mut staying: Vec<Entry> = plan.others.iter().map(|at| entry(*at)).collect();
        // A referrer's tag that is protected holds what it means by itself.
        let held =
            plan.tags.iter().zip(&self.family.means).filter(|(verdict, _)| **verdict != Verdict::Stays(Why::Follows));
        staying.extend(held.filter_map(|(_, means)| *means));
        let mut going = Vec::new();
        for (item, verdict) in items.iter().zip(verdicts.iter()) {
            let Some((at, _)) = item.manifest else { continue };
            match verdict.goes() {
                Some(doom) => going.push((entry(at), doom)),
                None => staying.push(entry(at)),
            }
        }
        let following = self.family.follow(staying, going);
        for (item, verdict) in items.iter().zip(verdicts.iter_mut()).filter(|(item, _)| item.tag.is_none()) {
            let needed = item.manifest.is_some_and(|(at, _)| following.stays.get(at).copied().unwrap_or(true));
            if needed && verdict.goes().is_some() {
                *verdict = Verdict::Stays(Why::Needed);
            }
        }
        for (tag, doom) in following.tags {
            let Some(place) = plan.tags.get_mut(tag as usize) else { continue };
            if *place == Verdict::Stays(Why::Follows) {
                *place = Verdict::Goes(doom);
                if let Some(sum) = sums.get_mut(usize::from(doom.policy)) {
                    sum.deletes += 1;
                }
            }
        }
        let tagged: HashSet<Entry> = self.family.means.iter().flatten().copied().collect();
        let along = following.manifests.into_iter().filter(|(entry, _)| !tagged.contains(entry));
        plan.along = along.map(|(entry, doom)| (self.local(entry), doom)).collect();
    }

    fn used(&self, item: &Item<'a>) -> Used {
        let tag = item.tag.map(|(_, fact)| fact.pulled);
        let manifest = item.manifest.and_then(|(at, _)| self.used.get(at)).copied();
        // What is not here may have been used in ways that nobody can say.
        Used::of(tag).or(manifest.unwrap_or(Used::of([Pulled::Unknown])))
    }

    /// The last use of each manifest: by its digest or a tag, of something that it leads to, or of something that names it.
    fn uses(&self, places: &HashMap<Digest, Entry>) -> Vec<Used> {
        let holding = &self.there.holding;
        let asked = |condition: &Condition| matches!(condition, Condition::PulledWithin(_));
        let mut policies = self.policies.iter().flat_map(|(_, policy, ..)| &policy.keep);
        if !policies.any(|item| item.conditions.iter().any(asked)) {
            return vec![Used::of([]); holding.manifests.len()];
        }
        let mut own: Vec<Used> = holding.manifests.iter().map(|fact| Used::of([fact.pulled])).collect();
        for (fact, means) in holding.tags.iter().zip(&self.family.means) {
            if let Some(used) = means.and_then(|entry| own.get_mut(self.local(entry))) {
                *used = used.or(Used::of([fact.pulled]));
            }
        }
        let mut all = self.below(&own);
        for (at, fact) in holding.manifests.iter().enumerate() {
            let parent = own.get(at).copied();
            for child in fact.children.iter().filter_map(|child| places.get(child)) {
                if let (Some(used), Some(parent)) = (all.get_mut(self.local(*child)), parent) {
                    *used = used.or(parent);
                }
            }
        }
        all
    }

    /// The last use of each manifest and of all that it leads to: each manifest is passed once.
    fn below(&self, own: &[Used]) -> Vec<Used> {
        let mut all: Vec<Option<Used>> = vec![None; own.len()];
        let mut open = vec![false; own.len()];
        for first in 0..own.len() {
            let mut stack = vec![first];
            while let Some(at) = stack.last().copied() {
                let entry = self.start + u32::try_from(at).unwrap_or(u32::MAX);
                let led: Vec<usize> = self.question.graph.leads(entry).iter().map(|led| self.local(*led)).collect();
                if let Some(open) = open.get_mut(at).filter(|open| !**open) {
                    *open = true;
                    stack.extend(led.iter().filter(|led| all.get(**led).is_some_and(Option::is_none)));
                    continue;
                }
                stack.pop();
                let Some(own) = own.get(at) else { continue };
                let below = led.iter().filter_map(|led| all.get(*led).copied().flatten());
                let joined = below.fold(*own, Used::or);
                if let Some(place) = all.get_mut(at) {
                    *place = Some(joined);
                }
            }
        }
        all.into_iter().zip(own).map(|(all, own)| all.unwrap_or(*own)).collect()
    }
}

impl Item<'_> {
    fn pushed_at(&self) -> Option<Timestamp> {
        match (self.tag, self.manifest) {
            (Some((_, fact)), _) => fact.pushed_at,
            (None, Some((_, fact))) => fact.pushed_at,
            (None, None) => None,
        }
    }

    fn digest(&self) -> Option<Digest> {
        self.key().map(|(_, digest)| digest)
    }

    /// What it is known by from plan to plan, and what it means.
    fn key(&self) -> Option<(String, Digest)> {
        match (self.tag, self.manifest) {
            (Some((_, fact)), _) => Some((fact.tag.to_string(), fact.digest)),
            (None, Some((_, fact))) => Some((fact.digest.to_string(), fact.digest)),
            (None, None) => None,
        }
    }
}

fn loose_reading() -> Reading {
    Reading { count: Some(UNTAGGED.into()), ..Reading::default() }
}

fn is_doubtful(why: &Why) -> bool {
    matches!(why, Why::Kept { because, .. } if because.iter().any(|one| matches!(one, Because::Unknown(_))))
}

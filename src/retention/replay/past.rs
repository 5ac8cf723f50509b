//! The repositories as they were, step by step, had a policy been applied: what it would have deleted by then is gone, until
//! it is pushed anew. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::config::retention::Policy;
use crate::history::Pull;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::retention::hosted::pulled;
use crate::retention::plan;
use crate::retention::plan::First;
use crate::retention::plan::Knowledge;
use crate::retention::plan::Place;
use crate::retention::plan::PolicySum;
use crate::retention::plan::Protections;
use crate::retention::plan::Question;
use crate::retention::plan::Verdict;
use crate::retention::records::Holding;
use crate::retention::records::Pulled;
use crate::retention::records::TagFact;
use crate::retention::sizes;
use crate::retention::sizes::Entry;
use crate::retention::sizes::Graph;
use crate::retention::sizes::OTHERS;
use crate::retention::sizes::Root;

/// What a tag meant when: of tags that moved.
pub(super) type Meanings = HashMap<(RepositoryKey, Tag), Vec<(Digest, Timestamp)>>;

/// A deletion that did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) at: Timestamp,
    /// The policy that would have done it.
    pub(super) policy: u16,
}

/// A recorded pull that would have found nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Miss {
    pub(super) pull: Pull,
    pub(super) gone: Gone,
}

/// What all steps have in common.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) policies: &'a [Policy],
    /// Only what this one lets go.
    pub(super) only: Option<&'a str>,
    pub(super) protections: &'a Protections,
    pub(super) knowledge: &'a Knowledge,
    pub(super) meanings: &'a Meanings,
    /// From when on every pull is known.
    pub(super) covered: Option<Timestamp>,
}

/// Repositories that share their storage, on their way through the past.
pub(super) struct Past<'a> {
    given: Given<'a>,
    places: &'a [Place],
    graph: &'a Graph,
    /// The manifests of each place.
    manifests: Vec<HashMap<Digest, Entry>>,
    numbers: HashMap<&'a RepositoryKey, usize>,
    tags: HashMap<(usize, &'a Tag), Gone>,
    gone: HashMap<Entry, Gone>,
    tag_uses: HashMap<(usize, &'a Tag), Timestamp>,
    uses: HashMap<(usize, Digest), Timestamp>,
    first: First,
}

impl<'a> Past<'a> {
    pub(super) fn new(given: Given<'a>, places: &'a [Place], graph: &'a Graph) -> Self {
        let named = |place: &Place| !plan::naming(given.policies, &place.holding.repository.to_string()).is_empty();
        let numbered = places.iter().enumerate().filter(|(_, place)| named(place));
        Self {
            numbers: numbered.map(|(number, place)| (&place.holding.repository, number)).collect(),
            manifests: (0..)
                .zip(places)
                .map(|(number, place)| sizes::places(&place.holding, graph.start(number)))
                .collect(),
            given,
            places,
            graph,
            tags: HashMap::new(),
            gone: HashMap::new(),
            tag_uses: HashMap::new(),
            uses: HashMap::new(),
            first: First::new(),
        }
    }

    /// Whether a policy speaks of the repository.
    pub(super) fn covers(&self, of: &RepositoryKey) -> bool {
        self.numbers.contains_key(of)
    }

    /// Takes up a pull of a repository that is covered; tells whether it would have found nothing.
    pub(super) fn pull(&mut self, pull: &Pull) -> Option<Miss> {
        let number = *self.numbers.get(&pull.repository)?;
        let fact = pull.tag.as_ref().and_then(|tag| self.fact(number, tag));
        if let Some(fact) = fact {
            self.tag_uses.insert((number, &fact.tag), pull.at);
        }
        self.uses.insert((number, pull.digest), pull.at);
        let gone = match (&pull.tag, fact) {
            (Some(_), Some(fact)) => {
                let gone = *self.tags.get(&(number, &fact.tag))?;
                let (_, since) = self.meaning(number, fact, pull.at)?;
                // It was pushed anew in the meantime.
                (since.is_none_or(|since| since <= gone.at)).then_some(gone)?
            }
            // What is not here any more was deleted by somebody.
            (Some(_), None) => return None,
            (None, _) => *self.gone.get(self.manifests.get(number)?.get(&pull.digest)?)?,
        };
        Some(Miss { pull: pull.clone(), gone })
    }

    fn fact(&self, number: usize, tag: &Tag) -> Option<&'a TagFact> {
        let tags = &self.places.get(number)?.holding.tags;
        // They are in the order of bytes.
        let at = tags.binary_search_by(|fact| fact.tag.as_str().cmp(tag.as_str())).ok()?;
        tags.get(at)
    }

    /// What a tag meant at that time, and since when; none where it was not there.
    fn meaning(&self, number: usize, fact: &TagFact, at: Timestamp) -> Option<(Digest, Option<Timestamp>)> {
        let of = &self.places.get(number)?.holding.repository;
        match self.given.meanings.get(&(of.clone(), fact.tag.clone())) {
            Some(meanings) => {
                let (digest, since) = meanings.iter().rev().find(|(_, since)| *since <= at)?;
                Some((*digest, Some(*since)))
            }
            None if fact.pushed_at.is_some_and(|pushed| pushed > at) => None,
            None => Some((fact.digest, fact.pushed_at)),
        }
    }

    /// One run of the policies at that time. Gives what each would have deleted.
    pub(super) fn run(&mut self, now: Timestamp) -> Vec<PolicySum> {
        let (numbers, places): (Vec<usize>, Vec<Place>) = self.as_of(now).into_iter().unzip();
        let graph = Graph::of(places.iter().map(|place| &place.holding), |_| false);
        let plan = plan::plan(&Question {
            now,
            policies: self.given.policies,
            protections: self.given.protections,
            places: &places,
            graph: &graph,
            knowledge: &self.given.knowledge.at(now),
            first: &self.first,
        });
        for decided in &plan.repositories {
            let (Some(place), Some(number)) = (places.get(decided.place), numbers.get(decided.place)) else { continue };
            self.first.insert(place.holding.repository.clone(), decided.first.clone());
            let mut doomed: Vec<(Entry, Gone)> = Vec::new();
            let mut roots: Vec<Entry> = Vec::new();
            for (fact, verdict) in place.holding.tags.iter().zip(&decided.tags) {
                let Some(entry) = self.entry(*number, &fact.digest) else { continue };
                match self.gone_by(verdict, now) {
                    Some(gone) => {
                        doomed.push((entry, gone));
                        if let Some(fact) = self.fact(*number, &fact.tag) {
                            self.tags.insert((*number, &fact.tag), gone);
                        }
                    }
                    None => roots.push(entry),
                }
            }
            let untagged = decided.untagged.iter().map(|(at, verdict)| (*at, self.gone_by(verdict, now)));
            for (at, gone) in untagged.chain(decided.others.iter().map(|at| (*at, None))).collect::<Vec<_>>() {
                let entry = place.holding.manifests.get(at).and_then(|fact| self.entry(*number, &fact.digest));
                match (entry, gone) {
                    (Some(entry), Some(gone)) => doomed.push((entry, gone)),
                    (Some(entry), None) => roots.push(entry),
                    (None, _) => {}
                }
            }
            self.bury(roots, doomed);
        }
        plan.policies
    }

    fn entry(&self, number: usize, digest: &Digest) -> Option<Entry> {
        self.manifests.get(number)?.get(digest).copied()
    }

    fn gone_by(&self, verdict: &Verdict, at: Timestamp) -> Option<Gone> {
        let policy = verdict.goes()?.policy;
        let name = self.given.policies.get(usize::from(policy)).map(|policy| policy.name.as_str());
        (self.given.only.is_none() || self.given.only == name).then_some(Gone { at, policy })
    }

    /// What the doomed lead to goes with them, unless something that stays leads to it too.
    fn bury(&mut self, roots: Vec<Entry>, doomed: Vec<(Entry, Gone)>) {
        if doomed.is_empty() {
            return;
        }
        let mut kept = vec![false; self.graph.entries() as usize];
        self.graph.reach(roots, &mut kept);
        for (entry, gone) in doomed {
            let mut next = vec![entry];
            while let Some(entry) = next.pop() {
                if kept.get(entry as usize) == Some(&false) && !self.gone.contains_key(&entry) {
                    self.gone.insert(entry, gone);
                    next.extend(self.graph.leads(entry));
                }
            }
        }
    }

    /// The repositories that policies speak of, with their numbers, as they were then without what is gone.
    fn as_of(&mut self, now: Timestamp) -> Vec<(usize, Place)> {
        let mut numbers: Vec<usize> = self.numbers.values().copied().collect();
        numbers.sort_unstable();
        let mut all = Vec::with_capacity(numbers.len());
        for number in numbers {
            let Some(place) = self.places.get(number) else { continue };
            let tags: Vec<TagFact> =
                place.holding.tags.iter().filter_map(|fact| self.tag_at(number, fact, now)).collect();
            for fact in &tags {
                let revived = self.entry(number, &fact.digest).filter(|entry| self.gone.contains_key(entry));
                let mut next: Vec<Entry> = revived.into_iter().collect();
                // It was pushed anew, with all that it needs.
                while let Some(entry) = next.pop() {
                    if self.gone.remove(&entry).is_some() {
                        next.extend(self.graph.leads(entry));
                    }
                }
            }
            let start = self.graph.start(number);
            let there = (start..).zip(&place.holding.manifests).filter(|(entry, fact)| {
                !self.gone.contains_key(entry) && fact.pushed_at.is_none_or(|pushed| pushed <= now)
            });
            let manifests = there.map(|(_, fact)| {
                let used = self.uses.get(&(number, fact.digest)).copied();
                let mut fact = fact.clone();
                fact.pulled = self.pulled(place, fact.pulled, used, fact.pushed_at, now);
                fact
            });
            let manifests = manifests.collect();
            let holding = Holding { repository: place.holding.repository.clone(), tags, manifests };
            all.push((number, Place { holding, fixed: Arc::clone(&place.fixed) }));
        }
        all
    }

    fn tag_at(&self, number: usize, fact: &'a TagFact, now: Timestamp) -> Option<TagFact> {
        let (digest, since) = self.meaning(number, fact, now)?;
        let gone = self.tags.get(&(number, &fact.tag));
        if gone.is_some_and(|gone| since.is_none_or(|since| since <= gone.at)) {
            return None;
        }
        let used = self.tag_uses.get(&(number, &fact.tag)).copied();
        let place = self.places.get(number)?;
        let pulled = self.pulled(place, fact.pulled, used, since, now);
        Some(TagFact { tag: fact.tag.clone(), digest, pushed_at: since, pulled })
    }

    /// What was known then of the last use, where `used` is the last one that went through here.
    fn pulled(
        &self,
        place: &Place,
        known_now: Pulled,
        used: Option<Timestamp>,
        born: Option<Timestamp>,
        now: Timestamp,
    ) -> Pulled {
        if place.holding.repository.is_hosted() {
            return pulled(used, born.unwrap_or_default(), self.given.covered.filter(|covered| *covered <= now));
        }
        // Another registry knows of the last pull only: of one since then it does not tell what came before.
        match (known_now, used) {
            (Pulled::At(at), _) if at > now => Pulled::Unknown,
            (Pulled::At(at), Some(used)) => Pulled::At(at.max(used)),
            (Pulled::NotSince(since), Some(used)) if used > since => Pulled::At(used),
            (known, _) => known,
        }
    }

    /// How many tags are gone in the end, and the bytes that nothing needs without them.
    pub(super) fn freed(&self, now: Timestamp) -> (u64, u64) {
        let still = |(number, tag): &(usize, &Tag), gone: &Gone| {
            let meaning = self.fact(*number, tag).and_then(|fact| self.meaning(*number, fact, now));
            meaning.is_some_and(|(_, since)| since.is_none_or(|since| since <= gone.at))
        };
        let tags = self.tags.iter().filter(|(of, gone)| still(of, gone)).count() as u64;
        let owner = |entry: Entry| if self.gone.contains_key(&entry) { 0 } else { OTHERS };
        let roots: Vec<Root> = (0..self.graph.entries()).map(|entry| Root { entry, owner: owner(entry) }).collect();
        (tags, self.graph.taken(&roots, 1).first().map_or(0, |taken| taken.exclusive))
    }
}

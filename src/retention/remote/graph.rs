//! Which calls delete exactly what a plan names: pure.
//!
//! Where a deletion takes a manifest along, the manifest must be nobody's: no tag that stays means it, no manifest that
//! stays names it, and it is no untagged one that refers to one that stays. What holds a manifest goes before it, so that a run that ends early
//! leaves orphans, never a tag whose tree has a hole.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;

use crate::oci::Digest;
use crate::oci::Tag;

use super::Call;
use super::Doomed;
use super::Refused;
use super::Target;
use super::Why;
use super::dialect::Caps;
use crate::retention::records::Holding;

/// The calls' targets in their order, and what is refused.
fn decide(holding: &Holding, doomed: &[Doomed], caps: Caps) -> (Vec<Target>, Vec<Refused>) {
    let graph = Graph::new(holding, doomed);
    let mut refused = Vec::new();
    let mut valid = Vec::new();
    let mut seen = BTreeSet::new();
    for doomed in doomed {
        match graph.check(doomed, caps) {
            Some(why) => refused.push(Refused { doomed: doomed.clone(), why }),
            // A plan that names a thing twice deletes it once.
            None if seen.insert(key(doomed)) => valid.push(doomed),
            None => {}
        }
    }
    let going = graph.going(&valid, caps);
    let mut targets: Vec<Target> = Vec::new();
    let mut whole: BTreeSet<Digest> = BTreeSet::new();
    for doomed in valid {
        match graph.target(doomed, caps, &going) {
            Ok(Target::Manifest { digest, .. }) if !whole.insert(digest) => {}
            Ok(target) => targets.push(target),
            Err(why) => refused.push(Refused { doomed: doomed.clone(), why }),
        }
    }
    let ranks = graph.ranks(&going);
    // What stays takes nothing along and may go first; the order of what was given is kept otherwise.
    targets.sort_by_key(|target| ranks.get(target.digest()).copied().unwrap_or(0));
    (targets, refused)
}

/// The calls that delete what a plan names, each as the request that `request` writes for its target.
pub(super) fn calls(
    holding: &Holding,
    doomed: &[Doomed],
    caps: Caps,
    request: impl Fn(&Target) -> String,
) -> (Vec<Call>, Vec<Refused>) {
    let (targets, refused) = decide(holding, doomed, caps);
    let calls = targets.into_iter().map(|target| Call { request: request(&target), target });
    (calls.collect(), refused)
}

fn key(doomed: &Doomed) -> (Option<&Tag>, Digest) {
    match doomed {
        Doomed::Tag { tag, digest } => (Some(tag), *digest),
        Doomed::Untagged { digest } => (None, *digest),
    }
}

/// A repository as it is looked at from its manifests.
struct Graph<'a> {
    tags: BTreeMap<&'a Tag, Digest>,
    tags_of: BTreeMap<Digest, Vec<&'a Tag>>,
    /// What holds a manifest: those that name it, and what it refers to.
    holders: BTreeMap<Digest, Vec<Digest>>,
    ids: BTreeMap<Digest, Option<&'a str>>,
    /// The tags that the plan names, where they still mean what it says.
    doomed: BTreeSet<&'a Tag>,
}

impl<'a> Graph<'a> {
    fn new(holding: &'a Holding, doomed: &'a [Doomed]) -> Self {
        let tags: BTreeMap<&Tag, Digest> = holding.tags.iter().map(|fact| (&fact.tag, fact.digest)).collect();
        let mut tags_of: BTreeMap<Digest, Vec<&Tag>> = BTreeMap::new();
        for fact in &holding.tags {
            tags_of.entry(fact.digest).or_default().push(&fact.tag);
        }
        let mut holders: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        for fact in &holding.manifests {
            for child in &fact.children {
                holders.entry(*child).or_default().push(fact.digest);
            }
            // A signature that has a tag of its own is somebody's choice; one that has none belongs to what it signs.
            if !tags_of.contains_key(&fact.digest) {
                holders.entry(fact.digest).or_default().extend(fact.subject);
            }
        }
        let ids: BTreeMap<_, _> = holding.manifests.iter().map(|fact| (fact.digest, fact.id.as_deref())).collect();
        // A subject that is not there holds nothing.
        for held_by in holders.values_mut() {
            held_by.retain(|holder| ids.contains_key(holder));
            held_by.sort_unstable();
            held_by.dedup();
        }
        let doomed = doomed.iter().filter_map(|doomed| match doomed {
            Doomed::Tag { tag, digest } if tags.get(tag) == Some(digest) => Some(tag),
            _ => None,
        });
        Self { doomed: doomed.collect(), tags, tags_of, holders, ids }
    }

    fn tags_of(&self, digest: &Digest) -> &[&'a Tag] {
        self.tags_of.get(digest).map_or(&[], Vec::as_slice)
    }

    fn holders(&self, digest: &Digest) -> &[Digest] {
        self.holders.get(digest).map_or(&[], Vec::as_slice)
    }

    /// The tags that mean it and stay.
    fn kept_tags(&self, digest: &Digest) -> Vec<Tag> {
        self.tags_of(digest).iter().filter(|tag| !self.doomed.contains(*tag)).map(|tag| Tag::clone(tag)).collect()
    }

    /// What speaks against it at once.
    fn check(&self, doomed: &Doomed, caps: Caps) -> Option<Why> {
        match doomed {
            Doomed::Tag { tag, digest } => match self.tags.get(tag) {
                None => Some(Why::Absent),
                Some(now) if now != digest => Some(Why::Moved),
                Some(_) if caps.tags => None,
                Some(_) => {
                    let kept = self.kept_tags(digest);
                    (!kept.is_empty()).then_some(Why::Shared { kept })
                }
            },
            Doomed::Untagged { .. } if !caps.manifests => Some(Why::ByTagOnly),
            Doomed::Untagged { digest } if !self.ids.contains_key(digest) => Some(Why::Absent),
            Doomed::Untagged { digest } => {
                let tags: Vec<Tag> = self.tags_of(digest).iter().copied().cloned().collect();
                (!tags.is_empty()).then_some(Why::Tagged { tags })
            }
        }
    }

    /// Whether a manifest goes by it, once everything that the plan names is gone.
    fn takes_manifest(&self, doomed: &Doomed, caps: Caps) -> bool {
        match doomed {
            Doomed::Untagged { .. } => true,
            Doomed::Tag { digest, .. } => {
                let takes = !caps.tags || caps.last_tag_takes_manifest;
                takes && self.kept_tags(digest).is_empty()
            }
        }
    }

    /// The manifests that go: those that would, less what something needs that does not go.
    fn going(&self, valid: &[&Doomed], caps: Caps) -> BTreeSet<Digest> {
        let candidates = valid.iter().filter(|doomed| self.takes_manifest(doomed, caps));
        let mut going: BTreeSet<Digest> = candidates.map(|doomed| key(doomed).1).collect();
        loop {
            let stays = |digest: &&Digest| self.holders(digest).iter().any(|holder| !going.contains(holder));
            let kept: Vec<Digest> = going.iter().filter(stays).copied().collect();
            if kept.is_empty() {
                return going;
            }
            for digest in kept {
                going.remove(&digest);
            }
        }
    }

    fn target(&self, doomed: &Doomed, caps: Caps, going: &BTreeSet<Digest>) -> Result<Target, Why> {
        let (tag, digest) = key(doomed);
        if self.takes_manifest(doomed, caps) && !going.contains(&digest) {
            return Err(self.needed(&digest, going));
        }
        let goes = going.contains(&digest);
        let after = if goes { self.holders(&digest).to_vec() } else { Vec::new() };
        Ok(match tag {
            Some(tag) if caps.tags => Target::Tag { tag: tag.clone(), digest, after },
            _ => {
                let tags = self.tags_of(&digest).iter().copied().cloned().collect();
                let id = self.ids.get(&digest).copied().flatten().map(str::to_owned);
                Target::Manifest { digest, tags, id, after }
            }
        })
    }

    /// What needs a manifest: the tags that stay, found upwards, and the manifests that name it and stay.
    fn needed(&self, digest: &Digest, going: &BTreeSet<Digest>) -> Why {
        let by: Vec<Digest> = self.holders(digest).iter().filter(|holder| !going.contains(*holder)).copied().collect();
        let mut kept = BTreeSet::new();
        let mut seen: BTreeSet<Digest> = by.iter().copied().collect();
        let mut next: VecDeque<Digest> = by.iter().copied().collect();
        while let Some(at) = next.pop_front() {
            kept.extend(self.kept_tags(&at));
            for holder in self.holders(&at) {
                if !going.contains(holder) && seen.insert(*holder) {
                    next.push_back(*holder);
                }
            }
        }
        Why::Needed { kept: kept.into_iter().collect(), by }
    }

    /// The order among what goes: each is behind all that hold it.
    fn ranks(&self, going: &BTreeSet<Digest>) -> BTreeMap<Digest, usize> {
        let mut waits: BTreeMap<Digest, usize> =
            going.iter().map(|digest| (*digest, self.holders(digest).len())).collect();
        let mut held: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        for digest in going {
            for holder in self.holders(digest) {
                held.entry(*holder).or_default().push(*digest);
            }
        }
        let mut ready: VecDeque<Digest> = waits.iter().filter(|(_, count)| **count == 0).map(|(d, _)| *d).collect();
        let mut ranks = BTreeMap::new();
        while let Some(digest) = ready.pop_front() {
            ranks.insert(digest, ranks.len() + 1);
            for below in held.get(&digest).map_or(&[][..], Vec::as_slice) {
                if let Some(count) = waits.get_mut(below) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push_back(*below);
                    }
                }
            }
        }
        // Digests make no circles; what would stand in one goes last.
        for digest in going {
            let last = ranks.len() + 1;
            ranks.entry(*digest).or_insert(last);
        }
        ranks
    }
}

//! What belongs together: an index and its descendants, a subject and what refers to it, by a field or by a tag.
//!
//! What something that stays leads to stays; what only something that goes leads to goes along with it.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::oci::Algorithm;
use crate::oci::Digest;
use crate::oci::Tag;
use crate::retention::records::Holding;
use crate::retention::sizes::Entry;
use crate::retention::sizes::Graph;

use super::verdict::Doom;

/// The fewest hex digits of a subject's digest in a referrer's tag: longer algorithms are cut to it (distribution-spec,
/// "Referrers Tag Schema").
const HEX_DIGITS: usize = 64;

/// The digest in a referrer's tag: `sha256-<hex>`, `sha256-<hex>.sig`. None for another tag.
pub(super) fn subject(tag: &Tag) -> Option<(Algorithm, &str)> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let algorithm = match algorithm {
        "sha256" => Algorithm::Sha256,
        "sha512" => Algorithm::Sha512,
        _ => return None,
    };
    let end = rest.bytes().take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).count();
    let (hex, ending) = rest.split_at_checked(end)?;
    let whole = hex.len() == HEX_DIGITS || (algorithm == Algorithm::Sha512 && hex.len() > HEX_DIGITS);
    (whole && (ending.is_empty() || ending.starts_with(['.', '-', '_']))).then_some((algorithm, hex))
}

/// Which tags of a repository refer to one of its manifests, and to which.
#[derive(Debug)]
pub(super) struct Family<'a> {
    graph: &'a Graph,
    start: Entry,
    /// What each tag refers to by its name.
    refers: Vec<Refers>,
    /// The referrers' tags of a manifest.
    tags_of: HashMap<Entry, Vec<u32>>,
    /// What each manifest refers to.
    subjects: Vec<Option<Entry>>,
    /// What each tag means.
    pub(super) means: Vec<Option<Entry>>,
}

/// What a tag refers to by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refers {
    /// To nothing: it is no referrer's tag.
    ToNothing,
    /// To something that is not here.
    ToTheAbsent,
    /// To this manifest.
    To(Entry),
}

/// What follows from what stays and what goes.
#[derive(Debug)]
pub(super) struct Following {
    /// For each manifest, whether something that stays needs it.
    pub(super) stays: Vec<bool>,
    /// For each tag, what makes it go along.
    pub(super) tags: HashMap<u32, Doom>,
    /// The manifests that go along, with what makes them, in the order in which they may be removed.
    pub(super) manifests: Vec<(Entry, Doom)>,
}

impl<'a> Family<'a> {
    pub(super) fn of(holding: &Holding, places: &HashMap<Digest, Entry>, graph: &'a Graph, start: Entry) -> Self {
        let long: Vec<(String, Entry)> = holding
            .manifests
            .iter()
            .filter(|one| one.digest.algorithm() == Algorithm::Sha512)
            .filter_map(|one| Some((one.digest.hex(), *places.get(&one.digest)?)))
            .collect();
        let find = |(algorithm, hex): (Algorithm, &str)| match algorithm {
            Algorithm::Sha256 => format!("sha256:{hex}").parse().ok().and_then(|digest| places.get(&digest).copied()),
            Algorithm::Sha512 => long.iter().find(|(whole, _)| whole.starts_with(hex)).map(|(_, entry)| *entry),
        };
        let refers = |tag: &Tag| match subject(tag).map(find) {
            None => Refers::ToNothing,
            Some(None) => Refers::ToTheAbsent,
            Some(Some(subject)) => Refers::To(subject),
        };
        let refers: Vec<Refers> = holding.tags.iter().map(|fact| refers(&fact.tag)).collect();
        let mut tags_of: HashMap<Entry, Vec<u32>> = HashMap::new();
        for (number, refers) in (0..).zip(&refers) {
            if let Refers::To(subject) = refers {
                tags_of.entry(*subject).or_default().push(number);
            }
        }
        let subject_of = |subject: Option<&Digest>| subject.and_then(|subject| places.get(subject).copied());
        let subjects = holding.manifests.iter().map(|one| subject_of(one.subject.as_ref())).collect();
        let means = holding.tags.iter().map(|fact| places.get(&fact.digest).copied()).collect();
        Self { graph, start, refers, tags_of, subjects, means }
    }

    /// What a tag refers to by its name.
    pub(super) fn refers(&self, tag: usize) -> Refers {
        self.refers.get(tag).copied().unwrap_or(Refers::ToNothing)
    }

    fn place(&self, entry: Entry) -> usize {
        entry.wrapping_sub(self.start) as usize
    }

    /// Manifests that no tag leads to, and no other of them either.
    pub(super) fn untagged(&self) -> Vec<Entry> {
        let count = self.subjects.len();
        let mut reached = vec![false; count];
        let mut next: Vec<Entry> = self.means.iter().flatten().copied().collect();
        while let Some(entry) = next.pop() {
            let Some(seen) = reached.get_mut(self.place(entry)).filter(|seen| !**seen) else { continue };
            *seen = true;
            next.extend(self.graph.leads(entry));
        }
        let alone = |led: &[bool]| -> Vec<Entry> {
            let all = (self.start..).zip(led).filter(|(_, led)| !**led);
            all.map(|(entry, _)| entry).collect()
        };
        let free = alone(&reached);
        for led in free.iter().flat_map(|entry| self.graph.leads(*entry)) {
            let place = self.place(*led);
            if let Some(led) = reached.get_mut(place) {
                *led = true;
            }
        }
        alone(&reached)
    }

    /// What follows: `staying` are manifests that stay by themselves, `going` those that go, each with what makes it.
    pub(super) fn follow(&self, staying: Vec<Entry>, going: Vec<(Entry, Doom)>) -> Following {
        let mut stays = vec![false; self.subjects.len()];
        let mut next = staying;
        while let Some(entry) = next.pop() {
            let place = self.place(entry);
            let Some(seen) = stays.get_mut(place).filter(|seen| !**seen) else { continue };
            *seen = true;
            next.extend(self.graph.leads(entry));
            next.extend(self.subjects.get(place).copied().flatten());
            next.extend(self.tags_of(entry).filter_map(|tag| self.means.get(tag as usize).copied().flatten()));
        }
        let mut following = Following { stays, tags: HashMap::new(), manifests: Vec::new() };
        let mut seen = following.stays.clone();
        let roots: Vec<Entry> = going.iter().map(|(entry, _)| *entry).collect();
        let mut next = going;
        next.reverse();
        while let Some((entry, doom)) = next.pop() {
            let Some(seen) = seen.get_mut(self.place(entry)).filter(|seen| !**seen) else { continue };
            *seen = true;
            let along = Doom { along: true, ..doom };
            following.manifests.push((entry, along));
            next.extend(self.graph.leads(entry).iter().rev().map(|led| (*led, along)));
            for tag in self.tags_of(entry) {
                following.tags.entry(tag).or_insert(along);
                next.extend(self.means.get(tag as usize).copied().flatten().map(|entry| (entry, along)));
            }
        }
        let roots: HashSet<Entry> = roots.into_iter().collect();
        following.manifests.retain(|(entry, _)| !roots.contains(entry));
        following
    }

    fn tags_of(&self, entry: Entry) -> impl Iterator<Item = u32> {
        self.tags_of.get(&entry).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referrers_tags_are_told_from_others() {
        let hex = "a".repeat(64);
        for (tag, want) in [
            (format!("sha256-{hex}"), true),
            (format!("sha256-{hex}.sig"), true),
            (format!("sha256-{hex}-att"), true),
            (format!("sha512-{hex}"), true),
            (format!("sha512-{}", "a".repeat(100)), true),
            (format!("sha256-{}", "a".repeat(63)), false),
            (format!("sha256-{hex}b"), false),
            (format!("sha256-{}", "g".repeat(64)), false),
            ("sha256-main".to_owned(), false),
            (format!("md5-{hex}"), false),
        ] {
            assert_eq!(subject(&tag.parse().unwrap()).is_some(), want, "{tag}");
        }
    }
}

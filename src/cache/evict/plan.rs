//! Which images go when room is needed: pure.
//!
//! The unit is an image with its tags: first what its tags have left behind, then what is least popular. The images of an
//! index are units of their own, so that a platform that nobody uses goes singly. A blob that a kept image shares stays.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::store::Linked;
use crate::store::Tagged;

use super::popularity::Place;
use super::popularity::Popularity;
use super::units::Unit;
use super::units::is_manifest;
use super::units::units_of;

/// What one repository holds, as far as the decision needs it.
#[derive(Clone, Debug)]
pub struct Holding {
    /// The repository.
    pub repository: RepositoryKey,
    /// Its tags.
    pub tags: Vec<Tagged>,
    /// Its links.
    pub links: Vec<Linked>,
}

/// What goes from one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// The repository.
    pub repository: RepositoryKey,
    /// The tags that go, before what they name.
    pub tags: Vec<Tag>,
    /// The links that go: a manifest before what it names.
    pub links: Vec<Digest>,
}

/// Manifests that stay, whenever they were used last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept(HashSet<(usize, Digest)>);

impl Kept {
    /// What is kept of `wanted`, the most important first, in up to `room` bytes: each manifest whole, with all that it names
    /// and that is held. The first that does not fit ends it: what comes after is less important.
    pub fn new(holdings: &[Holding], wanted: &[(RepositoryKey, Digest)], room: u64) -> Self {
        let at: HashMap<&RepositoryKey, usize> = holdings.iter().enumerate().map(|(i, h)| (&h.repository, i)).collect();
        let named: HashSet<usize> = wanted.iter().filter_map(|(of, _)| at.get(of).copied()).collect();
        let links: HashMap<(usize, Digest), &Linked> = holdings
            .iter()
            .enumerate()
            .filter(|(i, _)| named.contains(i))
            .flat_map(|(i, holding)| holding.links.iter().map(move |link| ((i, link.link.digest), link)))
            .collect();
        let (mut kept, mut counted, mut bytes) = (HashSet::new(), HashSet::new(), 0_u64);
        for (of, digest) in wanted {
            let Some(holding) = at.get(of).copied() else { continue };
            let tree = tree(&links, holding, *digest);
            let new = tree.iter().filter(|link| !counted.contains(&link.link.digest));
            bytes = bytes.saturating_add(new.map(|link| link.link.size).sum());
            if bytes > room {
                break;
            }
            counted.extend(tree.iter().map(|link| link.link.digest));
            kept.extend(tree.iter().filter(|link| is_manifest(link)).map(|link| (holding, link.link.digest)));
        }
        Self(kept)
    }

    fn keeps(&self, unit: &Unit) -> bool {
        unit.manifest.is_some_and(|digest| self.0.contains(&(unit.holding, digest)))
    }
}

/// A manifest and all that it leads to in its repository, as far as it is held; each once.
fn tree<'a>(links: &HashMap<(usize, Digest), &'a Linked>, holding: usize, root: Digest) -> Vec<&'a Linked> {
    let (mut found, mut seen, mut next) = (Vec::new(), HashSet::from([root]), vec![root]);
    while let Some(digest) = next.pop() {
        let Some(link) = links.get(&(holding, digest)) else { continue };
        found.push(*link);
        next.extend(link.children.iter().filter(|child| seen.insert(**child)));
    }
    found
}

/// Chooses what goes so that `wanted` bytes become free, or all there is but what is kept.
pub fn plan(holdings: &[Holding], wanted: u64, kept: &Kept, popularity: &Popularity) -> Vec<Victim> {
    let mut count = Count::new(holdings);
    let ranked = std::mem::take(&mut count.units).into_iter().map(|unit| (unit.rank(holdings, popularity), unit));
    let mut ranked: Vec<((bool, Place), Unit)> = ranked.collect();
    ranked.sort_by(|((a, a_place), _), ((b, b_place), _)| a.cmp(b).then(a_place.total_cmp(b_place)));
    let mut victims = Vec::new();
    for (_, unit) in ranked {
        if count.freed >= wanted {
            break;
        }
        if kept.keeps(&unit) {
            continue;
        }
        victims.extend(count.take(unit));
    }
    victims
}

/// What goes when just these roots of the repository `at` go. Blobs that other images share stay.
pub(super) fn only(holdings: &[Holding], at: usize, roots: &[Digest]) -> Vec<Victim> {
    let mut count = Count::new(holdings);
    let units = std::mem::take(&mut count.units);
    let is_wanted =
        |u: &Unit| u.holding == at && u.manifest.as_ref().or(u.blobs.first()).is_some_and(|d| roots.contains(d));
    units.into_iter().filter(is_wanted).filter_map(|u| count.take(u)).collect()
}

/// Who still needs what, while units go.
struct Count<'a> {
    holdings: &'a [Holding],
    units: Vec<Unit>,
    /// How many units of a repository need a link.
    needed: HashMap<(usize, Digest), usize>,
    /// How many repositories' links need the bytes.
    linked: HashMap<Digest, usize>,
    sizes: HashMap<Digest, u64>,
    freed: u64,
}

impl<'a> Count<'a> {
    fn new(holdings: &'a [Holding]) -> Self {
        let units: Vec<Unit> = holdings.iter().enumerate().flat_map(|(i, h)| units_of(i, h)).collect();
        let mut needed: HashMap<(usize, Digest), usize> = HashMap::new();
        for unit in &units {
            for digest in unit.manifest.iter().chain(&unit.blobs) {
                *needed.entry((unit.holding, *digest)).or_default() += 1;
            }
        }
        let mut linked: HashMap<Digest, usize> = HashMap::new();
        for (_, digest) in needed.keys() {
            *linked.entry(*digest).or_default() += 1;
        }
        let sizes = holdings.iter().flat_map(|h| &h.links).map(|l| (l.link.digest, l.link.size)).collect();
        Self { holdings, units, needed, linked, sizes, freed: 0 }
    }

    /// Lets a unit go: the links that nothing else in its repository needs, and the bytes that no other repository does.
    fn take(&mut self, unit: Unit) -> Option<Victim> {
        let holding = self.holdings.get(unit.holding)?;
        let mut links = Vec::new();
        for digest in unit.manifest.iter().chain(&unit.blobs) {
            if !is_last(self.needed.get_mut(&(unit.holding, *digest))) {
                continue;
            }
            links.push(*digest);
            if is_last(self.linked.get_mut(digest)) {
                self.freed += self.sizes.get(digest).copied().unwrap_or_default();
            }
        }
        Some(Victim { repository: holding.repository.clone(), tags: unit.tags, links })
    }
}

/// Takes one off a count; tells whether it was the last.
fn is_last(count: Option<&mut usize>) -> bool {
    count.is_some_and(|count| {
        *count = count.saturating_sub(1);
        *count == 0
    })
}

#[cfg(test)]
mod tests;

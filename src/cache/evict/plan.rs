//! Which images go when room is needed: pure.
//!
//! The unit is an image with its tags, oldest use first. The images of an index are units of their own, so that a
//! platform that nobody uses goes singly. A blob that a kept image shares stays.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::store::Kind;
use crate::store::Linked;
use crate::store::Tagged;

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

/// An image, or a blob that no manifest here names.
#[derive(Debug)]
struct Unit {
    holding: usize,
    tags: Vec<Tag>,
    manifest: Option<Digest>,
    blobs: Vec<Digest>,
    used: Timestamp,
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
pub fn plan(holdings: &[Holding], wanted: u64, kept: &Kept) -> Vec<Victim> {
    let mut count = Count::new(holdings);
    let mut units = std::mem::take(&mut count.units);
    units.sort_by_key(|u| u.used);
    let mut victims = Vec::new();
    for unit in units {
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

/// The units of one repository.
fn units_of(index: usize, holding: &Holding) -> Vec<Unit> {
    let links: HashMap<Digest, &Linked> = holding.links.iter().map(|l| (l.link.digest, l)).collect();
    let mut parents: HashMap<Digest, usize> = HashMap::new();
    for child in holding.links.iter().flat_map(|l| &l.children) {
        *parents.entry(*child).or_default() += 1;
    }
    let mut tags: HashMap<Digest, Vec<&Tagged>> = HashMap::new();
    for tagged in &holding.tags {
        tags.entry(tagged.record.digest).or_default().push(tagged);
    }
    let mut units = Vec::new();
    let mut placed: HashSet<Digest> = HashSet::new();
    for link in holding.links.iter().filter(|l| is_manifest(l)) {
        let tagged = tags.remove(&link.link.digest).unwrap_or_default();
        // Child manifests are units of their own; what is not held is not there to go.
        let blobs: Vec<Digest> =
            link.children.iter().filter(|c| links.get(c).is_some_and(|l| !is_manifest(l))).copied().collect();
        placed.extend(&blobs);
        let own = blobs.iter().filter(|b| parents.get(b) == Some(&1)).filter_map(|b| links.get(b)).map(|l| used(l));
        let used = tagged.iter().map(|t| t.used.unwrap_or(t.record.at)).chain(own).fold(used(link), Timestamp::max);
        let tags = tagged.into_iter().map(|t| t.record.tag.clone()).collect();
        units.push(Unit { holding: index, tags, manifest: Some(link.link.digest), blobs, used });
    }
    let orphans = holding.links.iter().filter(|l| !is_manifest(l) && !placed.contains(&l.link.digest));
    units.extend(orphans.map(|l| Unit {
        holding: index,
        tags: Vec::new(),
        manifest: None,
        blobs: vec![l.link.digest],
        used: used(l),
    }));
    // Tags whose manifest is not held: they cost nothing, and go with nothing.
    units
}

fn is_manifest(link: &Linked) -> bool {
    matches!(link.link.kind, Kind::Manifest { .. })
}

/// The last use; what was never seen to be used was used when it came.
fn used(link: &Linked) -> Timestamp {
    link.used.unwrap_or(link.link.at)
}

#[cfg(test)]
mod tests {
    use crate::oci::MediaType;
    use crate::store::LinkRecord;
    use crate::store::Origin;
    use crate::store::Standing;
    use crate::store::TagRecord;

    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn link(n: u8, size: u64, used: u64, kind: Kind, children: Vec<Digest>) -> Linked {
        let link = LinkRecord {
            digest: digest(n),
            generation: 0,
            size,
            kind,
            origin: Origin::Proxied,
            at: Timestamp(0),
            standing: Standing::default(),
        };
        Linked { link, used: Some(Timestamp(used)), children, subject: None }
    }

    fn blob(n: u8, size: u64, used: u64) -> Linked {
        link(n, size, used, Kind::Blob, Vec::new())
    }

    fn image(n: u8, used: u64, children: &[u8]) -> Linked {
        let media_type = MediaType::new(MediaType::OCI_MANIFEST);
        let kind = Kind::Manifest { media_type, subject: None, artifact_type: None };
        link(n, 1, used, kind, children.iter().map(|c| digest(*c)).collect())
    }

    fn tagged(tag: &str, n: u8, used: u64) -> Tagged {
        let record = TagRecord {
            tag: tag.parse().unwrap(),
            digest: digest(n),
            media_type: MediaType::new(MediaType::OCI_MANIFEST),
            size: 1,
            origin: Origin::Proxied,
            pusher: None,
            at: Timestamp(0),
            history: Vec::new(),
            gone: None,
        };
        Tagged { record, validated_at: Timestamp(0), used: Some(Timestamp(used)) }
    }

    fn holding(name: &str, tags: &[(&str, u8, u64)], links: Vec<Linked>) -> Holding {
        let tags = tags.iter().map(|(t, d, used)| tagged(t, *d, *used)).collect();
        Holding { repository: RepositoryKey::from_path(&format!("docker.io/{name}")).unwrap(), tags, links }
    }

    #[test]
    fn the_oldest_image_goes_first_and_whole() {
        let old = holding("a", &[("1", 1, 10)], vec![image(1, 10, &[2, 3]), blob(2, 100, 10), blob(3, 50, 10)]);
        let new = holding("b", &[("1", 4, 20)], vec![image(4, 20, &[5]), blob(5, 100, 20)]);
        let victims = plan(&[new, old], 1, &Kept::default());
        assert_eq!(victims.len(), 1);
        assert_eq!(victims[0].repository.to_string(), "docker.io/a");
        assert_eq!(victims[0].tags.len(), 1);
        assert_eq!(victims[0].links, [digest(1), digest(2), digest(3)]);
    }

    #[test]
    fn a_blob_that_a_kept_image_shares_stays() {
        let links = vec![image(1, 10, &[2, 3]), image(4, 20, &[2]), blob(2, 100, 10), blob(3, 50, 10)];
        let victims = plan(&[holding("a", &[("old", 1, 10), ("new", 4, 20)], links)], 51, &Kept::default());
        assert_eq!(victims.len(), 1);
        assert_eq!(victims[0].links, [digest(1), digest(3)]);
    }

    #[test]
    fn bytes_that_another_repository_needs_free_nothing() {
        let a = holding("a", &[("1", 1, 10)], vec![image(1, 10, &[2]), blob(2, 100, 10)]);
        let b = holding("b", &[("1", 3, 20)], vec![image(3, 20, &[2]), blob(2, 100, 20)]);
        // Freeing 50 bytes takes both: the first frees only its manifest.
        assert_eq!(plan(&[a, b], 50, &Kept::default()).len(), 2);
    }

    #[test]
    fn a_platform_that_nobody_uses_goes_singly() {
        let links =
            vec![image(1, 99, &[2, 4]), image(2, 10, &[3]), blob(3, 100, 10), image(4, 99, &[5]), blob(5, 100, 99)];
        let victims = plan(&[holding("a", &[("1", 1, 99)], links)], 100, &Kept::default());
        assert_eq!(victims.len(), 1);
        assert!(victims[0].tags.is_empty());
        assert_eq!(victims[0].links, [digest(2), digest(3)]);
    }

    #[test]
    fn blobs_without_a_manifest_go_by_their_own_use() {
        let links = vec![image(1, 10, &[]), blob(7, 100, 5), blob(8, 100, 50)];
        let victims = plan(&[holding("a", &[], links)], 100, &Kept::default());
        assert_eq!(victims.len(), 1);
        assert_eq!(victims[0].links, [digest(7)]);
    }

    #[test]
    fn two_tags_of_one_image_go_together_by_the_later_use() {
        let links = vec![image(1, 0, &[2]), blob(2, 100, 0), image(3, 20, &[4]), blob(4, 100, 20)];
        let victims = plan(&[holding("a", &[("x", 1, 10), ("y", 1, 30), ("z", 3, 20)], links)], 200, &Kept::default());
        assert_eq!(victims.iter().map(|v| v.tags.len()).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn what_is_kept_stays_however_old_it_is() {
        let index = vec![image(1, 1, &[2, 4]), image(2, 1, &[3]), blob(3, 100, 1), image(4, 1, &[5]), blob(5, 100, 1)];
        let new = vec![image(6, 50, &[7]), blob(7, 100, 50), blob(8, 100, 60)];
        let holdings = [holding("a", &[("1", 1, 1)], index), holding("b", &[("1", 6, 50)], new)];
        let held = [(holdings[0].repository.clone(), digest(1))];
        let victims = plan(&holdings, 1000, &Kept::new(&holdings, &held, 1000));
        assert!(victims.iter().all(|v| v.repository.to_string() == "docker.io/b"), "{victims:?}");
        assert_eq!(victims.len(), 2);
        // 203 bytes: without room for all of it nothing of it is kept.
        let victims = plan(&holdings, 1000, &Kept::new(&holdings, &held, 202));
        assert_eq!(victims.iter().filter(|v| v.repository.to_string() == "docker.io/a").count(), 3);
        assert!(Kept::new(&holdings, &held, 203) != Kept::default());
    }

    #[test]
    fn what_is_less_important_goes_first_and_shared_bytes_count_once() {
        let a = holding("a", &[], vec![image(1, 1, &[2]), blob(2, 100, 1)]);
        let b = holding("b", &[], vec![image(3, 2, &[2, 4]), blob(2, 100, 2), blob(4, 50, 2)]);
        let c = holding("c", &[], vec![image(5, 3, &[6]), blob(6, 10, 3)]);
        let holdings = [a, b, c];
        let held: Vec<_> =
            [(0, 1), (1, 3), (2, 5)].iter().map(|(i, n)| (holdings[*i].repository.clone(), digest(*n))).collect();
        let kept = |room| {
            let kept = Kept::new(&holdings, &held, room);
            (0..3).filter(|i| kept.0.iter().any(|(at, _)| at == i)).collect::<Vec<_>>()
        };
        assert_eq!(kept(163), [0, 1, 2]);
        assert_eq!(kept(162), [0, 1]);
        assert_eq!(kept(101), [0]);
        // What comes after the first that does not fit is not kept, though it would fit.
        assert_eq!(kept(100), [0; 0]);
        // What is named and not held takes no room.
        let absent = [(holdings[2].repository.clone(), digest(9)), held[2].clone()];
        assert_eq!(Kept::new(&holdings, &absent, 11).0.len(), 1);
    }
}

//! What goes together: an image with its tags and its blobs. Pure.

use std::collections::HashMap;
use std::collections::HashSet;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::Tag;
use crate::store::Kind;
use crate::store::Linked;
use crate::store::Tagged;

use super::Holding;
use super::popularity::Place;
use super::popularity::Popularity;

/// For so long a blob without a manifest is taken for a part of one that is just being fetched.
const JUST_COME: Duration = Duration::from_mins(1);

/// An image, or a blob that no manifest here names.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) holding: usize,
    pub(super) tags: Vec<Tag>,
    pub(super) manifest: Option<Digest>,
    pub(super) blobs: Vec<Digest>,
    /// Its last use.
    used: Timestamp,
    /// The tags of indexes that name it, with their last uses.
    through: Vec<(Tag, Timestamp)>,
    /// A tag meant it, none does any more, and nobody used it since.
    superseded: bool,
}

impl Unit {
    /// What goes first has the lower rank: what was superseded, by its last use; then what is less popular.
    ///
    /// An image is as popular as the tags that mean it. One that an index names is as popular as the index's tags as long as it
    /// was used about as lately: a platform that nobody uses stands for itself.
    pub(super) fn rank(&self, holdings: &[Holding], popularity: &Popularity) -> (bool, Place) {
        let used = popularity.of_moment(self.used);
        let Some(holding) = holdings.get(self.holding) else { return (false, used) };
        if self.superseded {
            return (false, used);
        }
        // A blob that has just come: its manifest may be about to be written down, and is what says how popular it is.
        if self.manifest.is_none() && popularity.upto().since(self.used) < JUST_COME {
            return (true, used.max(popularity.of_moment(popularity.upto())));
        }
        let of = &holding.repository;
        let own = self.manifest.and_then(|digest| popularity.of_image(of, &digest));
        let named = self.tags.iter().filter_map(|tag| popularity.of_tag(of, tag));
        let lately = self.through.iter().filter(|(_, at)| popularity.of_moment(*at) <= used + 1.0);
        let through = lately.filter_map(|(tag, _)| popularity.of_tag(of, tag));
        (true, own.into_iter().chain(named).chain(through).fold(used, Place::max))
    }
}

/// The units of one repository.
pub(super) fn units_of(index: usize, holding: &Holding) -> Vec<Unit> {
    let names = Names::of(holding);
    let mut units = Vec::new();
    let mut placed: HashSet<Digest> = HashSet::new();
    for link in holding.links.iter().filter(|l| is_manifest(l)) {
        // Child manifests are units of their own; what is not held is not there to go.
        let is_blob = |c: &&Digest| names.links.get(*c).is_some_and(|l| !is_manifest(l));
        let blobs: Vec<Digest> = link.children.iter().filter(is_blob).copied().collect();
        placed.extend(&blobs);
        let own = blobs.iter().filter(|b| names.parents.get(b).is_some_and(|p| p.len() == 1));
        let own = own.filter_map(|b| names.links.get(b)).map(|l| used(l));
        let tagged = names.tags(&link.link.digest);
        let parents = names.parents.get(&link.link.digest).map(Vec::as_slice).unwrap_or_default();
        let through = parents.iter().flat_map(|parent| names.tags(parent));
        let used = tagged.iter().map(|t| used_tag(t)).chain(own).fold(used(link), Timestamp::max);
        units.push(Unit {
            holding: index,
            tags: tagged.iter().map(|t| t.record.tag.clone()).collect(),
            manifest: Some(link.link.digest),
            blobs,
            used,
            through: through.map(|t| (t.record.tag.clone(), used_tag(t))).collect(),
            superseded: names.is_superseded(link, parents),
        });
    }
    let orphans = holding.links.iter().filter(|l| !is_manifest(l) && !placed.contains(&l.link.digest));
    units.extend(orphans.map(|l| Unit {
        holding: index,
        tags: Vec::new(),
        manifest: None,
        blobs: vec![l.link.digest],
        used: used(l),
        through: Vec::new(),
        superseded: false,
    }));
    // Tags whose manifest is not held: they cost nothing, and go with nothing.
    units
}

/// Who names what in a repository.
struct Names<'a> {
    links: HashMap<Digest, &'a Linked>,
    parents: HashMap<Digest, Vec<Digest>>,
    tags: HashMap<Digest, Vec<&'a Tagged>>,
    /// When the last of the tags that meant an image before came to mean another.
    moved: HashMap<Digest, Timestamp>,
}

impl<'a> Names<'a> {
    fn of(holding: &'a Holding) -> Self {
        let mut parents: HashMap<Digest, Vec<Digest>> = HashMap::new();
        for link in &holding.links {
            for child in &link.children {
                parents.entry(*child).or_default().push(link.link.digest);
            }
        }
        let mut tags: HashMap<Digest, Vec<&Tagged>> = HashMap::new();
        let mut moved: HashMap<Digest, Timestamp> = HashMap::new();
        for tagged in &holding.tags {
            tags.entry(tagged.record.digest).or_default().push(tagged);
            let history = &tagged.record.history;
            for ((before, _), (_, since)) in history.iter().zip(history.iter().skip(1)) {
                let moved = moved.entry(*before).or_default();
                *moved = since.max(moved).to_owned();
            }
        }
        let links = holding.links.iter().map(|l| (l.link.digest, l)).collect();
        Self { links, parents, tags, moved }
    }

    fn tags(&self, digest: &Digest) -> &[&'a Tagged] {
        self.tags.get(digest).map(Vec::as_slice).unwrap_or_default()
    }

    /// When no tag meant it any more; none where one does, or none ever did.
    fn end(&self, digest: &Digest) -> Option<Timestamp> {
        if self.tags.contains_key(digest) { None } else { self.moved.get(digest).copied() }
    }

    fn is_superseded(&self, link: &Linked, parents: &[Digest]) -> bool {
        let own = self.end(&link.link.digest);
        if self.tags.contains_key(&link.link.digest) || (own.is_none() && parents.is_empty()) {
            return false;
        }
        // Of an image of several indexes the last one decides.
        let ends = parents.iter().map(|parent| self.end(parent)).chain(own.map(Some));
        let last = ends.reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))).flatten();
        last.is_some_and(|last| used(link) <= last)
    }
}

pub(super) fn is_manifest(link: &Linked) -> bool {
    matches!(link.link.kind, Kind::Manifest { .. })
}

/// The last use; what was never seen to be used was used when it came.
fn used(link: &Linked) -> Timestamp {
    link.used.unwrap_or(link.link.at)
}

fn used_tag(tagged: &Tagged) -> Timestamp {
    tagged.used.unwrap_or(tagged.record.at)
}

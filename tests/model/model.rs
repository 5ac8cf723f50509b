//! What must hold, kept as plain maps: which tags mean what, what was promised to whom, and why something may go.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use larder::clock::Timestamp;
use larder::oci::Digest;
use tokio::time::Instant;

use crate::universe::UNIVERSE;

/// A place: a repository and what it has.
pub(crate) type Place = (usize, Digest);

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) tags: BTreeMap<(usize, usize), Digest>,
    /// What was last seen to be there.
    pub(crate) present: BTreeSet<Place>,
    /// Until when what a client was told holds.
    pub(crate) leases: HashMap<Place, Instant>,
    /// What was pushed by its digest alone, and never had a tag or an index that went.
    pub(crate) untagged: BTreeSet<Place>,
    /// What was pushed by its digest again, after it had a tag.
    pub(crate) pushed_again: BTreeSet<Place>,
    /// When its last tag was moved to another, or it was pushed again after that.
    pub(crate) replaced: BTreeMap<Place, Timestamp>,
    pub(crate) runs: BTreeMap<(usize, usize, usize), Digest>,
}

impl Model {
    pub(crate) fn is_tagged(&self, at: usize, digest: &Digest) -> bool {
        self.tags.iter().any(|((of, _), means)| *of == at && means == digest)
    }

    /// Why something that was there may not be gone after a collection; none where it may.
    pub(crate) fn keeper(
        &self,
        place: &Place,
        ended: Instant,
        now: Timestamp,
        keep: std::time::Duration,
    ) -> Option<String> {
        let (at, digest) = place;
        if self.leases.get(place).is_some_and(|until| *until > ended) {
            return Some("a lease".to_owned());
        }
        let here = |digest: &Digest| self.present.contains(&(*at, *digest));
        let names = |parent: &&crate::universe::Known| {
            here(&parent.digest) && (parent.blobs.contains(digest) || parent.children.contains(digest))
        };
        if let Some(parent) = UNIVERSE.manifests.iter().find(names) {
            return Some(format!("{} names it", parent.digest));
        }
        let known = UNIVERSE.known(digest)?;
        if self.is_tagged(*at, digest) {
            return Some("a tag means it".to_owned());
        }
        if self.runs.iter().any(|((_, of, _), means)| of == at && means == digest) {
            return Some("a run saw it".to_owned());
        }
        if let Some(subject) = &known.subject {
            return here(subject).then(|| "its subject is here".to_owned());
        }
        if self.untagged.contains(place) {
            return Some("it never had a tag".to_owned());
        }
        self.replaced.get(place).filter(|at| now.since(**at) < keep).map(|_| "its time is not over".to_owned())
    }

    /// A manifest came.
    pub(crate) fn put(&mut self, at: usize, digest: Digest, tag: Option<usize>, now: Timestamp) {
        let place = (at, digest);
        if let Some(tag) = tag {
            self.untagged.remove(&place);
            self.pushed_again.remove(&place);
            self.replaced.remove(&place);
            if let Some(before) = self.tags.insert((at, tag), digest)
                && before != digest
                && !self.is_tagged(at, &before)
            {
                self.replaced.insert((at, before), now);
            }
        } else if !self.is_tagged(at, &digest) {
            if let Some(since) = self.replaced.get_mut(&place) {
                *since = now;
            } else if !self.present.contains(&place) || self.untagged.contains(&place) {
                self.untagged.insert(place);
            }
            self.pushed_again.insert(place);
        }
    }

    /// A tag went by a removal.
    pub(crate) fn untag(&mut self, at: usize, tag: usize) {
        let Some(digest) = self.tags.remove(&(at, tag)) else { return };
        if !self.is_tagged(at, &digest) {
            self.replaced.remove(&(at, digest));
        }
    }

    /// A manifest or a blob went.
    pub(crate) fn gone(&mut self, place: &Place) {
        let (at, digest) = place;
        self.untagged.remove(place);
        self.pushed_again.remove(place);
        self.replaced.remove(place);
        self.leases.remove(place);
        self.present.remove(place);
        self.tags.retain(|(of, _), means| !(of == at && means == digest));
        for child in UNIVERSE.known(digest).into_iter().flat_map(|known| &known.children) {
            if !self.is_tagged(*at, child) {
                let child = (*at, *child);
                self.untagged.remove(&child);
                self.pushed_again.remove(&child);
                self.replaced.remove(&child);
            }
        }
    }
}

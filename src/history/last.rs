//! When each image was used last.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::Pull;
use super::log::Segment;
use super::read::Entries;
use super::segment::Entry;

/// The last uses of images, as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct LastPulls {
    covered_since: Option<Timestamp>,
    repositories: HashMap<RepositoryKey, Uses>,
}

#[derive(Clone, Debug, Default)]
struct Uses {
    tags: HashMap<Tag, Timestamp>,
    digests: HashMap<Digest, Timestamp>,
}

impl LastPulls {
    pub(super) fn read(
        segments: Vec<Segment>,
        covered: Option<Timestamp>,
        wanted: impl Fn(&RepositoryKey) -> bool,
    ) -> Self {
        let mut last = Self { covered_since: covered, repositories: HashMap::new() };
        let mut entries = Entries::new(segments, Timestamp::default());
        while let Some(entry) = entries.next() {
            match entry {
                Ok(Entry::Pull(pull)) if wanted(&pull.repository) => last.add(pull),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = %crate::telemetry::chain(&error), "some pulls of the past are not known");
                    // What can't be read may have been a use of anything, just before the next segment began or, in the last
                    // one, just now.
                    let known = entries.next_start();
                    last.covered_since = last.covered_since.zip(known).map(|(since, known)| since.max(known));
                }
            }
        }
        last
    }

    fn add(&mut self, pull: Pull) {
        let uses = self.repositories.entry(pull.repository).or_default();
        let by_digest = uses.digests.entry(pull.digest).or_default();
        *by_digest = pull.at.max(*by_digest);
        if let Some(tag) = pull.tag {
            let by_tag = uses.tags.entry(tag).or_default();
            *by_tag = pull.at.max(*by_tag);
        }
    }

    /// From when on every use is known; none where nothing is.
    pub fn covered_since(&self) -> Option<Timestamp> {
        self.covered_since
    }

    /// When a tag was used last, whatever it meant then; none where no use of it is known.
    pub fn of_tag(&self, of: &RepositoryKey, tag: &Tag) -> Option<Timestamp> {
        self.repositories.get(of)?.tags.get(tag).copied()
    }

    /// When a manifest was used last, by its digest or by a tag; none where no use of it is known.
    pub fn of_digest(&self, of: &RepositoryKey, digest: &Digest) -> Option<Timestamp> {
        self.repositories.get(of)?.digests.get(digest).copied()
    }

    /// Every last use by a tag: repository, tag and time.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&RepositoryKey, &Tag, Timestamp)> {
        self.repositories.iter().flat_map(|(of, uses)| uses.tags.iter().map(move |(tag, at)| (of, tag, *at)))
    }

    /// Every last use of a manifest: repository, digest and time.
    pub(super) fn digests(&self) -> impl Iterator<Item = (&RepositoryKey, &Digest, Timestamp)> {
        self.repositories.iter().flat_map(|(of, uses)| uses.digests.iter().map(move |(digest, at)| (of, digest, *at)))
    }
}

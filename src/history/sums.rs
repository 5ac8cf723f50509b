//! What a time comes to, by repository.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::oci::RepositoryKey;

use super::log::Segment;
use super::read::Entries;
use super::segment::Entry;

/// What clients took of a repository, and what policies did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Manifests that were asked for.
    pub pulls: u64,
    /// Those of them that were answered without a pull of the upstream's.
    pub hits: u64,
    /// Bytes of blobs that were asked for.
    pub sent: u64,
    /// Those of them that were here.
    pub from_here: u64,
    /// Tags and untagged manifests that policies deleted.
    pub pruned: u64,
    /// Bytes that nothing needed any more after that.
    pub freed: u64,
    /// The last use; none where there was none.
    pub last: Option<Timestamp>,
}

impl Sums {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.pulls = self.pulls.saturating_add(other.pulls);
        self.hits = self.hits.saturating_add(other.hits);
        self.sent = self.sent.saturating_add(other.sent);
        self.from_here = self.from_here.saturating_add(other.from_here);
        self.pruned = self.pruned.saturating_add(other.pruned);
        self.freed = self.freed.saturating_add(other.freed);
        self.last = self.last.max(other.last);
    }
}

/// Adds up what was noted since then.
pub(super) fn sums(segments: Vec<Segment>, since: Timestamp) -> BTreeMap<RepositoryKey, Sums> {
    let mut all: BTreeMap<RepositoryKey, Sums> = BTreeMap::new();
    for entry in Entries::new(segments, since) {
        match entry {
            Ok(Entry::Pull(pull)) => {
                let (pulls, hits) = (u64::from(pull.pulls), u64::from(pull.hits));
                let one = Sums { pulls, hits, last: Some(pull.at), ..Sums::default() };
                all.entry(pull.repository).or_default().add(&one);
            }
            Ok(Entry::Sent(sent)) => {
                let one = Sums { sent: sent.bytes, from_here: sent.from_here, ..Sums::default() };
                all.entry(sent.repository).or_default().add(&one);
            }
            Ok(Entry::Pruned(pruned)) => {
                let one = Sums { pruned: pruned.deleted, freed: pruned.freed, ..Sums::default() };
                all.entry(pruned.repository).or_default().add(&one);
            }
            Err(error) => {
                tracing::warn!(error = %crate::telemetry::chain(&error), "some of the past is not in these sums");
            }
        }
    }
    all
}

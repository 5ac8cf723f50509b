//! What names a manifest as far as it was seen: looked at once more before the manifest is deleted.
//!
//! Between the list that a plan is made from and a deletion somebody may push an index that names what has no tag.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::oci::Digest;
use crate::oci::RepositoryName;
use crate::retention::records::Holding;
use crate::retention::records::ManifestFact;

/// Repositories that are watched; one that fell out is listed anew before something is deleted in it.
const REPOSITORIES_MAX: usize = 256;

/// How long a look is good for, where many deletions follow each other.
const LOOK_KEPT: Duration = Duration::from_secs(1);

/// What was seen of each repository.
pub(super) struct Watch(Cache<RepositoryName, Arc<Mutex<Seen>>>);

#[derive(Debug, Default)]
struct Seen {
    known: BTreeSet<Digest>,
    /// By what is named: who names it.
    namers: BTreeMap<Digest, BTreeSet<Digest>>,
    gone: BTreeSet<Digest>,
    looked: Option<Instant>,
}

impl Seen {
    fn add<'a>(&mut self, facts: impl IntoIterator<Item = &'a ManifestFact>) {
        for fact in facts {
            self.known.insert(fact.digest);
            self.gone.remove(&fact.digest);
            for child in &fact.children {
                self.namers.entry(*child).or_default().insert(fact.digest);
            }
        }
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self(Cache::new(REPOSITORIES_MAX))
    }
}

impl Watch {
    /// A repository was listed.
    pub(super) fn begin(&self, holding: &Holding) {
        // From the list to the first deletion it may take long.
        let mut seen = Seen::default();
        seen.add(&holding.manifests);
        self.0.insert(holding.repository.name.clone(), Arc::new(Mutex::new(seen)));
    }

    /// Whether it was listed.
    pub(super) fn knows(&self, repository: &RepositoryName) -> bool {
        self.0.get(repository).is_some()
    }

    /// Whether the last look at what is new was too long ago.
    pub(super) fn is_due(&self, repository: &RepositoryName) -> bool {
        self.with(repository, |seen| seen.looked.is_none_or(|at| at.elapsed() >= LOOK_KEPT)).unwrap_or(true)
    }

    /// Those of a list that were not seen yet.
    pub(super) fn fresh(&self, repository: &RepositoryName, listed: impl Iterator<Item = Digest>) -> Vec<Digest> {
        let is_new = |seen: &mut Seen| {
            listed.filter(|digest| !seen.known.contains(digest) || seen.gone.contains(digest)).collect()
        };
        self.with(repository, is_new).unwrap_or_default()
    }

    /// What is new was looked at.
    pub(super) fn note<'a>(&self, repository: &RepositoryName, facts: impl IntoIterator<Item = &'a ManifestFact>) {
        self.with(repository, |seen| {
            seen.add(facts);
            seen.looked = Some(Instant::now());
        });
    }

    /// Manifests are gone: they name nothing any more.
    pub(super) fn gone(&self, repository: &RepositoryName, digests: &[Digest]) {
        self.with(repository, |seen| {
            seen.gone.extend(digests);
        });
    }

    /// What names a manifest, as far as it was seen.
    pub(super) fn named_by(&self, repository: &RepositoryName, digest: &Digest) -> Option<Digest> {
        let left = |seen: &mut Seen| seen.namers.get(digest)?.iter().find(|namer| !seen.gone.contains(namer)).copied();
        self.with(repository, left).flatten()
    }

    fn with<T>(&self, repository: &RepositoryName, look: impl FnOnce(&mut Seen) -> T) -> Option<T> {
        let seen = self.0.get(repository)?;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        Some(look(&mut seen))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.0.len()).finish()
    }
}

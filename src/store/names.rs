//! Locks by name: changes to one tag, or to one digest of one repository, come one after another; others don't wait.

use std::hash::BuildHasher;
use std::hash::Hash;
use std::hash::RandomState;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

/// How many locks there are: two names share one now and then, which costs a wait and nothing else.
const LOCKS: usize = 1024;

/// Something of a repository that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Name {
    /// A tag.
    Tag(Tag),
    /// A link to bytes.
    Digest(Digest),
}

/// The locks. Names are spread over a fixed count of them, so that memory is bounded.
#[derive(Debug)]
pub(super) struct Names {
    locks: Vec<Arc<Mutex<()>>>,
    spread: RandomState,
}

/// Names that are locked, until it is dropped.
#[derive(Debug)]
pub(super) struct Locked {
    _guards: Vec<OwnedMutexGuard<()>>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self { locks: (0..LOCKS).map(|_| Arc::default()).collect(), spread: RandomState::new() }
    }

    fn place<T: Hash>(&self, of: &RepositoryKey, name: &T) -> usize {
        usize::try_from(self.spread.hash_one((of, name)) % LOCKS as u64).unwrap_or_default()
    }

    /// Waits for all of `names`. They are taken in one order by everybody, so nobody waits for himself.
    pub(super) async fn lock<'a>(&self, of: &RepositoryKey, names: impl IntoIterator<Item = &'a Name>) -> Locked {
        let mut places: Vec<usize> = names.into_iter().map(|name| self.place(of, name)).collect();
        places.sort_unstable();
        places.dedup();
        let mut guards = Vec::with_capacity(places.len());
        for lock in places.into_iter().filter_map(|place| self.locks.get(place)) {
            guards.push(Arc::clone(lock).lock_owned().await);
        }
        Locked { _guards: guards }
    }

    /// The lock of one name, unless somebody changes it right now.
    pub(super) fn try_lock(&self, of: &RepositoryKey, name: &Name) -> Option<Locked> {
        let lock = self.locks.get(self.place(of, name))?;
        let guard = Arc::clone(lock).try_lock_owned().ok()?;
        Some(Locked { _guards: vec![guard] })
    }
}

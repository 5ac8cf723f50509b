//! What hits are served from: tags, manifests and open files in memory, bounded.
//!
//! A load puts its result in through a place that it took before it read; a change removes that place. So what a load
//! read before a change never comes back after it.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use quick_cache::Equivalent;
use quick_cache::OptionsBuilder;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;

use super::Held;
use super::HeldBytes;
use super::TagState;

/// Parts of each cache, each with a lock and its share of the bytes: a share must hold the largest manifest.
const SHARDS: usize = 4;
/// What an entry takes beside its bytes, about.
const ENTRY_BYTES: u64 = 512;
/// The share of the memory that goes to tags.
const TAGS_SHARE: u64 = 5;

type TagKey = (RepositoryKey, Tag);
type HeldKey = (RepositoryKey, Digest);

/// A key that is not cloned for the sake of a look. It hashes as the pair does.
#[derive(Hash)]
struct Look<'a, T>(&'a RepositoryKey, &'a T);

impl<T: Eq> Equivalent<(RepositoryKey, T)> for Look<'_, T> {
    fn equivalent(&self, key: &(RepositoryKey, T)) -> bool {
        *self.1 == key.1 && *self.0 == key.0
    }
}

/// The weight of what is held: a file weighs so much that as many as may be open fill the cache.
#[derive(Clone, Copy, Debug)]
struct ByMemory {
    file: u64,
}

impl Weighter<HeldKey, Arc<Held>> for ByMemory {
    fn weight(&self, _: &HeldKey, held: &Arc<Held>) -> u64 {
        match &held.bytes {
            HeldBytes::Memory(bytes) => bytes.len() as u64 + ENTRY_BYTES,
            HeldBytes::File { .. } => self.file,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct ByRecord;

impl Weighter<TagKey, Arc<TagState>> for ByRecord {
    fn weight(&self, _: &TagKey, state: &Arc<TagState>) -> u64 {
        ENTRY_BYTES + state.record.history.len() as u64 * 80
    }
}

/// Tags, manifests and open files that were asked for.
pub(super) struct Hot {
    tags: Cache<TagKey, Arc<TagState>, ByRecord>,
    held: Cache<HeldKey, Arc<Held>, ByMemory>,
}

impl std::fmt::Debug for Hot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hot").field("tags", &self.tags.len()).field("held", &self.held.len()).finish()
    }
}

fn cache<K: Eq + Hash, V: Clone, W: Weighter<K, V> + Clone>(bytes: u64, weighter: W) -> Option<Cache<K, V, W>> {
    let options = OptionsBuilder::new()
        .shards(SHARDS)
        .estimated_items_capacity(usize::try_from(bytes / (2 * ENTRY_BYTES)).unwrap_or(1).max(SHARDS))
        .weight_capacity(bytes)
        .build()
        .ok()?;
    Some(Cache::with_options(
        options,
        weighter,
        quick_cache::DefaultHashBuilder::default(),
        quick_cache::sync::DefaultLifecycle::default(),
    ))
}

impl Hot {
    /// Room for `bytes` in memory and `files` open files.
    pub(super) fn new(bytes: u64, files: u64) -> Self {
        let tags = (bytes / TAGS_SHARE).max(ENTRY_BYTES * 64);
        let held = bytes.saturating_sub(tags).max(ENTRY_BYTES * 64);
        let file = ByMemory { file: (held / files.max(1)).max(1) };
        Self {
            tags: cache(tags, ByRecord).expect("the options name all that a cache needs"),
            held: cache(held, file).expect("the options name all that a cache needs"),
        }
    }

    pub(super) fn tag(&self, of: &RepositoryKey, tag: &Tag) -> Option<Arc<TagState>> {
        self.tags.get(&Look(of, tag))
    }

    /// What is held. A file that does not look as it did is opened anew, which finds out why; this is the one look that a
    /// hit takes at its file.
    pub(super) fn held(&self, of: &RepositoryKey, digest: &Digest) -> Option<Arc<Held>> {
        let held = self.held.get(&Look(of, digest))?;
        if held.is_unchanged() {
            return Some(held);
        }
        self.forget(of, digest);
        None
    }

    /// The tag, by `load` where it is not in memory; one load at a time.
    pub(super) async fn tag_or<F, E>(&self, of: &RepositoryKey, tag: &Tag, load: F) -> Result<Option<Arc<TagState>>, E>
    where
        F: Future<Output = Result<Option<Arc<TagState>>, E>>,
    {
        match self.tags.get_value_or_guard_async(&(of.clone(), tag.clone())).await {
            Ok(state) => Ok(Some(state)),
            Err(place) => {
                let loaded = load.await?;
                if let Some(state) = &loaded {
                    // Refused where a change came in between: the next look reads again.
                    drop(place.insert(Arc::clone(state)));
                }
                Ok(loaded)
            }
        }
    }

    /// What is held, by `load` where it is not in memory; one load at a time.
    pub(super) async fn held_or<F, E>(
        &self,
        of: &RepositoryKey,
        digest: &Digest,
        load: F,
    ) -> Result<Option<Arc<Held>>, E>
    where
        F: Future<Output = Result<Option<Arc<Held>>, E>>,
    {
        match self.held.get_value_or_guard_async(&(of.clone(), *digest)).await {
            Ok(held) => Ok(Some(held)),
            Err(place) => {
                let loaded = load.await?;
                if let Some(held) = &loaded {
                    drop(place.insert(Arc::clone(held)));
                }
                Ok(loaded)
            }
        }
    }

    /// A tag that was just changed.
    pub(super) fn put_tag(&self, of: &RepositoryKey, state: Arc<TagState>) {
        self.tags.insert((of.clone(), state.record.tag.clone()), state);
    }

    pub(super) fn forget_tag(&self, of: &RepositoryKey, tag: &Tag) {
        self.tags.remove(&Look(of, tag));
    }

    pub(super) fn forget(&self, of: &RepositoryKey, digest: &Digest) {
        self.held.remove(&Look(of, digest));
    }

    /// Forgets the bytes of `digest` in every repository: they were stored anew, or are going.
    pub(super) fn forget_everywhere(&self, digest: &Digest) {
        self.held.retain(|key, _| key.1 != *digest);
    }
}

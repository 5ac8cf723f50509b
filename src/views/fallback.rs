//! Fallback for build caches: where the tag of a hosted repository is missing, the cache of another branch may stand in.
//!
//! It is opt-in (`build_caches`), and holds only for what is a build cache: anything else under another tag's name would be
//! a wrong answer.

use std::sync::Arc;

use arc_swap::ArcSwap;
use quick_cache::sync::Cache as Bounded;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::BuildCache;
use crate::oci::Class;
use crate::oci::Digest;
use crate::oci::Manifest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::store;
use crate::store::Held;
use crate::store::Kind;
use crate::store::Store;

/// The longest configuration of an image that is read for the cache within it. BuildKit itself reads 1 MiB at most.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// How many images of an index are looked at.
const IMAGES_MAX: usize = 32;

/// How many build caches are remembered as such.
const KNOWN_MAX: usize = 10_000;

/// What missing tags may be answered with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fallbacks {
    entries: Arc<ArcSwap<Vec<BuildCache>>>,
    store: Store,
    /// Manifests that were seen to be build caches; a digest never changes.
    known: Arc<Bounded<(RepositoryKey, Digest), ()>>,
}

impl Fallbacks {
    /// The configured ones, over what `store` holds.
    pub fn new(store: Store, entries: Vec<BuildCache>) -> Self {
        let entries = Arc::new(ArcSwap::from_pointee(entries));
        Self { entries, store, known: Arc::new(Bounded::new(KNOWN_MAX)) }
    }

    /// Takes up a new configuration.
    pub fn reload(&self, entries: Vec<BuildCache>) {
        self.entries.store(Arc::new(entries));
    }

    /// The tags that may stand in for a missing one, in order. None where the repository is not hosted, no entry names it, or
    /// the tag is not that of a cache.
    pub fn tags(&self, repository: &RepositoryKey, missing: &Tag) -> Vec<Tag> {
        if !repository.is_hosted() {
            return Vec::new();
        }
        stand_ins(&self.entries.load(), repository.name.as_str(), missing)
    }

    /// What the tag means by its record; none where there is none.
    ///
    /// # Errors
    ///
    /// The store can't be read.
    pub async fn meant(&self, repository: &RepositoryKey, tag: &Tag) -> Result<Option<Digest>, store::Error> {
        let state = self.store.tag(repository, tag).await?;
        Ok(state.filter(|state| state.record.gone.is_none()).map(|state| state.record.digest))
    }

    /// Whether that manifest is a build cache, or an image with one inside.
    ///
    /// # Errors
    ///
    /// The store can't be read.
    pub async fn is_cache(&self, repository: &RepositoryKey, digest: &Digest) -> Result<bool, store::Error> {
        let key = (repository.clone(), *digest);
        if self.known.get(&key).is_some() {
            return Ok(true);
        }
        let found = self.look(repository, digest).await?;
        if found {
            self.known.insert(key, ());
        }
        Ok(found)
    }

    async fn look(&self, repository: &RepositoryKey, digest: &Digest) -> Result<bool, store::Error> {
        let Some(manifest) = self.manifest(repository, digest).await? else { return Ok(false) };
        match manifest.class() {
            Class::BuildCache => Ok(true),
            Class::Image => self.has_cache_inside(repository, &manifest).await,
            Class::Index => {
                let images = manifest.links.manifests.iter().filter(|entry| entry.media_type.is_image());
                for image in images.take(IMAGES_MAX) {
                    if let Some(image) = self.manifest(repository, &image.digest).await?
                        && self.has_cache_inside(repository, &image).await?
                    {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Class::Artifact | Class::Unknown => Ok(false),
        }
    }

    /// Whether an image's configuration holds an inline cache (`--cache-to type=inline`).
    async fn has_cache_inside(&self, repository: &RepositoryKey, image: &Manifest) -> Result<bool, store::Error> {
        let Some(config) = &image.links.config else { return Ok(false) };
        let Some(held) = self.store.held(repository, &config.digest).await? else { return Ok(false) };
        if held.link.size > CONFIG_BYTES_MAX {
            return Ok(false);
        }
        Ok(holds_inline_cache(&held.read().await?))
    }

    async fn manifest(&self, repository: &RepositoryKey, digest: &Digest) -> Result<Option<Manifest>, store::Error> {
        let held = self.store.held(repository, digest).await?;
        Ok(held.as_deref().and_then(parsed))
    }
}

fn parsed(held: &Held) -> Option<Manifest> {
    let Kind::Manifest { media_type, .. } = &held.link.kind else { return None };
    Manifest::parse(held.manifest()?.clone(), media_type.as_str()).ok()
}

/// What BuildKit writes into the configuration of an image that carries its cache.
#[derive(Deserialize)]
struct Configuration {
    #[serde(rename = "moby.buildkit.cache.v0")]
    cache: Option<IgnoredAny>,
}

fn holds_inline_cache(config: &[u8]) -> bool {
    serde_json::from_slice::<Configuration>(config).is_ok_and(|config| config.cache.is_some())
}

/// The tags that stand in for a missing one: those of the first entry that names the repository and reads the tag, with
/// the templates left out that have an unknown variable or make no tag.
fn stand_ins(entries: &[BuildCache], repository: &str, missing: &Tag) -> Vec<Tag> {
    if is_of_a_subject(missing) {
        return Vec::new();
    }
    let mut named = entries.iter().filter(|entry| entry.pattern.matches(repository));
    let Some((entry, variables)) = named.find_map(|entry| Some((entry, entry.tag.split(missing.as_str())?))) else {
        return Vec::new();
    };
    let mut tags: Vec<Tag> = Vec::with_capacity(entry.fallback.len());
    for tag in entry.fallback.iter().filter_map(|template| template.render(&variables)?.parse().ok()) {
        if tag != *missing && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

/// Whether the tag stands for what refers to a digest (distribution-spec, "Referrers Tag Schema"; cosign's `….sig`): who asks
/// for it wants that and nothing else.
fn is_of_a_subject(tag: &Tag) -> bool {
    let rest = tag.as_str().strip_prefix("sha256-").or_else(|| tag.as_str().strip_prefix("sha512-"));
    rest.is_some_and(|rest| rest.bytes().take_while(u8::is_ascii_hexdigit).count() >= 64)
}

#[cfg(test)]
mod tests;

//! The trees of a repository's manifests, read from the registry once: what a digest names never changes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use quick_cache::sync::Cache;

use crate::config::retention::RemoteLimits;
use crate::oci::Digest;
use crate::oci::Manifest;
use crate::oci::RepositoryName;
use crate::retention::records::ManifestFact;
use crate::retention::records::Pulled;

use super::Result;
use super::registry::Registry;

/// Manifests that were read, by repository: that one has it says nothing of another.
pub(super) struct Trees(Cache<(RepositoryName, Digest), Arc<ManifestFact>>);

impl Trees {
    pub(super) fn new(limits: &RemoteLimits) -> Self {
        Self(Cache::new(usize::try_from(limits.known).unwrap_or(usize::MAX)))
    }

    /// These manifests and all that they name, each once. What is not there is left out: an index may name what nobody
    /// pushed.
    ///
    /// `listed` says what the registry lists by itself, where it lists manifests; what it names besides is not asked for.
    pub(super) async fn read(
        &self,
        registry: &Registry,
        repository: &RepositoryName,
        roots: impl IntoIterator<Item = Digest>,
        listed: Option<&BTreeSet<Digest>>,
    ) -> Result<BTreeMap<Digest, ManifestFact>> {
        let mut facts = BTreeMap::new();
        let mut seen: BTreeSet<Digest> = roots.into_iter().collect();
        let mut next: Vec<Digest> = seen.iter().copied().collect();
        while !next.is_empty() {
            registry.bound(seen.len(), registry.limits.manifests, "manifests")?;
            let reading = next.drain(..).map(|digest| self.one(registry, repository, digest));
            let mut reading = stream::iter(reading.collect::<Vec<_>>()).buffer_unordered(registry.at_once());
            while let Some(fact) = reading.next().await {
                let Some(fact) = fact? else { continue };
                let fresh = fact.children.iter().filter(|child| listed.is_none_or(|all| all.contains(*child)));
                next.extend(fresh.filter(|child| seen.insert(**child)).copied());
                facts.insert(fact.digest, ManifestFact::clone(&fact));
            }
        }
        Ok(facts)
    }

    async fn one(
        &self,
        registry: &Registry,
        repository: &RepositoryName,
        digest: Digest,
    ) -> Result<Option<Arc<ManifestFact>>> {
        if let Some(known) = self.known(repository, digest) {
            return Ok(Some(known));
        }
        let Some(raw) = registry.manifest(repository, digest).await? else { return Ok(None) };
        self.take(registry, repository, digest, raw.bytes, &raw.content_type).map(Some)
    }

    /// A manifest that was read before.
    pub(super) fn known(&self, repository: &RepositoryName, digest: Digest) -> Option<Arc<ManifestFact>> {
        self.0.get(&(repository.clone(), digest))
    }

    /// Reads a manifest's bytes as they came.
    pub(super) fn take(
        &self,
        registry: &Registry,
        repository: &RepositoryName,
        digest: Digest,
        bytes: Bytes,
        content_type: &str,
    ) -> Result<Arc<ManifestFact>> {
        if Digest::of_with(digest.algorithm(), &bytes) != digest {
            return Err(registry.unusable(&format!("the manifest {digest} has other bytes than its digest says")));
        }
        let manifest = Manifest::parse(bytes, content_type).map_err(|error| {
            registry.unusable(&format!("the manifest {digest} of {repository} can't be read")).caused_by(error)
        })?;
        let fact = Arc::new(fact(digest, &manifest));
        self.0.insert((repository.clone(), digest), Arc::clone(&fact));
        Ok(fact)
    }
}

impl fmt::Debug for Trees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trees").field(&self.0.len()).finish()
    }
}

/// What a manifest says of itself.
pub(super) fn fact(digest: Digest, manifest: &Manifest) -> ManifestFact {
    let links = &manifest.links;
    let mut children: Vec<Digest> =
        links.manifests.iter().filter(|d| d.media_type.may_be_manifest()).map(|d| d.digest).collect();
    children.sort_unstable();
    children.dedup();
    // An older build cache is an index that lists blobs.
    let listed = links.manifests.iter().filter(|d| !d.media_type.may_be_manifest());
    let blobs: BTreeMap<Digest, u64> =
        links.config.iter().chain(&links.layers).chain(listed).map(|d| (d.digest, d.size)).collect();
    ManifestFact {
        digest,
        size: manifest.size(),
        class: Some(manifest.class()),
        pushed_at: None,
        pulled: Pulled::Unknown,
        children,
        blobs: blobs.into_iter().collect(),
        subject: links.subject.as_ref().map(|subject| subject.digest),
        id: None,
    }
}

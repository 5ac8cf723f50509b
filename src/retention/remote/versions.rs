//! Registries that list their manifests themselves: versions, each a manifest with its tags.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::RepositoryName;
use crate::oci::Tag;
use crate::retention::records::Holding;
use crate::retention::records::ManifestFact;
use crate::retention::records::Pulled;
use crate::retention::records::TagFact;

use super::Result;
use super::registry::Registry;
use super::trees::Trees;

/// A manifest as its registry lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) digest: Digest,
    pub(super) tags: Vec<TagFact>,
    /// When it came, or was changed last.
    pub(super) pushed_at: Option<Timestamp>,
    pub(super) pulled: Pulled,
    /// How the registry calls it, where that is not its digest.
    pub(super) id: Option<String>,
}

impl Version {
    /// Its tags, in the order of bytes.
    pub(super) fn tags(&self) -> BTreeSet<&Tag> {
        self.tags.iter().map(|fact| &fact.tag).collect()
    }
}

/// The tags of a version whose registry tells no times of tags, only when the version came and was changed. A name that is no
/// tag is an error: left out, its version would seem to have none.
pub(super) fn tags(
    registry: &Registry,
    digest: Digest,
    names: &[String],
    pushed_at: Option<Timestamp>,
    pulled: Pulled,
) -> Result<Vec<TagFact>> {
    let parse = |name: &String| {
        let tag = name.parse().map_err(|_| registry.unusable(&format!("`{name}`, a tag of {digest}, is none")))?;
        Ok(TagFact { tag, digest, pushed_at, pulled })
    };
    names.iter().map(parse).collect()
}

/// A repository from the list of its versions, and the trees of their manifests from the registry.
pub(super) async fn holding(
    registry: &Registry,
    trees: &Trees,
    repository: &RepositoryName,
    versions: Vec<Version>,
) -> Result<Holding> {
    let listed: BTreeSet<Digest> = versions.iter().map(|version| version.digest).collect();
    let facts = trees.read(registry, repository, listed.iter().copied(), Some(&listed)).await?;
    join(registry, repository, versions, facts)
}

/// A repository from the list of its versions and what their manifests say.
pub(super) fn join(
    registry: &Registry,
    repository: &RepositoryName,
    versions: Vec<Version>,
    mut facts: BTreeMap<Digest, ManifestFact>,
) -> Result<Holding> {
    let mut tags: BTreeMap<Tag, TagFact> = BTreeMap::new();
    for version in versions {
        let Some(fact) = facts.get_mut(&version.digest) else {
            // An index that can't be read may name anything.
            let digest = version.digest;
            return Err(registry.unusable(&format!("it lists {digest} of {repository}, and has no such manifest")));
        };
        (fact.pushed_at, fact.pulled, fact.id) = (version.pushed_at, version.pulled, version.id);
        for tag in version.tags {
            if let Some(other) = tags.insert(tag.tag.clone(), tag).filter(|other| other.digest != version.digest) {
                let tag = other.tag;
                return Err(registry.unusable(&format!("the tag {tag} of {repository} moved while it was listed")));
            }
        }
    }
    registry.bound(tags.len(), registry.limits.tags, "tags")?;
    Ok(Holding {
        repository: registry.key(repository),
        tags: tags.into_values().collect(),
        manifests: facts.into_values().collect(),
    })
}

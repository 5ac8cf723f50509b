//! Registries by the distribution specification alone (OCI 1.1): tags are deleted by their names, never a digest.
//!
//! When a tag was pushed and when it was pulled the specification does not tell: policies that ask for an age keep it.

use async_trait::async_trait;

use crate::oci::Reference;
use crate::oci::RepositoryName;
use crate::retention::records::Holding;
use crate::retention::records::Pulled;
use crate::retention::records::TagFact;
use crate::upstream::Removal;

use super::Call;
use super::Caps;
use super::Doomed;
use super::Outcome;
use super::Refused;
use super::Remote;
use super::Result;
use super::Target;
use super::deletes::Deletes;
use super::deletes::Way;
use super::graph;
use super::registry::Registry;
use super::trees::Trees;

/// A registry by the distribution specification.
#[derive(Debug)]
pub(super) struct Oci {
    registry: Registry,
    trees: Trees,
    deletes: Deletes,
}

impl Oci {
    pub(super) fn new(registry: Registry) -> Self {
        let trees = Trees::new(&registry.limits);
        Self { registry, trees, deletes: Deletes::new(&[Way::Tag]) }
    }
}

#[async_trait]
impl Remote for Oci {
    async fn repositories(&self) -> Result<Option<Vec<RepositoryName>>> {
        self.registry.repositories().await
    }

    async fn list(&self, repository: &RepositoryName) -> Result<Holding> {
        let tags = self.registry.tags(repository).await?;
        let resolved = self.registry.resolve_all(repository, tags).await?;
        let roots = resolved.iter().map(|(_, digest)| *digest);
        let facts = self.trees.read(&self.registry, repository, roots, None).await?;
        let tags =
            resolved.into_iter().map(|(tag, digest)| TagFact { tag, digest, pushed_at: None, pulled: Pulled::Unknown });
        Ok(Holding {
            repository: self.registry.key(repository),
            tags: tags.collect(),
            manifests: facts.into_values().collect(),
        })
    }

    fn calls(&self, holding: &Holding, doomed: &[Doomed]) -> (Vec<Call>, Vec<Refused>) {
        let (targets, refused) = graph::decide(holding, doomed, Caps::TAGS);
        let calls = targets.into_iter().filter_map(|target| {
            let Target::Tag { tag, .. } = &target else { return None };
            let request = self.registry.removal(&holding.repository.name, Removal::Tag(tag));
            Some(Call { target, request })
        });
        (calls.collect(), refused)
    }

    async fn carry_out(&self, repository: &RepositoryName, call: &Call) -> Result<Outcome> {
        let Target::Tag { tag, digest, .. } = &call.target else {
            return Ok(Outcome::Refused("this registry deletes by tag only".to_owned()));
        };
        match self.registry.resolve(repository, &Reference::Tag(tag.clone())).await? {
            None => Ok(Outcome::AlreadyGone),
            Some(now) if now != *digest => Ok(Outcome::Moved),
            Some(_) => self.deletes.delete(&self.registry, repository, tag).await,
        }
    }
}

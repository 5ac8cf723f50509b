//! Registries by the distribution specification alone (OCI 1.1): tags are deleted by their names, never a digest.
//!
//! When a tag was pushed and when it was pulled the specification does not tell: policies that ask for an age keep it.

use async_trait::async_trait;

use crate::oci::RepositoryName;
use crate::retention::records::Holding;
use crate::retention::records::Pulled;
use crate::retention::records::TagFact;

use super::Call;
use super::Doomed;
use super::Outcome;
use super::Refused;
use super::Remote;
use super::Result;
use super::deletes::Deletes;
use super::deletes::Way;
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
        Deletes::calls(&self.registry, holding, doomed)
    }

    async fn carry_out(&self, repository: &RepositoryName, call: &Call) -> Result<Outcome> {
        self.deletes.carry_out(&self.registry, repository, call).await
    }
}

//! Registries by the distribution specification alone (OCI 1.1): tags are deleted by their names, never a digest.
//!
//! When a tag was pushed and when it was pulled the specification does not tell: policies that ask for an age keep it.

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::oci::Reference;
use crate::oci::RepositoryName;
use crate::retention::records::Holding;
use crate::retention::records::Pulled;
use crate::retention::records::TagFact;
use crate::upstream::Removal;

use super::Call;
use super::Caps;
use super::Doomed;
use super::Fault;
use super::Outcome;
use super::Refused;
use super::Remote;
use super::Result;
use super::Target;
use super::graph;
use super::registry::Registry;
use super::trees::Trees;

/// How long a registry that can't delete tags is not asked again: longer than any run.
const CANT_KEPT: std::time::Duration = std::time::Duration::from_hours(1);

/// A registry by the distribution specification.
#[derive(Debug)]
pub(super) struct Oci {
    registry: Registry,
    trees: Trees,
    deletes: Mutex<Deletes>,
}

/// Whether the registry deletes tags, as far as it was seen.
#[derive(Debug)]
enum Deletes {
    Unknown,
    Yes,
    No { said: String, since: Instant },
}

impl Oci {
    pub(super) fn new(registry: Registry) -> Self {
        let trees = Trees::new(&registry.limits);
        Self { registry, trees, deletes: Mutex::new(Deletes::Unknown) }
    }

    /// Deletes a tag. The first one tells whether the registry can: until it has answered no other is sent.
    async fn delete(&self, repository: &RepositoryName, removal: Removal<'_>) -> Result<Outcome> {
        let mut deletes = self.deletes.lock().await;
        match &*deletes {
            Deletes::Yes => {
                drop(deletes);
                return Ok(match self.registry.delete(repository, removal).await {
                    Ok(true) => Outcome::Deleted,
                    Ok(false) => Outcome::AlreadyGone,
                    Err(error) => refused(error)?,
                });
            }
            Deletes::No { said, since } if since.elapsed() < CANT_KEPT => {
                return Ok(Outcome::Unsupported(said.clone()));
            }
            Deletes::No { .. } | Deletes::Unknown => {}
        }
        let said = match self.registry.delete(repository, removal).await {
            Ok(true) => {
                *deletes = Deletes::Yes;
                return Ok(Outcome::Deleted);
            }
            // docker-registry 2.8 says 400 DIGEST_INVALID; others 405, or 404 as if there were no such thing.
            Ok(false) => "404".to_owned(),
            Err(error) => match error.fault() {
                Fault::Status(status @ (400 | 404 | 405)) => status.to_string(),
                _ => return refused(error),
            },
        };
        let said = format!(
            "{} can't delete tags: it answered {said} to the first. Nothing was deleted; it needs OCI 1.1's tag \
             deletion (distribution 3, zot, larder), or another adapter",
            self.registry.name
        );
        *deletes = Deletes::No { said: said.clone(), since: Instant::now() };
        Ok(Outcome::Unsupported(said))
    }
}

/// What a registry that deletes tags says no to.
fn refused(error: super::Error) -> Result<Outcome> {
    match error.fault() {
        Fault::Denied | Fault::Status(400 | 405 | 409 | 412 | 422) => Ok(Outcome::Refused(error.to_string())),
        _ => Err(error),
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
            Some(_) => self.delete(repository, Removal::Tag(tag)).await,
        }
    }
}

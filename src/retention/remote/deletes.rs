//! The deletion of tags by the distribution API, and how it shows that a registry has none.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::oci::Reference;
use crate::oci::RepositoryName;
use crate::oci::Tag;
use crate::retention::records::Holding;
use crate::upstream::Removal;

use super::Call;
use super::Caps;
use super::Doomed;
use super::Error;
use super::Fault;
use super::Outcome;
use super::Refused;
use super::Result;
use super::Why;
use super::graph;
use super::registry::Registry;

/// How long a registry that can't delete tags is not asked again: longer than any run.
const CANT_KEPT: Duration = Duration::from_hours(1);

/// A way to delete a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The specification's.
    Tag,
    /// GitLab's, from before the specification had one.
    TagReference,
}

impl Way {
    fn removal(self, tag: &Tag) -> Removal<'_> {
        match self {
            Self::Tag => Removal::Tag(tag),
            Self::TagReference => Removal::TagReference(tag),
        }
    }
}

/// Deletes tags in the first of the ways that the registry knows.
#[derive(Debug)]
pub(super) struct Deletes {
    ways: &'static [Way],
    known: Mutex<Known>,
}

/// Whether the registry deletes tags, as far as it was seen.
#[derive(Debug)]
enum Known {
    Nothing,
    Can(Way),
    Cant { said: String, since: Instant },
}

impl Deletes {
    pub(super) fn new(ways: &'static [Way]) -> Self {
        Self { ways, known: Mutex::new(Known::Nothing) }
    }

    /// The calls of a registry that deletes by tag only.
    pub(super) fn calls(registry: &Registry, holding: &Holding, doomed: &[Doomed]) -> (Vec<Call>, Vec<Refused>) {
        let name = &holding.repository.name;
        graph::calls(holding, doomed, Caps::TAGS, |target| {
            target.tags().first().map(|tag| registry.removal(name, Removal::Tag(tag))).unwrap_or_default()
        })
    }

    /// Makes a call, if its tag still means what it did.
    pub(super) async fn carry_out(
        &self,
        registry: &Registry,
        repository: &RepositoryName,
        call: &Call,
    ) -> Result<Outcome> {
        let Some((tag, digest)) = call.target.tag() else { return Ok(Outcome::Refused(Why::ByTagOnly.to_string())) };
        match registry.resolve(repository, &Reference::Tag(tag.clone())).await? {
            None => Ok(Outcome::AlreadyGone),
            Some(now) if now != *digest => Ok(Outcome::Moved),
            Some(_) => self.delete(registry, repository, tag).await,
        }
    }

    /// Deletes a tag. The first one tells whether the registry can: until it has answered no other is sent.
    async fn delete(&self, registry: &Registry, repository: &RepositoryName, tag: &Tag) -> Result<Outcome> {
        let mut known = self.known.lock().await;
        match &*known {
            Known::Can(way) => {
                let way = *way;
                drop(known);
                return match registry.delete(repository, way.removal(tag)).await {
                    Ok(true) => Ok(Outcome::Deleted),
                    Ok(false) => Ok(Outcome::AlreadyGone),
                    Err(error) => refused(error),
                };
            }
            Known::Cant { said, since } if since.elapsed() < CANT_KEPT => {
                return Ok(Outcome::Unsupported(said.clone()));
            }
            Known::Cant { .. } | Known::Nothing => {}
        }
        let mut answers = Vec::new();
        for way in self.ways {
            match registry.delete(repository, way.removal(tag)).await {
                Ok(true) => {
                    *known = Known::Can(*way);
                    return Ok(Outcome::Deleted);
                }
                // docker-registry 2.8 says 400 DIGEST_INVALID; others 405, or 404 as if there were no such thing.
                Ok(false) => answers.push("404".to_owned()),
                Err(error) => match error.fault() {
                    Fault::Status(status @ (400 | 404 | 405)) => answers.push(status.to_string()),
                    _ => return refused(error),
                },
            }
        }
        let said = format!(
            "{} can't delete tags: it answered {} to the first. Nothing was deleted; it needs OCI 1.1's deletion of tags \
             (distribution 3, zot, larder), or another adapter",
            registry.name,
            answers.join(" and ")
        );
        *known = Known::Cant { said: said.clone(), since: Instant::now() };
        Ok(Outcome::Unsupported(said))
    }
}

/// What a registry that deletes tags says no to.
fn refused(error: Error) -> Result<Outcome> {
    match error.fault() {
        Fault::Denied | Fault::Status(400 | 405 | 409 | 412 | 422) => Ok(Outcome::Refused(error.to_string())),
        _ => Err(error),
    }
}

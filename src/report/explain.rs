//! Why a pull hits or misses, in sentences.

use std::sync::Arc;

use serde::Serialize;

use crate::access::Action;
use crate::access::Ground;
use crate::access::Principal;
use crate::access::Target;
use crate::cache::freshness;
use crate::cache::freshness::Verdict;
use crate::config::duration;
use crate::oci::Class;
use crate::oci::Reference;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::repository::Image;
use crate::repository::Refused;
use crate::repository::Repository;
use crate::store;
use crate::store::Held;
use crate::store::TagRecord;
use crate::store::TagState;
use crate::telemetry;
use crate::upstream::Health;

use super::Report;

/// What a pull would meet.
#[derive(Debug, Serialize)]
pub struct Explanation {
    #[serde(rename = "ref")]
    reference: String,
    repository: String,
    upstream: Option<String>,
    /// What its manifest is; none where that is not here.
    class: Option<&'static str>,
    sentences: Vec<String>,
}

impl Report {
    /// What a pull of the image would meet, and what policies make of it. Asks no upstream; a forge, where a policy does.
    ///
    /// # Errors
    ///
    /// The store can't be read.
    pub async fn explain(&self, image: &Image) -> Result<Explanation, store::Error> {
        let repository = &image.repository;
        let reference = image.reference_or_latest();
        let mut sentences = Vec::new();
        let upstream = self.origin(repository, &mut sentences);
        self.permission(repository, &reference, &mut sentences);
        let held = match &reference {
            Reference::Tag(tag) => self.tag(repository, tag, &mut sentences).await?,
            Reference::Digest(digest) => {
                let held = self.store.held(repository, digest).await?;
                sentences.push(match &held {
                    Some(held) => format!("{digest} is here{}; a digest never changes, so it is a hit", of(held)),
                    None if upstream.is_some() => {
                        format!("{digest} is not here: a pull fetches it from the upstream, once for all who wait")
                    }
                    None => format!("{digest} is not here"),
                });
                held
            }
        };
        if let Reference::Tag(tag) = &reference {
            sentences.extend(self.retention(repository, tag).await);
        }
        let separator = if reference.digest().is_some() { '@' } else { ':' };
        Ok(Explanation {
            reference: format!("{repository}{separator}{reference}"),
            repository: repository.to_string(),
            upstream,
            class: held.as_deref().and_then(Held::class).map(Class::word),
            sentences,
        })
    }

    /// What policies make of a tag; why that can't be told, where it can't.
    async fn retention(&self, repository: &RepositoryKey, tag: &Tag) -> Vec<String> {
        match self.prune.explain(repository, tag).await {
            Ok(sentences) => sentences,
            Err(error) => vec![format!("whether it stays can't be told: {}", telemetry::chain(&error))],
        }
    }

    /// Where the repository comes from; its registry, where that is an upstream.
    fn origin(&self, repository: &RepositoryKey, sentences: &mut Vec<String>) -> Option<String> {
        match self.repositories.resolve(repository) {
            Ok(Repository::Hosted(_)) => {
                sentences
                    .push(format!("{repository} lives here alone: it matches a hosted name, and no upstream is asked"));
                None
            }
            Ok(Repository::Proxied(proxied)) => {
                let host = repository.registry.to_string();
                sentences.push(format!("{repository} comes from the upstream {host}"));
                for endpoint in &proxied.upstream.state().endpoints {
                    if let Health::Down { since, cause } = &endpoint.registry {
                        let url = &endpoint.url;
                        sentences.push(format!("the upstream's {url} does not answer since {since}: {cause}"));
                    }
                }
                Some(host)
            }
            Err(Refused::Unknown) => {
                sentences.push(format!("the registry {} is not configured: a pull is 404", repository.registry));
                None
            }
            Err(Refused::Denied) => {
                sentences.push(format!(
                    "the allow and deny patterns of {} leave the repository out: a pull is 403",
                    repository.registry
                ));
                Some(repository.registry.to_string())
            }
        }
    }

    /// What an anonymous client's pull would rest on.
    fn permission(&self, repository: &RepositoryKey, reference: &Reference, sentences: &mut Vec<String>) {
        let target = Target::Manifest(reference.clone());
        let ground = self.access.explain(&Principal::Anonymous, None, Action::Pull, repository, &target);
        sentences.push(match ground {
            Ground::Nothing => "an anonymous client may not pull it; one with a right may".to_owned(),
            Ground::Anonymous | Ground::Rule(_) => format!("anybody may pull it, by {ground}"),
        });
    }

    /// What is known of a tag; the manifest that it means, where that is here.
    async fn tag(
        &self,
        repository: &RepositoryKey,
        tag: &Tag,
        sentences: &mut Vec<String>,
    ) -> Result<Option<Arc<Held>>, store::Error> {
        let Some(state) = self.store.tag(repository, tag).await? else {
            sentences.push(if repository.is_hosted() {
                format!("the tag {tag} is not here: a pull is 404")
            } else {
                format!("the tag {tag} is not here: a pull asks the upstream")
            });
            return Ok(None);
        };
        let record = &state.record;
        if let Some(gone) = record.gone {
            sentences.push(format!("the upstream said at {gone} that the tag {tag} is gone: a pull asks it again"));
            return Ok(None);
        }
        let digest = record.digest;
        if repository.is_hosted() {
            let pusher = record.pusher.as_deref().unwrap_or("somebody");
            let at = record.at;
            sentences.push(format!("the tag {tag} is here and means {digest}: a hit; {pusher} pushed it at {at}"));
            sentences.extend(before(record));
        } else {
            self.validity(repository, &state, sentences);
        }
        let held = self.store.held(repository, &digest).await?;
        sentences.push(match &held {
            Some(held) => format!("its manifest is here{}", of(held)),
            None => "its manifest is not here: a pull fetches it from the upstream".to_owned(),
        });
        Ok(held)
    }

    /// How far the tag of an upstream can be relied on.
    fn validity(&self, repository: &RepositoryKey, state: &TagState, sentences: &mut Vec<String>) {
        let (tag, digest) = (&state.record.tag, state.record.digest);
        let (now, validated) = (self.clock.now(), state.validated_at());
        let windows = self.repositories.freshness(repository, tag);
        let age = duration::show(std::time::Duration::from_secs(now.since(validated).as_secs()));
        sentences.push(format!("the tag {tag} is here and means {digest}; it was last confirmed {age} ago"));
        sentences.push(match freshness::judge(validated, now, &windows) {
            Verdict::Fresh | Verdict::FreshNearlyOver if windows.immutable => {
                "it is immutable by a rule of freshness: a hit, and the upstream is never asked".to_owned()
            }
            Verdict::Fresh | Verdict::FreshNearlyOver => {
                let fresh_for = duration::show(windows.fresh_for);
                format!("it is fresh for {fresh_for} after that: a hit, and the upstream is not asked")
            }
            Verdict::StaleWhileRevalidate => {
                "it is past its freshness: a hit, and the upstream is asked in the background".to_owned()
            }
            Verdict::MustValidate => {
                let window = duration::show(windows.stale_if_error);
                format!(
                    "it is past its freshness: a pull asks the upstream first (a HEAD, which is free), and gets this copy \
                     where that does not answer, up to {window} after the last confirmation"
                )
            }
        });
    }
}

/// What the tag meant before, the newest first; nothing where it never moved.
fn before(record: &TagRecord) -> Option<String> {
    let meant = record.history.iter().rev().skip(1).map(|(digest, since)| format!("{digest} (since {since})"));
    let meant: Vec<String> = meant.collect();
    (!meant.is_empty()).then(|| format!("before that it meant {}", meant.join(", ")))
}

/// What is held, in brackets.
fn of(held: &Held) -> String {
    let kind = match held.class() {
        None => "a blob",
        Some(Class::Image) => "an image manifest",
        Some(Class::Index) => "an image index",
        Some(Class::BuildCache) => "a build cache: its manifest",
        Some(Class::Artifact) => "an artifact: its manifest",
        Some(Class::Unknown) => "a manifest",
    };
    format!(" ({kind} of {} bytes)", held.link.size)
}

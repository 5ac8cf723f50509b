//! Tags: the held record while it is fresh, else the upstream's word, else the held record again while it may be stale.

use std::sync::Arc;

use crate::config::repository::Windows;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::repository::Proxied;
use crate::store::Origin;
use crate::store::Put;
use crate::store::TagState;
use crate::upstream::Ask;
use crate::upstream::Fault;
use crate::upstream::Priority;

use super::Cache;
use super::Served;
use super::error::Error;
use super::flight::Publish;
use super::freshness;
use super::freshness::Verdict;
use super::manifest::ManifestBody;
use super::status::CacheStatus;
use super::status::Source;

/// What a look at the upstream brought.
#[derive(Clone, Debug)]
pub enum Refreshed {
    /// The tag still names the digest that is held.
    Confirmed(Digest),
    /// The tag names a manifest that was not its own before.
    Moved(ManifestBody),
}

impl Refreshed {
    /// The digest that the tag names.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Confirmed(digest) => *digest,
            Self::Moved(body) => body.digest,
        }
    }
}

/// Whether an answer of the upstream's will do that was there before the client asked: one whose commit is still under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    /// It is fresh.
    Taken,
    /// The tag is asked for each time: one stage of a pipeline pushes it, the next pulls it.
    Refused,
}

impl Old {
    fn by(policy: &Windows) -> Self {
        if policy.fresh_for.is_zero() && !policy.immutable { Self::Refused } else { Self::Taken }
    }
}

/// A tag whose upstream is being asked.
#[derive(Clone, Debug)]
struct Look {
    repository: RepositoryKey,
    tag: Tag,
    proxied: Proxied,
    /// The record that is held and not gone.
    known: Option<Arc<TagState>>,
    priority: Priority,
}

impl Cache {
    pub(super) async fn manifest_by_tag(
        &self,
        repository: &RepositoryKey,
        tag: &Tag,
    ) -> Result<Served<ManifestBody>, Error> {
        let known = self.known_tag(repository, tag).await?;
        let policy = self.repositories.freshness(repository, tag);
        let now = self.clock.now();
        if let Some(state) = &known {
            let verdict = freshness::judge(state.validated_at(), now, &policy);
            let source =
                if verdict == Verdict::StaleWhileRevalidate { Source::StaleWhileRevalidate } else { Source::Hit };
            let looks = match verdict {
                Verdict::FreshNearlyOver => self.tags.count() < self.limits.popular_tags as usize,
                Verdict::StaleWhileRevalidate => true,
                Verdict::Fresh | Verdict::MustValidate => false,
            };
            if looks && let Ok(proxied) = self.proxied(repository) {
                self.look_behind(repository, tag, proxied, state);
            }
            if verdict != Verdict::MustValidate {
                let status = CacheStatus::new(source).aged(freshness::age(state.validated_at(), now));
                return self.serve_tag(repository, &state.record.digest, status).await;
            }
        }
        let proxied = match self.proxied(repository) {
            Ok(proxied) => proxied,
            Err(unproxied) => return Err(unproxied.or_manifest_unknown()),
        };
        match known {
            // Boxed, so that a hit is not as large in memory as what asks an upstream.
            Some(state) => Box::pin(self.validate(repository, tag, proxied, state, &policy)).await,
            None => Box::pin(self.first_look(repository, tag, proxied, &policy)).await,
        }
    }

    /// Looks at the upstream now, whatever the record's freshness: `larder refresh`.
    pub async fn refresh(&self, repository: &RepositoryKey, tag: &Tag) -> Result<Refreshed, Error> {
        let proxied = self.proxied(repository).map_err(super::Unproxied::or_manifest_unknown)?;
        let known = self.known_tag(repository, tag).await?;
        let look =
            Look { repository: repository.clone(), tag: tag.clone(), proxied, known, priority: Priority::Client };
        Ok(self.join_look(look, Old::Refused).await?.0)
    }

    /// The record of a tag that is held; one that the upstream said is gone counts as none.
    pub(super) async fn known_tag(
        &self,
        repository: &RepositoryKey,
        tag: &Tag,
    ) -> Result<Option<Arc<TagState>>, Error> {
        let state = match self.store.peek_tag(repository, tag) {
            Some(state) => Some(state),
            None => Box::pin(self.store.tag(repository, tag)).await?,
        };
        Ok(state.filter(|s| s.record.gone.is_none()))
    }

    async fn first_look(
        &self,
        repository: &RepositoryKey,
        tag: &Tag,
        proxied: Proxied,
        policy: &Windows,
    ) -> Result<Served<ManifestBody>, Error> {
        self.check_absent(repository, tag)?;
        let look =
            Look { repository: repository.clone(), tag: tag.clone(), proxied, known: None, priority: Priority::Client };
        let (refreshed, collapsed) = self.join_look(look, Old::by(policy)).await?;
        let status = CacheStatus::new(Source::Miss).collapsed(collapsed);
        match refreshed {
            Refreshed::Moved(body) => Ok(Served { content: body, status }),
            Refreshed::Confirmed(digest) => {
                Ok(Served { status, ..self.manifest_by_digest(repository, &digest).await? })
            }
        }
    }

    /// Asks the upstream whether a held tag still stands; serves the held copy where it can't say in time.
    async fn validate(
        &self,
        repository: &RepositoryKey,
        tag: &Tag,
        proxied: Proxied,
        state: Arc<TagState>,
        policy: &Windows,
    ) -> Result<Served<ManifestBody>, Error> {
        let patience = proxied.limits.stale_answer;
        let look = Look {
            repository: repository.clone(),
            tag: tag.clone(),
            proxied,
            known: Some(Arc::clone(&state)),
            priority: Priority::Client,
        };
        let now = self.clock.now();
        let may_be_stale = freshness::may_serve_stale(state.validated_at(), now, policy);
        let as_stale = |source| CacheStatus::new(source).aged(freshness::age(state.validated_at(), now));
        let landed = if may_be_stale {
            match tokio::time::timeout(patience, self.join_look(look, Old::by(policy))).await {
                Ok(landed) => landed,
                // The look goes on by itself; this client has waited long enough.
                Err(_) => {
                    return self.serve_tag(repository, &state.record.digest, as_stale(Source::StaleIfError)).await;
                }
            }
        } else {
            self.join_look(look, Old::by(policy)).await
        };
        match landed {
            // What was confirmed, which may be newer than what was held when this client came.
            Ok((Refreshed::Confirmed(digest), collapsed)) => {
                self.serve_tag(repository, &digest, CacheStatus::new(Source::Revalidated).collapsed(collapsed)).await
            }
            Ok((Refreshed::Moved(body), collapsed)) => {
                Ok(Served { content: body, status: CacheStatus::new(Source::Moved).collapsed(collapsed) })
            }
            Err(error) if may_be_stale && error.is_unavailable() => {
                let source = if error.was_asked() { Source::StaleIfError } else { Source::StaleUnasked };
                self.serve_tag(repository, &state.record.digest, as_stale(source)).await
            }
            Err(error) => Err(error),
        }
    }

    /// Serves what a held record names.
    async fn serve_tag(
        &self,
        repository: &RepositoryKey,
        digest: &Digest,
        status: CacheStatus,
    ) -> Result<Served<ManifestBody>, Error> {
        let served = self.manifest_by_digest(repository, digest).await?;
        // The record was here and its bytes were not: what was evicted or damaged came anew.
        let status = if served.status.source == Source::Miss { served.status } else { status };
        Ok(Served { content: served.content, status })
    }

    /// Looks at the upstream in the background.
    fn look_behind(&self, repository: &RepositoryKey, tag: &Tag, proxied: Proxied, state: &Arc<TagState>) {
        let look = Look {
            repository: repository.clone(),
            tag: tag.clone(),
            proxied,
            known: Some(Arc::clone(state)),
            priority: Priority::Revalidate,
        };
        let cache = self.clone();
        self.tags.start((repository.clone(), tag.clone()), |publish| cache.look(look, publish));
    }

    async fn join_look(&self, mut look: Look, old: Old) -> Result<(Refreshed, bool), Error> {
        let (repository, tag) = (look.repository.clone(), look.tag.clone());
        if old == Old::Refused && self.tags.over((repository.clone(), tag.clone())).await {
            // What the look before brought is held by now, so that a HEAD is enough.
            look.known = self.known_tag(&repository, &tag).await?;
        }
        let cache = self.clone();
        let landed = self.tags.join((repository.clone(), tag.clone()), |publish| cache.look(look, publish)).await?;
        let refreshed = landed.value.map_err(|e| self.noted_absent(&repository, &tag, e))?;
        Ok((refreshed, landed.collapsed))
    }

    /// One look at the upstream. Its answer is published before it is committed.
    async fn look(self, look: Look, publish: Publish<Result<Refreshed, Error>>) {
        let _counted = self.counted("manifest");
        let mut ask = Self::ask(&look.repository, look.priority);
        // With a copy to serve, nobody waits long for the upstream.
        ask.within = look.known.as_ref().map(|_| look.proxied.limits.stale_answer);
        let outcome = self.ask_upstream(&look, &ask, &publish).await;
        match outcome {
            Ok(()) => {}
            Err(Error::ManifestUnknown) => {
                publish.send(Err(Error::ManifestUnknown));
                self.mark_gone(&look).await;
            }
            Err(error) => {
                // Who waits with nothing held gets the error, and its line in the access log names the cause.
                if look.known.is_some() && error.is_unavailable() && error.was_asked() {
                    tracing::warn!(repository = %look.repository, tag = %look.tag, error = %crate::telemetry::chain(&error), "the upstream could not say what the tag names; what is held is served");
                }
                publish.send(Err(error));
            }
        }
    }

    async fn ask_upstream(
        &self,
        look: &Look,
        ask: &Ask,
        publish: &Publish<Result<Refreshed, Error>>,
    ) -> Result<(), Error> {
        let reference = Reference::Tag(look.tag.clone());
        let mut wanted = reference.clone();
        if let Some(state) = &look.known {
            match look.proxied.upstream.resolve(ask, &reference).await {
                Ok(None) => return Err(Error::ManifestUnknown),
                Ok(Some(resolved)) if resolved.digest == state.record.digest => {
                    publish.send(Ok(Refreshed::Confirmed(resolved.digest)));
                    self.store.validated(&look.repository, &look.tag, self.clock.now());
                    return Ok(());
                }
                Ok(Some(resolved)) => {
                    if let Some(body) = self.held_manifest(&look.repository, &resolved.digest).await? {
                        publish.send(Ok(Refreshed::Moved(body.clone())));
                        self.keep_tag(look, &body).await;
                        return Ok(());
                    }
                    // By digest: what the HEAD named is what is fetched, though the tag moves again meanwhile.
                    wanted = Reference::Digest(resolved.digest);
                }
                // A registry whose HEAD says too little is asked with a GET.
                Err(error) if error.fault() == Fault::Unusable => {}
                Err(error) => return Err(error.into()),
            }
        }
        let fetched = self.fetch_manifest(&look.repository, &look.proxied, ask, &wanted).await?;
        publish.send(Ok(Refreshed::Moved(fetched.body())));
        self.keep_manifest(&look.repository, fetched, Some(&look.tag)).await;
        Ok(())
    }

    async fn keep_tag(&self, look: &Look, body: &ManifestBody) {
        let put = Put::Tag {
            tag: look.tag.clone(),
            digest: body.digest,
            media_type: body.media_type.clone(),
            size: body.bytes.len() as u64,
            pusher: None,
        };
        if let Err(error) = self.store.commit(&look.repository, Origin::Proxied, vec![put]).await {
            tracing::warn!(repository = %look.repository, tag = %look.tag, error = %crate::telemetry::chain(&error), "a tag that moved could not be recorded");
        }
    }

    /// The upstream says that the tag is gone: so it is here, and never comes back as a stale answer.
    async fn mark_gone(&self, look: &Look) {
        if look.known.is_none() {
            return;
        }
        let gone = vec![Put::Gone { tag: look.tag.clone() }];
        if let Err(error) = self.store.commit(&look.repository, Origin::Proxied, gone).await {
            tracing::warn!(repository = %look.repository, tag = %look.tag, error = %crate::telemetry::chain(&error), "a tag that is gone could not be recorded as such");
        }
    }
}

//! Whether something is there at all, here or at its upstream: for those who build what is missing.
//!
//! It is asked for by HEAD, past what is remembered as absent, and it is no use of what is found.

use crate::access::Grant;
use crate::oci::Reference;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::repository::Proxied;
use crate::store::TagState;
use crate::upstream;
use crate::upstream::Ask;
use crate::upstream::Fault;
use crate::upstream::Priority;

use super::Cache;
use super::Unproxied;
use super::error::Error;
use super::freshness;
use super::freshness::Verdict;

/// A list of tags that goes on behind so many has no end.
const TAGS_MAX: usize = 1_000_000;

/// Where a manifest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Here: a pull is served from the store.
    Here,
    /// At the upstream.
    Upstream,
    /// Neither here nor there.
    Missing,
}

impl Cache {
    /// Where a manifest of the granted repository is. A tag that is held counts as here where a pull of it would be served
    /// without the upstream's word, or in spite of an upstream that can't give it; else the upstream is asked.
    ///
    /// # Errors
    ///
    /// The upstream could not be asked: that is never told as absence.
    pub async fn presence(&self, grant: &Grant, reference: &Reference) -> Result<Presence, Error> {
        let repository = grant.repository();
        let proxied = match self.proxied(repository) {
            Ok(proxied) => Some(proxied),
            Err(Unproxied::Hosted) => None,
            Err(Unproxied::Refused(error)) => return Err(error),
        };
        let known = match reference {
            Reference::Tag(tag) => self.known_tag(repository, tag).await?.map(|state| (tag, state)),
            Reference::Digest(digest) => match self.held_manifest(repository, digest).await? {
                Some(_) => return Ok(Presence::Here),
                None => None,
            },
        };
        if let Some((tag, state)) = &known {
            let policy = self.repositories.freshness(repository, tag);
            if freshness::judge(state.validated_at(), self.clock.now(), &policy) != Verdict::MustValidate {
                return Ok(Presence::Here);
            }
        }
        let Some(proxied) = proxied else { return Ok(Presence::Missing) };
        let known = known.as_ref().map(|(tag, state)| (*tag, &**state));
        // Boxed, so that what is held is not as large in memory as what asks an upstream.
        Box::pin(self.presence_at(repository, &proxied, reference, known)).await
    }

    async fn presence_at(
        &self,
        repository: &RepositoryKey,
        proxied: &Proxied,
        reference: &Reference,
        known: Option<(&Tag, &TagState)>,
    ) -> Result<Presence, Error> {
        let ask = Self::ask(repository, Priority::Warm);
        match proxied.upstream.resolve(&ask, reference).await {
            Ok(None) => Ok(Presence::Missing),
            Ok(Some(resolved)) => {
                self.absent.remove(&(repository.clone(), reference.clone()));
                match known {
                    Some((tag, state)) if state.record.digest == resolved.digest => {
                        self.store.validated(repository, tag, self.clock.now());
                        Ok(Presence::Here)
                    }
                    _ => Ok(Presence::Upstream),
                }
            }
            // A registry whose HEAD says too little is asked with a GET.
            Err(error) if error.fault() == Fault::Unusable => self.presence_by_get(proxied, &ask, reference).await,
            Err(error) if error.is_unavailable() && self.may_stand_in(repository, known) => Ok(Presence::Here),
            Err(error) => Err(error.into()),
        }
    }

    async fn presence_by_get(&self, proxied: &Proxied, ask: &Ask, reference: &Reference) -> Result<Presence, Error> {
        let found = proxied.upstream.manifest(ask, reference).await?;
        Ok(if found.is_some() { Presence::Upstream } else { Presence::Missing })
    }

    /// Whether a pull would be served what is held, though the upstream is away.
    fn may_stand_in(&self, repository: &RepositoryKey, known: Option<(&Tag, &TagState)>) -> bool {
        known.is_some_and(|(tag, state)| {
            let policy = self.repositories.freshness(repository, tag);
            freshness::may_serve_stale(state.validated_at(), self.clock.now(), &policy)
        })
    }

    /// Hands every tag of the granted repository to `each`: all of them, or it is an error. What is held of a proxied
    /// repository is not looked at.
    ///
    /// # Errors
    ///
    /// The repository is not known, the upstream could not be asked, or its list has no end.
    pub async fn every_tag(&self, grant: &Grant, mut each: impl FnMut(&Tag) + Send) -> Result<(), Error> {
        let repository = grant.repository();
        let proxied = match self.proxied(repository) {
            Ok(proxied) => Some(proxied),
            Err(Unproxied::Hosted) => None,
            Err(Unproxied::Refused(error)) => return Err(error),
        };
        let (ask, limit) = (Self::ask(repository, Priority::Warm), self.limits.page as usize);
        let (mut after, mut seen) = (None, 0);
        loop {
            let (tags, more) = if let Some(proxied) = &proxied {
                let page = proxied.upstream.tags(&ask, after.as_ref(), limit).await?;
                page.map(|page| (page.tags, page.more)).ok_or(Error::RepositoryUnknown)?
            } else {
                let listed = self.own_tags(repository, after.as_ref(), limit).await?.content;
                (listed.tags, listed.more)
            };
            tags.iter().for_each(&mut each);
            if !more {
                return Ok(());
            }
            seen += tags.len();
            after = tags.into_iter().next_back();
            if after.is_none() || seen > TAGS_MAX {
                return Err(upstream::Error::new(Fault::Unusable, "listing tags: the list has no end").into());
            }
        }
    }
}

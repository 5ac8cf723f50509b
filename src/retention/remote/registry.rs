//! A remote registry by the distribution API: what every adapter reads, and what `oci` deletes by.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::TryStreamExt;
use futures_util::stream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::config;
use crate::config::retention::RemoteLimits;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::RegistryName;
use crate::oci::RepositoryKey;
use crate::oci::RepositoryName;
use crate::oci::Tag;
use crate::upstream;
use crate::upstream::Ask;
use crate::upstream::Deps;
use crate::upstream::Document;
use crate::upstream::Identity;
use crate::upstream::Priority;
use crate::upstream::Removal;
use crate::upstream::Upstream as _;

use super::Error;
use super::Fault;
use super::Result;

/// Names on a page that is asked for; registries give fewer where they want to.
const PAGE: usize = 1_000;

/// How long to wait after a 429 that does not say so.
const WAIT: Duration = Duration::from_secs(30);

/// A registry by the distribution API.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) name: RegistryName,
    pub(super) limits: RemoteLimits,
    pub(super) clock: Clock,
    upstream: upstream::Remote,
    /// As many as requests may be under way: several repositories are listed at the same time, and what waits for a
    /// connection for too long would make their lists fail.
    places: Semaphore,
}

impl Registry {
    /// Sets it up: what the configuration of the remote leaves out is as the upstream of that host has it.
    pub(super) fn open(
        host: &str,
        config: &config::retention::Remote,
        upstream: Option<&config::Upstream>,
        deps: &Deps,
    ) -> Result<Self> {
        let unusable = || Error::new(Fault::Unusable, format!("`{host}` is no host as it can stand in image names"));
        let name = host.parse().map_err(|_| unusable())?;
        let settings = settings(host, config, upstream).ok_or_else(unusable)?;
        let upstream = upstream::Remote::new(host, &settings, deps)?;
        let (limits, clock) = (config.limits.clone(), deps.clock.clone());
        let places = Semaphore::new(at_once(&limits));
        Ok(Self { name, limits, clock, upstream, places })
    }

    /// The key of one of its repositories.
    pub(super) fn key(&self, repository: &RepositoryName) -> RepositoryKey {
        RepositoryKey::new(self.name.clone(), repository.clone())
    }

    /// User and password, where there are any.
    pub(super) async fn login(&self) -> Result<Option<(String, config::Secret)>> {
        self.upstream.login().await
    }

    /// The repositories that it lists, whole.
    pub(super) async fn repositories(&self) -> Result<Option<Vec<RepositoryName>>> {
        // The catalog is asked for as a whole; the name stands in no request.
        let Ok(any) = "catalog".parse() else { return Ok(None) };
        let ask = ask(&any);
        let (mut all, mut query) = (Vec::new(), format!("n={PAGE}"));
        loop {
            let page = self.patiently(|| self.upstream.catalog(&ask, query.clone())).await?;
            let Some((names, next)) = page else { return Ok(None) };
            let is_empty = names.is_empty();
            all.extend(names);
            self.bound(all.len(), self.limits.repositories, "repositories")?;
            match next {
                None => break,
                Some(_) if is_empty => return Err(self.endless("repositories")),
                Some(next) if next == query => return Err(self.endless("repositories")),
                Some(next) => query = next,
            }
        }
        all.sort();
        all.dedup();
        Ok(Some(all))
    }

    /// The tags of a repository, whole.
    pub(super) async fn tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>> {
        let ask = ask(repository);
        let mut all: Vec<Tag> = Vec::new();
        loop {
            let after = all.last().cloned();
            let page = self.patiently(|| self.upstream.tags(&ask, after.as_ref(), PAGE)).await?;
            let page = page.ok_or_else(|| self.unknown(repository))?;
            if page.more && page.tags.is_empty() || after.is_some() && page.tags.last() == after.as_ref() {
                return Err(self.endless("tags"));
            }
            all.extend(page.tags);
            self.bound(all.len(), self.limits.tags, "tags")?;
            if !page.more {
                break;
            }
        }
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// What these tags mean; those that are gone by now are left out.
    pub(super) async fn resolve_all(&self, repository: &RepositoryName, tags: Vec<Tag>) -> Result<Vec<(Tag, Digest)>> {
        let resolved = stream::iter(tags).map(|tag| async move {
            let digest = self.resolve(repository, &Reference::Tag(tag.clone())).await?;
            Ok::<_, Error>(digest.map(|digest| (tag, digest)))
        });
        resolved.buffered(self.at_once()).try_filter_map(|found| std::future::ready(Ok(found))).try_collect().await
    }

    /// What a reference means now; `Ok(None)` where it is not there.
    pub(super) async fn resolve(&self, repository: &RepositoryName, reference: &Reference) -> Result<Option<Digest>> {
        let ask = ask(repository);
        match self.patiently(|| self.upstream.resolve(&ask, reference)).await {
            Ok(found) => Ok(found.map(|found| found.digest)),
            // One that does not tell the digest shows the bytes.
            Err(error) if error.fault() == Fault::Unusable => {
                let found = self.patiently(|| self.upstream.manifest(&ask, reference)).await?;
                Ok(found.map(|found| found.digest.unwrap_or_else(|| Digest::of(&found.bytes))))
            }
            Err(error) => Err(error),
        }
    }

    /// The first of these manifests that is there.
    pub(super) async fn first_there(&self, repository: &RepositoryName, digests: &[Digest]) -> Result<Option<Digest>> {
        for digest in digests {
            if self.resolve(repository, &Reference::Digest(*digest)).await?.is_some() {
                return Ok(Some(*digest));
            }
        }
        Ok(None)
    }

    /// A manifest by its digest, unverified; `Ok(None)` where it is not there.
    pub(super) async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: Digest,
    ) -> Result<Option<upstream::RawManifest>> {
        let (ask, reference) = (ask(repository), Reference::Digest(digest));
        self.patiently(|| self.upstream.manifest(&ask, &reference)).await
    }

    /// One page of a list that the registry has beside the specification's; `Ok(None)` where it has none.
    pub(super) async fn document(
        &self,
        repository: &RepositoryName,
        path: &str,
        query: &str,
    ) -> Result<Option<Document>> {
        let ask = ask(repository);
        self.patiently(|| self.upstream.document(&ask, path.to_owned(), query.to_owned())).await
    }

    /// Deletes a tag: whether it did, or the registry answered 404. A 429 was no deletion, so it waits and asks again.
    pub(super) async fn delete(&self, repository: &RepositoryName, removal: Removal<'_>) -> Result<bool> {
        // A client waits for no deletion, but each is asked for once, also where the last request failed.
        let ask = ask(repository);
        self.patiently(|| self.upstream.delete(&ask, removal)).await
    }

    /// The request that deletes, for people.
    pub(super) fn removal(&self, repository: &RepositoryName, removal: Removal<'_>) -> String {
        format!("DELETE {}v2/{repository}/{}", self.base(), removal.path())
    }

    /// Where it is, with a slash at its end: registries that serve their own API do so beside the distribution's.
    pub(super) fn base(&self) -> String {
        self.upstream.base()
    }

    /// How many requests it gets at the same time.
    pub(super) fn at_once(&self) -> usize {
        at_once(&self.limits)
    }

    /// Refuses a list that is longer than the configuration allows.
    pub(super) fn bound(&self, count: usize, max: u32, what: &str) -> Result<()> {
        if u64::try_from(count).unwrap_or(u64::MAX) <= u64::from(max) {
            return Ok(());
        }
        let message = format!("{} has more than {max} {what}; raise limits.{what} of this remote registry", self.name);
        Err(Error::new(Fault::NotAllowed, message))
    }

    /// A repository that it does not have, or does not show.
    pub(super) fn unknown(&self, repository: &RepositoryName) -> Error {
        let message = format!("{} has no repository {repository}, or does not show it to this credential", self.name);
        Error::new(Fault::Status(404), message)
    }

    pub(super) fn endless(&self, what: &str) -> Error {
        Error::new(Fault::Unusable, format!("{}: its list of {what} does not end", self.name))
    }

    /// An answer that can't be used.
    pub(super) fn unusable(&self, what: &str) -> Error {
        Error::new(Fault::Unusable, format!("{}: {what}", self.name))
    }

    /// Asks again where the registry says 429, for as long as the configuration allows.
    pub(super) async fn patiently<T, F: Future<Output = Result<T>>>(&self, call: impl Fn() -> F) -> Result<T> {
        let until = Instant::now() + self.limits.patience;
        loop {
            // It is never closed.
            let place = self.places.acquire().await.ok();
            let ended = call().await;
            drop(place);
            let error = match ended {
                Err(error) if error.fault() == Fault::RateLimited => error,
                ended => return ended,
            };
            let wait = error.retry_after().unwrap_or(WAIT).max(Duration::from_millis(100));
            if Instant::now() + wait > until {
                return Err(error);
            }
            tracing::debug!(remote = %self.name, seconds = wait.as_secs(), "waiting: the registry said 429");
            sleep(wait).await;
        }
    }
}

/// How many requests a registry gets at the same time.
pub(super) fn at_once(limits: &RemoteLimits) -> usize {
    usize::try_from(limits.requests).unwrap_or(1).clamp(1, Semaphore::MAX_PERMITS)
}

fn ask(repository: &RepositoryName) -> Ask {
    Ask { name: repository.clone(), priority: Priority::Warm, identity: Identity::Configured, within: None }
}

/// The registry as an upstream: one endpoint, so that what is looked at is what is deleted.
fn settings(
    host: &str,
    config: &config::retention::Remote,
    upstream: Option<&config::Upstream>,
) -> Option<config::Upstream> {
    let mut settings = upstream.cloned().or_else(|| config::Upstream::of(host))?;
    let endpoint = config.endpoint.clone().or_else(|| settings.endpoints.first().cloned())?;
    settings.endpoints = vec![endpoint];
    // What is pulled through here says nothing of what policies look at.
    settings.allow.clear();
    settings.deny.clear();
    if let Some(credential) = &config.credential {
        settings.credential = Some(credential.clone());
    }
    if let Some(networks) = &config.may_connect_to {
        settings.may_connect_to.clone_from(networks);
    }
    if let Some(hosts) = &config.token_hosts {
        settings.token_hosts.clone_from(hosts);
    }
    if config.ca_file.is_some() {
        settings.ca_file.clone_from(&config.ca_file);
    }
    if config.proxy.is_some() {
        settings.proxy.clone_from(&config.proxy);
    }
    // Who waits, waits for a place of the registry's.
    (settings.limits.connections, settings.limits.waiting) = (config.limits.requests, 0);
    settings.limits.headers = config.limits.timeout;
    settings.limits.answer_bytes = config.limits.answer_bytes;
    Some(settings)
}

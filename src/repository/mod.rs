//! Which repository a request means, and where that repository comes from.
//!
//! [`find`] reads the name; [`Repositories`] knows the configured registries and answers what a repository is: hosted
//! here, or proxied from an upstream. It decides no permission and moves no bytes.

mod image;
pub mod names;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config;
use crate::config::upstream::UpstreamLimits;
use crate::config::upstream::Visibility;
use crate::oci::RegistryName;
use crate::oci::RepositoryKey;
use crate::oci::RepositoryName;
use crate::oci::Tag;
use crate::pattern::Glob;
use crate::upstream;
use crate::upstream::Upstream;

pub use image::Image;
pub use image::ImageError;
pub use names::NameProblem;
pub use names::Names;
pub use names::OwnNames;
pub use names::Spelling;
pub use names::find;

/// The windows of one tag: fresh, stale while revalidated, stale if the upstream is unavailable.
pub use crate::config::repository::Windows as Freshness;

/// What the configuration says of repositories.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The registry of names without a host.
    pub default_upstream: String,
    /// The registries that images come from, by their hosts.
    pub upstreams: BTreeMap<String, Arc<config::Upstream>>,
    /// Names that live here.
    pub hosted: Vec<config::Hosted>,
    /// For how long tags are fresh.
    pub freshness: config::Freshness,
    /// What larder calls itself.
    pub own: OwnNames,
}

/// Makes the client of an upstream. It makes no call at start, so it fails only where it can't be made at all.
pub type Build = Box<dyn Fn(&Arc<config::Upstream>) -> Result<Arc<dyn Upstream>, upstream::Error> + Send + Sync>;

/// Why the repositories can't be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host of an upstream, or the default, is none.
    #[error("`{0}` is not the host of a registry")]
    Host(String),
    /// The default is not among the upstreams.
    #[error("the default upstream `{0}` is not configured")]
    Default(String),
    /// The client of an upstream could not be made.
    #[error("setting up the upstream {host}")]
    Upstream {
        /// Which.
        host: String,
        /// Why.
        #[source]
        source: upstream::Error,
    },
}

/// Why a repository is not to be had from here, whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its registry is not configured (any more): it is unknown.
    #[error("the registry is not configured")]
    Unknown,
    /// The `allow` and `deny` patterns of its upstream leave it out.
    #[error("the upstream's allow and deny patterns leave the repository out")]
    Denied,
}

/// What a repository is.
#[derive(Clone, Debug)]
pub enum Repository {
    /// It lives here alone.
    Hosted(Hosted),
    /// It comes from an upstream.
    Proxied(Proxied),
}

/// A repository that lives here alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hosted {}

/// A registry that repositories come from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Proxied {
    /// Its client. It stays the same, with all it has learnt, while the upstream's configuration does.
    pub upstream: Arc<dyn Upstream>,
    /// Its bounds.
    pub limits: UpstreamLimits,
    /// All that is configured of it; equal pointers mean the same upstream.
    pub settings: Arc<config::Upstream>,
}

impl Proxied {
    /// Tries of a blob's transfer in a row without a new byte.
    pub fn retries(&self) -> u32 {
        self.limits.retries
    }

    /// The most bytes of a blob.
    pub fn blob_bytes(&self) -> u64 {
        self.limits.blob_bytes
    }

    /// Whether it is asked with a credential, so that what it answers may not be everybody's.
    pub fn has_credential(&self) -> bool {
        self.settings.credential.is_some()
    }

    /// Whether the upstream shows the repository to anybody without being asked: no credential is used, or it is one of
    /// Docker's official images.
    pub fn is_everybodys(&self, repository: &RepositoryKey) -> bool {
        let official = repository.registry.as_str() == "docker.io" && repository.name.as_str().starts_with("library/");
        official || !self.has_credential()
    }

    /// Who may have what came with the credential.
    pub fn visibility(&self) -> Visibility {
        self.settings.visibility
    }

    /// Whether the patterns let the repository through. They hold for manifests and blobs alike: a digest that is known
    /// from elsewhere must not lead around them.
    pub fn allows(&self, name: &RepositoryName) -> bool {
        let listed = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(name.as_str()));
        (self.settings.allow.is_empty() || listed(&self.settings.allow)) && !listed(&self.settings.deny)
    }
}

/// All repositories, as configured now.
pub struct Repositories {
    build: Build,
    current: ArcSwap<Current>,
}

struct Current {
    names: Names,
    proxied: HashMap<RegistryName, Proxied>,
    hosted: Vec<config::Hosted>,
    freshness: config::Freshness,
}

impl Repositories {
    /// Sets the upstreams up; `build` makes each one's client, now and at reloads.
    pub fn new(settings: &Settings, build: Build) -> Result<Self, Error> {
        let current = Current::new(settings, &HashMap::new(), &build)?;
        Ok(Self { build, current: ArcSwap::from_pointee(current) })
    }

    /// Takes a new configuration. An upstream whose own did not change keeps its client: tokens, budget, circuits.
    /// On an error everything stays as it was.
    pub fn reload(&self, settings: &Settings) -> Result<(), Error> {
        let current = Current::new(settings, &self.current.load().proxied, &self.build)?;
        self.current.store(Arc::new(current));
        Ok(())
    }

    /// The repository that a request means.
    pub fn find(&self, spelling: &Spelling) -> Result<RepositoryKey, NameProblem> {
        find(spelling, &self.current.load().names)
    }

    /// What the repository is, and where it comes from.
    pub fn resolve(&self, repository: &RepositoryKey) -> Result<Repository, Refused> {
        self.look(repository, |proxied| proxied.cloned().map_or(Repository::Hosted(Hosted {}), Repository::Proxied))
    }

    /// Looks at where the repository comes from without taking it along; `None` where it lives here alone.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub fn look<T>(&self, repository: &RepositoryKey, at: impl FnOnce(Option<&Proxied>) -> T) -> Result<T, Refused> {
        if repository.is_hosted() {
            // Also where the patterns do not name it any more: what was pushed here stays ours.
            return Ok(at(None));
        }
        let current = self.current.load();
        let proxied = current.proxied.get(&repository.registry).ok_or(Refused::Unknown)?;
        if proxied.allows(&repository.name) { Ok(at(Some(proxied))) } else { Err(Refused::Denied) }
    }

    /// For how long the tag is fresh, stale and still of use. A hosted tag is what it is: it never goes stale.
    pub fn freshness(&self, repository: &RepositoryKey, tag: &Tag) -> Freshness {
        let current = self.current.load();
        let Some(proxied) = current.proxied.get(&repository.registry) else {
            return Freshness { immutable: repository.is_hosted(), ..Freshness::defaults(false) };
        };
        let name = [repository.registry.as_str(), "/", repository.name.as_str(), ":", tag.as_str()];
        current.freshness.windows(&name, proxied.has_credential())
    }

    /// The patterns of tags that neither move nor go once they are pushed; those of the first hosted pattern that names
    /// the repository.
    pub fn immutable_tags(&self, repository: &RepositoryKey) -> Arc<[Glob]> {
        let current = self.current.load();
        let named = current.hosted.iter().find(|hosted| hosted.pattern.matches(repository.name.as_str()));
        named.filter(|_| repository.is_hosted()).map(|hosted| Arc::clone(&hosted.immutable_tags)).unwrap_or_default()
    }

    /// Every configured upstream, by its host.
    pub fn upstreams(&self) -> Vec<(RegistryName, Proxied)> {
        let current = self.current.load();
        let mut all: Vec<_> = current.proxied.iter().map(|(host, proxied)| (host.clone(), proxied.clone())).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// The registry of names without a host.
    pub fn default_registry(&self) -> RegistryName {
        self.current.load().names.default.clone()
    }
}

impl fmt::Debug for Repositories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repositories").field("names", &self.current.load().names).finish_non_exhaustive()
    }
}

impl Current {
    fn new(settings: &Settings, before: &HashMap<RegistryName, Proxied>, build: &Build) -> Result<Self, Error> {
        let mut proxied = HashMap::new();
        for (host, configured) in &settings.upstreams {
            let name: RegistryName = host.parse().map_err(|_| Error::Host(host.clone()))?;
            let kept = before.get(&name).filter(|old| *old.settings == **configured).cloned();
            let entry = match kept {
                Some(old) => old,
                None => Proxied {
                    upstream: build(configured).map_err(|source| Error::Upstream { host: host.clone(), source })?,
                    limits: configured.limits.clone(),
                    settings: Arc::clone(configured),
                },
            };
            proxied.insert(name, entry);
        }
        let default = settings.default_upstream.parse().map_err(|_| Error::Host(settings.default_upstream.clone()))?;
        if !proxied.contains_key(&default) {
            return Err(Error::Default(settings.default_upstream.clone()));
        }
        let names = Names {
            registries: proxied.keys().cloned().collect(),
            default,
            hosted: settings.hosted.iter().map(|hosted| hosted.pattern.clone()).collect(),
            own: settings.own.clone(),
        };
        Ok(Self { names, proxied, hosted: settings.hosted.clone(), freshness: settings.freshness.clone() })
    }
}

#[cfg(test)]
mod tests;

//! GitHub's container registry: package versions, which are manifests with all of their tags.
//!
//! A single tag can't be deleted. A version goes when every tag of it is in the plan, or when it has none and nothing that
//! stays needs it: the children of an index are versions without tags (delete-package-versions#162: releases lost for good).

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::header;
use serde::Deserialize;
use url::Url;

use crate::clock::Timestamp;
use crate::net::fetch::Answer;
use crate::oci::Digest;
use crate::oci::RepositoryName;
use crate::retention::records::Holding;
use crate::retention::records::Pulled;

use super::Call;
use super::Caps;
use super::Doomed;
use super::Outcome;
use super::Refused;
use super::Remote;
use super::Result;
use super::Target;
use super::api;
use super::api::Api;
use super::graph;
use super::registry::Registry;
use super::trees::Trees;
use super::versions;
use super::versions::Version;
use super::watch::Watch;

/// GitHub's API.
pub(super) const API: &str = "https://api.github.com";

/// The version of that API.
const API_VERSION: HeaderValue = HeaderValue::from_static("2022-11-28");

/// Versions and packages on a page: the most that GitHub gives.
const PAGE: &str = "100";

/// Readings of a list of several pages until two say the same: a deletion meanwhile moves an entry to a page that was read.
const READINGS_MAX: u32 = 4;

/// GitHub's container registry.
#[derive(Debug)]
pub(super) struct Ghcr {
    registry: Registry,
    api: Api,
    trees: Trees,
    watch: Watch,
    owners: Vec<String>,
    /// Of the owners that were asked about.
    kinds: Mutex<BTreeMap<String, &'static str>>,
}

#[derive(Deserialize)]
struct Owner {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

#[derive(PartialEq, Eq, Deserialize)]
struct RawVersion {
    id: u64,
    name: String,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, PartialEq, Eq, Deserialize)]
struct Metadata {
    #[serde(default)]
    container: Container,
}

#[derive(Default, PartialEq, Eq, Deserialize)]
struct Container {
    #[serde(default)]
    tags: Vec<String>,
}

impl Ghcr {
    pub(super) fn new(registry: Registry, api: Api, owners: Vec<String>) -> Self {
        let (trees, watch) = (Trees::new(&registry.limits), Watch::default());
        Self { registry, api, trees, watch, owners, kinds: Mutex::default() }
    }

    async fn headers(&self) -> Result<HeaderMap> {
        let needs = "deleting needs a token with delete:packages, as the password of any user";
        let (_, token) = self.registry.login().await?.ok_or_else(|| self.api.no_credential(needs))?;
        let token = api::bearer(token.reveal()).ok_or_else(|| self.api.no_credential(needs))?;
        Ok(HeaderMap::from_iter([
            (header::AUTHORIZATION, token),
            (header::ACCEPT, HeaderValue::from_static("application/vnd.github+json")),
            (header::HeaderName::from_static("x-github-api-version"), API_VERSION),
        ]))
    }

    /// The first part of an owner's paths: organizations and users have their own.
    async fn kind(&self, owner: &str, headers: &HeaderMap) -> Result<&'static str> {
        if let Some(kind) = self.known_kind(owner) {
            return Ok(kind);
        }
        let answer = self.api.get("list", &self.api.url(["users", owner]), headers).await?;
        let found: Owner = self.api.read(&format!("account {owner}"), &answer)?;
        let kind = if found.kind == "Organization" { "orgs" } else { "users" };
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner).insert(owner.to_owned(), kind);
        Ok(kind)
    }

    fn known_kind(&self, owner: &str) -> Option<&'static str> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get(owner).copied()
    }

    /// Where a repository's versions are, or one of them. The first part of its name is the owner, the rest is one name.
    fn versions_at(&self, kind: &str, repository: &RepositoryName, version: Option<&str>) -> Url {
        let (owner, package) = split(repository);
        self.api.url([kind, owner, "packages", "container", package, "versions"].into_iter().chain(version))
    }

    /// One page; the first is 1.
    async fn page(&self, url: &Url, number: u32, headers: &HeaderMap) -> Result<Answer> {
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("per_page", PAGE).append_pair("page", &number.to_string());
        self.api.get("list", &url, headers).await
    }

    /// All versions, whole: pages until one is empty, and where there are several, until two readings say the same.
    async fn versions(&self, repository: &RepositoryName, headers: &HeaderMap) -> Result<Vec<Version>> {
        let kind = self.kind(split(repository).0, headers).await?;
        let url = self.versions_at(kind, repository, None);
        let mut last = None;
        for _ in 0..READINGS_MAX {
            let (found, pages) = self.read_versions(repository, &url, headers).await?;
            if pages <= 1 || last.as_ref() == Some(&found) {
                return found.into_values().map(|raw| self.parse(raw)).collect();
            }
            last = Some(found);
        }
        Err(self.api.unusable(&format!("the versions of {repository} change while they are listed; try again later")))
    }

    /// The versions by their numbers, and over how many pages they came.
    async fn read_versions(
        &self,
        repository: &RepositoryName,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<(BTreeMap<u64, RawVersion>, u32)> {
        let mut all = BTreeMap::new();
        let mut number = 1;
        loop {
            let answer = self.page(url, number, headers).await?;
            if answer.status.as_u16() == 404 && number == 1 {
                return Err(self.registry.unknown(repository));
            }
            let versions: Vec<RawVersion> = self.api.read("list of versions", &answer)?;
            if versions.is_empty() {
                return Ok((all, number - 1));
            }
            let before = all.len();
            all.extend(versions.into_iter().map(|version| (version.id, version)));
            if all.len() == before {
                return Err(self.registry.endless("versions"));
            }
            self.registry.bound(all.len(), self.registry.limits.manifests, "manifests")?;
            number += 1;
        }
    }

    fn parse(&self, raw: RawVersion) -> Result<Version> {
        let RawVersion { id, name, created_at, updated_at, metadata } = raw;
        let digest: Digest =
            name.parse().map_err(|_| self.api.unusable(&format!("its version {id} is called `{name}`, no digest")))?;
        let time = |text: Option<String>| text.as_deref().and_then(Timestamp::parse);
        // A tag that is put on an old version changes it: the later of the two is when its youngest tag came, at most.
        let pushed_at = time(updated_at).max(time(created_at));
        let tags = versions::tags(&self.registry, digest, &metadata.container.tags, pushed_at, Pulled::Unknown)?;
        Ok(Version { digest, tags, pushed_at, pulled: Pulled::Unknown, id: Some(id.to_string()) })
    }

    /// What names a manifest by now, also what was pushed since it was listed: versions come newest first.
    async fn named_by(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        headers: &HeaderMap,
    ) -> Result<Option<Digest>> {
        if !self.watch.knows(repository) {
            self.list(repository).await?;
        }
        if self.watch.is_due(repository) {
            let kind = self.kind(split(repository).0, headers).await?;
            let answer = self.page(&self.versions_at(kind, repository, None), 1, headers).await?;
            let versions: Vec<RawVersion> = self.api.read("list of versions", &answer)?;
            let versions: Vec<Version> = versions.into_iter().map(|raw| self.parse(raw)).collect::<Result<_>>()?;
            let fresh = self.watch.fresh(repository, versions.iter().map(|version| version.digest));
            let facts = self.trees.read(&self.registry, repository, fresh, None).await?;
            self.watch.note(repository, facts.values());
        }
        Ok(self.watch.named_by(repository, digest))
    }

    async fn delete(&self, call: &Call, url: &Url, headers: HeaderMap) -> Result<Outcome> {
        let answer = self.api.send("delete", Method::DELETE, url, headers, Bytes::new()).await?;
        Ok(match answer.status.as_u16() {
            200..300 => Outcome::Deleted,
            // It was there a moment ago.
            404 => Outcome::Refused(format!(
                "{} answered 404 to {}: the token may not delete it (delete:packages, and admin of the package)",
                self.registry.name, call.request
            )),
            // Of more than 5,000 downloads, or the last one of its package.
            400 | 403 | 409 | 422 => Outcome::Refused(self.api.failed("deletion", &answer).to_string()),
            _ => return Err(self.api.failed("deletion", &answer)),
        })
    }
}

/// Owner and package.
fn split(repository: &RepositoryName) -> (&str, &str) {
    repository.as_str().split_once('/').unwrap_or((repository.as_str(), ""))
}

#[async_trait]
impl Remote for Ghcr {
    async fn repositories(&self) -> Result<Option<Vec<RepositoryName>>> {
        if self.owners.is_empty() {
            return Ok(None);
        }
        let headers = self.headers().await?;
        let mut all = BTreeSet::new();
        for owner in &self.owners {
            let mut url = self.api.url([self.kind(owner, &headers).await?, owner.as_str(), "packages"]);
            url.query_pairs_mut().append_pair("package_type", "container");
            let (mut number, mut seen) = (1, BTreeSet::new());
            loop {
                let answer = self.page(&url, number, &headers).await?;
                let packages: Vec<Package> = self.api.read("list of packages", &answer)?;
                if packages.is_empty() {
                    break;
                }
                let before = seen.len();
                seen.extend(packages.into_iter().map(|package| package.name));
                if seen.len() == before {
                    return Err(self.registry.endless("packages"));
                }
                self.registry.bound(all.len() + seen.len(), self.registry.limits.repositories, "repositories")?;
                number += 1;
            }
            // What is no name of the distribution API can't be pulled.
            let owner = owner.to_ascii_lowercase();
            all.extend(seen.iter().filter_map(|name| format!("{owner}/{name}").parse::<RepositoryName>().ok()));
        }
        Ok(Some(all.into_iter().collect()))
    }

    async fn list(&self, repository: &RepositoryName) -> Result<Holding> {
        let headers = self.headers().await?;
        let versions = self.versions(repository, &headers).await?;
        let holding = versions::holding(&self.registry, &self.trees, repository, versions).await?;
        self.watch.begin(&holding);
        Ok(holding)
    }

    fn calls(&self, holding: &Holding, doomed: &[Doomed]) -> (Vec<Call>, Vec<Refused>) {
        let name = &holding.repository.name;
        let kind = self.known_kind(split(name).0).unwrap_or("orgs");
        graph::calls(holding, doomed, Caps::MANIFESTS, |target| {
            let id = if let Target::Manifest { id, .. } = target { id.as_deref() } else { None };
            format!("DELETE {}", self.versions_at(kind, name, id))
        })
    }

    async fn carry_out(&self, repository: &RepositoryName, call: &Call) -> Result<Outcome> {
        let Target::Manifest { digest, tags, id: Some(id), after } = &call.target else {
            return Ok(Outcome::Refused("this registry deletes package versions only".to_owned()));
        };
        if let Some(holder) = self.registry.first_there(repository, after).await? {
            return Ok(Outcome::Refused(format!("{holder} is still there and names it")));
        }
        self.watch.gone(repository, after);
        let headers = self.headers().await?;
        let kind = self.kind(split(repository).0, &headers).await?;
        let url = self.versions_at(kind, repository, Some(id));
        let answer = self.api.get("list", &url, &headers).await?;
        if answer.status.as_u16() == 404 {
            return Ok(Outcome::AlreadyGone);
        }
        let now = self.parse(self.api.read("version", &answer)?)?;
        if now.digest != *digest || now.tags() != tags.iter().collect() {
            return Ok(Outcome::Moved);
        }
        if let Some(holder) = self.named_by(repository, digest, &headers).await? {
            return Ok(Outcome::Refused(format!("{holder} is there by now and names it")));
        }
        let outcome = self.delete(call, &url, headers).await?;
        if outcome == Outcome::Deleted {
            self.watch.gone(repository, &[*digest]);
        }
        Ok(outcome)
    }
}

//! Google's Artifact Registry, by its API: tags by their names, and versions that have none, never by force.
//!
//! A tag has no time of its own: as with Amazon's, the version's is taken only where the version has one tag.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::header;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::RepositoryName;
use crate::oci::Tag;
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

/// Artifact Registry's API.
pub(super) const API: &str = "https://artifactregistry.googleapis.com";

/// Rows on a page: the most that it gives.
const PAGE: &str = "1000";

/// Google's Artifact Registry.
#[derive(Debug)]
pub(super) struct Gar {
    registry: Registry,
    api: Api,
    trees: Trees,
    watch: Watch,
    owners: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<T> {
    #[serde(alias = "tags", alias = "versions", alias = "packages", default = "Vec::new")]
    rows: Vec<T>,
    #[serde(default)]
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct RawTag {
    name: String,
    version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawVersion {
    name: String,
    #[serde(default)]
    create_time: Option<String>,
    #[serde(default)]
    update_time: Option<String>,
    #[serde(default)]
    related_tags: Vec<RawTag>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

/// What stands behind the last slash of a resource's name.
fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

impl Gar {
    pub(super) fn new(registry: Registry, api: Api, owners: Vec<String>) -> Self {
        let (trees, watch) = (Trees::new(&registry.limits), Watch::default());
        Self { registry, api, trees, watch, owners }
    }

    async fn headers(&self) -> Result<HeaderMap> {
        let needs = "its API needs an access token, as docker-credential-gcloud gives it (helper: gcloud)";
        let (user, token) = self.registry.login().await?.ok_or_else(|| self.api.no_credential(needs))?;
        // A key of a service account is no token.
        let token = api::bearer(token.reveal()).filter(|_| !user.starts_with("_json_key"));
        Ok(HeaderMap::from_iter([(header::AUTHORIZATION, token.ok_or_else(|| self.api.no_credential(needs))?)]))
    }

    /// The part of the registry's host that says where it is: `europe-west1` of `europe-west1-docker.pkg.dev`.
    fn location(&self) -> &str {
        let host = self.registry.name.as_str();
        host.split_once("-docker.pkg.dev").map_or(host, |(location, _)| location)
    }

    /// Below a repository, which is the first two parts of a name: project and repository.
    fn below(&self, project: &str, repository: &str, rest: &[&str]) -> Url {
        let fixed = ["v1", "projects", project, "locations", self.location(), "repositories", repository, "packages"];
        self.api.url(fixed.into_iter().chain(rest.iter().copied()))
    }

    /// A list of a package's, or one of its rows. The package is the rest of a name.
    fn package(&self, name: &RepositoryName, rest: [&str; 2]) -> Url {
        let mut parts = name.as_str().splitn(3, '/');
        let (project, repository) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let package = parts.next().unwrap_or_default();
        let [kind, one] = rest;
        let rest = [package, kind, one];
        self.below(project, repository, if one.is_empty() { &rest[..2] } else { &rest })
    }

    /// All rows of a list; `Ok(None)` where there is none.
    async fn rows<T: DeserializeOwned>(&self, url: &Url, what: &str, max: u32) -> Result<Option<Vec<T>>> {
        let headers = self.headers().await?;
        let mut all = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut url = url.clone();
            url.query_pairs_mut().append_pair("pageSize", PAGE);
            if let Some(token) = &token {
                url.query_pairs_mut().append_pair("pageToken", token);
            }
            let answer = self.api.get("list", &url, &headers).await?;
            if answer.status.as_u16() == 404 && token.is_none() {
                return Ok(None);
            }
            let page: Page<T> = self.api.read(what, &answer)?;
            all.extend(page.rows);
            self.registry.bound(all.len(), max, what)?;
            match page.next_page_token.filter(|next| !next.is_empty()) {
                None => return Ok(Some(all)),
                Some(next) if token.as_ref() == Some(&next) => return Err(self.registry.endless(what)),
                next => token = next,
            }
        }
    }

    fn digest(&self, name: &str) -> Result<Digest> {
        let unusable = |_| self.api.unusable(&format!("it calls a version `{}`, which is no digest", last(name)));
        last(name).parse().map_err(unusable)
    }

    /// The versions with the tags that mean them. The tags come first: what is pushed meanwhile is a version too many.
    async fn versions(&self, repository: &RepositoryName) -> Result<Vec<Version>> {
        let limits = &self.registry.limits;
        let tags: Option<Vec<RawTag>> = self.rows(&self.package(repository, ["tags", ""]), "tags", limits.tags).await?;
        let tags = tags.ok_or_else(|| self.registry.unknown(repository))?;
        let mut of: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for tag in &tags {
            of.entry(self.digest(&tag.version)?).or_default().push(last(&tag.name).to_owned());
        }
        let mut found = Vec::new();
        for raw in self.raw_versions(repository).await? {
            let digest = self.digest(&raw.name)?;
            found.push(self.version(digest, &of.remove(&digest).unwrap_or_default(), &raw)?);
        }
        if let Some((digest, _)) = of.first_key_value() {
            let message = format!("{digest} of {repository} has tags and is not listed; try again later");
            return Err(self.api.unusable(&message));
        }
        Ok(found)
    }

    async fn raw_versions(&self, repository: &RepositoryName) -> Result<Vec<RawVersion>> {
        let mut url = self.package(repository, ["versions", ""]);
        url.query_pairs_mut().append_pair("view", "FULL");
        let rows = self.rows(&url, "manifests", self.registry.limits.manifests).await?;
        rows.ok_or_else(|| self.registry.unknown(repository))
    }

    fn version(&self, digest: Digest, tags: &[String], raw: &RawVersion) -> Result<Version> {
        let time = |text: &Option<String>| text.as_deref().and_then(Timestamp::parse);
        let pushed_at = time(&raw.update_time).max(time(&raw.create_time));
        let of_tag = pushed_at.filter(|_| tags.len() < 2);
        let tags = versions::tags(&self.registry, digest, tags, of_tag, Pulled::Unknown)?;
        Ok(Version { digest, tags, pushed_at, pulled: Pulled::Unknown, id: None })
    }

    /// What names a manifest by now, also what was pushed since it was listed.
    async fn named_by(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<Digest>> {
        if !self.watch.knows(repository) {
            self.list(repository).await?;
        }
        if self.watch.is_due(repository) {
            let raw = self.raw_versions(repository).await?;
            let listed: Vec<Digest> = raw.iter().map(|raw| self.digest(&raw.name)).collect::<Result<_>>()?;
            let fresh = self.watch.fresh(repository, listed.into_iter());
            let facts = self.trees.read(&self.registry, repository, fresh, None).await?;
            self.watch.note(repository, facts.values());
        }
        Ok(self.watch.named_by(repository, digest))
    }

    fn deletion(&self, repository: &RepositoryName, target: &Target) -> Url {
        match target {
            Target::Tag { tag, .. } => self.package(repository, ["tags", tag.as_str()]),
            Target::Manifest { digest, .. } => self.package(repository, ["versions", &digest.to_string()]),
        }
    }

    /// Whether the target is still what it was; `Some` ends the call.
    async fn look(&self, repository: &RepositoryName, target: &Target) -> Result<Option<Outcome>> {
        let mut url = self.deletion(repository, target);
        if matches!(target, Target::Manifest { .. }) {
            url.query_pairs_mut().append_pair("view", "FULL");
        }
        let answer = self.api.get("list", &url, &self.headers().await?).await?;
        if answer.status.as_u16() == 404 {
            return Ok(Some(Outcome::AlreadyGone));
        }
        let is_same = match target {
            Target::Tag { digest, .. } => {
                let now: RawTag = self.api.read("tag", &answer)?;
                self.digest(&now.version)? == *digest
            }
            Target::Manifest { tags, .. } => {
                let now: RawVersion = self.api.read("version", &answer)?;
                let mut names: Vec<&str> = now.related_tags.iter().map(|tag| last(&tag.name)).collect();
                names.sort_unstable();
                names.iter().eq(tags.iter().map(Tag::as_str).collect::<Vec<_>>().iter())
            }
        };
        if !is_same {
            return Ok(Some(Outcome::Moved));
        }
        let Target::Manifest { digest, .. } = target else { return Ok(None) };
        let holder = self.named_by(repository, digest).await?;
        Ok(holder.map(|holder| Outcome::Refused(format!("{holder} is there by now and names it"))))
    }
}

#[async_trait]
impl Remote for Gar {
    async fn repositories(&self) -> Result<Option<Vec<RepositoryName>>> {
        if self.owners.is_empty() {
            return Ok(None);
        }
        let mut all = Vec::new();
        for owner in &self.owners {
            let Some((project, repository)) = owner.split_once('/') else {
                let message = format!("its owner {owner} must be a project and a repository, like project/repository");
                return Err(self.api.unusable(&message));
            };
            let (url, max) = (self.below(project, repository, &[]), self.registry.limits.repositories);
            let rows: Option<Vec<Package>> = self.rows(&url, "repositories", max).await?;
            let rows = rows.ok_or_else(|| self.api.unusable(&format!("there is no repository {owner}")))?;
            // In a package's name slashes are encoded.
            let names = rows.iter().map(|row| format!("{owner}/{}", last(&row.name).replace("%2F", "/")));
            all.extend(names.filter_map(|name| name.parse::<RepositoryName>().ok()));
            self.registry.bound(all.len(), max, "repositories")?;
        }
        Ok(Some(all))
    }

    async fn list(&self, repository: &RepositoryName) -> Result<Holding> {
        let versions = self.versions(repository).await?;
        let holding = versions::holding(&self.registry, &self.trees, repository, versions).await?;
        self.watch.begin(&holding);
        Ok(holding)
    }

    fn calls(&self, holding: &Holding, doomed: &[Doomed]) -> (Vec<Call>, Vec<Refused>) {
        graph::calls(holding, doomed, Caps::TAGS_AND_MANIFESTS, |target| {
            let url = self.deletion(&holding.repository.name, target);
            format!("DELETE {url}")
        })
    }

    async fn carry_out(&self, repository: &RepositoryName, call: &Call) -> Result<Outcome> {
        let after = call.target.after();
        if let Some(holder) = self.registry.first_there(repository, after).await? {
            return Ok(Outcome::Refused(format!("{holder} is still there and names it")));
        }
        self.watch.gone(repository, after);
        if let Some(ended) = self.look(repository, &call.target).await? {
            return Ok(ended);
        }
        let (url, headers) = (self.deletion(repository, &call.target), self.headers().await?);
        let answer = self.api.send("delete", Method::DELETE, &url, headers, Bytes::new()).await?;
        Ok(match answer.status.as_u16() {
            200..300 => {
                if let Target::Manifest { digest, .. } = &call.target {
                    self.watch.gone(repository, &[*digest]);
                }
                Outcome::Deleted
            }
            404 => Outcome::AlreadyGone,
            // Without force a version that has tags, or is protected, stays.
            400 | 401 | 403 | 409 | 412 => Outcome::Refused(self.api.failed("deletion", &answer).to_string()),
            _ => return Err(self.api.failed("deletion", &answer)),
        })
    }
}

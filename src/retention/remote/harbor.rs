//! Harbor, by its API: tags by their names within their artifact, and artifacts that have none.
//!
//! It tells when each tag was pushed and pulled. A pull at the beginning of time means that none is on record, which is no
//! knowledge (harbor#16230: images were deleted as never pulled). Space comes back with Harbor's own collection.

use std::collections::BTreeMap;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::header;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::RepositoryName;
use crate::retention::records::Holding;
use crate::retention::records::Pulled;
use crate::retention::records::TagFact;

use super::Call;
use super::Caps;
use super::Doomed;
use super::Outcome;
use super::Refused;
use super::Remote;
use super::Result;
use super::Target;
use super::api::Api;
use super::graph;
use super::registry::Registry;
use super::trees::Trees;
use super::versions;
use super::versions::Version;

/// Rows on a page: the most that it gives.
const PAGE: &str = "100";

/// Harbor.
#[derive(Debug)]
pub(super) struct Harbor {
    registry: Registry,
    api: Api,
    trees: Trees,
    owners: Vec<String>,
}

#[derive(Deserialize)]
struct Repository {
    name: String,
}

#[derive(Deserialize)]
struct Artifact {
    digest: String,
    #[serde(default)]
    push_time: Option<String>,
    #[serde(default)]
    pull_time: Option<String>,
    #[serde(default)]
    tags: Option<Vec<RawTag>>,
}

#[derive(Deserialize)]
struct RawTag {
    name: String,
    #[serde(default)]
    push_time: Option<String>,
    #[serde(default)]
    pull_time: Option<String>,
}

fn time(text: Option<&String>) -> Option<Timestamp> {
    text.and_then(|text| Timestamp::parse(text)).filter(|at| at.0 > 0)
}

fn pulled(text: Option<&String>) -> Pulled {
    time(text).map_or(Pulled::Unknown, Pulled::At)
}

impl Harbor {
    pub(super) fn new(registry: Registry, api: Api, owners: Vec<String>) -> Self {
        let trees = Trees::new(&registry.limits);
        Self { registry, api, trees, owners }
    }

    async fn headers(&self) -> Result<HeaderMap> {
        let needs = "its API needs a user or a robot account that may delete";
        let (user, password) = self.registry.login().await?.ok_or_else(|| self.api.no_credential(needs))?;
        let text = format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.reveal())));
        let mut value = HeaderValue::try_from(text).map_err(|_| self.api.no_credential(needs))?;
        value.set_sensitive(true);
        Ok(HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
    }

    /// The URL of a repository's artifacts, or of something below them. A repository's name within its project is one part,
    /// whose slashes are encoded twice.
    fn artifacts_at(&self, repository: &RepositoryName, below: &[&str]) -> Url {
        let (project, name) = repository.as_str().split_once('/').unwrap_or((repository.as_str(), ""));
        let name = name.replace('/', "%2F");
        let fixed = ["api", "v2.0", "projects", project, "repositories", &name, "artifacts"];
        self.api.url(fixed.into_iter().chain(below.iter().copied()))
    }

    /// All rows of a list: pages until one is empty. The count that comes with them says whether it is whole.
    async fn rows<T: DeserializeOwned>(&self, url: &Url, what: &str, max: u32) -> Result<Option<Vec<T>>> {
        let headers = self.headers().await?;
        let (mut all, mut number) = (Vec::new(), 1_u32);
        loop {
            let mut url = url.clone();
            url.query_pairs_mut().append_pair("page", &number.to_string()).append_pair("page_size", PAGE);
            let answer = self.api.get("list", &url, &headers).await?;
            if answer.status.as_u16() == 404 && number == 1 {
                return Ok(None);
            }
            let rows: Vec<T> = self.api.read(what, &answer)?;
            if rows.is_empty() {
                let count: Option<usize> = answer.header("x-total-count").and_then(|text| text.parse().ok());
                let is_short = count.is_some_and(|count| count > all.len());
                return if is_short {
                    Err(self.api.unusable(&format!("its list of {what} is shorter than it says")))
                } else {
                    Ok(Some(all))
                };
            }
            all.extend(rows);
            self.registry.bound(all.len(), max, what)?;
            number += 1;
        }
    }

    fn version(&self, artifact: Artifact) -> Result<Version> {
        let Artifact { digest, push_time, pull_time, tags } = artifact;
        let unusable = |what: &str| self.api.unusable(&format!("its list of artifacts has `{what}`, which is none"));
        let digest: Digest = digest.parse().map_err(|_| unusable(&digest))?;
        let fact = |raw: &RawTag| {
            let tag = raw.name.parse().map_err(|_| unusable(&raw.name))?;
            Ok(TagFact { tag, digest, pushed_at: time(raw.push_time.as_ref()), pulled: pulled(raw.pull_time.as_ref()) })
        };
        let tags = tags.unwrap_or_default().iter().map(fact).collect::<Result<_>>()?;
        let (pushed_at, pulled) = (time(push_time.as_ref()), pulled(pull_time.as_ref()));
        Ok(Version { digest, tags, pushed_at, pulled, id: None })
    }

    /// An artifact as it is now; `Ok(None)` where it is not there.
    async fn now(&self, repository: &RepositoryName, reference: &str) -> Result<Option<Version>> {
        let mut url = self.artifacts_at(repository, &[reference]);
        url.query_pairs_mut().append_pair("with_tag", "true");
        let answer = self.api.get("list", &url, &self.headers().await?).await?;
        if answer.status.as_u16() == 404 {
            return Ok(None);
        }
        self.version(self.api.read("artifact", &answer)?).map(Some)
    }

    /// Where the deletion of a target is sent.
    fn deletion(&self, repository: &RepositoryName, target: &Target) -> Url {
        let digest = target.digest().to_string();
        match target {
            Target::Tag { tag, .. } => self.artifacts_at(repository, &[&digest, "tags", tag.as_str()]),
            Target::Manifest { .. } => self.artifacts_at(repository, &[digest.as_str()]),
        }
    }
}

#[async_trait]
impl Remote for Harbor {
    async fn repositories(&self) -> Result<Option<Vec<RepositoryName>>> {
        let all = [vec!["api", "v2.0", "repositories"]];
        let owned = self.owners.iter().map(|owner| vec!["api", "v2.0", "projects", owner, "repositories"]);
        let paths: Vec<Vec<&str>> = if self.owners.is_empty() { all.to_vec() } else { owned.collect() };
        let mut names = Vec::new();
        for path in paths {
            let (url, max) = (self.api.url(path), self.registry.limits.repositories);
            let rows: Option<Vec<Repository>> = self.rows(&url, "repositories", max).await?;
            let rows = rows.ok_or_else(|| self.api.unusable("it has no such project, or does not show it"))?;
            names.extend(rows.iter().filter_map(|row| row.name.parse::<RepositoryName>().ok()));
            self.registry.bound(names.len(), max, "repositories")?;
        }
        Ok(Some(names))
    }

    async fn list(&self, repository: &RepositoryName) -> Result<Holding> {
        let mut url = self.artifacts_at(repository, &[]);
        url.query_pairs_mut().append_pair("with_tag", "true");
        let rows: Option<Vec<Artifact>> = self.rows(&url, "artifacts", self.registry.limits.manifests).await?;
        let rows = rows.ok_or_else(|| self.registry.unknown(repository))?;
        let found: Vec<Version> = rows.into_iter().map(|artifact| self.version(artifact)).collect::<Result<_>>()?;
        // What was pushed between two pages moved one artifact to the next: it stands there twice.
        let versions: BTreeMap<Digest, Version> = found.into_iter().map(|version| (version.digest, version)).collect();
        // The children of an index are in no list; its manifest names them.
        let facts = self.trees.read(&self.registry, repository, versions.keys().copied(), None).await?;
        versions::join(&self.registry, repository, versions.into_values().collect(), facts)
    }

    fn calls(&self, holding: &Holding, doomed: &[Doomed]) -> (Vec<Call>, Vec<Refused>) {
        graph::calls(holding, doomed, Caps::TAGS_AND_MANIFESTS, |target| {
            let url = self.deletion(&holding.repository.name, target);
            format!("DELETE {url}")
        })
    }

    async fn carry_out(&self, repository: &RepositoryName, call: &Call) -> Result<Outcome> {
        if let Some(holder) = self.registry.first_there(repository, call.target.after()).await? {
            return Ok(Outcome::Refused(format!("{holder} is still there and names it")));
        }
        let digest = *call.target.digest();
        let reference = match &call.target {
            Target::Tag { tag, .. } => tag.to_string(),
            Target::Manifest { .. } => digest.to_string(),
        };
        let Some(now) = self.now(repository, &reference).await? else { return Ok(Outcome::AlreadyGone) };
        let is_same = match &call.target {
            Target::Tag { .. } => now.digest == digest,
            Target::Manifest { tags, .. } => now.digest == digest && now.tags() == tags.iter().collect(),
        };
        if !is_same {
            return Ok(Outcome::Moved);
        }
        let (url, headers) = (self.deletion(repository, &call.target), self.headers().await?);
        let answer = self.api.send("delete", Method::DELETE, &url, headers, Bytes::new()).await?;
        Ok(match answer.status.as_u16() {
            200..300 => Outcome::Deleted,
            404 => Outcome::AlreadyGone,
            // 412: immutable, or an index names it.
            400 | 401 | 403 | 405 | 409 | 412 => Outcome::Refused(self.api.failed("deletion", &answer).to_string()),
            _ => return Err(self.api.failed("deletion", &answer)),
        })
    }
}

//! Quay: tags by their names, through its API, with the moment at which each began to mean what it means.
//!
//! Its time machine keeps what a deleted tag meant for a while, so space comes back later.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use http::header;
use serde::Deserialize;
use url::Url;

use crate::clock::Timestamp;
use crate::oci::RepositoryName;
use crate::oci::Tag;
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
use super::Why;
use super::api;
use super::api::Api;
use super::graph;
use super::registry::Registry;
use super::trees::Trees;

/// Tags on a page: the most that it gives.
const PAGE: &str = "100";

/// Quay.
#[derive(Debug)]
pub(super) struct Quay {
    registry: Registry,
    api: Api,
    trees: Trees,
    owners: Vec<String>,
}

#[derive(Deserialize)]
struct Tags {
    tags: Vec<Row>,
    #[serde(default)]
    has_additional: bool,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    manifest_digest: String,
    #[serde(default)]
    start_ts: Option<u64>,
}

#[derive(Deserialize)]
struct Repositories {
    repositories: Vec<Repository>,
    #[serde(default)]
    next_page: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    namespace: String,
    name: String,
}

impl Quay {
    pub(super) fn new(registry: Registry, api: Api, owners: Vec<String>) -> Self {
        let trees = Trees::new(&registry.limits);
        Self { registry, api, trees, owners }
    }

    async fn headers(&self) -> Result<HeaderMap> {
        let needs = "its API needs an OAuth token of an application with repo:write, as the password of $oauthtoken";
        let (_, token) = self.registry.login().await?.ok_or_else(|| self.api.no_credential(needs))?;
        let token = api::bearer(token.reveal()).ok_or_else(|| self.api.no_credential(needs))?;
        Ok(HeaderMap::from_iter([(header::AUTHORIZATION, token)]))
    }

    /// Where a repository's tags are, or one of them.
    fn tags_at(&self, repository: &RepositoryName, tag: Option<&Tag>) -> Url {
        let name = repository.as_str().split('/');
        let last = tag.map_or("", Tag::as_str);
        self.api.url(["api", "v1", "repository"].into_iter().chain(name).chain(["tag", last]))
    }

    fn fact(&self, row: &Row) -> Result<TagFact> {
        let unusable = |what: &str| self.api.unusable(&format!("its list of tags has `{what}`, which is none"));
        let tag = row.name.parse().map_err(|_| unusable(&row.name))?;
        let digest = row.manifest_digest.parse().map_err(|_| unusable(&row.manifest_digest))?;
        let pushed_at = row.start_ts.map(|seconds| Timestamp(seconds.saturating_mul(1000)));
        Ok(TagFact { tag, digest, pushed_at, pulled: Pulled::Unknown })
    }

    async fn tags(&self, repository: &RepositoryName, headers: &HeaderMap) -> Result<BTreeMap<Tag, TagFact>> {
        let mut all = BTreeMap::new();
        let mut number = 1;
        loop {
            let mut url = self.tags_at(repository, None);
            url.query_pairs_mut()
                .append_pair("limit", PAGE)
                .append_pair("page", &number.to_string())
                .append_pair("onlyActiveTags", "true");
            let answer = self.api.get("list", &url, headers).await?;
            if answer.status.as_u16() == 404 && number == 1 {
                return Err(self.registry.unknown(repository));
            }
            let page: Tags = self.api.read("list of tags", &answer)?;
            let before = all.len();
            for row in &page.tags {
                let fact = self.fact(row)?;
                all.insert(fact.tag.clone(), fact);
            }
            self.registry.bound(all.len(), self.registry.limits.tags, "tags")?;
            if !page.has_additional {
                return Ok(all);
            }
            if all.len() == before {
                return Err(self.registry.endless("tags"));
            }
            number += 1;
        }
    }
}

#[async_trait]
impl Remote for Quay {
    async fn repositories(&self) -> Result<Option<Vec<RepositoryName>>> {
        if self.owners.is_empty() {
            return Ok(None);
        }
        let headers = self.headers().await?;
        let mut all = Vec::new();
        for owner in &self.owners {
            let mut next: Option<String> = None;
            loop {
                let mut url = self.api.url(["api", "v1", "repository"]);
                url.query_pairs_mut().append_pair("namespace", owner);
                if let Some(next) = &next {
                    url.query_pairs_mut().append_pair("next_page", next);
                }
                let answer = self.api.get("list", &url, &headers).await?;
                let page: Repositories = self.api.read("list of repositories", &answer)?;
                let names = page.repositories.iter().map(|row| format!("{}/{}", row.namespace, row.name));
                all.extend(names.filter_map(|name| name.parse::<RepositoryName>().ok()));
                self.registry.bound(all.len(), self.registry.limits.repositories, "repositories")?;
                match page.next_page {
                    None => break,
                    Some(after) if page.repositories.is_empty() || next.as_ref() == Some(&after) => {
                        return Err(self.registry.endless("repositories"));
                    }
                    after => next = after,
                }
            }
        }
        Ok(Some(all))
    }

    async fn list(&self, repository: &RepositoryName) -> Result<Holding> {
        let tags = self.tags(repository, &self.headers().await?).await?;
        let roots = tags.values().map(|fact| fact.digest);
        let facts = self.trees.read(&self.registry, repository, roots, None).await?;
        Ok(Holding {
            repository: self.registry.key(repository),
            tags: tags.into_values().collect(),
            manifests: facts.into_values().collect(),
        })
    }

    fn calls(&self, holding: &Holding, doomed: &[Doomed]) -> (Vec<Call>, Vec<Refused>) {
        graph::calls(holding, doomed, Caps::TAGS, |target| {
            let url = self.tags_at(&holding.repository.name, target.tags().first());
            format!("DELETE {url}")
        })
    }

    async fn carry_out(&self, repository: &RepositoryName, call: &Call) -> Result<Outcome> {
        let Some((tag, digest)) = call.target.tag() else { return Ok(Outcome::Refused(Why::ByTagOnly.to_string())) };
        let headers = self.headers().await?;
        let mut url = self.tags_at(repository, None);
        url.query_pairs_mut().append_pair("specificTag", tag.as_str()).append_pair("onlyActiveTags", "true");
        let page: Tags = self.api.read("tag", &self.api.get("list", &url, &headers).await?)?;
        let Some(row) = page.tags.iter().find(|row| row.name == tag.as_str()) else { return Ok(Outcome::AlreadyGone) };
        if self.fact(row)?.digest != *digest {
            return Ok(Outcome::Moved);
        }
        let url = self.tags_at(repository, Some(tag));
        let answer = self.api.send("delete", Method::DELETE, &url, headers, Bytes::new()).await?;
        Ok(match answer.status.as_u16() {
            200..300 => Outcome::Deleted,
            404 => Outcome::AlreadyGone,
            400 | 401 | 403 | 405 | 409 => Outcome::Refused(self.api.failed("deletion", &answer).to_string()),
            _ => return Err(self.api.failed("deletion", &answer)),
        })
    }
}

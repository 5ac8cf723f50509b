//! Docker Hub, by its own API: tags by their names. The distribution API there takes no tag, and a manifest's GET costs a pull.
//!
//! So trees are as far as the API tells them: a tag, its images, and their sizes as a whole. Layers are not told apart.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::header;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::clock::Timestamp;
use crate::config::Secret;
use crate::net::fetch::Answer;
use crate::oci::Class;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::oci::RepositoryName;
use crate::oci::Tag;
use crate::retention::records::Holding;
use crate::retention::records::ManifestFact;
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

/// Docker Hub's API.
pub(super) const API: &str = "https://hub.docker.com";

/// Rows on a page: the most that it gives.
const PAGE: &str = "100";

/// How long a token is used; it is good for longer.
const TOKEN_KEPT: Duration = Duration::from_mins(5);

/// Docker Hub.
#[derive(Debug)]
pub(super) struct DockerHub {
    registry: Registry,
    api: Api,
    owners: Vec<String>,
    token: Mutex<Option<(HeaderValue, Instant)>>,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
}

#[derive(Deserialize)]
struct Page<T> {
    count: Option<u64>,
    next: Option<String>,
    results: Vec<T>,
}

#[derive(Deserialize)]
struct Repository {
    name: String,
}

#[derive(Deserialize)]
struct RawTag {
    name: String,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    images: Vec<Image>,
    #[serde(default)]
    last_updated: Option<String>,
    #[serde(default)]
    tag_last_pushed: Option<String>,
    #[serde(default)]
    tag_last_pulled: Option<String>,
}

#[derive(Deserialize)]
struct Image {
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    size: u64,
}

impl DockerHub {
    pub(super) fn new(registry: Registry, api: Api, owners: Vec<String>) -> Self {
        Self { registry, api, owners, token: Mutex::new(None) }
    }

    async fn login(&self) -> Result<(String, Secret)> {
        let needs = "deleting needs an account and a personal access token with the right to delete";
        self.registry.login().await?.ok_or_else(|| self.api.no_credential(needs))
    }

    /// The header that its API wants; a token is got for it first, anew where `is_refused`.
    async fn headers(&self, is_refused: bool) -> Result<HeaderMap> {
        let mut kept = self.token.lock().await;
        if is_refused {
            *kept = None;
        }
        let value = match &*kept {
            Some((value, until)) if Instant::now() < *until => value.clone(),
            _ => {
                let (user, password) = self.login().await?;
                let body = json!({"identifier": user, "secret": password.reveal()}).to_string();
                let json = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
                let url = self.api.url(["v2", "auth", "token"]);
                let answer = self.api.send("token", Method::POST, &url, json, Bytes::from(body)).await?;
                let token: Token = self.api.read("token", &answer)?;
                let value = api::bearer(&token.access_token);
                let value = value.ok_or_else(|| self.api.unusable("its token can't stand in a header"))?;
                *kept = Some((value.clone(), Instant::now() + TOKEN_KEPT));
                value
            }
        };
        Ok(HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
    }

    /// Asks for a document; a token that is not taken any more is got anew, once.
    async fn get(&self, url: &Url) -> Result<Answer> {
        let answer = self.api.get("list", url, &self.headers(false).await?).await?;
        if answer.status.as_u16() != 401 {
            return Ok(answer);
        }
        self.api.get("list", url, &self.headers(true).await?).await
    }

    /// All rows of a list. Its own count says whether it is whole.
    async fn rows<T: DeserializeOwned>(&self, mut url: Url, what: &str, max: u32) -> Result<Option<Vec<T>>> {
        url.query_pairs_mut().append_pair("page_size", PAGE);
        let mut all = Vec::new();
        loop {
            let answer = self.get(&url).await?;
            if answer.status.as_u16() == 404 && all.is_empty() {
                return Ok(None);
            }
            let page: Page<T> = self.api.read(what, &answer)?;
            let is_empty = page.results.is_empty();
            all.extend(page.results);
            self.registry.bound(all.len(), max, what)?;
            let Some(next) = page.next else {
                let is_short = page.count.is_some_and(|count| count > all.len() as u64);
                if is_short {
                    return Err(self.api.unusable(&format!("its list of {what} is shorter than it says")));
                }
                return Ok(Some(all));
            };
            let next = self.api.page(&url, &next)?;
            if is_empty || next == url {
                return Err(self.registry.endless(what));
            }
            url = next;
        }
    }

    /// Where a repository's tags are, or one of them; what is official lies in `library`.
    fn tags_at(&self, repository: &RepositoryName, tag: Option<&Tag>) -> Url {
        let (owner, name) = repository.as_str().split_once('/').unwrap_or(("library", repository.as_str()));
        let fixed = ["v2", "repositories", owner, name, "tags"];
        self.api.url(fixed.into_iter().chain(tag.map(Tag::as_str)).chain([""]))
    }

    /// What a tag means, as its row or else the registry says.
    async fn digest(&self, repository: &RepositoryName, raw: &RawTag, tag: &Tag) -> Result<Option<Digest>> {
        match &raw.digest {
            Some(text) => {
                let unusable = |_| self.api.unusable(&format!("the digest of its tag {tag} is none"));
                text.parse().map(Some).map_err(unusable)
            }
            None => self.registry.resolve(repository, &Reference::Tag(tag.clone())).await,
        }
    }

    async fn add(
        &self,
        repository: &RepositoryName,
        raw: RawTag,
        tags: &mut BTreeMap<Tag, TagFact>,
        manifests: &mut BTreeMap<Digest, ManifestFact>,
    ) -> Result<()> {
        let tag: Tag = raw.name.parse().map_err(|_| self.api.unusable(&format!("its tag `{}` is none", raw.name)))?;
        let Some(digest) = self.digest(repository, &raw, &tag).await? else { return Ok(()) };
        let time = |text: &Option<String>| text.as_deref().and_then(Timestamp::parse);
        let pushed_at = time(&raw.tag_last_pushed).max(time(&raw.last_updated));
        // A tag without a time may never have been pulled, or not since they are noted: it is not known.
        let pulled = time(&raw.tag_last_pulled).map_or(Pulled::Unknown, Pulled::At);
        let images: Vec<(Digest, u64)> =
            raw.images.iter().filter_map(|image| Some((image.digest.as_deref()?.parse().ok()?, image.size))).collect();
        let children: BTreeSet<Digest> = images.iter().map(|(image, _)| *image).filter(|d| *d != digest).collect();
        for (image, size) in images {
            let known = manifests.entry(image).or_insert_with(|| fact(image, Some(Class::Image)));
            known.size = known.size.max(size);
        }
        let known = manifests.entry(digest).or_insert_with(|| fact(digest, None));
        known.children = children.into_iter().collect();
        known.pushed_at = known.pushed_at.max(pushed_at);
        known.pulled = known.pulled.latest(pulled);
        tags.insert(tag.clone(), TagFact { tag, digest, pushed_at, pulled });
        Ok(())
    }

    async fn delete(&self, url: &Url) -> Result<Outcome> {
        let answer = self.api.send("delete", Method::DELETE, url, self.headers(false).await?, Bytes::new()).await?;
        Ok(match answer.status.as_u16() {
            200..300 => Outcome::Deleted,
            404 => Outcome::AlreadyGone,
            // No right, or a tag that is immutable.
            400 | 401 | 403 | 405 | 409 => Outcome::Refused(self.api.failed("deletion", &answer).to_string()),
            _ => return Err(self.api.failed("deletion", &answer)),
        })
    }
}

/// A manifest of which the API tells little.
fn fact(digest: Digest, class: Option<Class>) -> ManifestFact {
    ManifestFact {
        digest,
        size: 0,
        class,
        pushed_at: None,
        pulled: Pulled::Unknown,
        children: Vec::new(),
        blobs: Vec::new(),
        subject: None,
        id: None,
    }
}

#[async_trait]
impl Remote for DockerHub {
    async fn repositories(&self) -> Result<Option<Vec<RepositoryName>>> {
        let owners = if self.owners.is_empty() { vec![self.login().await?.0] } else { self.owners.clone() };
        let mut all = Vec::new();
        for owner in owners {
            let url = self.api.url(["v2", "repositories", &owner, ""]);
            let rows: Option<Vec<Repository>> =
                self.rows(url, "repositories", self.registry.limits.repositories).await?;
            let rows = rows.ok_or_else(|| self.api.unusable(&format!("there is no account {owner}")))?;
            all.extend(rows.iter().filter_map(|row| format!("{owner}/{}", row.name).parse::<RepositoryName>().ok()));
            self.registry.bound(all.len(), self.registry.limits.repositories, "repositories")?;
        }
        Ok(Some(all))
    }

    async fn list(&self, repository: &RepositoryName) -> Result<Holding> {
        let rows: Option<Vec<RawTag>> =
            self.rows(self.tags_at(repository, None), "tags", self.registry.limits.tags).await?;
        let rows = rows.ok_or_else(|| self.registry.unknown(repository))?;
        let (mut tags, mut manifests) = (BTreeMap::new(), BTreeMap::new());
        for raw in rows {
            self.add(repository, raw, &mut tags, &mut manifests).await?;
        }
        Ok(Holding {
            repository: self.registry.key(repository),
            tags: tags.into_values().collect(),
            manifests: manifests.into_values().collect(),
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
        let url = self.tags_at(repository, Some(tag));
        let answer = self.get(&url).await?;
        if answer.status.as_u16() == 404 {
            return Ok(Outcome::AlreadyGone);
        }
        let raw: RawTag = self.api.read("tag", &answer)?;
        match self.digest(repository, &raw, tag).await? {
            None => Ok(Outcome::AlreadyGone),
            Some(now) if now != *digest => Ok(Outcome::Moved),
            Some(_) => self.delete(&url).await,
        }
    }
}

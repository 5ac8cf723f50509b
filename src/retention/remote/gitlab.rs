//! GitLab's registry: tags by their names, in the specification's way or the older one of its own; never a digest.
//!
//! Its list of tags tells when each was published. What GitLab's API calls the creation of a tag is that of the image, which
//! is of no use (a pushed image that was built last year would go the same night).

use std::collections::BTreeSet;

use async_trait::async_trait;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use serde::Deserialize;

use crate::clock::Timestamp;
use crate::oci::RepositoryName;
use crate::retention::records::Holding;
use crate::retention::records::Pulled;
use crate::retention::records::TagFact;

use super::Call;
use super::Doomed;
use super::Outcome;
use super::Refused;
use super::Remote;
use super::Result;
use super::api::Api;
use super::deletes::Deletes;
use super::deletes::Way;
use super::registry::Registry;
use super::trees::Trees;

/// GitLab itself, of the public registry.
pub(super) const API: &str = "https://gitlab.com";

/// Rows on a page: the most that the registry and GitLab give.
const PAGE: &str = "100";

/// GitLab's registry.
#[derive(Debug)]
pub(super) struct Gitlab {
    registry: Registry,
    api: Api,
    trees: Trees,
    deletes: Deletes,
    owners: Vec<String>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    digest: String,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
    #[serde(default)]
    published_at: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    path: String,
}

impl Gitlab {
    pub(super) fn new(registry: Registry, api: Api, owners: Vec<String>) -> Self {
        let trees = Trees::new(&registry.limits);
        Self { registry, api, trees, deletes: Deletes::new(&[Way::Tag, Way::TagReference]), owners }
    }

    /// The registry's own list of tags, whole; `Ok(None)` where it has none.
    async fn rows(&self, repository: &RepositoryName) -> Result<Option<Vec<Row>>> {
        let path = format!("gitlab/v1/repositories/{repository}/tags/list/");
        let (mut all, mut query) = (Vec::new(), format!("n={PAGE}"));
        loop {
            let page = self.registry.document(repository, &path, &query).await?;
            let Some(page) = page else {
                return if all.is_empty() { Ok(None) } else { Err(self.registry.unknown(repository)) };
            };
            let rows: Vec<Row> = serde_json::from_slice(&page.bytes)
                .map_err(|error| self.registry.unusable("its list of tags can't be read").caused_by(error))?;
            let is_empty = rows.is_empty();
            all.extend(rows);
            self.registry.bound(all.len(), self.registry.limits.tags, "tags")?;
            match page.next {
                None => return Ok(Some(all)),
                Some(next) if is_empty || next == query => return Err(self.registry.endless("tags")),
                Some(next) => query = next,
            }
        }
    }

    fn fact(&self, row: &Row) -> Result<TagFact> {
        let unusable = |what: &str| self.registry.unusable(&format!("its list of tags has `{what}`, which is none"));
        let tag = row.name.parse().map_err(|_| unusable(&row.name))?;
        let digest = row.digest.parse().map_err(|_| unusable(&row.digest))?;
        let time = |text: &Option<String>| text.as_deref().and_then(Timestamp::parse);
        let pushed_at = time(&row.published_at).or_else(|| time(&row.updated_at).max(time(&row.created_at)));
        Ok(TagFact { tag, digest, pushed_at, pulled: Pulled::Unknown })
    }

    /// The tags with their times; where the registry has no list with times, without.
    async fn tags(&self, repository: &RepositoryName) -> Result<Vec<TagFact>> {
        if let Some(rows) = self.rows(repository).await? {
            let mut tags: Vec<TagFact> = rows.iter().map(|row| self.fact(row)).collect::<Result<_>>()?;
            tags.sort_by(|a, b| a.tag.cmp(&b.tag));
            tags.dedup_by(|a, b| a.tag == b.tag);
            return Ok(tags);
        }
        let tags = self.registry.tags(repository).await?;
        let resolved = self.registry.resolve_all(repository, tags).await?;
        let fact = |(tag, digest)| TagFact { tag, digest, pushed_at: None, pulled: Pulled::Unknown };
        Ok(resolved.into_iter().map(fact).collect())
    }

    async fn headers(&self) -> Result<HeaderMap> {
        let needs = "GitLab lists a group's repositories to a token with read_api";
        let (_, token) = self.registry.login().await?.ok_or_else(|| self.api.no_credential(needs))?;
        let mut value = HeaderValue::try_from(token.reveal()).map_err(|_| self.api.no_credential(needs))?;
        value.set_sensitive(true);
        Ok(HeaderMap::from_iter([(HeaderName::from_static("private-token"), value)]))
    }

    /// The repositories of a group, or of a project.
    async fn of_owner(&self, owner: &str, headers: &HeaderMap) -> Result<Vec<String>> {
        for kind in ["groups", "projects"] {
            let mut all = Vec::new();
            let mut page = Some("1".to_owned());
            while let Some(number) = page.take() {
                let mut url = self.api.url(["api", "v4", kind, owner, "registry", "repositories"]);
                url.query_pairs_mut().append_pair("per_page", PAGE).append_pair("page", &number);
                let answer = self.api.get("list", &url, headers).await?;
                if answer.status.as_u16() == 404 && kind == "groups" && all.is_empty() {
                    break;
                }
                let rows: Vec<Repository> = self.api.read("list of repositories", &answer)?;
                let is_empty = rows.is_empty();
                all.extend(rows.into_iter().map(|row| row.path));
                self.registry.bound(all.len(), self.registry.limits.repositories, "repositories")?;
                let next = answer.header("x-next-page").filter(|next| !next.is_empty()).map(str::to_owned);
                match next {
                    None => return Ok(all),
                    Some(next) if is_empty || next == number => return Err(self.registry.endless("repositories")),
                    next => page = next,
                }
            }
        }
        Err(self.api.unusable(&format!("there is no group and no project {owner}, or this token does not see it")))
    }
}

#[async_trait]
impl Remote for Gitlab {
    async fn repositories(&self) -> Result<Option<Vec<RepositoryName>>> {
        if self.owners.is_empty() {
            return Ok(None);
        }
        let headers = self.headers().await?;
        let mut all = BTreeSet::new();
        for owner in &self.owners {
            let paths = self.of_owner(owner, &headers).await?;
            all.extend(paths.iter().filter_map(|path| path.parse::<RepositoryName>().ok()));
        }
        Ok(Some(all.into_iter().collect()))
    }

    async fn list(&self, repository: &RepositoryName) -> Result<Holding> {
        let tags = self.tags(repository).await?;
        let roots = tags.iter().map(|fact| fact.digest);
        let facts = self.trees.read(&self.registry, repository, roots, None).await?;
        Ok(Holding { repository: self.registry.key(repository), tags, manifests: facts.into_values().collect() })
    }

    fn calls(&self, holding: &Holding, doomed: &[Doomed]) -> (Vec<Call>, Vec<Refused>) {
        Deletes::calls(&self.registry, holding, doomed)
    }

    async fn carry_out(&self, repository: &RepositoryName, call: &Call) -> Result<Outcome> {
        self.deletes.carry_out(&self.registry, repository, call).await
    }
}

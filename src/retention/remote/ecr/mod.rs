//! Amazon's registry, by its API: a tag goes by its name, and the last one takes its image along.
//!
//! When an image was pushed says nothing of a tag that was put on it later, without a trace: where an image has several tags
//! the times of them are not known. The registry notes pulls to the day, so a pull counts as one of a day later.

mod actions;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::clock::Timestamp;
use crate::oci::Digest;
use crate::oci::MediaType;
use crate::oci::RepositoryName;
use crate::retention::records::Holding;
use crate::retention::records::ManifestFact;
use crate::retention::records::Pulled;

use crate::retention::remote::Call;
use crate::retention::remote::Caps;
use crate::retention::remote::Doomed;
use crate::retention::remote::Fault;
use crate::retention::remote::Outcome;
use crate::retention::remote::Refused;
use crate::retention::remote::Remote;
use crate::retention::remote::Result;
use crate::retention::remote::Target;
use crate::retention::remote::api::Api;
use crate::retention::remote::graph;
use crate::retention::remote::registry::Registry;
use crate::retention::remote::trees::Trees;
use crate::retention::remote::versions;
use crate::retention::remote::versions::Version;
use actions::Actions;

pub(super) use actions::api_of;

/// Rows of a page, and images of one request: the most that it takes.
const PAGE: u32 = 1_000;
const IMAGES: usize = 100;

/// How exact its times of pulls are.
const PULLS_TO: Duration = Duration::from_hours(24);

/// Amazon's registry.
#[derive(Debug)]
pub(super) struct Ecr {
    actions: Actions,
    trees: Trees,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Repositories {
    repositories: Vec<Repository>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Repository {
    repository_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Images {
    image_details: Vec<Image>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "imageDigest")]
    digest: String,
    #[serde(rename = "imageTags", default)]
    tags: Vec<String>,
    #[serde(rename = "imagePushedAt")]
    pushed_at: Option<f64>,
    #[serde(rename = "lastRecordedPullTime")]
    pulled_at: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    #[serde(default)]
    images: Vec<Got>,
}

#[derive(Deserialize)]
struct Got {
    #[serde(rename = "imageId")]
    id: ImageId,
    #[serde(rename = "imageManifest")]
    manifest: String,
    #[serde(rename = "imageManifestMediaType")]
    media_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageId {
    image_digest: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deleted {
    #[serde(default)]
    image_ids: Vec<Value>,
    #[serde(default)]
    failures: Vec<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    failure_code: Option<String>,
    failure_reason: Option<String>,
}

impl Ecr {
    pub(super) fn new(registry: Registry, api: Api) -> Self {
        let trees = Trees::new(&registry.limits);
        Self { trees, actions: Actions::new(registry, api) }
    }

    async fn images(&self, repository: &RepositoryName) -> Result<Vec<Image>> {
        let mut all = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut body = json!({"repositoryName": repository.as_str(), "maxResults": PAGE});
            if let (Some(token), Some(fields)) = (&token, body.as_object_mut()) {
                fields.insert("nextToken".to_owned(), json!(token));
            }
            let page: Option<Images> = self.actions.ask("DescribeImages", body).await?;
            let page = page.ok_or_else(|| self.actions.registry.unknown(repository))?;
            all.extend(page.image_details);
            self.actions.registry.bound(all.len(), self.actions.registry.limits.manifests, "manifests")?;
            match page.next_token {
                None => return Ok(all),
                Some(next) if token.as_ref() == Some(&next) => return Err(self.actions.registry.endless("images")),
                next => token = next,
            }
        }
    }

    fn version(&self, image: &Image) -> Result<Version> {
        let digest = image
            .digest
            .parse()
            .map_err(|_| self.actions.api.unusable(&format!("it lists `{}`, which is no digest", image.digest)))?;
        let pushed_at = image.pushed_at.and_then(moment);
        // Of several tags one may be of today (containers-roadmap#2746: an image's age ignores that it was tagged anew).
        let of_tag = pushed_at.filter(|_| image.tags.len() < 2);
        let pulled = image.pulled_at.and_then(moment);
        let pulled = pulled.map_or(Pulled::Unknown, |at| Pulled::At(at.after(PULLS_TO)));
        let tags = versions::tags(&self.actions.registry, digest, &image.tags, of_tag, pulled)?;
        Ok(Version { digest, tags, pushed_at, pulled, id: None })
    }

    /// What the manifests say, a hundred at a time.
    async fn facts(&self, repository: &RepositoryName, versions: &[Version]) -> Result<BTreeMap<Digest, ManifestFact>> {
        let mut facts = BTreeMap::new();
        let mut unknown = Vec::new();
        for version in versions {
            match self.trees.known(repository, version.digest) {
                Some(fact) => drop(facts.insert(version.digest, ManifestFact::clone(&fact))),
                None => unknown.push(version.digest),
            }
        }
        let accepted =
            [MediaType::OCI_INDEX, MediaType::OCI_MANIFEST, MediaType::DOCKER_LIST, MediaType::DOCKER_MANIFEST];
        for digests in unknown.chunks(IMAGES) {
            let ids: Vec<Value> = digests.iter().map(|digest| json!({"imageDigest": digest.to_string()})).collect();
            let body = json!({"repositoryName": repository.as_str(), "imageIds": ids, "acceptedMediaTypes": accepted});
            let batch: Option<Batch> = self.actions.ask("BatchGetImage", body).await?;
            for got in batch.map(|batch| batch.images).unwrap_or_default() {
                let Some(digest) = got.id.image_digest.and_then(|text| text.parse().ok()) else { continue };
                let kind = got.media_type.unwrap_or_default();
                let fact = self.trees.take(&self.actions.registry, repository, digest, got.manifest.into(), &kind)?;
                facts.insert(digest, ManifestFact::clone(&fact));
            }
        }
        Ok(facts)
    }

    /// An image as it is now, by tag or by digest; `Ok(None)` where it is not there.
    async fn now(&self, repository: &RepositoryName, id: &Value) -> Result<Option<Version>> {
        let body = json!({"repositoryName": repository.as_str(), "imageIds": [id]});
        let found: Option<Images> = self.actions.ask("DescribeImages", body).await?;
        found.and_then(|found| found.image_details.into_iter().next()).map(|image| self.version(&image)).transpose()
    }

    async fn delete(&self, repository: &RepositoryName, id: &Value) -> Result<Outcome> {
        let body = json!({"repositoryName": repository.as_str(), "imageIds": [id]});
        let answer = self.actions.act("BatchDeleteImage", body).await?;
        let ended: Deleted = match self.actions.read("BatchDeleteImage", &answer) {
            Err(error) if error.fault() == Fault::Denied => return Ok(Outcome::Refused(error.to_string())),
            ended => ended?,
        };
        let Some(failure) = ended.failures.into_iter().next() else {
            let is_done = !ended.image_ids.is_empty();
            return if is_done {
                Ok(Outcome::Deleted)
            } else {
                Err(self.actions.api.unusable("its deletion says nothing"))
            };
        };
        let code = failure.failure_code.unwrap_or_default();
        Ok(match code.as_str() {
            "ImageNotFound" => Outcome::AlreadyGone,
            "ImageTagDoesNotMatchDigest" => Outcome::Moved,
            // Among them ImageReferencedByManifestList: an index that was pushed since then.
            _ => Outcome::Refused(format!("{code}: {}", failure.failure_reason.unwrap_or_default())),
        })
    }
}

/// Seconds since 1970 with a fraction.
fn moment(seconds: f64) -> Option<Timestamp> {
    Duration::try_from_secs_f64(seconds).ok().map(|since| Timestamp(0).after(since))
}

#[async_trait]
impl Remote for Ecr {
    async fn repositories(&self) -> Result<Option<Vec<RepositoryName>>> {
        let mut all = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut body = json!({"maxResults": PAGE});
            if let (Some(token), Some(fields)) = (&token, body.as_object_mut()) {
                fields.insert("nextToken".to_owned(), json!(token));
            }
            let page: Option<Repositories> = self.actions.ask("DescribeRepositories", body).await?;
            let Some(page) = page else { return Err(self.actions.registry.unusable("it lists no repositories")) };
            let names = page.repositories.iter().map(|repository| repository.repository_name.parse());
            all.extend(names.filter_map(std::result::Result::ok));
            self.actions.registry.bound(all.len(), self.actions.registry.limits.repositories, "repositories")?;
            match page.next_token {
                None => return Ok(Some(all)),
                Some(next) if token.as_ref() == Some(&next) => {
                    return Err(self.actions.registry.endless("repositories"));
                }
                next => token = next,
            }
        }
    }

    async fn list(&self, repository: &RepositoryName) -> Result<Holding> {
        let images = self.images(repository).await?;
        let versions: Vec<Version> = images.into_iter().map(|image| self.version(&image)).collect::<Result<_>>()?;
        let facts = self.facts(repository, &versions).await?;
        versions::join(&self.actions.registry, repository, versions, facts)
    }

    fn calls(&self, holding: &Holding, doomed: &[Doomed]) -> (Vec<Call>, Vec<Refused>) {
        graph::calls(holding, doomed, Caps::LAST_TAG_TAKES, |target| {
            let id = match target {
                Target::Tag { tag, .. } => format!("imageTag={tag}"),
                Target::Manifest { digest, .. } => format!("imageDigest={digest}"),
            };
            let url = self.actions.api.url([]);
            format!("POST {url} BatchDeleteImage {} {id}", holding.repository.name)
        })
    }

    async fn carry_out(&self, repository: &RepositoryName, call: &Call) -> Result<Outcome> {
        for holder in call.target.after() {
            if self.now(repository, &json!({"imageDigest": holder.to_string()})).await?.is_some() {
                return Ok(Outcome::Refused(format!("{holder} is still there and names it")));
            }
        }
        let id = match &call.target {
            Target::Tag { tag, .. } => json!({"imageTag": tag.as_str()}),
            Target::Manifest { digest, .. } => json!({"imageDigest": digest.to_string()}),
        };
        let Some(now) = self.now(repository, &id).await? else { return Ok(Outcome::AlreadyGone) };
        let is_same = match &call.target {
            Target::Tag { digest, .. } => now.digest == *digest,
            Target::Manifest { digest, tags, .. } => now.digest == *digest && now.tags() == tags.iter().collect(),
        };
        if !is_same {
            return Ok(Outcome::Moved);
        }
        self.delete(repository, &id).await
    }
}

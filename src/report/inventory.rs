//! What is held: repositories and their tags.

use serde::Serialize;

use crate::cache::freshness;
use crate::cache::freshness::Verdict;
use crate::clock::Timestamp;
use crate::oci::Class;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::store;
use crate::store::Origin;
use crate::store::Tagged;

use super::Report;

/// Rows read at a time.
const PAGE: usize = 1_000;

/// The most repositories, and tags of one, that are told at once.
const ROWS_MAX: usize = 10_000;

/// A repository that holds something.
#[derive(Debug, Serialize)]
pub struct Held {
    repository: String,
    origin: &'static str,
    tags: u64,
    /// Of all manifests and blobs that it names, those included that other repositories name too.
    bytes: u64,
}

/// A tag that is held.
#[derive(Debug, Serialize)]
pub struct HeldTag {
    tag: String,
    digest: String,
    media_type: String,
    /// What its manifest is; none where that is not here.
    class: Option<&'static str>,
    size: u64,
    origin: &'static str,
    /// Who pushed it; none where it came from an upstream.
    pushed_by: Option<String>,
    /// When it was last written: pushed, or taken from the upstream.
    written_at: String,
    /// What it meant, the oldest first, ten at most; the last is what it means.
    history: Vec<Meant>,
    validated_at: String,
    used_at: Option<String>,
    fresh: bool,
}

/// What a tag meant from then on.
#[derive(Debug, Serialize)]
struct Meant {
    digest: String,
    since: String,
}

impl Meant {
    fn of((digest, since): &(Digest, Timestamp)) -> Self {
        Self { digest: digest.to_string(), since: since.to_string() }
    }
}

impl Report {
    /// The repositories that hold something, in order; ten thousand at most.
    ///
    /// # Errors
    ///
    /// The store can't be read.
    pub async fn repositories(&self) -> Result<Vec<Held>, store::Error> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.repositories(after.as_ref(), PAGE).await?;
            for repository in &page.rows {
                all.push(self.held(repository).await?);
            }
            after = page.rows.last().cloned();
            if !page.more || after.is_none() || all.len() >= ROWS_MAX {
                return Ok(all);
            }
        }
    }

    async fn held(&self, repository: &RepositoryKey) -> Result<Held, store::Error> {
        let (mut tags, mut bytes) = (0, 0);
        let mut after = None;
        loop {
            let page = self.store.tags(repository, after.as_ref(), PAGE).await?;
            tags += page.rows.len() as u64;
            after = page.rows.last().map(|row| row.record.tag.clone());
            if !page.more || after.is_none() {
                break;
            }
        }
        let mut after = None;
        loop {
            let page = self.store.links(repository, after.as_ref(), PAGE).await?;
            bytes += page.rows.iter().map(|row| row.link.size).sum::<u64>();
            after = page.rows.last().map(|row| row.link.digest);
            if !page.more || after.is_none() {
                break;
            }
        }
        let origin = if repository.is_hosted() { Origin::Pushed } else { Origin::Proxied };
        Ok(Held { repository: repository.to_string(), origin: word(origin), tags, bytes })
    }

    /// The tags of a repository, in order; ten thousand at most.
    ///
    /// # Errors
    ///
    /// The store can't be read.
    pub async fn tags(&self, repository: &RepositoryKey) -> Result<Vec<HeldTag>, store::Error> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.tags(repository, after.as_ref(), PAGE).await?;
            for row in &page.rows {
                all.push(self.held_tag(repository, row).await?);
            }
            after = page.rows.last().map(|row| row.record.tag.clone());
            if !page.more || after.is_none() || all.len() >= ROWS_MAX {
                return Ok(all);
            }
        }
    }

    async fn held_tag(&self, repository: &RepositoryKey, row: &Tagged) -> Result<HeldTag, store::Error> {
        let record = &row.record;
        let windows = self.repositories.freshness(repository, &record.tag);
        let verdict = freshness::judge(row.validated_at, self.clock.now(), &windows);
        let held = self.store.held(repository, &record.digest).await?;
        Ok(HeldTag {
            tag: record.tag.to_string(),
            digest: record.digest.to_string(),
            media_type: record.media_type.as_str().to_owned(),
            class: held.as_deref().and_then(store::Held::class).map(Class::word),
            size: record.size,
            origin: word(record.origin),
            pushed_by: record.pusher.clone(),
            written_at: record.at.to_string(),
            history: record.history.iter().map(Meant::of).collect(),
            validated_at: row.validated_at.to_string(),
            used_at: row.used.map(|at| at.to_string()),
            fresh: matches!(verdict, Verdict::Fresh | Verdict::FreshNearlyOver),
        })
    }
}

/// Where a thing came from, in a word.
fn word(origin: Origin) -> &'static str {
    match origin {
        Origin::Pushed => "hosted",
        Origin::Proxied => "proxied",
    }
}

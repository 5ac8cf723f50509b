//! What the repositories of the store hold, and when it was used: from the store and the pull log.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::history::LastPulls;
use crate::oci::Class;
use crate::oci::Digest;
use crate::oci::Manifest;
use crate::oci::RepositoryKey;
use crate::store;
use crate::store::Kind;
use crate::store::Linked;
use crate::store::Store;

use super::records::Holding;
use super::records::ManifestFact;
use super::records::Pulled;
use super::records::TagFact;

/// Rows read at a time.
const PAGE: usize = 1_000;

/// Repositories of the store, and the digests that something else in it needs too.
#[derive(Debug)]
pub struct Hosted {
    /// What they hold.
    pub holdings: Vec<Holding>,
    /// How many of them link bytes; what has more links is needed by what came from upstreams.
    links: HashMap<Digest, u32>,
}

/// Why repositories can't be read as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed, or its index is being rebuilt.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is too much to look at.
    #[error("there are more than {most} tags and manifests (limits.plan_entries)")]
    TooMany {
        /// The bound.
        most: u32,
    },
}

/// Reads the names of all repositories that are wanted.
pub async fn names(store: &Store, wanted: impl Fn(&RepositoryKey) -> bool) -> Result<Vec<RepositoryKey>, store::Error> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.repositories(after.as_ref(), PAGE).await?;
        after = page.rows.last().cloned();
        all.extend(page.rows.into_iter().filter(&wanted));
        if !page.more || after.is_none() {
            return Ok(all);
        }
    }
}

impl Hosted {
    /// Reads all of these; `most` tags and manifests at most.
    pub async fn read(store: &Store, names: Vec<RepositoryKey>, pulls: &LastPulls, most: u32) -> Result<Self, Error> {
        let mut hosted = Self { holdings: Vec::with_capacity(names.len()), links: HashMap::new() };
        let mut left = most as usize;
        for repository in names {
            let tags = tags(store, &repository, pulls).await?;
            let links = links(store, &repository).await?;
            for link in &links {
                *hosted.links.entry(link.link.digest).or_default() += 1;
            }
            let manifests = manifests(store, &repository, links, pulls).await?;
            let entries = tags.len() + manifests.len();
            left = left.checked_sub(entries).ok_or(Error::TooMany { most })?;
            hosted.holdings.push(Holding { repository, tags, manifests });
        }
        Ok(hosted)
    }

    /// The bytes that are linked elsewhere too.
    pub(super) async fn elsewhere(&self, store: &Store) -> Result<std::collections::HashSet<Digest>, store::Error> {
        let (mut found, mut after) = (std::collections::HashSet::new(), None);
        loop {
            let page = store.blobs(after.as_ref(), PAGE).await?;
            after = page.rows.last().map(|blob| blob.key);
            for blob in page.rows.iter().filter(|blob| blob.hosted) {
                let here = self.links.get(&blob.key.digest).copied().unwrap_or(0);
                if blob.links > here {
                    found.insert(blob.key.digest);
                }
            }
            if !page.more || after.is_none() {
                return Ok(found);
            }
        }
    }
}

async fn tags(store: &Store, of: &RepositoryKey, pulls: &LastPulls) -> Result<Vec<TagFact>, store::Error> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.tags(of, after.as_ref(), PAGE).await?;
        after = page.rows.last().map(|row| row.record.tag.clone());
        for row in page.rows {
            let known = pulls.of_tag(of, &row.record.tag).max(row.used);
            let (at, tag, digest) = (row.record.at, row.record.tag, row.record.digest);
            all.push(TagFact { tag, digest, pushed_at: Some(at), pulled: pulled(known, at, pulls.covered_since()) });
        }
        if !page.more || after.is_none() {
            return Ok(all);
        }
    }
}

async fn links(store: &Store, of: &RepositoryKey) -> Result<Vec<Linked>, store::Error> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.links(of, after.as_ref(), PAGE).await?;
        after = page.rows.last().map(|row| row.link.digest);
        all.extend(page.rows);
        if !page.more || after.is_none() {
            return Ok(all);
        }
    }
}

async fn manifests(
    store: &Store,
    of: &RepositoryKey,
    links: Vec<Linked>,
    pulls: &LastPulls,
) -> Result<Vec<ManifestFact>, store::Error> {
    let blob_sizes: HashMap<Digest, u64> = links
        .iter()
        .filter(|row| matches!(row.link.kind, Kind::Blob))
        .map(|row| (row.link.digest, row.link.size))
        .collect();
    let mut all = Vec::new();
    for row in links {
        let Kind::Manifest { media_type, artifact_type, .. } = &row.link.kind else { continue };
        let single = Class::of_single(media_type, artifact_type.as_deref());
        let size = |digest: &Digest| Some((*digest, *blob_sizes.get(digest)?));
        let blobs: Vec<(Digest, u64)> = row.children.iter().filter_map(size).collect();
        let children: Vec<Digest> =
            row.children.into_iter().filter(|digest| !blob_sizes.contains_key(digest)).collect();
        let digest = row.link.digest;
        let class = match single {
            Some(class) => Some(class),
            // An index that names blobs may be a build cache as older versions of BuildKit write it: it says so inside.
            None if !blobs.is_empty() => read_class(store, of, &digest, media_type.as_str()).await?,
            None => Some(Class::Index),
        };
        let known = pulls.of_digest(of, &digest).max(row.used);
        all.push(ManifestFact {
            digest,
            size: row.link.size,
            class,
            pushed_at: Some(row.link.at),
            pulled: pulled(known, row.link.at, pulls.covered_since()),
            children,
            blobs,
            subject: row.subject,
            id: None,
        });
    }
    Ok(all)
}

async fn read_class(
    store: &Store,
    of: &RepositoryKey,
    digest: &Digest,
    media_type: &str,
) -> Result<Option<Class>, store::Error> {
    let held = store.held(of, digest).await?;
    let bytes = held.as_ref().and_then(|held| held.manifest());
    Ok(bytes.and_then(|bytes| Manifest::parse(bytes.clone(), media_type).ok()).map(|manifest| manifest.class()))
}

/// What is known of the last use of something that came at `born`, where `known` is the last one that was noted and every
/// use since `covered` was.
pub(super) fn pulled(known: Option<Timestamp>, born: Timestamp, covered: Option<Timestamp>) -> Pulled {
    match (known, covered) {
        // What was used before the log begins may have been used again before that.
        (Some(at), Some(covered)) if at >= covered => Pulled::At(at),
        (_, Some(covered)) => Pulled::NotSince(covered.max(born)),
        (_, None) => Pulled::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_log_covers_was_not_used() {
        let at = |millis| Some(Timestamp(millis));
        for (known, born, covered, want) in [
            (at(50), 10, at(20), Pulled::At(Timestamp(50))),
            (None, 10, at(20), Pulled::NotSince(Timestamp(20))),
            (None, 30, at(20), Pulled::NotSince(Timestamp(30))),
            (at(15), 10, at(20), Pulled::NotSince(Timestamp(20))),
            (at(50), 10, None, Pulled::Unknown),
            (None, 10, None, Pulled::Unknown),
        ] {
            assert_eq!(pulled(known, Timestamp(born), covered), want, "{known:?} {covered:?}");
        }
    }
}

//! Build caches that nobody imports any more, and those that are too many: their tags go, and the collection takes the rest.
//! Single layers are never taken out of a cache that is kept.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::config::BuildCache;
use crate::oci::Class;
use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::store::Linked;
use crate::store::Removal;
use crate::store::Store;
use crate::store::Tagged;
use crate::views::Views;

use super::Error;

/// Rows read at a time.
const PAGE: usize = 500;

/// A tag of a build cache.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cache {
    tag: Tag,
    digest: Digest,
    /// Its last import; its export where that is later, or where nothing is known of imports.
    used: Timestamp,
}

/// Removes the tags of a repository's build caches that are not to be kept; gives how many went.
pub(super) async fn drop_unused(
    store: &Store,
    views: &Views,
    of: &RepositoryKey,
    rule: &BuildCache,
    now: Timestamp,
) -> Result<u64, Error> {
    if rule.keep_imported.is_none() && rule.max_size_each.is_none() {
        return Ok(0);
    }
    let caches = caches(store, of).await?;
    let held = views.runs.held_in(of).ok_or(Error::Runs)?;
    let mut doomed = unimported(&caches, rule, now);
    if let Some(most) = rule.max_size_each {
        let kept: Vec<&Cache> = caches.iter().filter(|cache| !doomed.contains(cache)).collect();
        let links = links(store, of).await?;
        doomed.extend(beyond(kept, &links, most));
    }
    let mut gone = 0;
    for cache in doomed.into_iter().filter(|cache| !held.contains(&cache.digest)) {
        let removal = Removal::TagMeaning(cache.tag.clone(), cache.digest);
        if store.remove(of, removal, Arc::new(|_| false)).await? {
            tracing::info!(repository = %of, tag = %cache.tag, "a build cache went that was not imported");
            gone += 1;
        }
    }
    Ok(gone)
}

async fn caches(store: &Store, of: &RepositoryKey) -> Result<Vec<Cache>, Error> {
    let known_since = store.uses_since();
    let (mut caches, mut after) = (Vec::new(), None);
    loop {
        let page = store.tags(of, after.as_ref(), PAGE).await?;
        after = page.rows.last().map(|row| row.record.tag.clone());
        for Tagged { record, used, .. } in page.rows {
            // Not an image with a cache inside: it may be wanted for itself.
            let held = store.held(of, &record.digest).await?;
            if held.is_some_and(|held| held.class() == Some(Class::BuildCache)) {
                // Where nothing is known it counts as imported when the watching began.
                let used = used.unwrap_or(known_since).max(record.at);
                caches.push(Cache { tag: record.tag, digest: record.digest, used });
            }
        }
        if !page.more {
            return Ok(caches);
        }
    }
}

async fn links(store: &Store, of: &RepositoryKey) -> Result<HashMap<Digest, Linked>, Error> {
    let (mut links, mut after) = (HashMap::new(), None);
    loop {
        let page = store.links(of, after.as_ref(), PAGE).await?;
        after = page.rows.last().map(|row| row.link.digest);
        links.extend(page.rows.into_iter().map(|row| (row.link.digest, row)));
        if !page.more {
            return Ok(links);
        }
    }
}

/// Those that were not imported for longer than they are kept.
fn unimported<'a>(caches: &'a [Cache], rule: &BuildCache, now: Timestamp) -> Vec<&'a Cache> {
    let Some(keep) = rule.keep_imported else { return Vec::new() };
    caches.iter().filter(|cache| now.since(cache.used) >= keep).collect()
}

/// Those that do not fit, the newest use first; what two share counts once.
fn beyond<'a>(mut caches: Vec<&'a Cache>, links: &HashMap<Digest, Linked>, most: u64) -> Vec<&'a Cache> {
    caches.sort_by(|a, b| (b.used, &a.tag).cmp(&(a.used, &b.tag)));
    let (mut counted, mut bytes, mut full) = (HashSet::new(), 0_u64, false);
    let mut doomed = Vec::new();
    for cache in caches {
        let (mut new, mut next) = (Vec::new(), vec![cache.digest]);
        while let Some(digest) = next.pop() {
            let Some(link) = links.get(&digest) else { continue };
            if !counted.contains(&digest) && !new.contains(&digest) {
                new.push(digest);
                next.extend(&link.children);
            }
        }
        let size: u64 = new.iter().filter_map(|digest| links.get(digest)).map(|link| link.link.size).sum();
        // The first that does not fit ends it: what is older is not kept instead.
        full = full || bytes.saturating_add(size) > most;
        if full {
            doomed.push(cache);
        } else {
            bytes += size;
            counted.extend(new);
        }
    }
    doomed
}

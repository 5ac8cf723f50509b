//! After a plan was carried out: whether every tag that stays still has its whole tree.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;

use crate::oci::Digest;
use crate::oci::RepositoryKey;
use crate::oci::Tag;
use crate::store;
use crate::store::Linked;
use crate::telemetry;

use super::apply::Applied;
use super::document::Delete;
use super::gather::Domain;
use super::plan::Place;
use super::plan::RepositoryPlan;
use super::records::Holding;
use super::run::Inner;

/// Rows read at a time.
const PAGE: usize = 1_000;

/// What is not whole: tags of a repository, each with what it lacks; how many tags were looked at.
pub(super) struct Looked {
    tags: u64,
    broken: BTreeSet<(Tag, Digest)>,
}

impl Applied {
    /// Adds what was looked at before and after. What was broken before is not retention's work.
    pub(super) fn add_verified(
        &mut self,
        of: &RepositoryKey,
        before: Result<Looked, store::Error>,
        after: Result<Looked, store::Error>,
    ) {
        match (before, after) {
            (Ok(before), Ok(after)) => {
                self.verified += after.tags;
                let new = after.broken.difference(&before.broken);
                self.broken.extend(new.map(|(tag, lacks)| format!("{of}:{tag} lacks {lacks}")));
            }
            (Err(error), _) | (_, Err(error)) => {
                self.broken.push(format!("{of} could not be looked at: {}", telemetry::chain(&error)));
            }
        }
    }
}

impl Inner {
    /// What the tags of a hosted repository lack that are to stay: manifests and blobs whose bytes are not there whole.
    pub(super) async fn broken_hosted(&self, place: &Place, decided: &RepositoryPlan) -> Result<Looked, store::Error> {
        let (store, of) = (&self.deps.store, &place.holding.repository);
        let mut links: HashMap<Digest, Linked> = HashMap::new();
        let mut after = None;
        loop {
            let page = store.links(of, after.as_ref(), PAGE).await?;
            after = page.rows.last().map(|row| row.link.digest);
            links.extend(page.rows.into_iter().map(|row| (row.link.digest, row)));
            if !page.more || after.is_none() {
                break;
            }
        }
        // Each digest is looked at once, whichever tags need it.
        let mut whole: HashMap<Digest, bool> = HashMap::new();
        let mut looked = Looked { tags: 0, broken: BTreeSet::new() };
        let staying = place.holding.tags.iter().zip(&decided.tags).filter(|(_, verdict)| verdict.goes().is_none());
        for (fact, _) in staying {
            let Some(state) = store.tag(of, &fact.tag).await? else {
                // Somebody else removed it.
                continue;
            };
            looked.tags += 1;
            let (mut next, mut seen) = (vec![state.record.digest], HashSet::new());
            while let Some(digest) = next.pop() {
                if !seen.insert(digest) {
                    continue;
                }
                let link = links.get(&digest);
                let is_whole = match (whole.get(&digest), link) {
                    (Some(known), _) => *known,
                    (None, None) => false,
                    (None, Some(row)) => {
                        let opened = store.open_blob(&row.link.blob()).await?;
                        opened.is_some_and(|range| range.length == row.link.size)
                    }
                };
                whole.insert(digest, is_whole);
                if !is_whole {
                    looked.broken.insert((fact.tag.clone(), digest));
                }
                next.extend(link.into_iter().flat_map(|row| row.children.iter().copied()));
            }
        }
        Ok(looked)
    }

    /// The same of a repository of another registry, which is listed anew: how many tags were looked at, and what is wrong.
    pub(super) async fn broken_remote(
        &self,
        domain: &Domain,
        before: &Holding,
        decided: &RepositoryPlan,
        deletes: &[&Delete],
    ) -> (u64, Vec<String>) {
        let of = &before.repository;
        let remotes = self.remotes.load_full();
        let Some(remote) = remotes.get(domain.registry.as_str()) else { return (0, Vec::new()) };
        let after = match remote.adapter.list(&of.name).await {
            Ok(after) => after,
            Err(error) => return (0, vec![format!("{of} could not be looked at: {}", telemetry::chain(&error))]),
        };
        let means: HashMap<&Tag, Digest> = after.tags.iter().map(|fact| (&fact.tag, fact.digest)).collect();
        let there: HashSet<Digest> = after.manifests.iter().map(|fact| fact.digest).collect();
        let known: HashMap<Digest, &[Digest]> =
            before.manifests.iter().map(|fact| (fact.digest, fact.children.as_slice())).collect();
        let planned: HashSet<&Tag> = deletes.iter().filter_map(|delete| delete.tag.as_ref()).collect();
        let (mut looked_at, mut broken) = (0, Vec::new());
        for (fact, verdict) in before.tags.iter().zip(&decided.tags) {
            if verdict.goes().is_some() && planned.contains(&fact.tag) {
                continue;
            }
            looked_at += 1;
            match means.get(&fact.tag) {
                None => broken.push(format!("{of}:{} is gone", fact.tag)),
                // Somebody pushed it meanwhile.
                Some(digest) if *digest != fact.digest => {}
                Some(_) => {
                    let (mut next, mut seen) = (vec![fact.digest], HashSet::new());
                    while let Some(digest) = next.pop() {
                        let Some(children) = known.get(&digest).filter(|_| seen.insert(digest)) else { continue };
                        if !there.contains(&digest) {
                            broken.push(format!("{of}:{} lacks {digest}", fact.tag));
                        }
                        next.extend(children.iter().copied());
                    }
                }
            }
        }
        (looked_at, broken)
    }
}
